/**
 * Goal: the map costs few writes, none of them twice at once or over the newest list; a disk
 * that hangs is seen, and one that was given up is left alone.
 */
import t from 'tap';
import { BlockMap } from '../../lib/core/block-map.ts';
import { DirtyTracker, type MarkRequest } from '../../lib/core/dirty-tracker.ts';
import type { DiskPort } from '../../lib/core/ports.ts';
import { writeEachDurable } from '../../lib/disk/open-disk.ts';
import {
  decodeIndexPage, encodeIndexPage, encodeMapPage, regionBitBytes, RegionBit,
} from '../../lib/format/map-pages.ts';
import { limits, MiB, TiB } from '../../lib/format/limits.ts';
import type { Superblock } from '../../lib/format/superblock.ts';
import type { SimDisk } from '../fixtures/sim-disk.ts';
import { blocksOf, freshSuperblock } from '../fixtures/sim-image.ts';
import { metadataDisk, readMap } from '../fixtures/sim-map.ts';
import { SimWorld } from '../fixtures/sim-world.ts';

const { blockSize, regionSize, mapPageSize } = limits;
const perRegion = regionSize / blockSize;

interface Setup {
  world: SimWorld;
  disk: SimDisk;
  block: Superblock;
  tracker: DirtyTracker;
  errors: number[];
}

function optionsFor(mediaSize: number) {
  return {
    resource: 'r', copyId: 5n, mediaSize, extentSize: 1 * MiB, keepDirty: 256, zeroed: true,
    sectorSize: 512,
  };
}

function setup(mediaSize: number, now: boolean = true): Setup {
  const world = new SimWorld(1);
  const { disk, block } = metadataDisk(world, optionsFor(mediaSize));
  const errors: number[] = [];
  const tracker = new DirtyTracker(
    disk.port(), block, readMap(disk.cache, block), (errno) => errors.push(errno),
    now ? () => world.now() : null,
  );
  return { world, disk, block, tracker, errors };
}

/** Runs `start` to its callback. */
function ended({ world }: Setup, start: (done: () => void) => void): void {
  let isDone = false;
  start(() => {
    isDone = true;
  });
  if (!world.until(() => isDone)) throw new Error('it never ended');
}

function persisted(run: Setup): void {
  ended(run, (done) => run.tracker.persistAll(done));
}

/** Marks one extent; true where it was hot at once. */
function mark(tracker: DirtyTracker, extent: number, onMarked: () => void): MarkRequest {
  const request = { firstExtent: extent, lastExtent: extent, begins: false, onMarked };
  if (tracker.mark(request)) onMarked();
  return request;
}

function statesOf({ disk, block }: Setup): number[] {
  const pages = [0, 1].map((slot) => {
    const at = block.indexOffset + slot * mapPageSize;
    return decodeIndexPage(disk.durable.subarray(at, at + mapPageSize), block.copyId, 0);
  });
  const newest = pages.reduce((one, other) =>
    (other !== null && (one === null || other.sequence > one.sequence) ? other : one));
  return [...newest?.states ?? []];
}

t.test('map-writer: writers that wait share a list, and others their pages', async (t) => {
  const run = setup(16 * regionSize);
  persisted(run);
  const { world, tracker } = run;
  const before = tracker.updates;
  let marked = 0;
  for (let extent = 0; extent < 200; extent++) mark(tracker, extent, () => void marked++);
  world.until(() => marked === 200);
  t.equal(marked, 200);
  t.ok(tracker.updates - before <= 2, `${tracker.updates - before} lists`);
  // Whoever comes while his kind of write is under way shares the next one.
  let done = 0;
  for (let region = 0; region < 8; region++) {
    tracker.setLocalStale(region * regionSize, blockSize);
    tracker.persist([region], () => void done++);
    mark(tracker, 200 + region, () => void marked++);
  }
  world.until(() => done === 8 && marked === 208);
  t.same([done, marked], [8, 208]);
  t.ok(tracker.updates - before <= 6, `${tracker.updates - before} lists and groups of pages`);
});

