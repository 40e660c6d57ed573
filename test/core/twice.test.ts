/**
 * Goal: hot lists, index pages and the superblock are on disk twice. One copy that is bad, torn or
 * missing changes nothing that a start reads, and the first writes of the map make it anew.
 */
import t from 'tap';
import { crc32 } from '../../lib/base/checksum.ts';
import { DirtyTracker, type MarkRequest } from '../../lib/core/dirty-tracker.ts';
import type { LoadedMap } from '../../lib/core/map-loader.ts';
import { chooseSuperblock } from '../../lib/core/superblock-store.ts';
import {
  decodeHotSlot, decodeIndexPage, encodeHotSlot, encodeIndexPage, encodeMapPage, regionBitBytes,
  RegionBit,
} from '../../lib/format/map-pages.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import { decodeSuperblock, tailOffset, type Superblock } from '../../lib/format/superblock.ts';
import type { DiskOp, SimDisk } from '../fixtures/sim-disk.ts';
import { metadataDisk, readMap, spread } from '../fixtures/sim-map.ts';
import { SimPair } from '../fixtures/sim-pair.ts';
import { SimWorld } from '../fixtures/sim-world.ts';

const { blockSize, regionSize, mapPageSize } = limits;
const perRegion = regionSize / blockSize;
const mediaSize = 3 * regionSize + 5 * MiB;
const blockCount = mediaSize / blockSize;
const options = {
  resource: 'r', copyId: 5n, mediaSize, extentSize: 1 * MiB, keepDirty: 32, zeroed: true,
  sectorSize: 512,
};
const extentCount = mediaSize / options.extentSize;
const perExtent = options.extentSize / blockSize;

/** A tracker on a disk, and what it owes: every mark that was let go or made durable. */
class Owed {
  readonly world: SimWorld;
  readonly disk: SimDisk;
  readonly block: Superblock;
  tracker: DirtyTracker;
  readonly peer = new Uint8Array(blockCount);
  readonly local = new Uint8Array(blockCount);
  /** Asked for at any time: nothing else may show. */
  readonly everPeer = new Uint8Array(blockCount);
  readonly everLocal = new Uint8Array(blockCount);

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    const { disk, block } = metadataDisk(this.world, options);
    this.disk = disk;
    this.block = block;
    this.tracker = this.load();
  }

  /** As a starting worker, up to the end of its first writes. */
  load(): DirtyTracker {
    this.tracker = trackerOn(this.disk, this.block);
    firstWritten(this.world, this.tracker);
    return this.tracker;
  }

  write(): void {
    const { random } = this.world;
    const { tracker } = this;
    const firstExtent = random.int(extentCount - 1);
    const lastExtent = firstExtent + random.int(2);
    const [from, to] = [firstExtent * perExtent, (lastExtent + 1) * perExtent];
    // The next one may be taken along.
    this.everPeer.fill(1, from, to + perExtent);
    const block = from + random.int(perExtent);
    const request: MarkRequest = {
      firstExtent, lastExtent, begins: block % 2 === 0,
      onMarked: () => {
        this.peer.fill(1, block, block + 1);
        tracker.setStale(block * blockSize, blockSize);
        this.world.after(random.unit(), () => tracker.unmark(request));
      },
    };
    if (tracker.mark(request)) request.onMarked();
  }

  setLocal(): void {
    const { random } = this.world;
    const isRegion = random.chance(0.3);
    const first = isRegion ? random.int(3) * perRegion : random.int(blockCount - 8);
    const last = first + (isRegion ? perRegion : 1 + random.int(8));
    this.everLocal.fill(1, first, last);
    this.tracker.setLocalStale(first * blockSize, (last - first) * blockSize);
    this.tracker.persistAll(() => void this.local.fill(1, first, last));
  }

  step(): void {
    const kind = this.world.random.unit();
    if (kind < 0.4) this.write();
    else if (kind < 0.6) this.setLocal();
    else if (kind < 0.75) this.tracker.checkpoint(() => undefined);
    else if (kind < 0.8) this.tracker.releaseHot(() => undefined);
    else this.world.pass(this.world.random.unit() * 2);
  }

  rest(): void {
    this.world.pass(100);
    if (!this.tracker.isIdle) throw new Error('no rest');
  }

  /** What a start would make of `image` covers all that is owed, and names nothing else. */
  check(image: Buffer, mayBeDamaged: RegExp): void {
    const map = readMap(image, this.block);
    for (const damage of map.damage) if (!mayBeDamaged.test(damage)) throw new Error(damage);
    const peer = spread(map.peerStale);
    const local = spread(map.localStale);
    for (let at = 0; at < blockCount; at++) {
      if (map.damagedRegions.has(Math.floor(at / perRegion))) {
        if (peer[at] === 0) throw new Error(`block ${at} lies in a damaged region`);
        continue;
      }
      if (this.peer[at] === 1 && peer[at] === 0) throw new Error(`block ${at} is lost`);
      if (this.local[at] === 1 && local[at] === 0) throw new Error(`block ${at} is lost here`);
      if (peer[at] === 1 && this.everPeer[at] === 0) throw new Error(`block ${at} is too much`);
      if (local[at] === 1 && this.everLocal[at] === 0) throw new Error(`${at} is too much here`);
    }
  }
}

