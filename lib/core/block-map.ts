/**
 * A set of 4 KiB blocks of the volume, kept region by region (32 MiB): memory follows what is
 * set, not the volume's size. A region is absent (no block), a page of bits, or full. Above
 * `pagesMax` pages a further region is taken as full: more may be copied, never less.
 *
 * Hot path: setRange() runs once per write; figures as in dirty-tracker.ts.
 */
import { assert } from '../base/assert.ts';
import { limits } from '../format/limits.ts';
import { regionBitBytes } from '../format/map-pages.ts';
import { RegionSet } from './region-set.ts';

const blocksPerRegion = limits.regionSize / limits.blockSize;

const bitCount = new Uint8Array(256);
for (let value = 1; value < 256; value++) {
  bitCount[value] = (bitCount[value >> 1] ?? 0) + (value & 1);
}

interface Page {
  bits: Uint8Array;
  count: number;
}

export class BlockMap {
  readonly blockCount: number;
  readonly regionCount: number;
  readonly #pagesMax: number;
  readonly #pages = new Map<number, Page>();
  readonly #full: RegionSet;
  #count = 0;

  /** `mediaSize` in bytes; `pagesMax` bounds the memory (1 KiB and a little each). */
  constructor(mediaSize: number, pagesMax: number = limits.mapPagesMax) {
    this.blockCount = Math.ceil(mediaSize / limits.blockSize);
    this.regionCount = Math.ceil(mediaSize / limits.regionSize);
    this.#pagesMax = pagesMax;
    this.#full = new RegionSet(this.regionCount);
  }

