/**
 * `npm run bench:scale`: what size costs. The tracker of the core, with volumes of 1 to 256 TiB on
 * a disk that answers at once and keeps nothing: memory and processor time of the dirty map, and
 * what it writes. docs/performance.md has a run of it.
 */
import { BlockMap } from '../../lib/core/block-map.ts';
import { DirtyTracker, type MarkRequest } from '../../lib/core/dirty-tracker.ts';
import type { LoadedMap } from '../../lib/core/map-loader.ts';
import type { DiskPort, Done, DurableWrite } from '../../lib/core/ports.ts';
import { writeEachDurable } from '../../lib/disk/open-disk.ts';
import { limits } from '../../lib/format/limits.ts';
import { layoutFor, type Superblock } from '../../lib/format/superblock.ts';

const GiB = 1024 ** 3;
const TiB = 1024 * GiB;
const { blockSize, regionSize } = limits;
const extentSize = 2 * 1024 * 1024;
const keepDirty = 512;

/** Counts what is written durably. */
class NullDisk implements DiskPort {
  writes = 0;
  bytes = 0;

  read(_offset: number, _to: Buffer, _at: number, _length: number, done: Done): void {
    done(0);
  }

  write(_offset: number, _from: Buffer, _at: number, _length: number, done: Done): void {
    done(0);
  }

  flush(done: Done): void {
    done(0);
  }

  zero(_offset: number, _length: number, _discard: boolean, done: Done): void {
    done(0);
  }

  writeDurable(_offset: number, buffer: Buffer, done: Done): void {
    this.writes++;
    this.bytes += buffer.length;
    done(0);
  }

  writeAllDurable(writes: readonly DurableWrite[], done: Done): void {
    writeEachDurable(this, writes, done);
  }
}

function emptyMap(mediaSize: number): LoadedMap {
  const { regionCount, indexPageCount } = layoutFor(mediaSize, keepDirty);
  return {
    peerStale: new BlockMap(mediaSize), localStale: new BlockMap(mediaSize),
    regionState: new Uint8Array(regionCount), indexSlot: new Uint8Array(indexPageCount),
    indexRepairs: new Set(), hotPair: 0, hotCopies: 2, sequence: 1, inherited: new Set(), hot: [],
    damage: [], damagedRegions: new Set(), handedDown: null,
  };
}

function memory(): number {
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

interface Tracked {
  tracker: DirtyTracker;
  disk: NullDisk;
  /** The memory before it was made. */
  before: number;
}

function track(mediaSize: number): Tracked {
  const before = memory();
  const disk = new NullDisk();
  const layout = layoutFor(mediaSize, keepDirty);
  const geometry = { ...layout, mediaSize, extentSize, keepDirty, copyId: 1n };
  const failed = (errno: number): void => {
    throw new Error(`errno ${errno}`);
  };
  const tracker = new DirtyTracker(
    disk, geometry as unknown as Superblock, emptyMap(mediaSize), failed,
  );
  return { tracker, disk, before };
}

/** The peer is away: each write marks its extent, and is stale there. */
function writeAlone(tracker: DirtyTracker, offset: number): void {
  const extent = Math.floor(offset / extentSize);
  const request: MarkRequest = {
    firstExtent: extent, lastExtent: extent, begins: offset % extentSize === 0,
    onMarked: () => {
      tracker.setStale(offset, blockSize);
      tracker.unmark(request);
    },
  };
  if (tracker.mark(request)) request.onMarked();
}

function row(name: string, cells: readonly (string | number)[]): void {
  const text = cells.map((cell) => String(cell).padStart(14)).join('');
  process.stdout.write(`${name.padEnd(34)}${text}\n`);
}

const mib = (bytes: number): string => (bytes / 1024 ** 2).toFixed(1);

function measure(mediaSize: number, count: number, next: (index: number) => number): string[] {
  const { tracker, disk, before } = track(mediaSize);
  const from = performance.now();
  for (let index = 0; index < count; index++) writeAlone(tracker, next(index));
  tracker.persistAll(() => undefined);
  const micros = (performance.now() - from) * 1000 / count;
  const walked = performance.now();
  let seen = 0;
  const { peerStale } = tracker;
  for (let at = peerStale.nextSet(0); at >= 0; at = peerStale.nextSet(at + 1)) seen++;
  const walk = performance.now() - walked;
  const used = memory() - before;
  return [
    // It must live until then.
    tracker.hotCount > 0 ? mib(used) : '', micros.toFixed(2), (disk.writes / count).toFixed(3),
    (disk.bytes / count).toFixed(0), (walk * 1e6 / Math.max(1, seen)).toFixed(0),
  ];
}

row('volume', [
  'memory MiB', 'map on disk', 'us a write', 'writes/write', 'bytes/write', 'walk ns/block',
]);
for (const size of [1, 16, 256]) {
  const mediaSize = size * TiB;
  const empty = track(mediaSize);
  const cleanBytes = memory() - empty.before;
  const onDisk = layoutFor(mediaSize, keepDirty).dataOffset;
  if (empty.tracker.isIdle) row(`${size} TiB, clean`, [mib(cleanBytes), mib(onDisk)]);
  const blocks = GiB / blockSize;
  const [memoryOfRun, ...run] = measure(mediaSize, blocks, (index) => index * blockSize);
  row(`${size} TiB, 1 GiB written on end`, [memoryOfRun as string, '', ...run]);
  const stride = Math.floor(mediaSize / regionSize / 1024) * regionSize;
  const near = (index: number): number =>
    (index * 7919 % 16) * regionSize + (index * 48_271 % 8192) * blockSize;
  const [memoryNear, ...nearBy] = measure(mediaSize, 65_536, near);
  row(`${size} TiB, 4 KiB within 512 MiB`, [memoryNear as string, '', ...nearBy]);
  const [memoryFar, ...far] = measure(mediaSize, 65_536, (index) =>
    (index * 7919 % 1024) * stride + (index * 48_271 % 8192) * blockSize);
  row(`${size} TiB, 4 KiB in 1024 regions`, [memoryFar as string, '', ...far]);
}
