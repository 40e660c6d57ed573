/**
 * Writes the dirty map: pages and the hot list, then the index pages that change.
 *
 * - One commit at a time: no page is written twice at once.
 * - A hot list fills two neighbouring slots with the same bytes, in one write. The newest pair is
 *   never written over: a torn one leaves its predecessor.
 * - Both copies of an index page get the same bytes, one after the other: at rest they are equal,
 *   and one of them is whole at any time.
 * - A page holds every block of a direction that the index calls full, so that whichever index
 *   a crash leaves beside it, nothing is missing.
 * - The first commit begins with a flush: what was read at start may have been visible in the
 *   cache of a killed process and not durable, and the copies it superseded are written over.
 */
import {
  encodeHotSlot, encodeIndexPage, encodeMapPage, regionBitBytes, RegionBit,
} from '../format/map-pages.ts';
import { limits } from '../format/limits.ts';
import type { Superblock } from '../format/superblock.ts';
import type { LoadedMap } from './map-loader.ts';
import type { DiskPort } from './ports.ts';

/** A region in one direction: 1024 bytes of bits, every block, or none. */
export type RegionMarks = Uint8Array | 'full' | null;

/** The marks that a region's page and index entry must hold. */
export interface RegionImage {
  peer: RegionMarks;
  local: RegionMarks;
}

interface PageWrite {
  offset: number;
  raw: Buffer;
  /** Called when it is durable, before the writes beside it are. */
  durable: (() => void) | null;
}

/** Writes under way at once (4 KiB each, and one pair of hot slots): bounds a commit's memory. */
const writesMax = 1024;

const everyBlock = new Uint8Array(regionBitBytes).fill(0xff);

function bitsOf(marks: RegionMarks): Uint8Array | null {
  return marks === 'full' ? everyBlock : marks;
}

export class MapWriter {
  readonly #disk: DiskPort;
  readonly #geometry: Readonly<Superblock>;
  readonly #now: (() => number) | null;
  readonly #onError: (errno: number) => void;
  /** One byte a region, as the index says it on disk. */
  readonly #regionState: Uint8Array;
  /** Which copy of each index page is written last. */
  readonly #indexSlot: Uint8Array;
  #indexRepairs: Set<number>;
  #hotPair: number;
  #hasHotList: boolean;
  #sequence: number;
  #isSynced = false;
  #isAbandoned = false;
  #oldestWrite: number | null = null;

  constructor(
    disk: DiskPort, geometry: Readonly<Superblock>, loaded: LoadedMap,
    now: (() => number) | null, onError: (errno: number) => void,
  ) {
    this.#disk = disk;
    this.#geometry = geometry;
    this.#now = now;
    this.#onError = onError;
    this.#regionState = loaded.regionState;
    this.#indexSlot = loaded.indexSlot;
    this.#indexRepairs = loaded.indexRepairs;
    this.#hotPair = loaded.hotPair;
    this.#hasHotList = loaded.hotCopies > 0;
    this.#sequence = loaded.sequence;
  }

  /** When the oldest write (or flush) still under way was issued; null: none, or no clock. */
  get oldestWrite(): number | null {
    return this.#oldestWrite;
  }

  /** False until what was read at start is known to be durable: until the first commit. */
  get isSynced(): boolean {
    return this.#isSynced;
  }