  /** Blocks in the set. */
  get count(): number {
    return this.#count;
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Regions with at least one block, in no order. */
  *regions(): Generator<number> {
    yield* this.#pages.keys();
    yield* this.#full;
  }

  regionBlocks(region: number): number {
    return Math.min(blocksPerRegion, this.blockCount - region * blocksPerRegion);
  }

  isFull(region: number): boolean {
    return this.#full.has(region);
  }

  /** The region's bits, by reference; null where it has none or is full. */
  bits(region: number): Uint8Array | null {
    return this.#pages.get(region)?.bits ?? null;
  }

  hasRegion(region: number): boolean {
    return this.#full.has(region) || this.#pages.has(region);
  }

  has(block: number): boolean {
    const region = Math.floor(block / blocksPerRegion);
    if (this.#full.has(region)) return true;
    const page = this.#pages.get(region);
    if (page === undefined) return false;
    const at = block - region * blocksPerRegion;
    return ((page.bits[at >> 3] ?? 0) & (1 << (at & 7))) !== 0;
  }

  /** Adds every block that the bytes `offset`..`offset + length` touch. */
  setRange(offset: number, length: number): void {
    const from = Math.floor(offset / limits.blockSize);
    const to = Math.min(this.blockCount, Math.ceil((offset + length) / limits.blockSize));
    this.#eachRegion(from, to, this.#setInRegion);
  }

  /** Removes every block that lies wholly within the bytes `offset`..`offset + length`. */
  clearRange(offset: number, length: number): void {
    const from = Math.ceil(offset / limits.blockSize);
    this.#eachRegion(from, this.#endWithin(offset + length), this.#clearInRegion);
  }

  /** True where a block that the bytes `offset`..`offset + length` touch is set. */
  touches(offset: number, length: number): boolean {
    if (this.#count === 0) return false;
    const to = Math.min(this.blockCount, Math.ceil((offset + length) / limits.blockSize));
    for (let at = Math.floor(offset / limits.blockSize); at < to;) {
      const region = Math.floor(at / blocksPerRegion);
      const start = region * blocksPerRegion;
      const end = Math.min(to, start + blocksPerRegion);
      const found = this.#nextInRegion(region, at - start);
      if (found >= 0 && found < end) return true;
      at = end;
    }
    return false;
  }

  /** True where every block that the bytes `offset`..`offset + length` touch is set. */
  covers(offset: number, length: number): boolean {
    const first = Math.floor(offset / limits.blockSize);
    const count = Math.ceil((offset + length) / limits.blockSize) - first;
    return this.runLength(first, count) === count;
  }

  /** Moves every set block that lies wholly within the bytes to `target`, a map of equal size. */
  moveRange(offset: number, length: number, target: BlockMap): void {
    if (this.#count === 0) return;
    const to = this.#endWithin(offset + length);
    let at = Math.ceil(offset / limits.blockSize);
    while (at < to) {
      const region = Math.floor(at / blocksPerRegion);
      const start = region * blocksPerRegion;
      const end = Math.min(to, start + blocksPerRegion);
      if (this.#full.has(region)) target.#setInRegion(region, at - start, end - start);
      else this.#copySet(region, at, end, target);
      this.#clearInRegion(region, at - start, end - start);
      at = end;
    }
  }

  /** Adds the region's bits to `target`; false where it has none or is full. */
  collect(region: number, target: Uint8Array): boolean {
    const page = this.#pages.get(region);
    if (page === undefined) return false;
    for (let at = 0; at < regionBitBytes; at++) {
      target[at] = (target[at] ?? 0) | (page.bits[at] ?? 0);
    }
    return true;
  }

  setFull(region: number): void {
    if (this.#full.has(region)) return;
    const page = this.#pages.get(region);
    this.#pages.delete(region);
    this.#full.add(region);
    this.#count += this.regionBlocks(region) - (page?.count ?? 0);
  }

  setAll(): void {
    for (let region = 0; region < this.regionCount; region++) this.setFull(region);
  }

  clearRegion(region: number): void {
    if (this.#full.delete(region)) this.#count -= this.regionBlocks(region);
    const page = this.#pages.get(region);
    if (page === undefined) return;
    this.#pages.delete(region);
    this.#count -= page.count;
  }

  clearAll(): void {
    this.#pages.clear();
    this.#full.clear();
    this.#count = 0;
  }

  /** Adds the bits of one region; bits past the end of the volume are ignored. */
  mergeBits(region: number, bits: Uint8Array): void {
    assert(bits.length === regionBitBytes, 'a region has 1024 bytes of bits');
    if (this.#full.has(region)) return;
    const page = this.#page(region);
    if (page === null) return;
    const blocks = this.regionBlocks(region);
    let count = 0;
    for (let at = 0; at < regionBitBytes; at++) {
      let value = (page.bits[at] ?? 0) | (bits[at] ?? 0);
      const left = blocks - at * 8;
      if (left < 8) value &= left <= 0 ? 0 : (1 << left) - 1;
      page.bits[at] = value;
      count += bitCount[value] ?? 0;
    }
    this.#count += count - page.count;
    page.count = count;
    if (count === 0) this.#pages.delete(region);
  }

  merge(other: BlockMap): void {
    for (const region of other.#full) this.setFull(region);
    for (const [region, page] of other.#pages) this.mergeBits(region, page.bits);
  }

  /** Removes every block of `other`, a map of equal size. */
  subtract(other: BlockMap): void {
    for (const region of other.#full) this.clearRegion(region);
    for (const [region, page] of other.#pages) {
      if (this.hasRegion(region)) this.#clearBits(region, page.bits);
    }
  }

  /** Removes every block that the bytes `offset`..`offset + length` touch. */
  clearTouched(offset: number, length: number): void {
    if (this.#count === 0) return;
    const to = Math.min(this.blockCount, Math.ceil((offset + length) / limits.blockSize));
    this.#eachRegion(Math.floor(offset / limits.blockSize), to, this.#clearInRegion);
  }

  /** The first block at or after `from` that is set, or -1. */
  nextSet(from: number): number {
    if (this.#count === 0 || from >= this.blockCount) return -1;
    const first = Math.floor(from / blocksPerRegion);
    const found = this.#nextInRegion(first, from - first * blocksPerRegion);
    if (found >= 0) return found;
    const full = this.#full.next(first + 1);
    let best = full < 0 ? Infinity : full;
    for (const region of this.#pages.keys()) if (region > first && region < best) best = region;
    return best === Infinity ? -1 : this.#nextInRegion(best, 0);
  }

  /**
   * Adds the bytes that are set to the cells they lie in; `cellBytes` is a power of two of at
   * least eight blocks. Bytes past the end of the volume count as the last block's.
   */
  countInto(cells: number[], cellBytes: number): void {
    if (this.#count === 0) return;
    const { blockSize, regionSize } = limits;
    const add = (cell: number, blocks: number): void => {
      cells[cell] = (cells[cell] ?? 0) + blocks * blockSize;
    };
    const perCell = cellBytes / regionSize;
    if (perCell >= 1) {
      for (let cell = 0; cell < cells.length; cell++) {
        const to = Math.min(this.regionCount, (cell + 1) * perCell);
        add(cell, this.#full.countIn(cell * perCell, to) * blocksPerRegion);
      }
      const last = this.regionCount - 1;
      const missing = blocksPerRegion - this.regionBlocks(last);
      if (this.#full.has(last)) add(Math.floor(last / perCell), -missing);
      for (const [region, page] of this.#pages) add(Math.floor(region / perCell), page.count);
      return;
    }
    const cellsPerRegion = regionSize / cellBytes;
    const bytesPerCell = cellBytes / blockSize / 8;
    for (const [region, page] of this.#pages) {
      for (let at = 0; at < regionBitBytes; at++) {
        const set = bitCount[page.bits[at] ?? 0] ?? 0;
        if (set > 0) add(region * cellsPerRegion + Math.floor(at / bytesPerCell), set);
      }
    }
    for (const region of this.#full) {
      const blocks = this.regionBlocks(region);
      for (let from = 0; from < blocks; from += bytesPerCell * 8) {
        const cell = region * cellsPerRegion + from / (bytesPerCell * 8);
        add(cell, Math.min(bytesPerCell * 8, blocks - from));
      }
    }
  }

  /** How many blocks from `from` on are set without a gap, at most `max`. */
  runLength(from: number, max: number): number {
    let length = 0;
    while (length < max && from + length < this.blockCount && this.has(from + length)) length++;
    return length;
  }

  /** The block after the last one that ends at or before byte `end`; the last may be short. */
  #endWithin(end: number): number {
    return end >= this.blockCount * limits.blockSize
      ? this.blockCount
      : Math.floor(end / limits.blockSize);
  }

  #copySet(region: number, from: number, to: number, target: BlockMap): void {
    const start = region * blocksPerRegion;
    let at = this.#nextInRegion(region, from - start);
    while (at >= 0 && at < to) {
      let end = at + 1;
      while (end < to && this.has(end)) end++;
      target.#setInRegion(region, at - start, end - start);
      at = this.#nextInRegion(region, end - start);
    }
  }

  #nextInRegion(region: number, from: number): number {
    const blocks = this.regionBlocks(region);
    if (this.#full.has(region)) return from < blocks ? region * blocksPerRegion + from : -1;
    const page = this.#pages.get(region);
    if (page === undefined) return -1;
    for (let at = from; at < blocks; at++) {
      const value = page.bits[at >> 3] ?? 0;
      if (value === 0) at |= 7;
      else if ((value & (1 << (at & 7))) !== 0) return region * blocksPerRegion + at;
    }
    return -1;
  }

  #eachRegion(
    from: number, to: number, apply: (region: number, from: number, to: number) => void,
  ): void {
    let at = from;
    while (at < to) {
      const region = Math.floor(at / blocksPerRegion);
      const start = region * blocksPerRegion;
      const end = Math.min(to, start + blocksPerRegion);
      apply(region, at - start, end - start);
      at = end;
    }
  }

  /** The region's page, made where absent; null where the region became full instead. */
  #page(region: number): Page | null {
    let page = this.#pages.get(region);
    if (page !== undefined) return page;
    if (this.#pages.size >= this.#pagesMax) {
      this.setFull(region);
      return null;
    }
    page = { bits: new Uint8Array(regionBitBytes), count: 0 };
    this.#pages.set(region, page);
    return page;
  }

  /** The page of a region that loses blocks; null where it has none. */
  #pageToClear(region: number): Page | null {
    if (!this.#full.has(region)) return this.#pages.get(region) ?? null;
    // A page above the bound for a short while: clearing must never be refused.
    const blocks = this.regionBlocks(region);
    const page = { bits: new Uint8Array(regionBitBytes), count: blocks };
    for (let at = 0; at < blocks; at++) {
      page.bits[at >> 3] = (page.bits[at >> 3] ?? 0) | (1 << (at & 7));
    }
    this.#full.delete(region);
    this.#pages.set(region, page);
    return page;
  }

  #clearBits(region: number, bits: Uint8Array): void {
    const page = this.#pageToClear(region);
    if (page === null) return;
    let removed = 0;
    for (let at = 0; at < regionBitBytes; at++) {
      const value = page.bits[at] ?? 0;
      const left = value & ~(bits[at] ?? 0);
      removed += (bitCount[value] ?? 0) - (bitCount[left] ?? 0);
      page.bits[at] = left;
    }
    page.count -= removed;
    this.#count -= removed;
    if (page.count === 0) this.#pages.delete(region);
  }

  readonly #setInRegion = (region: number, from: number, to: number): void => {
    if (this.#full.has(region)) return;
    if (from === 0 && to === this.regionBlocks(region)) {
      this.setFull(region);
      return;
    }
    const page = this.#page(region);
    if (page === null) return;
    let added = 0;
    for (let at = from; at < to; at++) {
      const bit = 1 << (at & 7);
      const value = page.bits[at >> 3] ?? 0;
      if ((value & bit) === 0) {
        page.bits[at >> 3] = value | bit;
        added++;
      }
    }
    page.count += added;
    this.#count += added;
    if (page.count === this.regionBlocks(region)) this.setFull(region);
  };

  readonly #clearInRegion = (region: number, from: number, to: number): void => {
    const blocks = this.regionBlocks(region);
    if (from === 0 && to === blocks) {
      this.clearRegion(region);
      return;
    }
    const page = this.#pageToClear(region);
    if (page === null) return;
    let removed = 0;
    for (let at = from; at < to; at++) {
      const bit = 1 << (at & 7);
      const value = page.bits[at >> 3] ?? 0;
      if ((value & bit) !== 0) {
        page.bits[at >> 3] = value & ~bit;
        removed++;
      }
    }
    page.count -= removed;
    this.#count -= removed;
    if (page.count === 0) this.#pages.delete(region);
  };
}
