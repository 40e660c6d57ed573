/**
 * Goal: what may differ is on disk before it can differ, whatever is torn, and leaves the disk
 * last. The map against a plain set; the tracker and the superblock against a disk that loses
 * its power at any moment.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { BlockMap } from '../../lib/core/block-map.ts';
import { DirtyTracker, type MarkRequest, type UnflushedBlocks } from
  '../../lib/core/dirty-tracker.ts';
import { chooseSuperblock, SuperblockStore, withAncestor } from
  '../../lib/core/superblock-store.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import { tailOffset } from '../../lib/format/superblock.ts';
import { SimDisk } from '../fixtures/sim-disk.ts';
import {
  blocksOf, createImage, imageMap, imageSuperblock, localSizeFor,
} from '../fixtures/sim-image.ts';
import { SimWorld } from '../fixtures/sim-world.ts';

const { blockSize, regionSize } = limits;
const perRegion = regionSize / blockSize;

/** The map and its naive twin. */
class TwinMap {
  readonly map: BlockMap;
  readonly set = new Set<number>();
  readonly blockCount: number;

  constructor(mediaSize: number, pagesMax?: number) {
    this.map = new BlockMap(mediaSize, pagesMax);
    this.blockCount = Math.ceil(mediaSize / blockSize);
  }

  setRange(offset: number, length: number): void {
    this.map.setRange(offset, length);
    for (let at = Math.floor(offset / blockSize); at * blockSize < offset + length; at++) {
      this.set.add(at);
    }
  }

  clearRange(offset: number, length: number): void {
    this.map.clearRange(offset, length);
    for (let at = Math.ceil(offset / blockSize); (at + 1) * blockSize <= offset + length; at++) {
      this.set.delete(at);
    }
  }

  /** Moves to a map that has a block of its own, which it returns. */
  moveRange(offset: number, length: number): TwinMap {
    const target = new TwinMap(this.blockCount * blockSize);
    target.setRange(Math.floor(offset / 2), blockSize);
    for (let at = Math.ceil(offset / blockSize); (at + 1) * blockSize <= offset + length; at++) {
      if (this.set.delete(at)) target.set.add(at);
    }
    this.map.moveRange(offset, length, target.map);
    return target;
  }

  touches(offset: number, length: number): boolean {
    const end = Math.ceil((offset + length) / blockSize);
    for (let at = Math.floor(offset / blockSize); at < end; at++) if (this.set.has(at)) return true;
    return false;
  }

  region(region: number, apply: (block: number) => void): void {
    const end = Math.min(this.blockCount, (region + 1) * perRegion);
    for (let at = region * perRegion; at < end; at++) apply(at);
  }

  problem(): string | null {
    if (this.map.count !== this.set.size) return `count ${this.map.count}, ${this.set.size}`;
    if (this.map.isEmpty !== (this.set.size === 0)) return 'isEmpty';
    for (const block of this.set) if (!this.map.has(block)) return `block ${block} is missing`;
    const first = blocksOf(this.map);
    if (first.length !== this.set.size) return 'nextSet() misses some';
    const from = first[Math.floor(first.length / 2)];
    if (from === undefined) return null;
    let run = 0;
    while (run < 50 && this.set.has(from + run)) run++;
    return this.map.runLength(from, 50) === run ? null : 'runLength';
  }
}

const mediaSize = 2 * regionSize + 5 * MiB;
const mapStep = fc.record({
  kind: fc.constantFrom('set', 'set', 'set', 'clear', 'clear', 'full', 'wipe', 'bits', 'merge',
    'move'),
  region: fc.nat(2), at: fc.nat(mediaSize - 1), length: fc.integer({ min: 1, max: 3 * MiB }),
  whole: fc.nat(9),
});