t.test('map-writer: the pages of a group go out together, but bounded', async (t) => {
  const run = setup(1500 * regionSize);
  persisted(run);
  const { world, disk, block, tracker } = run;
  const waves = new Map<number, number[]>();
  disk.watch = (op) => {
    const wave = waves.get(world.now());
    if (wave === undefined) waves.set(world.now(), [op.offset]);
    else wave.push(op.offset);
  };
  for (let region = 0; region < 20; region++) tracker.setLocalStale(region * regionSize, 1);
  persisted(run);
  t.same([...waves.values()].map((wave) => wave.length), [20, 1, 1],
    'pages, then one copy of the index after the other');
  waves.clear();
  for (let region = 0; region < 1500; region++) tracker.setStale(region * regionSize, 1);
  persisted(run);
  t.same([...waves.values()].map((wave) => wave.length), [1024, 476, 1, 1]);
  const pages = new Set([...waves.values()].flat());
  t.equal(pages.size, 1502, 'each once');
  const map = readMap(disk.durable, block);
  t.equal(map.peerStale.count, 1500);
  t.equal(map.localStale.count, 20);
});

t.test('map-writer: the newest hot list is never written over', async (t) => {
  const run = setup(16 * regionSize);
  persisted(run);
  const { disk, block, tracker } = run;
  const end = block.hotOffset + block.hotSlotSize * block.hotSlotCount;
  let pair = 0;
  const twice: number[] = [];
  disk.watch = (op) => {
    if (op.offset < block.hotOffset || op.offset >= end) return;
    const next = (op.offset - block.hotOffset) / (2 * block.hotSlotSize);
    if (next === pair || op.length !== 2 * block.hotSlotSize) twice.push(next);
    pair = next;
  };
  let lists = 0;
  for (let pages = 0; pages < 12; pages++) {
    for (let turn = 0; turn < 2; turn++) {
      for (let region = 0; region < pages; region++) tracker.setStale(region * regionSize, 1);
      const extent = 2 * pages + turn;
      ended(run, (done) => {
        let left = 2;
        const one = (): void => {
          if (--left === 0) done();
        };
        mark(tracker, extent, one);
        tracker.persistAll(one);
      });
      lists++;
      const hot = new Set(readMap(disk.durable, block).hot);
      t.ok(hot.has(extent), `extent ${extent}`);
      // Torn while it is written, it leaves its predecessor; with one bad slot it stays.
      const torn = Buffer.from(disk.durable);
      const at = block.hotOffset + pair * 2 * block.hotSlotSize;
      torn.fill(0x55, at + 40, at + 80);
      t.same(readMap(torn, block).hot, [...hot]);
      torn.fill(0x55, at + block.hotSlotSize, at + block.hotSlotSize + 80);
      const map = readMap(torn, block);
      if (extent > 0) t.ok(map.hot.includes(extent - 1), `extent ${extent - 1} without it`);
      t.same(map.damage, []);
    }
  }
  t.equal(lists, 24);
  t.same(twice, []);
});

t.test('map-writer: full regions need no page of their own', async (t) => {
  const run = setup(8 * regionSize);
  const { disk, block, tracker } = run;
  const { page, peerFull, localFull } = RegionBit;
  const has = (region: number): boolean => {
    const at = block.mapOffset + region * mapPageSize;
    return disk.durable.subarray(at, at + mapPageSize).some((byte) => byte !== 0);
  };
  tracker.setRegionStale(0, null);
  tracker.setLocalStaleRegion(1, null);
  tracker.setRegionStale(2, null);
  tracker.setLocalStaleRegion(2, null);
  tracker.setRegionStale(3, null);
  tracker.setLocalStale(3 * regionSize + blockSize, blockSize);
  tracker.setLocalStaleRegion(4, null);
  tracker.setStale(4 * regionSize + 2 * blockSize, blockSize);
  tracker.setLocalStale(5 * regionSize, 3 * blockSize);
  persisted(run);
  t.same(statesOf(run),
    [peerFull, localFull, peerFull | localFull, page | peerFull, page | localFull, page, 0, 0]);
  t.same([0, 1, 2, 3, 4, 5, 6].map(has), [false, false, false, true, true, true, false]);
  const map = readMap(disk.durable, block);
  t.same([0, 2, 3].map((region) => map.peerStale.isFull(region)), [true, true, true]);
  t.equal(map.peerStale.count, 3 * perRegion + 1);
  t.ok(map.peerStale.has(4 * perRegion + 2));
  t.same([1, 2, 4].map((region) => map.localStale.isFull(region)), [true, true, true]);
  t.equal(map.localStale.count, 3 * perRegion + 1 + 3);
  t.ok(map.localStale.has(3 * perRegion + 1));

  // Unreadable: what the index says is known still; the rest is the owner's to judge.
  disk.place(block.mapOffset + 3 * mapPageSize + 70, Buffer.of(1));
  disk.place(block.mapOffset + 4 * mapPageSize + 70, Buffer.of(1));
  const torn = readMap(disk.durable, block);
  t.same([...torn.damagedRegions].sort(), [3, 4]);
  t.same([3, 4].map((region) => torn.peerStale.isFull(region)), [true, true]);
  t.same([3, 4].map((region) => torn.localStale.isFull(region)), [false, true]);
});

