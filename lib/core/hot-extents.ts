/**
 * The extents listed as hot, in memory: which writes hold them, and which of them leave when
 * others need their place.
 *
 * A write that begins an extent where the one before is hot takes the next ones along, and one
 * that begins the middle one of those asks for twice as many: a sequential writer finds its
 * extents hot, instead of waiting for the disk in each, also while the list is long in coming
 * because the disk has much to flush. They take the places of those that were used longest ago,
 * and are copied after a crash as every hot extent is; unused, they leave as all do. A random
 * writer seldom begins an extent: to it the list is what it uses.
 *
 * Hot path: isDurable(), hold() and release() run once per write; figures as in dirty-tracker.ts.
 */
import { assert } from '../base/assert.ts';
import type { Superblock } from '../format/superblock.ts';

interface HotExtent {
  extent: number;
  /** Writes between hold() or take() and release(). */
  inFlight: number;
  /** Value of the use counter at the last write. */
  used: number;
  /** Listed in a hot slot that is durable. */
  durable: boolean;
  /** So many extents are taken ahead when a write begins here; 0: none. */
  leads: number;
}

/**
 * Checkpoints that an extent stays without a write while others are written: a database that
 * writes a hundred blocks a second all over its files would find each extent cold otherwise.
 */
const restMax = 15;
/** What is taken ahead at first and at most: the list's length shifted right by so much. */
const firstShift = 5;
const mostShift = 2;
/** So many leave together, while writers come: the list's length shifted right. */
const manyShift = 3;

export class HotExtents {
  readonly #max: number;
  readonly #extentCount: number;
  readonly #hot = new Map<number, HotExtent>();
  /** Gone from memory, and named in every list until the pages of their regions are durable. */
  #evicted: number[];
  /** Of these the pages are being written. */
  #settling: number[] = [];
  #useCounter = 0;
  /** Values of the use counter at the last checkpoints, the latest last. */
  #usedAt: number[] = [];
  #changed: boolean;
  /** Behind which extents more are asked for, and how many. */
  #asked: { extent: number; count: number }[] = [];

  /** `listed`: what the disk has. They count as evicted just now; `isWhole`: in both slots. */
  constructor(geometry: Readonly<Superblock>, listed: readonly number[], isWhole: boolean) {
    this.#max = geometry.keepDirty;
    this.#extentCount = Math.ceil(geometry.mediaSize / geometry.extentSize);
    this.#evicted = [...listed];
    this.#changed = listed.length > 0 || !isWhole;
  }

  get size(): number {
    return this.#hot.size;
  }

  /** The next list differs from the one that was written last. */
  get changed(): boolean {
    return this.#changed;
  }

  /** Evicted, and named until the pages of their regions are durable: see leave(). */
  get leaving(): readonly number[] {
    return this.#evicted;
  }

  /** Enough to write their pages, which are fewer the more extents there are in each. */
  get manyLeave(): boolean {
    return this.#evicted.length >= this.#max >> manyShift;
  }

  get wantsMore(): boolean {
    return this.#asked.length > 0;
  }

