/**
 * Goal: "done" means what the mode promises, whatever one of the disks does.
 * Method: the original's rules of completion as a few lines of code, beside the real pair whose
 * disks fail or hold back.
 */
import { MiB } from '../../../lib/format/limits.ts';
import type { Mode } from '../../../lib/core/completion.ts';
import { AppOp } from '../../../lib/core/ports.ts';
import {
  allModes, compared, fill, imageMap, scenario, type SimNode, type SimPair, type SimRequest,
} from './scenario.ts';

type LocalState = 'open' | 'done' | 'failed';
type RemoteState = 'open' | 'received' | 'done' | 'failed';

/** The errno the original answers, or null while it waits (primary.c, write completion). */
function originalWriteAnswer(
  mode: Mode, local: LocalState, remote: RemoteState,
): number | null {
  if (remote === 'received' && mode === 'memsync' && local !== 'open') return 0;
  if (mode === 'async' && local === 'done') return 0;
  if (local === 'open' || remote === 'open' || remote === 'received') return null;
  // One success of two is a success.
  return local === 'done' || remote === 'done' ? 0 : 5;
}

/** Whether the bytes at `offset` of a volume are `byte` in this image. */
function holds(node: SimNode, offset: number, byte: number, durable = false): boolean {
  const at = node.geometry.dataOffset + offset;
  const image = durable ? node.disk.durable : node.disk.cache;
  return image.subarray(at, at + 4096).every((one) => one === byte);
}

function writeByte(node: SimNode, offset: number, byte: number): SimRequest {
  return node.write(offset, Buffer.alloc(4096, byte));
}

/** Requests of a node whose disk failed are answered, or wait for the peer: never for ever. */
function quiet(pair: SimPair): void {
  pair.pass(500);
}

/*
 * memsync in the original: the peer's "received" is enough once the local write ended, also when
 * it ended with an error (primary.c, local_send_thread and remote_recv_thread): the application
 * is told success while no disk has the data. Ours answers 0 only when a copy that counts holds
 * it.
 */
compared('S5-memsync-told-success-with-no-copy', { modes: ['memsync'] }, (pair, t) => {
  pair.primary();
  const at = pair.a.geometry.dataOffset + MiB;
  pair.b.disk.holds = (op) => op.kind === 'write';
  pair.a.disk.fault = (op) => (op.kind === 'write' && op.offset === at ? 5 : 0);
  const request = writeByte(pair.a, MiB, 0x44);
  quiet(pair);
  const copies = [pair.a, pair.b].filter((node) => holds(node, MiB, 0x44)).length;
  t.equal(copies, 0, 'no disk has it yet');
  t.not(request.errno, 0);
  pair.b.disk.release();
  pair.pass(5000);
  if (request.errno === 0) t.ok(holds(pair.b, MiB, 0x44, true), 'answered: durable on the peer');
  else t.equal(request.errno, 5);
  return originalWriteAnswer('memsync', 'failed', 'received') === 0 && copies === 0 ? 1 : 0;
});

/*
 * A local write error with a good peer is a success in the original, and nothing remembers that
 * the local copy is old: later reads are local (primary.c local_send_thread; reads may even pass
 * the daemon by). Ours never reads a copy that failed: each read gives the new data or an error.
 */
compared('S5-local-write-error-hides-stale-data', { modes: allModes, mediaSize: 2 * MiB },
  (pair, t) => {
    pair.primary();
    fill(pair, pair.a, 0x11);
    t.equal(pair.flush(pair.a).errno, 0);
    const bad = pair.a.geometry.dataOffset + MiB;
    pair.a.disk.fault = (op) => (op.kind === 'write' && op.offset === bad ? 5 : 0);
    const request = writeByte(pair.a, MiB, 0x22);
    pair.pass(5000);
    t.ok(request.isDone);
    const read = pair.a.submit(AppOp.read, MiB, 4096);
    pair.pass(5000);
    const old = read.errno === 0 && read.data?.[0] === 0x11;
    t.notOk(request.errno === 0 && old, 'an answered write is read back');
    const kept = pair.b.resource?.failed === false;
    t.ok(kept, 'the peer is a good copy still');
    // The original would answer 0 and read its own disk, which has the old bytes.
    const answered = originalWriteAnswer('fullsync', 'failed', 'done') === 0;
    return answered && holds(pair.a, MiB, 0x11) ? 1 : 0;
  });