t.test('map-loader: images without marks of blocks stale here', async (t) => {
  const world = new SimWorld(1);
  const { disk, block } = metadataDisk(world, optionsFor(4 * regionSize));
  const { copyId } = block;
  const bits = new Uint8Array(regionBitBytes).fill(0x10, 0, 1);
  // Region 0: full, with a page from before that counts no more.
  const stale = encodeMapPage({ copyId, number: 0, sequence: 2 }, bits, bits);
  disk.place(block.mapOffset, stale);
  disk.place(block.mapOffset + mapPageSize,
    encodeMapPage({ copyId, number: 1, sequence: 3 }, bits, null));
  disk.place(block.indexOffset + mapPageSize, encodeIndexPage(
    { copyId, number: 0, sequence: 4 },
    Uint8Array.of(RegionBit.peerFull, RegionBit.page, 0, 0),
  ));
  const map = readMap(disk.cache, block);
  t.same(map.damage, []);
  t.ok(map.peerStale.isFull(0));
  t.equal(map.peerStale.count, perRegion + 1);
  t.equal(map.localStale.count, 0);
  for (const slot of [0, 1]) {
    t.same(readMap(disk.cache, block).damage, []);
    disk.place(block.hotOffset + slot * block.hotSlotSize + 20, Buffer.of(1));
  }
  const lost = readMap(disk.cache, block);
  t.equal(lost.damagedRegions.size, 4);
  t.equal(lost.localStale.count, 0);
  disk.place(block.indexOffset + 30, Buffer.of(1));
  disk.place(block.indexOffset + mapPageSize + 30, Buffer.of(1));
  t.same([...readMap(disk.cache, block).damagedRegions], [0, 1, 2, 3]);
});

t.test('dirty-tracker: an arrival is durable only after a flush that began later', async (t) => {
  const run = setup(4 * regionSize);
  const { disk, block, tracker } = run;
  const marked = (): number[] => blocksOf(readMap(disk.durable, block).localStale);
  const checkpoint = (): void => {
    for (let turn = 0; turn < 2; turn++) ended(run, (done) => tracker.checkpoint(done));
    persisted(run);
  };
  tracker.setLocalStale(0, 4 * blockSize);
  persisted(run);
  t.same(marked(), [0, 1, 2, 3]);
  const early = tracker.localFlushBegins();
  // Blocks 0 and 3 are written in part only.
  tracker.arrivedLocally(blockSize / 2, 3 * blockSize);
  t.same(blocksOf(tracker.localStale), [0, 3]);
  t.notOk(tracker.isLocalStale(blockSize, 2 * blockSize));
  t.ok(tracker.isLocalStale(blockSize, 2 * blockSize + 1));
  t.ok(tracker.isLocalStale(blockSize - 1, 1));
  tracker.localFlushDone(early);
  checkpoint();
  t.same(marked(), [0, 1, 2, 3], 'a flush from before');
  const flush = tracker.localFlushBegins();
  tracker.arrivedLocally(0, blockSize);
  tracker.setLocalStale(2 * blockSize, blockSize);
  checkpoint();
  t.same(marked(), [0, 1, 2, 3], 'a flush under way');
  tracker.localFlushDone(flush);
  checkpoint();
  t.same(marked(), [0, 2, 3], 'what came after it began stays, and what is stale again');
  tracker.localFlushDone(flush);
  tracker.setStale(8 * blockSize, blockSize);
  ended(run, (done) => tracker.clearPeerStale(done));
  t.same(marked(), [0, 2, 3]);
  t.equal(readMap(disk.durable, block).peerStale.count, 0);
  tracker.setStale(8 * blockSize, blockSize);
  ended(run, (done) => tracker.clearAll(done));
  t.same(marked(), []);
  t.equal(readMap(disk.durable, block).peerStale.count, 0);
  t.same(statesOf(run), [0, 0, 0, 0]);
});

