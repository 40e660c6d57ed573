/**
 * Reads the dirty map at start. What cannot be read counts as "all of it may differ", that is
 * stale at the peer; whether it may be stale here too only the caller knows (`damagedRegions`):
 * - no valid hot list, or an index page without a valid copy: every block it speaks of;
 * - a map page that the index counts and that is torn or foreign: its whole region.
 * Hot lists and index pages are kept twice: what only one copy says counts, and is written twice
 * by the first writes of the map.
 * Extents found hot become stale blocks: they are cleared only by copying.
 */
import { decodeHotSlot, decodeIndexPage, decodeMapPage, RegionBit } from '../format/map-pages.ts';
import { limits, MiB } from '../format/limits.ts';
import type { Superblock } from '../format/superblock.ts';
import { BlockMap } from './block-map.ts';
import type { HandedDown } from './peer-marks.ts';
import type { DiskPort } from './ports.ts';

export interface LoadedMap {
  peerStale: BlockMap;
  localStale: BlockMap;
  regionState: Uint8Array;
  /** Which of the two copies of each index page is the newer one. */
  indexSlot: Uint8Array;
  /** Index pages whose two copies are not the same, or not readable. */
  indexRepairs: Set<number>;
  /** Which pair of hot slots holds the newest list. */
  hotPair: number;
  /** How many slots of that pair hold it: 0 where no list is readable at all. */
  hotCopies: 0 | 1 | 2;
  /** The highest sequence found. */
  sequence: number;
  /** Regions whose marks are not in their page as they are in memory. */
  inherited: Set<number>;
  /** Extents the newest list names: it stays in force until their marks are in pages. */
  hot: number[];
  /** What could not be read, for the log. */
  damage: string[];
  /** Regions that `damage` speaks of: marks of blocks stale here may be missing for them. */
  damagedRegions: Set<number>;
  /** Not on disk: what the process before left of what the peer has executed. */
  handedDown: HandedDown | null;
}

type LoadDone = (errno: number, loaded: LoadedMap) => void;

class MapLoader {
  readonly #disk: DiskPort;
  readonly #geometry: Readonly<Superblock>;
  readonly #done: LoadDone;
  readonly #loaded: LoadedMap;
  #failed = false;

