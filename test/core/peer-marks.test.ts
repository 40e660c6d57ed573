/**
 * Goal: what a process of the peer has executed is not copied again after a break, as long as that
 * process answers; anything else that is stale is.
 * Method: sets of blocks against a model that keeps every block by itself; a pair whose link
 * breaks at moments where the one or the other holds.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { BlockMap } from '../../lib/core/block-map.ts';
import { PeerMarks } from '../../lib/core/peer-marks.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

const { blockSize, regionSize } = limits;
// The last region is short.
const mediaSize = 2 * regionSize + 3 * blockSize;
const blockCount = mediaSize / blockSize;

const range = fc.oneof(
  fc.tuple(fc.nat(40 * blockSize), fc.integer({ min: 1, max: 6 * blockSize })),
  fc.tuple(fc.constantFrom(0, regionSize, 2 * regionSize), fc.constant(regionSize)),
  fc.tuple(fc.integer({ min: 2 * regionSize, max: mediaSize - 1 }), fc.constant(mediaSize)),
).map(([from, length]) => ({ from, length: Math.min(length, mediaSize - from) }));

interface Range {
  from: number;
  length: number;
}

const touched = ({ from, length }: Range): number[] => {
  const first = Math.floor(from / blockSize);
  return Array.from(
    { length: Math.ceil((from + length) / blockSize) - first }, (_, at) => first + at,
  );
};

function mapOf(ranges: readonly Range[]): BlockMap {
  const map = new BlockMap(mediaSize);
  for (const { from, length } of ranges) map.setRange(from, length);
  return map;
}

const setOf = (ranges: readonly Range[]): Set<number> => new Set(ranges.flatMap(touched));

function blocksIn(map: BlockMap): number[] {
  return Array.from({ length: blockCount }, (_, at) => at).filter((at) => map.has(at));
}

const sorted = (set: ReadonlySet<number>): number[] => [...set].sort((one, other) => one - other);

t.test('peer marks: sets are subtracted exactly', async (t) => {
  const ranges = fc.array(range, { maxLength: 6 });
  fc.assert(fc.property(ranges, ranges, range, (ones, others, last) => {
    const map = mapOf(ones);
    const model = setOf(ones);
    map.subtract(mapOf(others));
    for (const block of setOf(others)) model.delete(block);
    map.clearTouched(last.from, last.length);
    for (const block of touched(last)) model.delete(block);
    return map.count === model.size && blocksIn(map).join() === sorted(model).join();
  }), { numRuns: 300 });
  t.pass();
});

t.test('peer marks: only what was executed, and was not stale before, needs no copy', async (t) => {
  const step = fc.oneof(
    range.map((where) => ({ kind: 'set' as const, where })),
    range.map((where) => ({ kind: 'sent' as const, where })),
    fc.tuple(
      fc.array(range, { maxLength: 4 }), fc.array(range, { maxLength: 2 }),
      fc.constantFrom(0n, 1n, 2n),
    ).map(([written, unanswered, instance]) =>
      ({ kind: 'ended' as const, written, unanswered, instance })),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
    const marks = new PeerMarks(new BlockMap(mediaSize), mediaSize);
    const stale = new Set<number>();
    let executed = new Set<number>();
    let instance = 0n;
    for (const one of steps) {
      if (one.kind === 'set') {
        marks.set(one.where.from, one.where.length);
        for (const block of touched(one.where)) stale.add(block) && executed.delete(block);
      } else if (one.kind === 'sent') {
        marks.sent(one.where.from, one.where.length);
        for (const block of touched(one.where)) {
          const end = (block + 1) * blockSize;
          const isWhole = block * blockSize >= one.where.from &&
            end <= one.where.from + one.where.length;
          if (isWhole) stale.delete(block) && executed.delete(block);
        }
      } else {
        marks.streamEnded(mapOf(one.written), mapOf(one.unanswered), one.instance);
        if (one.instance !== instance) executed = new Set();
        ({ instance } = one);
        const written = setOf(one.written);
        for (const block of written) {
          if (instance !== 0n && !stale.has(block)) executed.add(block);
        }
        for (const block of written) stale.add(block);
        for (const block of setOf(one.unanswered)) executed.delete(block);
      }
      if (blocksIn(marks.stale).join() !== sorted(stale).join()) return false;
      if (marks.executedCount(instance) !== (instance === 0n ? 0 : executed.size)) return false;
      if (marks.executedCount(3n) !== 0) return false;
    }
    const taken = marks.takeExecuted(instance);
    const left = sorted(stale).filter((block) => !executed.has(block));
    return blocksIn(taken).join() === sorted(executed).join() &&
      blocksIn(marks.stale).join() === left.join() && marks.executedCount(instance) === 0;
  }), { numRuns: 500 });
  t.pass();
});

/** A primary that wrote `count` blocks of 4 KiB; nothing of it was flushed. */
function written(count: number): SimPair {
  const pair = new SimPair({ mediaSize: 4 * MiB }).primary();
  for (let at = 0; at < count; at++) {
    pair.run(pair.a, AppOp.write, at * 64 * 1024, blockSize, Buffer.alloc(blockSize, at + 1));
  }
  return pair;
}

const syncs = (pair: SimPair): number =>
  pair.a.events.filter((event) => event.startsWith('syncstart')).length;

function settled(pair: SimPair): void {
  pair.complete();
  pair.pass(9000);
}

t.test('peer marks: a break of the link copies nothing that the same peer has', async (t) => {
  const pair = written(5);
  pair.partition();
  pair.pass(1000);
  t.equal(pair.a.running.context.tracker.peerStale.count, 5, 'until it answers all is marked');
  pair.heal();
  settled(pair);
  t.equal(syncs(pair), 0, 'nothing was copied');
  t.ok(pair.isUnmarked(pair.a), 'and nothing is marked');
  for (const node of [pair.a, pair.b]) node.crash(true);
  t.equal(pair.difference(), -1, 'both have it on stable storage');
});

t.test('peer marks: marked as long as the flush of both is not done', async (t) => {
  const pair = written(5);
  pair.partition();
  pair.pass(1000);
  pair.heal();
  pair.complete();
  pair.b.crash(true);
  pair.pass(200);
  t.equal(pair.a.running.context.tracker.peerStale.count, 0, 'the pair was made complete by it');
  pair.a.crash(false);
  const early = written(5);
  early.partition();
  early.pass(1000);
  early.heal();
  early.until('it connects', () => early.a.phase === 'map' || early.a.phase === 'finishing');
  early.b.crash(true);
  early.until('the loss', () => early.a.running.session === null);
  t.equal(early.a.running.context.tracker.peerStale.count, 5, 'taken over, lost, marked again');
  early.b.start();
  settled(early);
  t.equal(syncs(early), 1, 'another process: all of it is copied');
  t.equal(early.difference(), -1);
});

t.test('peer marks: what is written while the peer is away is copied', async (t) => {
  const pair = written(5);
  pair.partition();
  pair.run(pair.a, AppOp.write, 0, 512, Buffer.alloc(512, 99));
  pair.pass(1000);
  pair.heal();
  settled(pair);
  t.equal(syncs(pair), 1);
  t.equal(pair.difference(), -1);
});

t.test('peer marks: the peer was killed meanwhile', async (t) => {
  const pair = written(5);
  pair.b.crash(false);
  pair.pass(100);
  pair.b.start();
  settled(pair);
  t.equal(syncs(pair), 1, 'another process: all of it is copied');
  t.equal(pair.difference(), -1);
});
