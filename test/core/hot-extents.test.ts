/**
 * Goal: a sequential writer finds its extents hot; nobody else pays for it, and what was taken
 * ahead in vain leaves again.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { HotExtents } from '../../lib/core/hot-extents.ts';
import type { Superblock } from '../../lib/format/superblock.ts';

/** Of a list of 512. */
const ahead = 16;
const aheadMax = 128;

function list(keepDirty: number, extentCount = 10_000): HotExtents {
  const geometry = { keepDirty, extentSize: 1, mediaSize: extentCount } as Superblock;
  return new HotExtents(geometry, [], true);
}

/** The list, and the pages of what leaves. */
function written(hot: HotExtents): void {
  hot.takeAhead();
  hot.list();
  hot.madeDurable();
  hot.leave();
  hot.left();
}

/** One write, with a list where it needs one; returns how often it had to wait, 0 or 1. */
function write(hot: HotExtents, extent: number, begins = true): number {
  let waits = 0;
  const isHot = hot.isDurable(extent);
  if (isHot) {
    hot.hold(extent, extent, begins);
  } else {
    waits++;
    if (!hot.take(extent, extent, begins)) throw new Error('no room');
  }
  if (!isHot || hot.wantsMore) written(hot);
  hot.release(extent, extent);
  return waits;
}

t.test('hot-extents: a sequential writer waits twice', async (t) => {
  const hot = list(512);
  let waits = 0;
  let lists = 0;
  for (let extent = 100; extent < 2100; extent++) {
    const before = hot.extents().length;
    for (let part = 0; part < 3; part++) waits += write(hot, extent, part === 0);
    if (hot.extents().length !== before) lists++;
    t.ok(hot.size <= 512);
  }
  t.equal(waits, 2, 'at its first extent, and at the next');
  t.ok(lists <= 2000 / (aheadMax / 2) + 6, `${lists} lists`);
});

t.test('hot-extents: several sequential writers at once', async (t) => {
  const waitsOf = (writers: number): number => {
    const hot = list(512, 1_000_000);
    let waits = 0;
    for (let at = 0; at < 1000; at++) {
      for (let writer = 0; writer < writers; writer++) waits += write(hot, writer * 10_000 + at);
    }
    return waits / writers;
  };
  t.equal(waitsOf(2), 2);
  // They evict each other's by then: still far better than once in each extent.
  for (const writers of [4, 16]) t.ok(waitsOf(writers) < 150, `${writers} writers`);
});

t.test('hot-extents: to a random writer the list is what it uses', async (t) => {
  const hot = list(512);
  // As much as the list holds, once sequentially: the last extents take others along.
  for (let extent = 0; extent < 512; extent++) write(hot, extent);
  let waits = 0;
  for (let at = 0; at < 20_000; at++) {
    const block = at * 48_271 % (512 * 509);
    const wait = write(hot, Math.floor(block / 509), block % 509 === 0);
    if (at >= 5000) waits += wait;
  }
  t.equal(waits, 0);
});

t.test('hot-extents: a writer that jumps takes nothing along', async (t) => {
  const hot = list(512);
  for (let extent = 0; extent < 1000; extent += 2) write(hot, extent);
  t.equal(hot.size, 500);
});

t.test('hot-extents: the end of the volume is the end', async (t) => {
  const hot = list(512, 50);
  for (let extent = 40; extent < 50; extent++) write(hot, extent);
  t.same(hot.extents().sort((one, other) => one - other), [40, 41, 42, 43, 44, 45, 46, 47, 48, 49]);
});

t.test('hot-extents: nobody in flight is evicted for what is taken ahead', async (t) => {
  const hot = list(64);
  const held: number[] = [];
  for (let extent = 0; extent < 126; extent += 2) {
    t.ok(hot.take(extent, extent, true));
    held.push(extent);
  }
  t.ok(hot.take(125, 125, true), 'the last place');
  t.ok(hot.wantsMore);
  t.notOk(hot.takeAhead());
  for (const extent of held) t.ok(hot.extents().includes(extent));
  t.equal(hot.size, 64);
});

t.test('hot-extents: a small list has no place for it', async (t) => {
  const hot = list(31);
  write(hot, 5);
  write(hot, 6);
  t.same(hot.extents(), [5, 6]);
});