  /** Regions whose index entry is not zero. */
  *regions(): Generator<number> {
    for (let region = 0; region < this.#regionState.length; region++) {
      if (this.#regionState[region] !== 0) yield region;
    }
  }

  hasMarks(region: number): boolean {
    return this.#regionState[region] !== 0;
  }

  /** Nothing is written or called any more. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#oldestWrite = null;
  }

  /**
   * Makes the pages of `regions` and the hot list (null: as it was) durable, then the index. The
   * first commit must name every region with inherited marks; it repairs what was read once only.
   * `imageOf` is asked when a page is made, and its answer used at once. `listed` comes when the
   * list is durable, mostly well before the rest. Both may come at once where nothing is to be
   * written; they never come after an error.
   */
  commit(
    regions: Iterable<number>, imageOf: (region: number) => RegionImage,
    hot: readonly number[] | null, listed: () => void, done: () => void,
  ): void {
    if (!this.#isSynced) {
      this.#sync(() => this.commit(regions, imageOf, hot, listed, done));
      return;
    }
    if (hot === null) listed();
    const indexPages = this.#indexRepairs;
    this.#indexRepairs = new Set();
    // While no list is readable everything counts as hot: until the pages and the index say so.
    const lateHot = this.#hasHotList ? null : hot;
    const earlyHot = this.#hasHotList ? hot : null;
    this.#writeAll(this.#pageWrites(regions, imageOf, indexPages, earlyHot, listed), () => {
      const sequence = ++this.#sequence;
      this.#writeAll(this.#indexWrites(indexPages, 1, sequence), () => {
        this.#writeAll(this.#indexWrites(indexPages, 0, sequence), () => {
          this.#writeAll(this.#hotWrites(lateHot, listed), done);
        });
      });
    });
  }

  #sync(then: () => void): void {
    this.#oldestWrite = this.#now === null ? null : this.#now();
    this.#disk.flush((errno) => {
      if (this.#isAbandoned) return;
      this.#oldestWrite = null;
      if (errno !== 0) {
        this.#onError(errno);
        return;
      }
      this.#isSynced = true;
      then();
    });
  }

  /** Notes in `indexPages` whose index entry changes. */
  *#pageWrites(
    regions: Iterable<number>, imageOf: (region: number) => RegionImage, indexPages: Set<number>,
    hot: readonly number[] | null, listed: () => void,
  ): Generator<PageWrite, void> {
    yield* this.#hotWrites(hot, listed);
    for (const region of regions) {
      const { peer, local } = imageOf(region);
      const hasPage = (peer !== null && peer !== 'full') || (local !== null && local !== 'full');
      const state = (hasPage ? RegionBit.page : 0) |
        (peer === 'full' ? RegionBit.peerFull : 0) | (local === 'full' ? RegionBit.localFull : 0);
      if (state !== this.#regionState[region]) {
        this.#regionState[region] = state;
        indexPages.add(Math.floor(region / limits.regionsPerIndexPage));
      }
      if (!hasPage) continue;
      const { mapOffset, copyId } = this.#geometry;
      const identity = { copyId, number: region, sequence: ++this.#sequence };
      yield {
        offset: mapOffset + region * limits.mapPageSize,
        raw: encodeMapPage(identity, bitsOf(peer), bitsOf(local)),
        durable: null,
      };
    }
  }

  /** The pair of slots after the newest list's, in one write; nothing where there is no list. */
  *#hotWrites(
    extents: readonly number[] | null, durable: () => void,
  ): Generator<PageWrite, void> {
    if (extents === null) return;
    const { hotSlotSize, hotSlotCount, hotOffset, copyId } = this.#geometry;
    this.#hasHotList = true;
    this.#hotPair = (this.#hotPair + 1) % (hotSlotCount / 2);
    const identity = { copyId, number: 0, sequence: ++this.#sequence };
    const slot = encodeHotSlot(hotSlotSize, identity, extents);
    yield {
      offset: hotOffset + this.#hotPair * 2 * hotSlotSize,
      raw: Buffer.concat([slot, slot]),
      durable,
    };
  }

  /** One copy of each page: `turn` 1 the older or unreadable one, then 0 the other. */
  *#indexWrites(
    pages: Iterable<number>, turn: 0 | 1, sequence: number,
  ): Generator<PageWrite, void> {
    const { indexOffset, copyId } = this.#geometry;
    for (const page of pages) {
      const slot = (this.#indexSlot[page] ?? 0) ^ turn;
      const from = page * limits.regionsPerIndexPage;
      const states = this.#regionState.subarray(from, from + limits.regionsPerIndexPage);
      yield {
        offset: indexOffset + (page * 2 + slot) * limits.mapPageSize,
        raw: encodeIndexPage({ copyId, number: page, sequence }, states),
        durable: null,
      };
    }
  }

  #writeAll(writes: Iterator<PageWrite, void>, done: () => void): void {
    const wave: PageWrite[] = [];
    for (let next = writes.next(); next.done !== true; next = writes.next()) {
      wave.push(next.value);
      if (wave.length === writesMax) break;
    }
    let left = wave.length;
    if (left === 0) {
      done();
      return;
    }
    let failed = 0;
    const one = (write: PageWrite, errno: number): void => {
      if (this.#isAbandoned) return;
      if (errno !== 0) failed = errno;
      else write.durable?.();
      // The disk may have been given up because of it.
      if (this.#isAbandoned) return;
      if (--left > 0) return;
      this.#oldestWrite = null;
      if (failed === 0) this.#writeAll(writes, done);
      else this.#onError(failed);
    };
    this.#oldestWrite = this.#now === null ? null : this.#now();
    for (const write of wave) {
      this.#disk.writeDurable(write.offset, write.raw, (errno) => one(write, errno));
    }
  }
}