function trackerOn(disk: SimDisk, block: Superblock): DirtyTracker {
  return new DirtyTracker(disk.port(), block, readMap(disk.cache, block), (errno) => {
    throw new Error(`the disk failed: ${errno}`);
  });
}

function firstWritten(world: SimWorld, tracker: DirtyTracker): void {
  let isDone = false;
  tracker.persistAll(() => {
    isDone = true;
  });
  if (!world.until(() => isDone)) throw new Error('the first writes never end');
}

/** Where each hot slot and each copy of an index page lies. */
function copiesOf(block: Superblock): { name: string; offset: number; length: number }[] {
  const { hotOffset, hotSlotSize, indexOffset } = block;
  return [
    ...[0, 1, 2, 3, 4, 5, 6, 7].map((slot) =>
      ({ name: `slot ${slot}`, offset: hotOffset + slot * hotSlotSize, length: hotSlotSize })),
    ...[0, 1].map((copy) =>
      ({ name: `index ${copy}`, offset: indexOffset + copy * mapPageSize, length: mapPageSize })),
  ];
}

/** What is not there twice, as an own reader sees it. */
function notTwice(image: Buffer, block: Superblock): string[] {
  const { copyId } = block;
  const raw = copiesOf(block)
    .map(({ offset, length }) => image.subarray(offset, offset + length));
  const found: string[] = [];
  const sequences = raw.slice(0, 8).map((slot) => decodeHotSlot(slot, copyId)?.sequence ?? -1);
  const newest = sequences.indexOf(Math.max(...sequences));
  const [one, two] = [raw[newest & ~1] as Buffer, raw[newest | 1] as Buffer];
  if (sequences[newest] === -1 || !one.equals(two)) found.push('hot list');
  const [index, other] = [raw[8] as Buffer, raw[9] as Buffer];
  if (decodeIndexPage(index, copyId, 0) === null || !index.equals(other)) found.push('index');
  return found;
}

/** What a start makes of an image, to be compared. */
function saidBy(map: LoadedMap): string {
  const marks = Buffer.concat([spread(map.peerStale), spread(map.localStale)]);
  return `${crc32(marks)} ${map.hot.join()} ${map.damage.join()}`;
}

function flip(image: Buffer, offset: number, bit: number): void {
  image[offset] = (image[offset] as number) ^ (1 << bit);
}

t.test('twice: any byte of any one copy may be bad at rest', async (t) => {
  let flips = 0;
  let repairs = 0;
  for (let seed = 1; seed <= 5; seed++) {
    const run = new Owed(seed);
    const { world, disk, block } = run;
    for (let step = 0; step < 10 * seed; step++) run.step();
    run.rest();
    t.same(notTwice(disk.durable, block), [], `seed ${seed}`);
    const before = saidBy(readMap(disk.durable, block));
    const image = Buffer.from(disk.durable);
    for (const { name, offset, length } of copiesOf(block)) {
      // The head and the first entries byte by byte.
      for (let at = 0; at < length; at += at < 72 ? 1 : 97) {
        const bit = world.random.int(8);
        flip(image, offset + at, bit);
        if (saidBy(readMap(image, block)) !== before) t.fail(`seed ${seed}: byte ${at} of ${name}`);
        flip(image, offset + at, bit);
        flips++;
      }
    }
    for (const { name, offset, length } of copiesOf(block)) {
      disk.crash(true);
      disk.place(0, image);
      const at = offset + world.random.int(length);
      disk.place(at, Uint8Array.of((image[at] as number) ^ (1 << world.random.int(8))));
      run.load();
      run.check(disk.durable, /^$/);
      t.same(notTwice(disk.durable, block), [], `seed ${seed}: ${name} is repaired`);
      repairs++;
    }
  }
  t.ok(flips > 5000, `${flips} flips`);
  t.equal(repairs, 50);
});