t.test('hot-extents: when nothing is written all leave with the second checkpoint', async (t) => {
  const hot = list(512);
  write(hot, 5);
  write(hot, 6);
  t.equal(hot.size, 2 + ahead);
  hot.evictUnused();
  t.equal(hot.size, 2 + ahead);
  t.ok(hot.take(6, 6, false));
  hot.evictUnused();
  t.equal(hot.size, 2 + ahead, 'something was written');
  hot.evictUnused();
  t.same(hot.extents(), [6], 'what a write holds stays');
  t.equal(hot.leaving.length, 1 + ahead);
  t.equal(hot.list().length, 2 + ahead, 'still named');
  hot.leave();
  t.equal(hot.leaving.length, 0);
  t.equal(hot.list().length, 2 + ahead, 'while their pages are written');
  t.notOk(hot.changed);
  hot.left();
  t.ok(hot.changed);
  t.same(hot.list(), [6]);
  t.notOk(hot.changed);
});

t.test('hot-extents: what has not left takes room in the list', async (t) => {
  const hot = list(64);
  const fill = (from: number): number => {
    let extent = from;
    while (hot.take(extent, extent, false)) hot.release(extent, extent++);
    return extent;
  };
  const first = fill(0);
  t.equal(first, 128, 'twice as many as may be hot');
  t.ok(hot.manyLeave);
  hot.leave();
  t.notOk(hot.take(first, first, false), 'their pages are being written');
  t.ok(hot.take(first - 1, first - 1, false), 'what is hot is hot');
  hot.list();
  hot.left();
  t.equal(fill(first), 128 + 64);
  t.equal(hot.list().length, 128);
});

t.test('hot-extents: while others are written they stay for fifteen checkpoints', async (t) => {
  const hot = list(512);
  write(hot, 5);
  for (let checkpoint = 0; checkpoint < 15; checkpoint++) {
    write(hot, 100);
    hot.evictUnused();
    t.ok(hot.isDurable(5), `checkpoint ${checkpoint}`);
  }
  write(hot, 100);
  hot.evictUnused();
  t.same(hot.extents(), [100]);
});

t.test('hot-extents: never more than the list holds, whatever is taken ahead', async (t) => {
  const max = 64;
  fc.assert(fc.property(fc.array(fc.record({
    extent: fc.nat(130), begins: fc.boolean(), keep: fc.nat(9), quiet: fc.nat(30),
    pages: fc.nat(3),
  }), { maxLength: 400 }), (steps) => {
    const hot = list(max, 131);
    const held: number[] = [];
    for (const { extent, begins, keep, quiet, pages } of steps) {
      const isHot = hot.isDurable(extent);
      if (isHot) hot.hold(extent, extent, begins);
      const isHeld = isHot || hot.take(extent, extent, begins);
      if (!isHot || hot.wantsMore) hot.takeAhead();
      if (hot.size > max) return false;
      if (hot.list().length > 2 * max) return false;
      hot.madeDurable();
      if (pages === 0) hot.leave();
      if (pages < 2) hot.left();
      if (isHeld && keep === 0) held.push(extent);
      else if (isHeld) hot.release(extent, extent);
      if (quiet === 0) hot.evictUnused();
      if (held.some((one) => !hot.isDurable(one))) return false;
      if (held.length > 20) hot.release(held[0] as number, held.shift() as number);
    }
    return true;
  }), { numRuns: 300 });
  t.pass('all of them');
});

t.test('hot-extents: what lies ahead is not evicted for what lies ahead', async (t) => {
  const hot = list(64);
  // The oldest of all, in the way of the sequential writer that comes last.
  for (let extent = 1013; extent < 1019; extent++) write(hot, extent, false);
  for (let extent = 0; extent < 90; extent += 2) write(hot, extent, false);
  for (let extent = 1000; extent < 1008; extent++) write(hot, extent);
  t.equal(hot.size, 64);
  write(hot, 1008);
  t.ok(hot.size <= 64, `${hot.size} extents`);
  for (let extent = 1009; extent < 1025; extent++) t.ok(hot.isDurable(extent), `${extent}`);
});
