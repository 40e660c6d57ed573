/**
 * Goal: a resync and many small writes cost what they must, and stand in nobody's way.
 * Method: disks that hold operations back show how many are in flight, and what waits for what.
 * Counts, not times: the simulated clock says nothing of a real disk.
 */
import { MiB } from '../../../lib/format/limits.ts';
import { coreStatus } from '../../../lib/core/status.ts';
import {
  compared, fill, noticed, scenario, settled, type DiskOp, type SimDisk, type SimNode, type SimPair,
} from './scenario.ts';

/** Data operations of one kind that were issued and are held. */
function holdData(node: SimNode, kind: DiskOp['kind']): { count: number } {
  const held = { count: 0 };
  const { dataOffset } = node.geometry;
  const isOne = (op: DiskOp): boolean => op.kind === kind && op.offset >= dataOffset;
  node.disk.watch = (op) => {
    if (isOne(op)) held.count++;
  };
  node.disk.holds = isOne;
  return held;
}

function letGo(disk: SimDisk): void {
  disk.watch = () => undefined;
  disk.release();
}

/** A pair in the middle of a resync from `a`, whose target holds what it is sent. */
function copying(pair: SimPair): void {
  pair.primary();
  pair.partition();
  fill(pair, pair.a, 0x51);
  pair.heal();
}

/*
 * One disk thread on each side of the original (primary.c local_send_thread, secondary.c
 * disk_thread): queue depth 1 to the medium. Ours gives the disk what the application gives.
 */
scenario('S8-depth-one-disks', {}, (pair, t) => {
  const depth = 24;
  pair.primary();
  const held = [pair.a, pair.b].map((node) => holdData(node, 'write'));
  for (let at = 0; at < depth; at++) pair.a.write(at * 65_536, Buffer.alloc(4096, 1));
  pair.pass(200);
  const wanted = depth / 2;
  for (const one of held) t.ok(one.count >= wanted, `${one.count} at a time`);
  for (const node of [pair.a, pair.b]) letGo(node.disk);
  settled(pair);
});

/*
 * The original rewrites the whole bitmap, and flushes the disk's cache, for every extent that was
 * not written lately, one after the other in a single thread (primary.c ggate_recv_thread,
 * activemap.c). Ours marks everything that waits with one commit. By the original's rule 32
 * writes cost 32.
 */
scenario('S8-bitmap-rewrite-per-extent', { mediaSize: 16 * MiB }, (pair, t) => {
  pair.primary();
  const extents = 32;
  let commits = 0;
  let bytes = 0;
  pair.a.disk.watch = (op) => {
    if (op.kind !== 'durable') return;
    commits++;
    bytes += op.length;
  };
  const { extentSize } = pair.a.running.context.store.value;
  for (let at = 0; at < extents; at++) pair.a.write(at * 3 * extentSize, Buffer.alloc(4096, 1));
  pair.answered(pair.a);
  const most = extents / 4;
  t.ok(commits >= 1 && commits <= most, `${commits} metadata writes`);
  t.ok(bytes <= most * 8192, `${bytes} bytes`);
  // Again the same extents: they are hot now, and cost nothing.
  commits = 0;
  for (let at = 0; at < extents; at++) pair.a.write(at * 3 * extentSize, Buffer.alloc(4096, 2));
  pair.answered(pair.a);
  t.equal(commits, 0);
  settled(pair);
});

/*
 * One sync request is outstanding in the original, read, sent, written and answered before the
 * next (primary.c sync_thread): throughput is chunk / (read + round trip + write). Ours keeps
 * many in flight. The limit here is two.
 */
scenario('S8-one-sync-chunk-at-a-time', { mediaSize: 8 * MiB }, (pair, t) => {
  copying(pair);
  const held = holdData(pair.b, 'write');
  pair.until('chunks wait at the target', () => held.count > 0, 20_000);
  pair.pass(300);
  t.ok(held.count >= 2, `${held.count} chunks`);
  letGo(pair.b.disk);
  settled(pair);
});

/*
 * "complete" of the original means that both connections exist (control.c): a target in the
 * middle of a resync says it too, and whoever fails over then has half a copy. Ours says syncing,
 * with a percentage, the target's disk is inconsistent, and it is not promoted without the peer.
 */