/** A write lands by sectors: every first part of it, every last part, and every other one. */
function tearsOf(length: number): ((sector: number) => boolean)[] {
  const count = length / 512;
  const tears: ((sector: number) => boolean)[] = [(at) => at % 2 === 0, (at) => at % 2 === 1];
  for (let cut = 1; cut < count; cut++) tears.push((at) => at < cut, (at) => at >= cut);
  return tears;
}

t.test('twice: torn at any write, and one bit bad beside it', async (t) => {
  const counts = { torn: 0, pairs: 0, index: 0 };
  for (let seed = 1; seed <= 3; seed++) {
    const run = new Owed(seed);
    const { disk, block, world } = run;
    const { hotOffset, indexOffset, mapOffset, hotSlotSize } = block;
    const image = Buffer.alloc(disk.size);
    const tear = (op: DiskOp): void => {
      const raw = op.buffer as Buffer;
      if (op.offset < indexOffset) {
        t.equal((op.offset - hotOffset) % (2 * hotSlotSize), 0);
        t.equal(op.length, 2 * hotSlotSize);
        counts.pairs++;
      } else if (op.offset < mapOffset) counts.index++;
      for (const lands of tearsOf(op.length)) {
        disk.durable.copy(image, 0, 0, mapOffset + 4 * mapPageSize);
        for (let at = 0; at < op.length; at += 512) {
          if (lands(at / 512)) raw.copy(image, op.offset + at, at, at + 512);
        }
        run.check(image, /^map page/);
        flip(image, hotOffset + world.random.int(mapOffset - hotOffset), world.random.int(8));
        // A torn copy beside a bad one: nothing is lost, but everything may differ.
        run.check(image, /^map page|^index page/);
        counts.torn++;
      }
    };
    disk.watch = (op) => {
      if (op.kind === 'durable') tear(op);
    };
    for (let step = 0; step < 45; step++) run.step();
    run.rest();
  }
  t.ok(counts.torn > 1000, `${counts.torn} torn writes`);
  t.ok(counts.pairs > 20, `${counts.pairs} hot lists`);
  t.ok(counts.index > 15, `${counts.index} index pages`);
});

t.test('twice: the copies of an index page are written one after the other', async (t) => {
  const run = new Owed(1);
  const { disk, block, world } = run;
  const { indexOffset, mapOffset } = block;
  const isIndex = (op: DiskOp): boolean =>
    op.kind === 'durable' && op.offset >= indexOffset && op.offset < mapOffset;
  let isDone = false;
  const written: number[] = [];
  const equal: boolean[] = [];
  const early: boolean[] = [];
  disk.watch = (op) => {
    if (!isIndex(op)) return;
    written.push((op.offset - indexOffset) / mapPageSize);
    equal.push(notTwice(disk.durable, block).length === 0);
    early.push(isDone);
  };
  run.tracker.setLocalStale(0, blockSize);
  run.tracker.persistAll(() => {
    isDone = true;
  });
  world.until(() => isDone);
  t.same([written, equal, early], [[1, 0], [true, false], [false, false]]);
  t.same(notTwice(disk.durable, block), []);

  // The one that does not count goes first, whichever it is.
  for (const bad of [0, 1]) {
    written.length = 0;
    disk.place(indexOffset + bad * mapPageSize + 100, Buffer.of(0xff));
    disk.crash(false);
    run.load();
    t.same(written, [bad, 1 - bad]);
    written.length = 0;
    disk.crash(false);
    run.load();
    t.same(written, [], 'once');
  }
});