t.test('dirty-tracker: a disk that hangs is seen, one given up is left alone', async (t) => {
  const run = setup(4 * regionSize);
  const { world, disk, block, tracker, errors } = run;
  t.equal(tracker.oldestWrite, null);
  disk.holds = () => true;
  const started = world.now();
  tracker.setAllLocalStale();
  let called = 0;
  tracker.persistAll(() => void called++);
  world.pass(50);
  t.equal(tracker.oldestWrite, started, 'the first flush');
  disk.release();
  world.until(() => called === 1);
  t.equal(tracker.oldestWrite, null);
  t.equal(setup(regionSize, false).tracker.oldestWrite, null);

  disk.holds = (op) => op.kind === 'durable';
  const since = world.now();
  const held = mark(tracker, 3, () => void called++);
  world.pass(10);
  mark(tracker, 9, () => void called++);
  tracker.setStale(0, blockSize);
  tracker.persistAll(() => void called++);
  world.pass(50);
  t.equal(tracker.oldestWrite, since);
  t.notOk(tracker.isIdle);
  let issued = 0;
  disk.watch = () => void issued++;
  tracker.abandon();
  t.equal(tracker.oldestWrite, null);
  t.ok(tracker.isIdle);
  disk.fault = () => 5;
  disk.release();
  t.notOk(tracker.mark({ ...held, onMarked: () => void called++ }));
  tracker.persistAll(() => void called++);
  tracker.checkpoint(() => void called++);
  tracker.releaseHot(() => void called++);
  tracker.clearAll(() => void called++);
  world.pass(100);
  t.same([called, issued, errors.length], [1, 0, 0]);
  t.ok(tracker.localStale.isEmpty, 'the memory goes on');
  t.equal(readMap(disk.durable, block).localStale.count, 4 * perRegion);
});

t.test('dirty-tracker: abandoned in the middle of the callbacks', async (t) => {
  const run = setup(4 * regionSize);
  const { world, tracker } = run;
  const called: string[] = [];
  tracker.setStale(0, blockSize);
  tracker.persistAll(() => {
    called.push('first');
    tracker.abandon();
  });
  tracker.persist([1], () => void called.push('second'));
  tracker.persist([2], () => void called.push('third'));
  world.pass(100);
  t.same(called, ['first']);

  const other = setup(4 * regionSize);
  persisted(other);
  mark(other.tracker, 3, () => {
    called.push('mark');
    other.tracker.abandon();
  });
  mark(other.tracker, 5, () => void called.push('another mark'));
  other.tracker.setStale(0, blockSize);
  other.tracker.releaseHot(() => void called.push('released'));
  other.world.pass(100);
  t.same(called, ['first', 'mark']);
});

/** Writes a block of each extent; `done` when all are marked and let go. */
function scatter({ tracker }: Setup, extents: readonly number[], done: () => void): void {
  let left = extents.length;
  for (const extent of extents) {
    const request = mark(tracker, extent, () => {
      tracker.setStale(extent * MiB, blockSize);
      queueMicrotask(() => tracker.unmark(request));
      if (--left === 0) done();
    });
  }
}