function mapTest(pagesMax: number | undefined, check: (twin: TwinMap) => string | null): void {
  fc.assert(fc.property(fc.array(mapStep, { maxLength: 12 }), (steps) => {
    const twin = new TwinMap(mediaSize, pagesMax);
    for (const step of steps) {
      const from = step.whole === 0 ? step.region * regionSize : step.at;
      const span = step.whole === 0 ? regionSize : step.length;
      const length = Math.min(span, mediaSize - from);
      const { region } = step;
      if (step.kind === 'set') twin.setRange(from, length);
      else if (step.kind === 'clear') twin.clearRange(from, length);
      else if (step.kind === 'full') {
        twin.map.setFull(region);
        twin.region(region, (block) => twin.set.add(block));
      } else if (step.kind === 'wipe') {
        twin.map.clearRegion(region);
        twin.region(region, (block) => twin.set.delete(block));
      } else if (step.kind === 'move') {
        const problem = check(twin.moveRange(from, length));
        if (problem !== null) throw new Error(`moved: ${problem}`);
      } else if (step.kind === 'bits') {
        const bits = new Uint8Array(perRegion / 8).fill(0x41, step.at % 1000, 1001);
        twin.map.mergeBits(region, bits);
        twin.region(region, (block) => {
          const at = block % perRegion;
          if (((bits[at >> 3] ?? 0) >> (at & 7) & 1) === 1) twin.set.add(block);
        });
      } else {
        const other = new TwinMap(mediaSize);
        other.setRange(from, length);
        twin.map.merge(other.map);
        for (const block of other.set) twin.set.add(block);
      }
      const [some, near] = [step.length % MiB + 1, Math.max(0, from - blockSize)];
      if (pagesMax === undefined && twin.map.touches(near, some) !== twin.touches(near, some)) {
        throw new Error('touches()');
      }
      const problem = check(twin);
      if (problem !== null) throw new Error(`after ${step.kind}: ${problem}`);
    }
  }), { numRuns: 60 });
}

t.test('block-map: equals a plain set', async () => {
  mapTest(undefined, (twin) => twin.problem());
});

t.test('block-map: above its bound it holds more, never less', async () => {
  mapTest(1, (twin) => {
    for (const block of twin.set) if (!twin.map.has(block)) return `block ${block} is missing`;
    return twin.map.count >= twin.set.size ? null : 'count';
  });
});

const geometry = {
  resource: 'r', copyId: 5n, mediaSize: 40 * MiB, extentSize: 64 * 1024, keepDirty: 32,
  zeroed: true, sectorSize: 512,
};