t.test('twice: copies that hold everything once are read, and completed', async (t) => {
  const world = new SimWorld(1);
  const { copyId } = metadataDisk(world, options).block;
  const bits = new Uint8Array(regionBitBytes).fill(0x10, 0, 1);
  for (const slot of [0, 1, 2, 5, 6, 7]) {
    const { disk, block } = metadataDisk(world, options);
    disk.place(block.hotOffset, Buffer.alloc(8 * block.hotSlotSize));
    // Neighbours hold one list each, as in a ring of single slots.
    for (const [sequence, at] of [[8 + slot, slot], [7 + slot, (slot + 7) % 8]] as const) {
      const extents = at === slot ? [3, 40] : [3, 41];
      disk.place(block.hotOffset + at * block.hotSlotSize,
        encodeHotSlot(block.hotSlotSize, { copyId, number: 0, sequence }, extents));
    }
    disk.place(block.indexOffset, Buffer.alloc(2 * mapPageSize));
    disk.place(block.indexOffset + (slot & 1) * mapPageSize, encodeIndexPage(
      { copyId, number: 0, sequence: 4 },
      Uint8Array.of(RegionBit.page, RegionBit.localFull, 0, 0),
    ));
    disk.place(block.mapOffset, encodeMapPage({ copyId, number: 0, sequence: 3 }, bits, null));
    const before = readMap(disk.cache, block);
    t.same([before.damage, before.hot], [[], [3, 40]]);
    t.equal(before.localStale.count, perRegion);
    t.ok(before.peerStale.has(4) && before.peerStale.has(40 * perExtent));
    t.equal(before.peerStale.count, 1 + 2 * perExtent);
    firstWritten(world, trackerOn(disk, block));
    t.same(notTwice(disk.durable, block), []);
    const after = readMap(disk.durable, block);
    t.equal(saidBy(after), saidBy(before));
  }
});

t.test('twice: no list is written before what its loss means is durable', async (t) => {
  const run = new Owed(2);
  const { disk, block, world } = run;
  for (let step = 0; step < 20; step++) run.step();
  run.rest();
  disk.crash(false);
  disk.place(block.hotOffset, Buffer.alloc(8 * block.hotSlotSize, 0x77));
  const areas: string[] = [];
  const all = (): void => {
    t.equal(readMap(disk.durable, block).peerStale.count, blockCount);
  };
  disk.watch = (op) => {
    const { indexOffset, mapOffset } = block;
    const area = op.offset < indexOffset ? 'hot' : op.offset < mapOffset ? 'index' : 'page';
    if (op.kind === 'durable') areas.push(area);
    all();
  };
  const tracker = trackerOn(disk, block);
  // Not even the first writer's.
  let isMarked = false;
  const onMarked = (): void => {
    isMarked = true;
  };
  const request = { firstExtent: 1, lastExtent: 1, begins: false, onMarked };
  t.notOk(tracker.mark(request));
  world.until(() => isMarked);
  all();
  // Blocks stale here have pages.
  t.same(areas.filter((area, index) => area !== 'page' || areas[index - 1] === 'index'),
    ['index', 'index', 'hot']);
  t.same(notTwice(disk.durable, block), []);
  const map = readMap(disk.durable, block);
  t.same([map.damage, map.hot], [[], [1]]);
});

t.test('twice: a bad copy of the superblock is written anew by the next start', async (t) => {
  const pair = new SimPair();
  const { a } = pair.boot().complete();
  const { disk } = a;
  const { superblockSize } = limits;
  const offsets = [0, tailOffset(disk.size)] as const;
  const raw = (which: 0 | 1): Buffer =>
    disk.durable.subarray(offsets[which], offsets[which] + superblockSize);
  pair.partition();
  for (let at = 0; at < superblockSize; at += at < 32 ? 1 : 97) {
    for (const which of [0, 1] as const) {
      a.crash();
      const before = chooseSuperblock(raw(0), raw(1));
      disk.place(offsets[which] + at, Uint8Array.of((raw(which)[at] as number) ^ 1));
      t.throws(() => decodeSuperblock(raw(which)));
      a.boot();
      const after = a.running.context.store.value;
      const same = { sequence: 0, sessionNumber: 0, contactAt: 0 };
      if (JSON.stringify({ ...after, ...same }, plain) !==
          JSON.stringify({ ...before, ...same }, plain)) t.fail(`byte ${at} of copy ${which}`);
      t.ok(raw(0).equals(raw(1)), `byte ${at} of copy ${which}`);
      t.ok(decodeSuperblock(raw(0)).sequence > before.sequence);
    }
  }
  pair.heal();
  pair.complete();
});

function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