scenario('S8-complete-while-resyncing', { mediaSize: 8 * MiB }, (pair, t) => {
  copying(pair);
  holdData(pair.b, 'write');
  pair.until('copying', () => pair.b.phase === 'syncing', 20_000);
  pair.pass(200);
  for (const node of [pair.a, pair.b]) t.equal(coreStatus(node.running).status, 'syncing');
  t.ok(coreStatus(pair.a.running).syncPercent < 100);
  t.equal(coreStatus(pair.a.running).peerDisk, 'inconsistent');
  t.equal(coreStatus(pair.b.running).localDisk, 'inconsistent');
  pair.a.crash();
  letGo(pair.b.disk);
  noticed(pair, pair.b);
  t.match(pair.promote(pair.b), /half-finished/);
  pair.a.boot();
  settled(pair);
  for (const node of [pair.a, pair.b]) t.equal(coreStatus(node.running).status, 'complete');
});

/*
 * A write that hits the locked sync chunk blocks the single thread that takes requests, hence all
 * requests behind it (primary.c ggate_recv_thread). In ours only that write waits.
 */
scenario('S5-locked-chunk-blocks-all-requests', { mediaSize: 8 * MiB }, (pair, t) => {
  copying(pair);
  const { dataOffset } = pair.a.geometry;
  let locked = -1;
  const isChunk = (op: DiskOp): boolean => op.kind === 'read' && op.offset >= dataOffset;
  pair.a.disk.watch = (op) => {
    if (isChunk(op) && locked < 0) locked = op.offset - dataOffset;
  };
  pair.a.disk.holds = isChunk;
  pair.until('a chunk is being read', () => locked >= 0, 20_000);
  const hit = pair.a.write(locked, Buffer.alloc(4096, 0x52));
  const behind = Array.from({ length: 8 }, (_, index) =>
    pair.a.write(8 * MiB - (index + 1) * 4096, Buffer.alloc(4096, 0x53)));
  pair.pass(100);
  t.notOk(hit.isDone, 'it waits for the chunk');
  t.ok(behind.every((one) => one.errno === 0), 'the others do not');
  letGo(pair.a.disk);
  settled(pair);
  t.equal(hit.errno, 0);
});

/*
 * A whole extent is sent again for one small write (activemap.c: one bit for 2 MiB), and up to
 * `keepdirty` extents stay dirty for ever, so a clean stop is followed by a copy as well. Ours
 * has a map of 4 KiB blocks, and a clean stop leaves nothing marked.
 */
compared('S4-dirty-after-a-clean-stop', { mediaSize: 8 * MiB }, (pair, t) => {
  pair.primary();
  const requests = pair.load(pair.a, 20);
  pair.answered(pair.a);
  pair.stop(pair.a);
  let copied = 0;
  const { dataOffset } = pair.b.geometry;
  pair.b.disk.watch = (op) => {
    if (op.kind === 'write' && op.offset >= dataOffset) copied += op.length;
  };
  pair.a.boot();
  settled(pair);
  t.equal(copied, 0, 'nothing is copied after a clean stop');
  pair.mustPromote(pair.a);
  pair.partition();
  pair.a.write(MiB + 100, Buffer.alloc(50, 1));
  pair.answered(pair.a);
  pair.heal();
  settled(pair);
  t.equal(copied, 4096, 'one block for one small write');
  const { extentSize, keepDirty } = pair.a.running.context.store.value;
  const extents = new Set(requests.map((one) => Math.floor(one.offset / extentSize)));
  return Math.min(extents.size, keepDirty) * extentSize > copied ? 1 : 0;
});

/*
 * `hastctl` of the original changes the mode of a running primary, but the next reconnect
 * restores the "original" mode (primary.c primary_config_reload, end of init_remote). Ours has
 * one mode.
 */
scenario('S3-reload-reverts-mode', {}, (pair, t) => {
  pair.primary();
  pair.a.options.mode = 'async';
  pair.a.running.optionsChanged(false);
  pair.link?.cut();
  pair.until('noticed', () => pair.a.phase === 'none');
  pair.complete();
  // The first request of the new mode puts it on record; from then on it counts.
  pair.a.write(8192, Buffer.alloc(4096, 1));
  pair.pass(100);
  pair.link?.stall();
  const request = pair.a.write(0, Buffer.alloc(4096, 1));
  pair.pass(100);
  t.equal(request.errno, 0, 'async: answered without the peer, after a reconnect too');
  pair.link?.resume();
  pair.a.options.mode = 'fullsync';
  pair.a.running.optionsChanged(true);
  pair.pass(100);
  pair.complete();
  pair.link?.stall();
  const waits = pair.a.write(0, Buffer.alloc(4096, 2));
  pair.pass(100);
  t.notOk(waits.isDone, 'and back: fullsync waits for the peer');
  pair.link?.resume();
  settled(pair);
});