/*
 * A flush is done in the original when one of the two sides flushed (primary.c, the same rule as
 * for writes): the application believes that a transaction is durable while the copy that will be
 * read after a power cut has lost it. Ours: a failed flush is final for that copy; nothing is
 * answered as flushed that the copy which counts did not flush.
 */
compared('S5-flush-acked-though-one-side-failed', { modes: allModes, seeds: 8 }, (pair, t) => {
  pair.primary();
  writeByte(pair.a, 0, 0x33);
  pair.answered(pair.a);
  pair.a.disk.fault = (op) => (op.kind === 'flush' ? 5 : 0);
  const flush = pair.a.submit(AppOp.flush, 0, 0);
  pair.pass(5000);
  if (flush.errno === 0) t.ok(holds(pair.b, 0, 0x33, true), 'durable on the peer');
  else t.equal(flush.errno, 5);
  t.ok(flush.errno !== 0 || !readsLocally(pair), 'a copy whose flush failed is not read');
  // The original goes on with the copy whose flush failed; this is what a power cut leaves of it.
  pair.a.crash(true);
  return holds(pair.a, 0, 0x33, true) ? 0 : 1;
});

/** A read of the primary is served by its own disk. */
function readsLocally(pair: SimPair): boolean {
  let reads = 0;
  pair.a.disk.watch = (op) => {
    if (op.kind === 'read') reads++;
  };
  pair.a.submit(AppOp.read, 0, 4096);
  pair.pass(1000);
  pair.a.disk.watch = () => undefined;
  return reads > 0;
}

/*
 * The other side of it (primary.c remote_recv_thread): the peer's flush fails. The original
 * answers, and the peer goes on as a copy. Ours answers alone only when "the peer is behind" is
 * durable, and that peer is no candidate any more.
 */
scenario('S5-flush-acked-though-the-peer-failed', { modes: ['fullsync', 'memsync'] },
  (pair, t) => {
    pair.primary();
    writeByte(pair.a, 0, 0x34);
    pair.answered(pair.a);
    pair.b.disk.fault = (op) => (op.kind === 'flush' ? 5 : 0);
    const flush = pair.flush(pair.a);
    t.equal(flush.errno, 0);
    t.ok(holds(pair.a, 0, 0x34, true), 'durable here');
    t.equal(imageMap(pair.a.disk.durable).peerStale.isEmpty, false);
    t.ok(pair.b.running.failed);
    t.match(pair.promote(pair.b), /failed/);
    pair.a.crash();
    pair.b.crash(true);
    pair.b.disk.fault = () => 0;
    pair.b.boot();
    t.match(pair.promote(pair.b), /newer data/, 'nor after a restart, unless by force');
  });

/*
 * FLUSH in the original's async mode waits for the peer as well (primary.c: flushes are no
 * writes), so "async" stalls with every fsync when the link does. Ours answers when the local
 * disk has flushed; the peer gets a barrier in the stream.
 */
scenario('S5-async-flush-waits-for-the-peer', { mode: 'async' }, (pair, t) => {
  pair.primary();
  pair.link?.stall();
  const before = pair.world.now();
  writeByte(pair.a, 0, 0x35);
  pair.answered(pair.a);
  const flush = pair.flush(pair.a);
  t.equal(flush.errno, 0);
  t.ok(holds(pair.a, 0, 0x35, true));
  t.ok(pair.world.now() - before < 100, `${pair.world.now() - before} ms`);
  pair.link?.resume();
  pair.pass(100);
  t.ok(holds(pair.b, 0, 0x35, true), 'the barrier flushed it there');
});
