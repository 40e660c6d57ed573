/**
 * What may differ between the copies, and its durable record (rule: mark first, clear last).
 *
 * Two layers. `hot` extents: any block of them may differ; listed durably before the first write
 * into one, so that steady writing costs no metadata. `peerStale`: 4 KiB blocks the peer lacks.
 * An extent leaves the hot list only after the map pages of its region are durable with every
 * block that is not yet flushed on both copies.
 *
 * One commit at a time: map pages and the hot list first, then index pages, then whoever waited
 * goes on. An evicted extent stays in the list that is written with its pages, and is missing
 * from the next one.
 *
 * Hot path: mark() and unmark() run once per write.
 */
import { assert } from '../base/assert.ts';
import {
  encodeHotSlot, encodeIndexPage, encodeMapPage, regionBitBytes, RegionBit,
} from '../format/map-pages.ts';
import { limits } from '../format/limits.ts';
import type { Superblock } from '../format/superblock.ts';
import { BlockMap } from './block-map.ts';
import type { DiskPort, Done } from './ports.ts';
import type { LoadedMap } from './map-loader.ts';

interface HotExtent {
  extent: number;
  /** Writes between mark() and unmark(). */
  inFlight: number;
  /** Value of the use counter at the last write. */
  used: number;
  /** Listed in a hot slot that is durable. */
  durable: boolean;
}

/** A write that needs its extents hot; pooled by its owner. */
export interface MarkRequest {
  firstExtent: number;
  lastExtent: number;
  /** Called when mark() returned false and the extents are durably hot now. */
  onMarked(): void;
}

/** Blocks written but not yet flushed on both copies; owned by the peer's stream. */
export interface UnflushedBlocks {
  /** Sets the bits of `region` in `target`; true where there was one. */
  collect(region: number, target: Uint8Array): boolean;
  hasFull(region: number): boolean;
}

const nothingUnflushed: UnflushedBlocks = { collect: () => false, hasFull: () => false };

export class DirtyTracker {
  readonly peerStale: BlockMap;
  readonly extentSize: number;
  unflushed: UnflushedBlocks = nothingUnflushed;
  /** Commits so far: the original's "activemap updates". */
  updates = 0;

  readonly #disk: DiskPort;
  readonly #geometry: Readonly<Superblock>;
  readonly #onError: (errno: number) => void;
  readonly #hot = new Map<number, HotExtent>();
  /** One byte a region, as the index says it on disk. */
  readonly #regionState: Uint8Array;
  readonly #indexSlot: Uint8Array;
  /** Regions with blocks that no durable page holds; their extents are hot. */
  readonly #unwritten = new Set<number>();
  /** Regions whose durable page holds blocks that are clean by now. */
  readonly #excess = new Set<number>();
  #sequence: number;
  #useCounter = 0;
  #usedAtCheckpoint = 0;
  #committing = false;
  #broken = false;
  #waiting: MarkRequest[] = [];
  /** Callers of persist(): served by the next commit. */
  #persist: { regions: Set<number>; done: Done }[] = [];
  #evicted: number[] = [];
  #hotChanged = false;

  constructor(
    disk: DiskPort, geometry: Readonly<Superblock>, loaded: LoadedMap,
    onError: (errno: number) => void,
  ) {
    this.#disk = disk;
    this.#geometry = geometry;
    this.#onError = onError;
    this.extentSize = geometry.extentSize;
    this.peerStale = loaded.peerStale;
    this.#regionState = loaded.regionState;
    this.#indexSlot = loaded.indexSlot;
    this.#sequence = loaded.sequence;
    for (const region of loaded.inherited) this.#unwritten.add(region);
    // As if evicted just now: the first list names them still, beside the pages written with it.
    this.#evicted = [...loaded.hot];
    this.#hotChanged = loaded.hot.length > 0;
  }

  /** Extents listed as hot now. */
  get hotCount(): number {
    return this.#hot.size;
  }

  get isIdle(): boolean {
    return !this.#committing && this.#waiting.length === 0 && this.#persist.length === 0;
  }