  constructor(disk: DiskPort, geometry: Readonly<Superblock>, done: LoadDone) {
    this.#disk = disk;
    this.#geometry = geometry;
    this.#done = done;
    this.#loaded = {
      peerStale: new BlockMap(geometry.mediaSize),
      localStale: new BlockMap(geometry.mediaSize),
      regionState: new Uint8Array(geometry.regionCount),
      indexSlot: new Uint8Array(geometry.indexPageCount),
      indexRepairs: new Set(),
      hotPair: 0,
      hotCopies: 0,
      sequence: 0,
      inherited: new Set(),
      hot: [],
      damage: [],
      damagedRegions: new Set(),
      handedDown: null,
    };
  }

  start(): void {
    const { hotOffset, hotSlotSize, hotSlotCount } = this.#geometry;
    this.#read(hotOffset, hotSlotSize * hotSlotCount, (raw) => {
      this.#takeHot(raw);
      this.#nextIndex(0);
    });
  }

  #read(offset: number, length: number, then: (raw: Buffer) => void): void {
    const raw = Buffer.alloc(length);
    this.#disk.read(offset, raw, 0, length, (errno) => {
      if (this.#failed) return;
      if (errno === 0) {
        then(raw);
        return;
      }
      this.#failed = true;
      this.#done(errno, this.#loaded);
    });
  }

  #takeHot(raw: Buffer): void {
    const { hotSlotSize, hotSlotCount, copyId, extentSize, mediaSize } = this.#geometry;
    let best: { sequence: number; extents: number[] } | null = null;
    for (let slot = 0; slot < hotSlotCount; slot++) {
      const one = decodeHotSlot(raw.subarray(slot * hotSlotSize, (slot + 1) * hotSlotSize), copyId);
      if (one === null || (best !== null && one.sequence < best.sequence)) continue;
      const pair = slot >> 1;
      const isTwin = one.sequence === best?.sequence && pair === this.#loaded.hotPair;
      this.#loaded.hotCopies = isTwin ? 2 : 1;
      this.#loaded.hotPair = pair;
      best = one;
    }
    if (best === null) {
      this.#loaded.damage.push('no hot extent list is readable');
      for (let region = 0; region < this.#geometry.regionCount; region++) this.#damaged(region);
      return;
    }
    this.#loaded.sequence = best.sequence;
    for (const extent of best.extents) {
      const offset = extent * extentSize;
      if (offset >= mediaSize) continue;
      this.#loaded.hot.push(extent);
      this.#loaded.peerStale.setRange(offset, Math.min(extentSize, mediaSize - offset));
      this.#loaded.inherited.add(Math.floor(offset / limits.regionSize));
    }
  }

  #nextIndex(page: number): void {
    const { indexPageCount, indexOffset, regionCount, copyId } = this.#geometry;
    if (page >= indexPageCount) {
      this.#loadPages();
      return;
    }
    const size = limits.mapPageSize;
    const count = Math.min(indexPageCount - page, MiB / (2 * size));
    this.#read(indexOffset + page * 2 * size, count * 2 * size, (raw) => {
      for (let index = 0; index < count; index++) {
        const number = page + index;
        const at = index * 2 * size;
        const one = decodeIndexPage(raw.subarray(at, at + size), copyId, number);
        const two = decodeIndexPage(raw.subarray(at + size, at + 2 * size), copyId, number);
        this.#takeIndex(number, one, two, regionCount);
      }
      this.#nextIndex(page + count);
    });
  }

  #takeIndex(
    page: number, one: { sequence: number; states: Uint8Array } | null,
    two: { sequence: number; states: Uint8Array } | null, regionCount: number,
  ): void {
    const first = page * limits.regionsPerIndexPage;
    const last = Math.min(first + limits.regionsPerIndexPage, regionCount);
    const newer = two !== null && (one === null || two.sequence > one.sequence) ? two : one;
    if (one?.sequence !== two?.sequence || one === null) this.#loaded.indexRepairs.add(page);
    this.#loaded.indexSlot[page] = newer === two && two !== null ? 1 : 0;
    if (newer === null) {
      this.#loaded.damage.push(`index page ${page} is unreadable`);
      for (let region = first; region < last; region++) this.#damaged(region);
      return;
    }
    this.#loaded.sequence = Math.max(this.#loaded.sequence, newer.sequence);
    for (let region = first; region < last; region++) {
      const state = newer.states[region - first] ?? 0;
      this.#loaded.regionState[region] = state;
      if ((state & RegionBit.peerFull) !== 0) this.#loaded.peerStale.setFull(region);
      if ((state & RegionBit.localFull) !== 0) this.#loaded.localStale.setFull(region);
    }
  }

  #loadPages(): void {
    const regions: number[] = [];
    this.#loaded.regionState.forEach((state, region) => {
      const counts = (state & RegionBit.page) !== 0;
      if (counts) regions.push(region);
    });
    let next = 0;
    let running = 0;
    const step = (): void => {
      while (running < 32 && next < regions.length) {
        const region = regions[next++] as number;
        running++;
        this.#loadPage(region, () => {
          running--;
          step();
        });
      }
      if (running === 0 && next === regions.length) this.#done(0, this.#loaded);
    };
    step();
  }

  #loadPage(region: number, then: () => void): void {
    const { mapOffset, copyId } = this.#geometry;
    this.#read(mapOffset + region * limits.mapPageSize, limits.mapPageSize, (raw) => {
      const page = decodeMapPage(raw, copyId, region);
      if (page === null) {
        this.#loaded.damage.push(`map page ${region} is unreadable`);
        this.#damaged(region);
      } else {
        this.#loaded.sequence = Math.max(this.#loaded.sequence, page.sequence);
        this.#loaded.peerStale.mergeBits(region, page.peerStale);
        this.#loaded.localStale.mergeBits(region, page.localStale);
      }
      then();
    });
  }

  #damaged(region: number): void {
    this.#loaded.peerStale.setFull(region);
    this.#loaded.inherited.add(region);
    this.#loaded.damagedRegions.add(region);
  }
}

/** Calls `done` with errno 0 and the map, or with the errno of a read that failed. */
export function loadMap(disk: DiskPort, geometry: Readonly<Superblock>, done: LoadDone): void {
  new MapLoader(disk, geometry, done).start();
}
