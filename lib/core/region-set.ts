/**
 * A set of regions (32 MiB each) as one bit a region: 64 KiB for 16 TiB, taken with the first
 * one added. A volume that is stale as a whole costs no more than one that is not.
 *
 * Hot path: add() and has() run once per write; figures as in dirty-tracker.ts.
 */
import { limits } from '../format/limits.ts';

export class RegionSet {
  readonly #regionCount: number;
  #words: Uint32Array | null = null;
  #size = 0;

  constructor(regionCount: number) {
    this.#regionCount = regionCount;
  }

  get size(): number {
    return this.#size;
  }

  has(region: number): boolean {
    if (this.#size === 0 || this.#words === null) return false;
    return ((this.#words[region >> 5] ?? 0) & (1 << (region & 31))) !== 0;
  }

  add(region: number): void {
    this.#words ??= new Uint32Array(Math.ceil(this.#regionCount / 32));
    const bit = 1 << (region & 31);
    const word = this.#words[region >> 5] ?? 0;
    if ((word & bit) !== 0) return;
    this.#words[region >> 5] = word | bit;
    this.#size++;
  }

  addAll(regions: Iterable<number>): this {
    for (const region of regions) this.add(region);
    return this;
  }

  /** True where it was in the set. */
  delete(region: number): boolean {
    if (!this.has(region)) return false;
    const words = this.#words as Uint32Array;
    words[region >> 5] = (words[region >> 5] ?? 0) & ~(1 << (region & 31));
    this.#size--;
    return true;
  }

  clear(): void {
    this.#words = null;
    this.#size = 0;
  }

  /** The first region at or after `from`, or -1. */
  next(from: number): number {
    const words = this.#words;
    if (this.#size === 0 || words === null) return -1;
    for (let region = from; region < this.#regionCount; region++) {
      const word = words[region >> 5] ?? 0;
      if (word === 0) region |= 31;
      else if ((word & (1 << (region & 31))) !== 0) return region;
    }
    return -1;
  }

  /** How many there are from `from` up to `to`; a word of 32 at a time. */
  countIn(from: number, to: number): number {
    const words = this.#words;
    if (this.#size === 0 || words === null) return 0;
    let count = 0;
    for (let region = from; region < to;) {
      const whole = (region & 31) === 0 && region + 32 <= to;
      if (whole) {
        count += bitsIn(words[region >> 5] ?? 0);
        region += 32;
      } else {
        if (this.has(region)) count++;
        region++;
      }
    }
    return count;
  }

  /** Ascending. */
  *[Symbol.iterator](): Generator<number> {
    for (let at = this.next(0); at >= 0; at = this.next(at + 1)) yield at;
  }
}

function bitsIn(word: number): number {
  let left = word - ((word >>> 1) & 0x5555_5555);
  left = (left & 0x3333_3333) + ((left >>> 2) & 0x3333_3333);
  return Math.imul((left + (left >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** Adds the regions that the bytes touch. */
export function addRegions(regions: RegionSet, offset: number, length: number): void {
  const last = Math.floor((offset + length - 1) / limits.regionSize);
  for (let region = Math.floor(offset / limits.regionSize); region <= last; region++) {
    regions.add(region);
  }
}

/** The regions that the bytes touch. */
export function regionsOf(offset: number, length: number): number[] {
  const first = Math.floor(offset / limits.regionSize);
  const last = Math.floor((offset + length - 1) / limits.regionSize);
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}
