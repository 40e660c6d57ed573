/**
 * Goal: whatever differs between the two copies is marked at the node that will copy.
 * Method: requests are broken off or fail in the original's five ways of losing a mark; at that
 * moment the two images are compared with the map.
 */
import { limits, MiB } from '../../../lib/format/limits.ts';
import { PeerState } from '../../../lib/format/superblock.ts';
import { AppOp } from '../../../lib/core/ports.ts';
import { coreStatus } from '../../../lib/core/status.ts';
import {
  allModes, blocksOfRequests, compared, differingBlocks, fill, imageSuperblock, markedBlocks,
  noticed, settled, uncovered,
} from './scenario.ts';

const { blockSize } = limits;

/*
 * The original finishes requests in flight at a disconnect as if the peer had them; only requests
 * not yet sent enter the sync map (primary.c: activemap_need_sync is called in remote_send
 * alone). Ours marks every block that no flush of both copies covers. With the original's rule
 * the reconnect copies nothing of what was sent, and the images stay different for ever.
 */
compared('S5-in-flight-at-disconnect', { modes: allModes, mediaSize: 4 * MiB, seeds: 4 },
  (pair, t) => {
    pair.primary();
    pair.link?.stall();
    const sent = pair.load(pair.a, 20, 16 * 1024);
    pair.pass(50);
    t.equal(pair.a.running.session?.stream?.unansweredFrames, 20, 'sent, and not answered');
    pair.partition();
    const later = pair.load(pair.a, 5, 16 * 1024);
    pair.answered(pair.a);
    noticed(pair, pair.b);
    t.ok([...sent, ...later].every((one) => one.errno === 0), 'it went on alone');
    pair.pass(100);
    const differing = differingBlocks(pair);
    t.same(uncovered(differing, markedBlocks(pair.a)), []);
    const originalMarks = blocksOfRequests(later);
    pair.heal();
    settled(pair);
    return uncovered(differing, originalMarks).length;
  });

/*
 * The same hole in memsync (primary.c remote_recv_thread): the peer said "received", the
 * application was answered, and the peer loses its memory. The original lets go of the mark when
 * the connection ends; ours keeps it until a flush of the peer covers the write.
 */
compared('S5-memsync-ack-lost-in-peer-memory', { modes: ['memsync'], seeds: 8 }, (pair, t) => {
  pair.primary();
  pair.b.disk.holds = (op) => op.kind === 'write';
  const requests = pair.load(pair.a, 10);
  pair.answered(pair.a);
  t.ok(requests.every((one) => one.errno === 0), 'answered from the peer\'s memory');
  pair.b.crash(true, false);
  noticed(pair, pair.a);
  const differing = differingBlocks(pair);
  t.same(uncovered(differing, markedBlocks(pair.a)), []);
  pair.b.boot();
  settled(pair);
  return differing.length;
});

/*
 * The original clears a mark when the peer's pwrite returned, and the secondary never flushes by
 * itself (secondary.c disk_thread): a power cut there loses acknowledged writes that nobody will
 * send again. Ours clears only what a flush on both copies covers. With the original's rule the
 * map is empty at the cut while the images differ.
 */
compared('S6-secondary-cache-lost-after-clear', { modes: allModes, seeds: 8 }, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 30);
  pair.answered(pair.a);
  pair.pass(100);
  t.equal(pair.difference(), -1, 'executed there, in the cache');
  pair.b.crash(true, false);
  noticed(pair, pair.a);
  const differing = differingBlocks(pair);
  t.same(uncovered(differing, markedBlocks(pair.a)), []);
  pair.b.boot();
  settled(pair);
  pair.load(pair.a, 30);
  pair.answered(pair.a);
  pair.pass(12_000);
  t.ok(pair.isUnmarked(pair.a), 'cleared in the end');
  pair.b.crash(true, false);
  t.equal(pair.difference(), -1, 'what is not marked survives the power cut');
  return differing.length;
});

