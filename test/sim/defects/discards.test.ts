/**
 * Goal: a discard is a write like any other: marked, ordered, replayed, of any length.
 * Method: discards while the peer is away, together with writes, and larger than any piece.
 */
import { limits, MiB } from '../../../lib/format/limits.ts';
import { AppOp } from '../../../lib/core/ports.ts';
import {
  allModes, blocksOfRequests, compared, differingBlocks, fill, markedBlocks, scenario, settled,
  uncovered, type SimPair,
} from './scenario.ts';

/*
 * DELETE in the original knows no dirty map: what is discarded while the peer is away is never
 * discarded there (primary.c ggate_recv_thread marks writes alone). Ours marks it like a write.
 * With the original's rule the marks of this outage are those of the writes, and the rest differs
 * for ever.
 */
compared('S5-delete-never-replayed', { modes: allModes, mediaSize: 4 * MiB }, (pair, t) => {
  pair.primary();
  fill(pair, pair.a, 0x66);
  pair.flush(pair.a);
  pair.pass(200);
  pair.partition();
  const writes = [pair.a.write(3 * MiB, Buffer.alloc(4096, 0x67))];
  for (const op of [AppOp.discard, AppOp.zero]) {
    pair.a.submit(op, op === AppOp.discard ? 4096 : 2 * MiB, 512 * 1024);
  }
  pair.answered(pair.a);
  const differing = differingBlocks(pair);
  t.same(uncovered(differing, markedBlocks(pair.a)), []);
  pair.heal();
  settled(pair);
  t.ok(pair.b.data().subarray(4096, 4096 + 512 * 1024).every((byte) => byte === 0));
  return uncovered(differing, blocksOfRequests(writes)).length;
});

/*
 * DELETE takes no range lock (primary.c): one that comes between a sync chunk's read and its
 * write is undone at the target by the old data. Ours puts both into one order. The original's
 * three steps are modelled on two cells: read at the source, delete on both, write at the target.
 */
compared('S5-delete-races-the-sync', { modes: allModes, mediaSize: 8 * MiB }, (pair, t) => {
  pair.primary();
  pair.partition();
  fill(pair, pair.a, 0x69);
  // The target takes nothing more: the copying stands still before the last MiB.
  const { dataOffset } = pair.b.geometry;
  pair.b.disk.holds = (op) => op.kind === 'write' && op.offset >= dataOffset;
  pair.heal();
  pair.until('copying', () => pair.b.phase === 'syncing', 20_000);
  pair.pass(50);
  const { extentSize } = pair.a.running.context.store.value;
  const from = 7 * MiB;
  for (let at = from; at < 8 * MiB; at += extentSize) pair.a.write(at, Buffer.alloc(512, 0x6a));
  pair.answered(pair.a);
  // Deletes that are on their way here for long, then chunks that would pass them.
  pair.a.disk.latency = [30, 40];
  for (let at = from; at < 8 * MiB; at += extentSize) {
    pair.a.submit(AppOp.discard, at, extentSize);
  }
  pair.pass(1);
  pair.a.disk.latency = [0.02, 0.1];
  pair.b.disk.release();
  settled(pair);
  t.ok(pair.b.data().subarray(from).equals(Buffer.alloc(MiB)), 'nothing old came back');
  return deletesUndone(pair);
});

/** Of twenty deletes at a random step of a chunk's copying: how often the target has old data. */
function deletesUndone(pair: SimPair): number {
  let undone = 0;
  for (let round = 0; round < 20; round++) {
    const cells = { source: 1, target: 0 };
    const step = pair.world.random.int(3);
    const remove = (now: number): void => {
      if (now === step) Object.assign(cells, { source: 0, target: 0 });
    };
    remove(0);
    const chunk = cells.source;
    remove(1);
    cells.target = chunk;
    remove(2);
    if (cells.source !== cells.target) undone++;
  }
  return undone;
}

/*
 * A DELETE above MAXPHYS ends the original's worker with ENOMEM (primary.c, g_gate queue), so
 * file systems are not even told that deletes work. Ours takes any length in pieces under one
 * range lock, larger than all hot extents together.
 */
scenario('S8-delete-larger-than-a-request', { modes: allModes, mediaSize: 40 * MiB, seeds: 1 },
  (pair, t) => {
    pair.primary();
    const { extentSize, keepDirty } = pair.a.running.context.store.value;
    const length = 38 * MiB;
    t.ok(length > limits.payloadBytesMax && length > extentSize * keepDirty);
    fill(pair, pair.a, 0x68);
    const discard = pair.run(pair.a, AppOp.discard, MiB, length);
    t.equal(discard.errno, 0);
    t.notOk(pair.a.running.failed);
    settled(pair);
    const zeros = Buffer.alloc(length);
    for (const node of [pair.a, pair.b]) {
      t.ok(node.data().subarray(MiB, MiB + length).equals(zeros));
      t.equal(node.data()[0], 0x68);
    }
  });