/** Writes that are let go by a tracker, and what must be on the disk for each. */
class TrackerRun {
  readonly world: SimWorld;
  readonly disk: SimDisk;
  /** Blocks that may differ: let go, and neither copied nor covered by a flush. */
  readonly may = new Map<number, number>();
  tracker!: DirtyTracker;
  open!: BlockMap;
  granted = 0;
  #life = 0;

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    this.disk = new SimDisk(this.world, localSizeFor(geometry.mediaSize, geometry.keepDirty));
    createImage((offset, bytes) => this.disk.place(offset, bytes), geometry);
    this.load();
  }

  /** As openResource(): read, rewrite, then work. */
  load(): void {
    const life = ++this.#life;
    this.open = new BlockMap(geometry.mediaSize);
    this.tracker = new DirtyTracker(
      this.disk.port(), imageSuperblock(this.disk.cache), imageMap(this.disk.cache),
      (errno) => {
        throw new Error(`the disk failed: ${errno}`);
      },
    );
    const unflushed: UnflushedBlocks = {
      collect: (region, target) => {
        const bits = this.open.bits(region);
        bits?.forEach((byte, at) => {
          target[at] = (target[at] ?? 0) | byte;
        });
        return bits !== null;
      },
      hasFull: (region) => this.open.isFull(region),
    };
    this.tracker.unflushed = unflushed;
    let isReady = false;
    this.tracker.persistAll(() => {
      isReady = true;
    });
    if (this.world.random.chance(0.5)) {
      this.world.pass(this.world.random.unit());
      if (!isReady) {
        this.crash(this.world.random.chance(0.7));
        this.load();
      }
    }
    this.world.until(() => isReady || life !== this.#life);
  }

  write(): void {
    const { random } = this.world;
    const blocks = 1 + random.int(random.chance(0.1) ? 64 : 3);
    const first = random.int(geometry.mediaSize / blockSize - blocks);
    const life = this.#life;
    const tracker = this.tracker;
    const [offset, length] = [first * blockSize, blocks * blockSize];
    const request: MarkRequest = {
      firstExtent: Math.floor(offset / geometry.extentSize),
      lastExtent: Math.floor((offset + length - 1) / geometry.extentSize),
      begins: random.chance(0.3),
      onMarked: () => {
        this.granted++;
        const number = this.granted;
        for (let at = first; at < first + blocks; at++) this.may.set(at, number);
        this.check();
        this.world.between(0, 3, () => {
          if (life !== this.#life) return;
          if (random.chance(0.5)) tracker.setStale(offset, length);
          else {
            this.open.setRange(offset, length);
            tracker.touch(offset, length);
          }
          tracker.unmark(request);
        });
      },
    };
    if (tracker.mark(request)) request.onMarked();
  }

  /** A flush of both copies covers what was written, or a resync copies what is stale. */
  settle(): void {
    const before = new Map(this.may);
    const stale = this.tracker.peerStale;
    if (this.world.random.chance(0.5) && !stale.isEmpty) {
      const block = stale.nextSet(0);
      const length = stale.runLength(block, 64) * blockSize;
      this.tracker.clearStale(block * blockSize, length);
      this.open.setRange(block * blockSize, length);
      this.tracker.touch(block * blockSize, length);
      return;
    }
    const covered = this.open;
    this.open = new BlockMap(geometry.mediaSize);
    for (const block of blocksOf(covered)) {
      // A later write of the same block is not covered.
      if (before.get(block) === this.may.get(block) && !stale.has(block)) this.may.delete(block);
      if (!stale.has(block)) continue;
    }
    this.tracker.covered(covered.regions());
  }

  check(): void {
    const marked = imageMap(this.disk.durable).peerStale;
    for (const block of this.may.keys()) {
      if (!marked.has(block)) throw new Error(`block ${block} was let go without a mark`);
    }
  }

  crash(power: boolean): void {
    this.#life++;
    this.disk.crash(power);
    this.check();
  }
}

t.test('dirty-tracker: at every moment the durable map covers what was let go', async (t) => {
  let granted = 0;
  for (let seed = 1; seed <= 16; seed++) {
    const run = new TrackerRun(seed);
    const { random } = run.world;
    for (let step = 0; step < 150; step++) {
      const kind = random.unit();
      if (kind < 0.6) run.write();
      else if (kind < 0.7) run.settle();
      else if (kind < 0.76) run.tracker.checkpoint(() => run.check());
      else if (kind < 0.78) run.tracker.releaseHot(() => run.check());
      else if (kind < 0.84) {
        if (random.chance(0.5)) {
          run.tracker.releaseHot(() => undefined);
          run.world.pass(random.unit() * 1.5);
        }
        run.crash(random.chance(0.7));
        run.load();
      } else run.world.pass(random.unit() * 2);
      if (step % 10 === 0) run.check();
    }
    granted += run.granted;
  }
  t.ok(granted > 500, `${granted} writes`);
});

t.test('dirty-tracker: a mark that cannot be written lets nothing go', async (t) => {
  const world = new SimWorld(1);
  const disk = new SimDisk(world, localSizeFor(geometry.mediaSize, geometry.keepDirty));
  createImage((offset, bytes) => disk.place(offset, bytes), geometry);
  disk.fault = () => 5;
  let failed = 0;
  let marked = 0;
  const tracker = new DirtyTracker(
    disk.port(), imageSuperblock(disk.cache), imageMap(disk.cache), () => void failed++,
  );
  for (let extent = 0; extent < 3; extent++) {
    const onMarked = (): void => void marked++;
    tracker.mark({ firstExtent: extent, lastExtent: extent, begins: true, onMarked });
  }
  world.pass(100);
  t.equal(failed, 1);
  t.equal(marked, 0);
});

t.test('map-loader: what is damaged counts as stale', async (t) => {
  const world = new SimWorld(1);
  const make = (): { disk: SimDisk; block: ReturnType<typeof createImage> } => {
    const disk = new SimDisk(world, localSizeFor(geometry.mediaSize, geometry.keepDirty));
    return { disk, block: createImage((offset, bytes) => disk.place(offset, bytes), geometry) };
  };
  const all = geometry.mediaSize / blockSize;
  const clean = imageMap(make().disk.cache);
  t.equal(clean.peerStale.count, 0);
  t.same(clean.damage, []);
  const hot = make();
  hot.disk.place(hot.block.hotOffset + 20, Buffer.of(1));
  hot.disk.place(hot.block.hotOffset + hot.block.hotSlotSize + 20, Buffer.of(1));
  t.equal(imageMap(hot.disk.cache).peerStale.count, all);
  const index = make();
  for (const copy of [0, 1]) {
    index.disk.place(index.block.indexOffset + copy * limits.mapPageSize + 100, Buffer.of(1));
  }
  t.equal(imageMap(index.disk.cache).peerStale.count, all);
  const run = new TrackerRun(3);
  run.tracker.setStale(0, blockSize);
  run.tracker.setStale(regionSize, blockSize);
  let isDone = false;
  run.tracker.persistAll(() => {
    isDone = true;
  });
  run.world.until(() => isDone);
  t.same(blocksOf(imageMap(run.disk.durable).peerStale), [0, perRegion]);
  const { mapOffset } = imageSuperblock(run.disk.durable);
  run.disk.place(mapOffset + limits.mapPageSize + 64, Buffer.of(7));
  const torn = imageMap(run.disk.durable);
  t.equal(torn.peerStale.count, 1 + 2 * MiB * 4 / blockSize);
  t.equal(torn.damage.length, 1);
});

t.test('superblock-store: no acknowledged update is lost, one copy is always whole', async (t) => {
  for (let seed = 1; seed <= 60; seed++) {
    const world = new SimWorld(seed);
    const { random } = world;
    const disk = new SimDisk(world, localSizeFor(geometry.mediaSize, geometry.keepDirty));
    let store = new SuperblockStore(
      disk.port(), createImage((offset, bytes) => disk.place(offset, bytes), geometry),
    );
    let asked = 0;
    let acked = 0;
    for (let step = 0; step < 40; step++) {
      if (random.chance(0.6)) {
        const number = ++asked;
        store.update({ contactAt: number }, (errno) => {
          if (errno === 0) acked = Math.max(acked, number);
        });
      } else if (random.chance(0.3)) {
        disk.crash(random.chance(0.7));
        const head = disk.cache.subarray(0, 4096);
        const at = tailOffset(disk.size);
        const block = chooseSuperblock(head, disk.cache.subarray(at, at + 4096));
        if (block.contactAt < acked || block.contactAt > asked) {
          t.fail(`seed ${seed}: ${block.contactAt} after ${acked} was acknowledged`);
        }
        acked = block.contactAt;
        store = new SuperblockStore(disk.port(), block);
        // What was read may not be durable yet: it is written again before anything counts.
        let isDone = false;
        store.update({}, () => {
          isDone = true;
        });
        world.until(() => isDone);
      } else world.pass(random.unit());
    }
  }
  t.same(withAncestor([1n, 2n], 3n), [3n, 1n, 2n]);
  const long = Array.from({ length: limits.historyCount }, (_, at) => BigInt(at));
  t.equal(withAncestor(long, 99n).length, limits.historyCount);
});