  /** True: the extents are durably hot and held until unmark(). False: `onMarked` follows. */
  mark(request: MarkRequest): boolean {
    const { firstExtent, lastExtent } = request;
    for (let extent = firstExtent; extent <= lastExtent; extent++) {
      if (this.#hot.get(extent)?.durable !== true) {
        this.#waiting.push(request);
        if (!this.#committing) this.#commit();
        return false;
      }
    }
    this.#hold(firstExtent, lastExtent);
    return true;
  }

  unmark(request: MarkRequest): void {
    for (let extent = request.firstExtent; extent <= request.lastExtent; extent++) {
      const entry = this.#hot.get(extent);
      assert(entry !== undefined && entry.inFlight > 0, 'an unmarked extent was held');
      entry.inFlight--;
    }
    if (this.#waiting.length > 0 && !this.#committing) this.#commit();
  }

  /** The bytes now differ, or are not flushed on both copies: the region's page is behind. */
  touch(offset: number, length: number): void {
    const first = Math.floor(offset / limits.regionSize);
    const last = Math.floor((offset + length - 1) / limits.regionSize);
    for (let region = first; region <= last; region++) this.#unwritten.add(region);
  }

  /** The peer lacks these bytes. Their extents must be hot. */
  setStale(offset: number, length: number): void {
    this.peerStale.setRange(offset, length);
    this.touch(offset, length);
  }

  /** As setStale, for all blocks of `map`; their extents are hot or in durable pages. */
  mergeStale(map: BlockMap): void {
    for (const region of map.regions()) this.#unwritten.add(region);
    this.peerStale.merge(map);
  }

  /**
   * The peer says that these blocks of a region differ (null: all). Not durable before
   * persistAll().
   */
  setRegionStale(region: number, bits: Uint8Array | null): void {
    if (bits === null) this.peerStale.setFull(region);
    else this.peerStale.mergeBits(region, bits);
    this.#unwritten.add(region);
  }

  /** Every block may differ. Not durable before persistAll(). */
  setAllStale(): void {
    this.peerStale.setAll();
    for (const region of this.peerStale.regions()) this.#unwritten.add(region);
  }

  /** Makes every mark that is not yet in its page durable. */
  persistAll(done: Done): void {
    this.persist(new Set(this.#unwritten), done);
  }

  forgetUnflushed(): void {
    this.unflushed = nothingUnflushed;
  }

  /** These blocks were sent to the peer (their flush is `unflushed`'s business). */
  clearStale(offset: number, length: number): void {
    this.peerStale.clearRange(offset, length);
    const first = Math.floor(offset / limits.regionSize);
    const last = Math.floor((offset + length - 1) / limits.regionSize);
    for (let region = first; region <= last; region++) this.#excess.add(region);
  }

  /** Blocks were flushed on both copies: pages that still list them may be rewritten. */
  covered(regions: Iterable<number>): void {
    for (const region of regions) {
      if (this.#regionState[region] !== 0) this.#excess.add(region);
    }
  }

  /**
   * Makes the marks of all regions in `regions` durable in their pages. `done` may come at once
   * where nothing is to be written; it never comes after a failure (`onError` does).
   */
  persist(regions: Iterable<number>, done: Done): void {
    this.#persist.push({ regions: new Set(regions), done });
    if (!this.#committing) this.#commit();
  }

  /**
   * Lets go of hot extents without a write since the last checkpoint and of marks that are
   * clean, with one commit; an idle volume ends with nothing marked after two.
   */
  checkpoint(done: Done): void {
    const regions = new Set(this.#excess);
    this.#excess.clear();
    for (const entry of this.#hot.values()) {
      if (entry.inFlight === 0 && entry.used <= this.#usedAtCheckpoint) this.#evict(entry);
    }
    this.#usedAtCheckpoint = this.#useCounter;
    if (regions.size === 0 && this.#evicted.length === 0 && !this.#hotChanged) done(0);
    else this.persist(regions, done);
  }

  /** Lets go of every hot extent without a write in flight; their marks go to the map pages. */
  releaseHot(done: Done): void {
    for (const entry of this.#hot.values()) if (entry.inFlight === 0) this.#evict(entry);
    this.persist(new Set([...this.#unwritten, ...this.#excess]), () => {
      // The list just written still names what was evicted with it.
      this.persist([], done);
    });
  }

  /** Forgets every mark: this copy is equal to the peer's now. Durable when `done` comes. */
  clearAll(done: Done): void {
    const regions = new Set<number>(this.#unwritten);
    for (let region = 0; region < this.#regionState.length; region++) {
      if (this.#regionState[region] !== 0) regions.add(region);
    }
    this.peerStale.clearAll();
    for (const entry of this.#hot.values()) if (entry.inFlight === 0) this.#evict(entry);
    this.persist(regions, done);
  }

  /** Every block of these extents may differ: what a sync target tells its source. */
  hotExtents(): number[] {
    return [...this.#hot.keys()];
  }

  #hold(firstExtent: number, lastExtent: number): void {
    const used = ++this.#useCounter;
    for (let extent = firstExtent; extent <= lastExtent; extent++) {
      const entry = this.#hot.get(extent) as HotExtent;
      entry.inFlight++;
      entry.used = used;
    }
  }

  #evict(entry: HotExtent): void {
    this.#hot.delete(entry.extent);
    this.#evicted.push(entry.extent);
    this.#hotChanged = true;
  }

  /** Makes room for `count` more extents; false where too many are in use. */
  #makeRoom(count: number): boolean {
    const max = this.#geometry.keepDirty;
    if (this.#hot.size + count <= max) return true;
    const idle = [...this.#hot.values()].filter((entry) => entry.inFlight === 0);
    const missing = this.#hot.size + count - max;
    if (idle.length < missing) return false;
    // A few more than asked for: random writers would pay a commit for each otherwise.
    const take = Math.min(idle.length, Math.max(missing, max >> 4));
    // What is evicted stays in the slot once more, which has room for as many again.
    if (this.#evicted.length + take > max) return false;
    idle.sort((one, other) => one.used - other.used);
    for (let index = 0; index < take; index++) this.#evict(idle[index] as HotExtent);
    return true;
  }

  #gather(): MarkRequest[] {
    const batch: MarkRequest[] = [];
    let taken = 0;
    for (const request of this.#waiting) {
      const { firstExtent, lastExtent } = request;
      let missing = 0;
      for (let extent = firstExtent; extent <= lastExtent; extent++) {
        if (this.#hot.has(extent)) (this.#hot.get(extent) as HotExtent).inFlight++;
        else missing++;
      }
      const fits = this.#makeRoom(missing);
      for (let extent = firstExtent; extent <= lastExtent; extent++) {
        const entry = this.#hot.get(extent);
        if (entry !== undefined) {
          if (!fits) entry.inFlight--;
        } else if (fits) {
          this.#hot.set(extent, { extent, inFlight: 1, used: 0, durable: false });
          this.#hotChanged = true;
        }
      }
      if (!fits) break;
      const used = ++this.#useCounter;
      for (let extent = firstExtent; extent <= lastExtent; extent++) {
        (this.#hot.get(extent) as HotExtent).used = used;
      }
      batch.push(request);
      taken++;
    }
    this.#waiting = this.#waiting.slice(taken);
    return batch;
  }

  #commit(): void {
    if (this.#broken) return;
    const batch = this.#gather();
    const persist = this.#persist;
    if (batch.length === 0 && persist.length === 0) return;
    this.#persist = [];
    this.#committing = true;
    const regions = new Set<number>();
    for (const one of persist) for (const region of one.regions) regions.add(region);
    const perRegion = limits.regionSize / this.extentSize;
    for (const extent of this.#evicted) {
      const region = Math.floor(extent / perRegion);
      if (this.#unwritten.has(region)) regions.add(region);
    }
    const finish = (): void => {
      this.#committing = false;
      for (const entry of this.#hot.values()) entry.durable = true;
      for (const one of persist) one.done(0);
      for (const request of batch) request.onMarked();
      const more = this.#waiting.length > 0 || this.#persist.length > 0;
      if (more && !this.#committing) this.#commit();
    };
    if (!this.#hotChanged && regions.size === 0) {
      finish();
      return;
    }
    this.updates++;
    const indexPages = new Set<number>();
    const writes = this.#pageWrites(regions, indexPages);
    if (this.#hotChanged) writes.push(this.#hotWrite());
    this.#writeAll(writes, () => {
      if (indexPages.size === 0) finish();
      else this.#writeAll([...indexPages].map((page) => this.#indexWrite(page)), finish);
    });
  }

  #hotWrite(): { offset: number; raw: Buffer } {
    const { hotSlotSize, hotSlotCount, hotOffset, copyId } = this.#geometry;
    const sequence = ++this.#sequence;
    const extents = new Set([...this.#hot.keys(), ...this.#evicted]);
    this.#evicted = [];
    // The next list differs where this one still names what was evicted.
    this.#hotChanged = extents.size !== this.#hot.size;
    return {
      offset: hotOffset + (sequence % hotSlotCount) * hotSlotSize,
      raw: encodeHotSlot(hotSlotSize, { copyId, number: 0, sequence }, [...extents]),
    };
  }

  /** Images of the regions' pages; notes in `indexPages` whose index entry changes. */
  #pageWrites(
    regions: Set<number>, indexPages: Set<number>,
  ): { offset: number; raw: Buffer }[] {
    const writes: { offset: number; raw: Buffer }[] = [];
    for (const region of regions) {
      this.#unwritten.delete(region);
      const state = this.#pageImage(region, writes);
      if (state !== this.#regionState[region]) {
        this.#regionState[region] = state;
        indexPages.add(Math.floor(region / limits.regionsPerIndexPage));
      }
    }
    return writes;
  }

  /** The region's new index state; adds its page to `writes` where it has one. */
  #pageImage(region: number, writes: { offset: number; raw: Buffer }[]): number {
    if (this.peerStale.isFull(region) || this.unflushed.hasFull(region)) {
      if (!this.peerStale.isFull(region)) this.#excess.add(region);
      return RegionBit.peerFull;
    }
    const bits = new Uint8Array(regionBitBytes);
    const own = this.peerStale.bits(region);
    if (own !== null) bits.set(own);
    // What is only waiting for a flush will be clean soon: look at the region again then.
    if (this.unflushed.collect(region, bits)) this.#excess.add(region);
    else if (own === null) return 0;
    const { mapOffset, copyId } = this.#geometry;
    const identity = { copyId, number: region, sequence: ++this.#sequence };
    writes.push({
      offset: mapOffset + region * limits.mapPageSize,
      raw: encodeMapPage(identity, bits, null),
    });
    return RegionBit.page;
  }

  #indexWrite(page: number): { offset: number; raw: Buffer } {
    const { indexOffset, copyId } = this.#geometry;
    const slot = 1 - (this.#indexSlot[page] ?? 0);
    this.#indexSlot[page] = slot;
    const from = page * limits.regionsPerIndexPage;
    const states = this.#regionState.subarray(from, from + limits.regionsPerIndexPage);
    const identity = { copyId, number: page, sequence: ++this.#sequence };
    return {
      offset: indexOffset + (page * 2 + slot) * limits.mapPageSize,
      raw: encodeIndexPage(identity, states),
    };
  }

  #writeAll(writes: { offset: number; raw: Buffer }[], done: () => void): void {
    let left = writes.length;
    if (left === 0) {
      done();
      return;
    }
    let failed = 0;
    const one = (errno: number): void => {
      if (errno !== 0) failed = errno;
      if (--left > 0) return;
      if (failed === 0) {
        done();
        return;
      }
      // Nothing that waits for a mark may go on: the owner fails every pending request.
      this.#broken = true;
      this.#onError(failed);
    };
    for (const write of writes) this.#disk.writeDurable(write.offset, write.raw, one);
  }
}