/*
 * A write that the peer's disk refuses is a warning in the original: the request succeeds, the
 * connection stays, and the extent is not marked (primary.c remote_recv_thread). Ours ends the
 * session, records "alone" and marks it; the peer's copy is no copy until it has everything. With
 * the original's rule the pair stays complete with different images.
 */
compared('S5-remote-write-error-marks', { modes: allModes, mediaSize: 4 * MiB }, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 10);
  pair.flush(pair.a);
  const bad = pair.a.geometry.dataOffset + 2 * MiB;
  pair.b.disk.fault = (op) => (op.kind === 'write' && op.offset === bad ? 5 : 0);
  const request = pair.run(pair.a, AppOp.write, 2 * MiB, 4096, Buffer.alloc(4096, 0x77));
  t.equal(request.errno, 0);
  noticed(pair, pair.a);
  pair.run(pair.a, AppOp.write, 0, 4096, Buffer.alloc(4096, 0x78));
  const differing = differingBlocks(pair);
  t.ok(differing.includes(2 * MiB / blockSize), 'the original would not copy this block');
  t.same(uncovered(differing, markedBlocks(pair.a)), []);
  t.equal(imageSuperblock(pair.a.disk.durable).peerState, PeerState.behind);
  t.equal(coreStatus(pair.a.running).status, 'degraded');
  t.equal(coreStatus(pair.b.running).status, 'failed');
  t.match(pair.promote(pair.b), /failed/);
  pair.b.crash();
  pair.b.disk.fault = () => 0;
  pair.b.boot();
  settled(pair);
  return differing.includes(2 * MiB / blockSize) ? 1 : 0;
});

/*
 * A chunk of a sync that cannot be read, or that the peer cannot write, is logged and skipped by
 * the original, and its extent marked clean (primary.c sync_thread). Ours keeps it marked and the
 * target inconsistent. With the original's rule the sync is reported done with a hole in it.
 */
compared('S5-failed-sync-chunk-marked-clean', { mediaSize: 4 * MiB, modes: ['fullsync', 'async'] },
  (pair, t) => {
    pair.primary();
    pair.partition();
    fill(pair, pair.a, 0x31);
    const { dataOffset } = pair.a.geometry;
    const isBad = (offset: number): boolean => {
      const at = offset - dataOffset;
      return at >= MiB && at < 2 * MiB;
    };
    pair.a.disk.fault = (op) => (op.kind === 'read' && isBad(op.offset) ? 5 : 0);
    pair.heal();
    pair.until('the last is copied', () => pair.b.data()[4 * MiB - 1] === 0x31, 20_000);
    pair.pass(3000);
    const differing = differingBlocks(pair);
    t.ok(differing.length >= MiB / blockSize);
    t.same(uncovered(differing, markedBlocks(pair.a)), []);
    t.notOk(pair.a.events.includes('syncdone'));
    t.not(coreStatus(pair.a.running).status, 'complete');
    pair.a.disk.fault = () => 0;
    pair.link?.cut();
    settled(pair);
    return differing.length;
  });

/*
 * The other end of the same defect (primary.c sync_thread): the chunk was read, and the target's
 * disk refuses it. Ours: the target says so and is no copy until everything was copied anew.
 */
compared('S5-failed-sync-chunk-at-the-target', { mediaSize: 4 * MiB }, (pair, t) => {
  pair.primary();
  pair.partition();
  fill(pair, pair.a, 0x32);
  const bad = pair.b.geometry.dataOffset + 2 * MiB;
  const isHit = (offset: number, length: number): boolean => offset <= bad && offset + length > bad;
  pair.b.disk.fault = (op) => (op.kind === 'write' && isHit(op.offset, op.length) ? 5 : 0);
  pair.heal();
  pair.until('the target has failed', () => pair.b.running.failed, 20_000);
  pair.pass(3000);
  const differing = differingBlocks(pair);
  t.not(differing.length, 0);
  t.same(uncovered(differing, markedBlocks(pair.a)), []);
  t.notOk(pair.a.events.includes('syncdone'));
  pair.b.crash();
  pair.b.disk.fault = () => 0;
  pair.b.boot();
  settled(pair);
  return differing.length;
});