t.test('dirty-tracker: no writer waits for pages, and lists name what they cover', async (t) => {
  const run = setup(32 * regionSize);
  persisted(run);
  const { world, disk, block, tracker } = run;
  const isMap = (offset: number): boolean =>
    offset >= block.indexOffset && offset < block.dataOffset;
  disk.holds = (op) => op.kind === 'durable' && isMap(op.offset);
  const lists: number[][] = [];
  // All that is hot twice over: half of it has left, and the slots are full.
  for (let from = 0; from < 512; from += 64) {
    const extents = Array.from({ length: 64 }, (_, index) => from + index);
    ended(run, (done) => scatter(run, extents, done));
    await Promise.resolve();
    lists.push(readMap(disk.durable, block).hot);
  }
  t.ok(lists.every((list, index) => list.length >= 64 * (index + 1)), 'each names all before');
  let isMarked = false;
  mark(tracker, 600, () => {
    isMarked = true;
  });
  world.pass(100);
  t.notOk(isMarked, 'a slot has room for twice the length of the list');
  disk.release();
  t.ok(world.until(() => isMarked));
  for (let turn = 0; turn < 2; turn++) ended(run, (done) => tracker.checkpoint(done));
  const { hot, peerStale } = readMap(disk.durable, block);
  t.ok(hot.length <= 256 && hot.includes(600), `${hot.length} extents`);
  for (let extent = 0; extent < 512; extent++) {
    if (!peerStale.has(extent * MiB / blockSize)) t.fail(`extent ${extent} is in no page`);
  }
});

t.test('dirty-tracker: what is durable covers every write, at any moment', async (t) => {
  const run = setup(32 * regionSize);
  persisted(run);
  const { world, disk, block, tracker } = run;
  const written = new Set<number>();
  let seed = 7;
  const next = (bound: number): number => (seed = seed * 48_271 % 0x7fffffff) % bound;
  let done = 0;
  for (let turn = 0; turn < 1200; turn++) {
    const extent = next(1000);
    const request = mark(tracker, extent, () => {
      written.add(extent);
      tracker.setStale(extent * MiB, blockSize);
      queueMicrotask(() => tracker.unmark(request));
      done++;
    });
    if (turn % 97 === 0) tracker.checkpoint(() => undefined);
    await Promise.resolve();
    if (turn % 3 === 0) world.pass(0.2);
    if (turn % 5 !== 0) continue;
    const { peerStale } = readMap(disk.durable, block);
    const missing = [...written].filter((one) => !peerStale.has(one * MiB / blockSize));
    if (missing.length > 0) t.fail(`turn ${turn}: ${missing.join()}`);
  }
  t.ok(world.until(() => done === 1200));
  t.ok(written.size > 600, `${written.size} extents`);
});

t.test('dirty-tracker: 16 TiB stale here are two writes of the index', async (t) => {
  const block = freshSuperblock(optionsFor(16 * TiB));
  const { regionCount, indexPageCount, indexOffset, mapOffset, copyId } = block;
  const queue: (() => void)[] = [];
  const other: number[] = [];
  const states = new Map<number, Uint8Array>();
  const later = (done: (errno: number) => void): void => void queue.push(() => done(0));
  const refuse = (): never => {
    throw new Error('only the map is written');
  };
  const disk: DiskPort = {
    read: refuse, write: refuse, zero: refuse, flush: later,
    writeDurable(offset, raw, done) {
      if (offset < indexOffset || offset >= mapOffset) other.push(offset);
      const page = Math.floor((offset - indexOffset) / (2 * mapPageSize));
      states.set(page, decodeIndexPage(raw, copyId, page)?.states ?? new Uint8Array(0));
      later(done);
    },
    writeAllDurable: (writes, done) => writeEachDurable(disk, writes, done),
  };
  const empty = readMap(metadataDisk(new SimWorld(1), optionsFor(regionSize)).disk.cache,
    freshSuperblock(optionsFor(regionSize)));
  const large = new DirtyTracker(disk, block, {
    ...empty, regionState: new Uint8Array(regionCount), indexSlot: new Uint8Array(indexPageCount),
    peerStale: new BlockMap(block.mediaSize), localStale: new BlockMap(block.mediaSize),
  }, refuse);
  large.setAllLocalStale();
  let isDone = false;
  large.persistAll(() => {
    isDone = true;
  });
  while (!isDone) (queue.shift() as () => void)();
  t.same(other, [], 'no map page');
  t.equal(states.size, indexPageCount);
  let full = 0;
  for (const page of states.values()) {
    for (const state of page) if (state === RegionBit.localFull) full++;
  }
  t.equal(full, regionCount);
  t.ok(large.isLocalStale(16 * TiB - 1, 1));
});
