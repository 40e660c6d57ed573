/**
 * Goal: what is stale here and what is stale at the peer are on disk together, survive a crash
 * at any write, torn anywhere, and leave the disk last. The tracker against a model that only
 * knows what it was told.
 */
import t from 'tap';
import { BlockMap } from '../../lib/core/block-map.ts';
import { DirtyTracker, type MarkRequest } from '../../lib/core/dirty-tracker.ts';
import { loadMap, type LoadedMap } from '../../lib/core/map-loader.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import type { Superblock } from '../../lib/format/superblock.ts';
import { SimDisk } from '../fixtures/sim-disk.ts';
import { metadataDisk, readMap, spread } from '../fixtures/sim-map.ts';
import { SimWorld } from '../fixtures/sim-world.ts';

const { blockSize, regionSize } = limits;
const perRegion = regionSize / blockSize;
const mediaSize = 11 * regionSize + 5 * MiB;
const blockCount = mediaSize / blockSize;
const options = {
  resource: 'r', copyId: 5n, mediaSize, extentSize: 1 * MiB, keepDirty: 32, zeroed: true,
  sectorSize: 512,
};

interface Flush {
  /** Blocks that had arrived when it began, and the mark each arrival answered. */
  readonly blocks: Map<number, number>;
}

class MapRun {
  readonly world: SimWorld;
  readonly disk: SimDisk;
  readonly block: Superblock;
  tracker!: DirtyTracker;
  /** Written on both copies and flushed on neither. */
  open = new BlockMap(mediaSize);
  /** 1: the copies may differ here, and a write was let go. */
  readonly mayDiffer = new Uint8Array(blockCount);
  readonly inFlight = new Uint8Array(blockCount);
  /** Number of the last call that said the block is stale here; 0: it is not, durably. */
  readonly stale = new Uint32Array(blockCount);
  /** 1: that was made durable, and is still so. */
  readonly mustStale = new Uint8Array(blockCount);
  /** 1: its data arrived since. */
  readonly arrived = new Uint8Array(blockCount);
  /** Marked at any time since nothing else was: nothing else may ever show. */
  everPeer: Uint8Array = new Uint8Array(blockCount);
  everLocal: Uint8Array = new Uint8Array(blockCount);
  readonly counts = { granted: 0, crashes: 0, torn: 0, flushed: 0, rests: 0, flips: 0 };
  #life = 0;
  #number = 0;
  /** A crash may have torn pages that no first commit has replaced yet. */
  #mayBeTorn = false;

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    const { disk, block } = metadataDisk(this.world, options);
    this.disk = disk;
    this.block = block;
    this.load();
  }

  /** As a starting worker: reads, lets its owner judge the damage, and makes all durable. */
  load(): void {
    for (;;) {
      const life = ++this.#life;
      let loaded: LoadedMap | null = null;
      const port = this.disk.port();
      loadMap(port, this.block, (_errno, result) => {
        loaded = result;
      });
      this.world.until(() => loaded !== null);
      this.#adopt(loaded as unknown as LoadedMap);
      let isReady = false;
      this.tracker.persistAll(() => {
        isReady = true;
      });
      if (this.world.random.chance(0.3)) {
        this.world.pass(this.world.random.unit());
        if (!isReady) {
          this.crash(this.world.random.chance(0.5));
          continue;
        }
      }
      if (!this.world.until(() => isReady)) throw new Error('the first commit never ends');
      if (life !== this.#life) throw new Error('two lives');
      this.#mayBeTorn = false;
      this.check(this.disk.durable);
      return;
    }
  }

  #adopt(loaded: LoadedMap): void {
    this.open = new BlockMap(mediaSize);
    this.inFlight.fill(0);
    this.tracker = new DirtyTracker(this.disk.port(), this.block, loaded, (errno) => {
      throw new Error(`the disk failed: ${errno}`);
    }, () => this.world.now());
    this.tracker.unflushed = {
      collect: (region, target) => this.open.collect(region, target),
      hasFull: (region) => this.open.isFull(region),
    };
    for (const region of loaded.damagedRegions) this.setLocal(region * regionSize, regionSize);
    const peer = spread(loaded.peerStale);
    const local = spread(loaded.localStale);
    for (let at = 0; at < blockCount; at++) {
      this.stale[at] = local[at] === 1 ? ++this.#number : 0;
      this.arrived[at] = 0;
      // Hot extents and damage are marks of their own right.
      if (peer[at] === 1) this.everPeer[at] = 1;
    }
  }

  write(): void {
    const { random } = this.world;
    const blocks = 1 + random.int(random.chance(0.1) ? 64 : 3);
    const first = random.int(blockCount - blocks);
    const life = this.#life;
    const tracker = this.tracker;
    const [offset, length] = [first * blockSize, blocks * blockSize];
    const request: MarkRequest = {
      firstExtent: Math.floor(offset / options.extentSize),
      lastExtent: Math.floor((offset + length - 1) / options.extentSize),
      begins: random.chance(0.3),
      onMarked: () => {
        if (life !== this.#life) throw new Error('a call from a former life');
        this.counts.granted++;
        for (let at = first; at < first + blocks; at++) {
          this.mayDiffer[at] = 1;
          this.everPeer[at] = 1;
          this.inFlight[at] = (this.inFlight[at] ?? 0) + 1;
        }
        if (random.chance(0.1)) this.check(this.disk.durable);
        this.world.between(0, 3, () => {
          if (life !== this.#life) return;
          for (let at = first; at < first + blocks; at++) {
            this.inFlight[at] = (this.inFlight[at] ?? 0) - 1;
          }
          if (random.chance(0.5)) tracker.setStale(offset, length);
          else {
            this.open.setRange(offset, length);
            tracker.touch(offset, length);
          }
          if (random.chance(0.3)) this.arrive(offset, length);
          tracker.unmark(request);
        });
      },
    };
    if (tracker.mark(request)) request.onMarked();
  }

  /** A flush of both copies covers what was written, or a resync copies what is stale. */
  settle(): void {
    const { peerStale } = this.tracker;
    if (this.world.random.chance(0.5) && !peerStale.isEmpty) {
      const block = peerStale.nextSet(0);
      const length = peerStale.runLength(block, 256) * blockSize;
      this.tracker.clearStale(block * blockSize, length);
      this.open.setRange(block * blockSize, length);
      this.tracker.touch(block * blockSize, length);
      return;
    }
    const covered = spread(this.open);
    const regions = [...this.open.regions()];
    this.open = new BlockMap(mediaSize);
    const stale = spread(peerStale);
    for (let at = 0; at < blockCount; at++) {
      if (covered[at] === 1 && stale[at] === 0 && this.inFlight[at] === 0) this.mayDiffer[at] = 0;
    }
    this.tracker.covered(regions);
  }

  /** A range of bytes: often a whole region, rarely aligned. */
  range(): [number, number] {
    const { random } = this.world;
    if (random.chance(0.3)) {
      const region = random.int(12);
      return [region * regionSize, Math.min(regionSize, mediaSize - region * regionSize)];
    }
    const length = 1 + random.int(random.chance(0.2) ? 40 * MiB : 64 * 1024);
    return [random.int(mediaSize - length), length];
  }

  setLocal(offset: number, length: number): void {
    const { random } = this.world;
    const last = Math.min(blockCount, Math.ceil((offset + length) / blockSize));
    const number = ++this.#number;
    for (let at = Math.floor(offset / blockSize); at < last; at++) {
      this.stale[at] = number;
      this.arrived[at] = 0;
      this.everLocal[at] = 1;
    }
    if (offset % regionSize === 0 && length === regionSize) {
      this.tracker.setLocalStaleRegion(offset / regionSize, null);
    } else if (random.chance(0.5)) this.tracker.setLocalStale(offset, length);
    else {
      const other = new BlockMap(mediaSize);
      other.setRange(offset, length);
      this.tracker.mergeLocalStale(other);
    }
    if (random.chance(0.7)) this.persist();
  }

  persist(): void {
    const numbers = this.stale.slice();
    const life = this.#life;
    this.tracker.persistAll(() => {
      if (life !== this.#life) throw new Error('a call from a former life');
      for (let at = 0; at < blockCount; at++) {
        if (numbers[at] !== 0 && numbers[at] === this.stale[at]) this.mustStale[at] = 1;
      }
      if (this.world.random.chance(0.3)) this.check(this.disk.durable);
    });
  }

  arrive(offset: number, length: number): void {
    const last = Math.floor((offset + length) / blockSize);
    for (let at = Math.ceil(offset / blockSize); at < last; at++) {
      if (this.stale[at] !== 0) this.arrived[at] = 1;
    }
    this.tracker.arrivedLocally(offset, length);
  }

  localFlush(done: () => void = () => undefined): void {
    const blocks: Flush['blocks'] = new Map();
    for (let at = 0; at < blockCount; at++) {
      if (this.arrived[at] === 1) blocks.set(at, this.stale[at] as number);
    }
    const flush = this.tracker.localFlushBegins();
    const life = this.#life;
    this.world.between(0, 4, () => {
      if (life !== this.#life) return;
      for (const [at, number] of blocks) {
        if (this.stale[at] !== number) continue;
        this.stale[at] = 0;
        this.mustStale[at] = 0;
        this.arrived[at] = 0;
        this.counts.flushed++;
      }
      this.tracker.localFlushDone(flush);
      done();
    });
  }

  /** The map was handed over, or a sync ended: at the call, what is not in flight is equal. */
  forget(both: boolean): void {
    const open = spread(this.open);
    for (let at = 0; at < blockCount; at++) {
      if (open[at] === 0 && this.inFlight[at] === 0) this.mayDiffer[at] = 0;
    }
    if (!both) {
      this.tracker.clearPeerStale(() => undefined);
      return;
    }
    this.stale.fill(0);
    this.mustStale.fill(0);
    this.arrived.fill(0);
    this.tracker.clearAll(() => undefined);
  }

  /** What must be in `image`, which a crash may have torn. */
  check(image: Buffer, isTorn = false): void {
    const map = readMap(image, this.block);
    if (!isTorn && map.damage.length > 0) throw new Error(map.damage.join());
    this.counts.torn += map.damage.length;
    for (const damage of map.damage) {
      if (!damage.startsWith('map page')) throw new Error(damage);
    }
    const peer = spread(map.peerStale);
    const local = spread(map.localStale);
    for (let at = 0; at < blockCount; at++) {
      if (this.mayDiffer[at] === 1 && peer[at] === 0) throw new Error(`block ${at} may differ`);
      if (local[at] === 1 && this.everLocal[at] === 0) throw new Error(`${at} was never stale`);
      if (this.mustStale[at] === 1 && local[at] === 0 &&
          !map.damagedRegions.has(Math.floor(at / perRegion))) {
        throw new Error(`block ${at} is stale here and not marked`);
      }
    }
    const hot = new BlockMap(mediaSize);
    for (const extent of map.hot) hot.setRange(extent * options.extentSize, options.extentSize);
    for (const region of map.damagedRegions) hot.setFull(region);
    const covered = spread(hot);
    for (let at = 0; at < blockCount; at++) {
      if (peer[at] === 1 && covered[at] === 0 && this.everPeer[at] === 0) {
        throw new Error(`nobody marked block ${at}`);
      }
    }
  }

  /** The memory says what it was told. */
  checkMemory(): void {
    const local = spread(this.tracker.localStale);
    for (let at = 0; at < blockCount; at++) {
      const expected = this.stale[at] !== 0 && this.arrived[at] === 0;
      if (expected !== (local[at] === 1)) throw new Error(`block ${at} in memory`);
    }
    const [offset, length] = this.range();
    const last = Math.ceil((offset + length) / blockSize);
    const some = local.subarray(Math.floor(offset / blockSize), last).includes(1);
    if (this.tracker.isLocalStale(offset, length) !== some) throw new Error('isLocalStale()');
  }

  /** Without anything under way the disk says what the memory says, and no more. */
  rest(): void {
    this.world.pass(200);
    let left = 0;
    const step = (run: (done: () => void) => void): void => {
      left++;
      run(() => {
        left--;
      });
      if (!this.world.until(() => left === 0)) throw new Error('no rest');
    };
    const regions = [...this.open.regions()];
    this.open = new BlockMap(mediaSize);
    this.tracker.covered(regions);
    step((done) => this.localFlush(done));
    step((done) => this.tracker.releaseHot(done));
    const map = readMap(this.disk.durable, this.block);
    const peer = spread(this.tracker.peerStale);
    const local = spread(this.tracker.localStale);
    if (map.hot.length > 0) throw new Error('hot extents at rest');
    if (Buffer.compare(spread(map.peerStale), peer) !== 0) throw new Error('peerStale at rest');
    if (Buffer.compare(spread(map.localStale), local) !== 0) throw new Error('localStale at rest');
    for (let at = 0; at < blockCount; at++) {
      this.mayDiffer[at] = Math.min(this.mayDiffer[at] as number, peer[at] as number);
    }
    this.everPeer = peer;
    this.everLocal = local;
    this.counts.rests++;
  }

  crash(power: boolean): void {
    this.#life++;
    this.counts.crashes++;
    this.disk.crash(power);
    this.check(this.disk.cache, true);
    this.check(this.disk.durable, power || this.#mayBeTorn);
    this.#mayBeTorn = true;
  }

  /** Nothing is under way; one bit of a hot slot or of an index page is bad at the next start. */
  flip(): void {
    const { random } = this.world;
    this.world.pass(200);
    this.crash(random.chance(0.5));
    const { hotOffset, mapOffset } = this.block;
    const at = hotOffset + random.int(mapOffset - hotOffset);
    this.disk.place(at, Uint8Array.of((this.disk.cache[at] as number) ^ (1 << random.int(8))));
    this.check(this.disk.durable);
    this.counts.flips++;
    this.load();
  }

  step(): void {
    const { random } = this.world;
    const kind = random.unit();
    if (kind < 0.3) this.write();
    else if (kind < 0.36) this.settle();
    else if (kind < 0.46) this.setLocal(...this.range());
    else if (kind < 0.48) this.persist();
    else if (kind < 0.58) this.arrive(...this.range());
    else if (kind < 0.63) this.localFlush();
    else if (kind < 0.68) this.tracker.checkpoint(() => undefined);
    else if (kind < 0.7) this.tracker.releaseHot(() => undefined);
    else if (kind < 0.72) this.forget(false);
    else if (kind < 0.725) this.forget(true);
    else if (kind < 0.74) this.rest();
    else if (kind < 0.76) this.flip();
    else if (kind < 0.79) {
      this.crash(random.chance(0.5));
      this.load();
    } else this.world.pass(random.unit() * 2);
  }
}

t.test('both maps: the disk covers what it must after a crash at any write', async (t) => {
  const total = { granted: 0, crashes: 0, torn: 0, flushed: 0, rests: 0, flips: 0 };
  for (let seed = 1; seed <= 24; seed++) {
    const run = new MapRun(seed);
    try {
      for (let step = 0; step < 200; step++) {
        run.step();
        if (step % 20 === 0) {
          run.check(run.disk.durable);
          run.checkMemory();
        }
      }
      run.rest();
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += run.counts[key];
  }
  t.ok(total.granted > 500, `${total.granted} writes`);
  t.ok(total.crashes > 100, `${total.crashes} crashes`);
  t.ok(total.torn > 10, `${total.torn} torn pages`);
  t.ok(total.flushed > 1000, `${total.flushed} blocks arrived and were flushed`);
  t.ok(total.rests > 40, `${total.rests} times at rest`);
  t.ok(total.flips > 40, `${total.flips} bits flipped`);
});