  extents(): number[] {
    return [...this.#hot.keys()];
  }

  isDurable(extent: number): boolean {
    return this.#hot.get(extent)?.durable === true;
  }

  /** Of a write whose extents are durable; `begins`: it comes to the start of one. */
  hold(first: number, last: number, begins: boolean): void {
    const used = ++this.#useCounter;
    for (let extent = first; extent <= last; extent++) {
      const entry = this.#hot.get(extent) as HotExtent;
      entry.inFlight++;
      entry.used = used;
      if (!begins || entry.leads === 0) continue;
      this.#asked.push({ extent, count: entry.leads });
      entry.leads = 0;
    }
  }

  release(first: number, last: number): void {
    for (let extent = first; extent <= last; extent++) {
      const entry = this.#hot.get(extent);
      assert(entry !== undefined && entry.inFlight > 0, 'an extent that is let go was held');
      entry.inFlight--;
    }
  }

  /** Lists and holds the extents of a write; false where too many others are in use. */
  take(first: number, last: number, begins: boolean): boolean {
    let missing = 0;
    for (let extent = first; extent <= last; extent++) {
      const entry = this.#hot.get(extent);
      if (entry === undefined) missing++;
      else entry.inFlight++;
    }
    const fits = this.#makeRoom(missing);
    for (let extent = first; extent <= last; extent++) {
      const entry = this.#hot.get(extent);
      if (entry !== undefined) {
        if (!fits) entry.inFlight--;
      } else if (fits) {
        this.#add(extent).inFlight = 1;
      }
    }
    if (!fits) return false;
    const used = ++this.#useCounter;
    for (let extent = first; extent <= last; extent++) {
      (this.#hot.get(extent) as HotExtent).used = used;
    }
    if (begins && missing > 0 && this.#hot.has(first - 1)) {
      this.#asked.push({ extent: last, count: this.#max >> firstShift });
    }
    return true;
  }

  /** Lists what was asked for ahead, as far as there is room; true where that is something. */
  takeAhead(): boolean {
    const asked = this.#asked;
    this.#asked = [];
    let isMore = false;
    for (const { extent: leader, count } of asked) {
      const end = Math.min(this.#extentCount, leader + 1 + count);
      let missing = 0;
      for (let extent = leader + 1; extent < end; extent++) {
        const entry = this.#hot.get(extent);
        // About to be used: what lies elsewhere makes room first.
        if (entry !== undefined) entry.used = this.#useCounter;
        else missing++;
      }
      if (missing === 0 || !this.#makeRoom(missing)) continue;
      for (let extent = leader + 1; extent < end && this.#hot.size < this.#max; extent++) {
        if (!this.#hot.has(extent)) this.#add(extent);
      }
      const middle = this.#hot.get(leader + Math.ceil(count / 2));
      if (middle !== undefined) middle.leads = Math.min(2 * count, this.#max >> mostShift);
      isMore = true;
    }
    return isMore;
  }

  /** The list last made is durable. */
  madeDurable(): void {
    for (const entry of this.#hot.values()) entry.durable = true;
  }

  /** Evicts what no write holds. */
  evictIdle(): void {
    for (const entry of this.#hot.values()) if (entry.inFlight === 0) this.#evict(entry);
  }

  /**
   * A checkpoint: evicts what had no write for a while, and all that no write holds where nothing
   * was written since the last one.
   */
  evictUnused(): void {
    const isQuiet = this.#usedAt.at(-1) === this.#useCounter;
    this.#usedAt.push(this.#useCounter);
    const oldest = this.#usedAt.length > restMax ? this.#usedAt.shift() as number : -1;
    const last = isQuiet ? this.#useCounter : oldest;
    for (const entry of this.#hot.values()) {
      if (entry.inFlight === 0 && entry.used <= last) this.#evict(entry);
    }
  }

  /** What is to be written; some of it twice, where an evicted extent is hot again. */
  list(): number[] {
    this.#changed = false;
    return [...this.#hot.keys(), ...this.#evicted, ...this.#settling];
  }

  /** The pages of what is `leaving` are written from now on. */
  leave(): void {
    assert(this.#settling.length === 0, 'extents leave in one group after the other');
    this.#settling = this.#evicted;
    this.#evicted = [];
  }

  /** Those pages are durable, with the index. */
  left(): void {
    if (this.#settling.length > 0) this.#changed = true;
    this.#settling = [];
  }

  #add(extent: number): HotExtent {
    const entry = { extent, inFlight: 0, used: this.#useCounter, durable: false, leads: 0 };
    this.#hot.set(extent, entry);
    this.#changed = true;
    return entry;
  }

  #evict(entry: HotExtent): void {
    this.#hot.delete(entry.extent);
    this.#evicted.push(entry.extent);
  }

  /** Makes room for `count` more extents; false where too many are in use, or leaving. */
  #makeRoom(count: number): boolean {
    const max = this.#max;
    const named = this.#hot.size + this.#evicted.length + this.#settling.length;
    // A slot has room for twice as many as may be hot.
    if (named + count > 2 * max) return false;
    if (this.#hot.size + count <= max) return true;
    const idle = [...this.#hot.values()].filter((entry) => entry.inFlight === 0);
    const missing = this.#hot.size + count - max;
    if (idle.length < missing) return false;
    // A few more than asked for: random writers would sort them for each otherwise.
    const take = Math.min(idle.length, Math.max(missing, max >> 4));
    idle.sort((one, other) => one.used - other.used);
    for (let index = 0; index < take; index++) this.#evict(idle[index] as HotExtent);
    return true;
  }
}
