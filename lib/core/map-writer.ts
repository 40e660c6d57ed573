/**
 * Writes the dirty map: hot lists, and beside them pages, then the index pages that change.
 *
 * - One list and one group of pages at a time: nothing is written twice at once.
 * - A hot list fills two neighbouring slots with the same bytes, in one write. The newest pair is
 *   never written over: a torn one leaves its predecessor.
 * - Both copies of an index page get the same bytes, one after the other: at rest they are equal,
 *   and one of them is whole at any time.
 * - A page holds every block of a direction that the index calls full, so that whichever index
 *   a crash leaves beside it, nothing is missing.
 * - A flush comes before all of it: what was read at start may have been visible in the
 *   cache of a killed process and not durable, and the copies it superseded are written over.
 */
import {
  encodeHotSlot, encodeIndexPage, encodeMapPage, regionBitBytes, RegionBit,
} from '../format/map-pages.ts';
import { limits } from '../format/limits.ts';
import type { Superblock } from '../format/superblock.ts';
import type { LoadedMap } from './map-loader.ts';
import type { DiskPort, DurableWrite } from './ports.ts';

/** A region in one direction: 1024 bytes of bits, every block, or none. */
export type RegionMarks = Uint8Array | 'full' | null;

/** The marks that a region's page and index entry must hold. */
export interface RegionImage {
  peer: RegionMarks;
  local: RegionMarks;
}

/** What goes on beside each other. */
const Lane = { list: 0, pages: 1 } as const;
type Lane = (typeof Lane)[keyof typeof Lane];

/** Pages under way at once, 4 KiB each: bounds the memory of a group. */
const writesMax = 1024;

/** Pages whose memory is kept: as many as leave together while writers come, and more. */
const pooledMax = 128;

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
  #sequence: number;
  /** A pair: memory for the one list that is written at a time. */
  readonly #slots: Buffer;
  readonly #pagePool: Buffer[] = [];
  #isSynced = false;
  #isAbandoned = false;
  /** When the oldest write of each lane was issued. */
  readonly #since: [number | null, number | null] = [null, null];

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
    this.#sequence = loaded.sequence;
    this.#slots = Buffer.alloc(2 * geometry.hotSlotSize);
  }

  /** When the oldest write (or flush) still under way was issued; null: none, or no clock. */
  get oldestWrite(): number | null {
    const [list, pages] = this.#since;
    return list === null || pages === null ? list ?? pages : Math.min(list, pages);
  }

  /** False until what was read at start is known to be durable: until sync() has ended. */
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
    this.#since.fill(null);
  }

  /** Once, before anything is written. Nothing comes after an error. */
  sync(done: () => void): void {
    this.#begins(Lane.pages);
    this.#disk.flush((errno) => {
      if (this.#isAbandoned) return;
      this.#since[Lane.pages] = null;
      if (errno !== 0) {
        this.#onError(errno);
        return;
      }
      this.#isSynced = true;
      done();
    });
  }

  /** Makes the list durable, in the pair of slots after the newest one's. */
  writeList(extents: readonly number[], done: () => void): void {
    const { hotSlotSize, hotSlotCount, hotOffset, copyId } = this.#geometry;
    this.#hotPair = (this.#hotPair + 1) % (hotSlotCount / 2);
    const identity = { copyId, number: 0, sequence: ++this.#sequence };
    const raw = this.#slots;
    encodeHotSlot(hotSlotSize, identity, extents, raw.subarray(0, hotSlotSize));
    raw.copy(raw, hotSlotSize, 0, hotSlotSize);
    const offset = hotOffset + this.#hotPair * 2 * hotSlotSize;
    this.#writeAll(Lane.list, [{ offset, raw }].values(), done);
  }

  /**
   * Makes the pages of `regions` durable, then the index. The first call must name every region
   * with inherited marks; it repairs what was read once only. `imageOf` is asked when a page is
   * made, and its answer used at once. `done` may come at once where nothing is to be written;
   * it never comes after an error.
   */
  writePages(
    regions: Iterable<number>, imageOf: (region: number) => RegionImage, done: () => void,
  ): void {
    const indexPages = this.#indexRepairs;
    this.#indexRepairs = new Set();
    this.#writeAll(Lane.pages, this.#pageWrites(regions, imageOf, indexPages), () => {
      const sequence = ++this.#sequence;
      this.#writeAll(Lane.pages, this.#indexWrites(indexPages, 1, sequence), () => {
        this.#writeAll(Lane.pages, this.#indexWrites(indexPages, 0, sequence), done);
      });
    });
  }

  /** Notes in `indexPages` whose index entry changes. */
  *#pageWrites(
    regions: Iterable<number>, imageOf: (region: number) => RegionImage, indexPages: Set<number>,
  ): Generator<DurableWrite, void> {
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
        raw: encodeMapPage(identity, bitsOf(peer), bitsOf(local), this.#pagePool.pop()),
      };
    }
  }

  /** One copy of each page: `turn` 1 the older or unreadable one, then 0 the other. */
  *#indexWrites(
    pages: Iterable<number>, turn: 0 | 1, sequence: number,
  ): Generator<DurableWrite, void> {
    const { indexOffset, copyId } = this.#geometry;
    for (const page of pages) {
      const slot = (this.#indexSlot[page] ?? 0) ^ turn;
      const from = page * limits.regionsPerIndexPage;
      const states = this.#regionState.subarray(from, from + limits.regionsPerIndexPage);
      yield {
        offset: indexOffset + (page * 2 + slot) * limits.mapPageSize,
        raw: encodeIndexPage({ copyId, number: page, sequence }, states),
      };
    }
  }

  #writeAll(lane: Lane, writes: Iterator<DurableWrite, void>, done: () => void): void {
    const wave: DurableWrite[] = [];
    for (let next = writes.next(); next.done !== true; next = writes.next()) {
      wave.push(next.value);
      if (wave.length === writesMax) break;
    }
    if (wave.length === 0) {
      done();
      return;
    }
    this.#begins(lane);
    this.#disk.writeAllDurable(wave, (errno) => {
      if (this.#isAbandoned) return;
      this.#since[lane] = null;
      if (lane === Lane.pages) this.#takeBack(wave);
      if (errno === 0) this.#writeAll(lane, writes, done);
      else this.#onError(errno);
    });
  }

  /** Memory of pages that are durable. */
  #takeBack(wave: readonly DurableWrite[]): void {
    for (const { raw } of wave) if (this.#pagePool.length < pooledMax) this.#pagePool.push(raw);
  }

  #begins(lane: Lane): void {
    this.#since[lane] = this.#now === null ? null : this.#now();
  }
}
