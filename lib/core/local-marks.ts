/**
 * Blocks whose newest data only the peer has. A block that was written here is readable at once,
 * but keeps its durable mark until a local flush that began later has returned: a power cut may
 * still take the data away.
 */
import { regionBitBytes } from '../format/map-pages.ts';
import { BlockMap } from './block-map.ts';
import type { RegionMarks } from './map-writer.ts';

/** One local flush: the blocks that had arrived when it began. */
export interface LocalFlush {
  readonly blocks: BlockMap;
}

/** A flush that covers nothing: most of them. */
const nothingArrived: LocalFlush = { blocks: new BlockMap(0) };

/** `marks` and the region's blocks in `map`. */
function withMarks(map: BlockMap, region: number, marks: RegionMarks): RegionMarks {
  if (marks === 'full' || map.isFull(region)) return 'full';
  if (!map.hasRegion(region)) return marks;
  const bits = marks ?? new Uint8Array(regionBitBytes);
  map.collect(region, bits);
  return bits;
}

export class LocalMarks {
  readonly stale: BlockMap;
  readonly #mediaSize: number;
  #unflushed: BlockMap;
  readonly #flushes = new Set<LocalFlush>();

  constructor(stale: BlockMap, mediaSize: number) {
    this.stale = stale;
    this.#mediaSize = mediaSize;
    this.#unflushed = new BlockMap(mediaSize);
  }

  arrived(offset: number, length: number): void {
    this.stale.moveRange(offset, length, this.#unflushed);
  }

  /** The application wrote here: also blocks that were not stale wait for a flush now. */
  wrote(offset: number, length: number): void {
    this.stale.clearRange(offset, length);
    this.#unflushed.setRange(offset, length);
  }

  get hasUnflushed(): boolean {
    return !this.#unflushed.isEmpty;
  }

  flushBegins(): LocalFlush {
    if (this.#unflushed.isEmpty) return nothingArrived;
    const flush = { blocks: this.#unflushed };
    this.#unflushed = new BlockMap(this.#mediaSize);
    this.#flushes.add(flush);
    return flush;
  }

  /** False where the flush is not one of those under way (any more). */
  flushDone(flush: LocalFlush): boolean {
    return this.#flushes.delete(flush);
  }

  clearAll(): void {
    this.stale.clearAll();
    this.#unflushed.clearAll();
    this.#flushes.clear();
  }

  /** Gives every mark away, region by region (null: all of it), and keeps none. */
  drain(take: (region: number, bits: Uint8Array | null) => void): void {
    const flushing = [...this.#flushes].map(({ blocks }) => blocks);
    for (const map of [this.stale, this.#unflushed, ...flushing]) {
      for (const region of map.regions()) take(region, map.bits(region));
    }
    this.clearAll();
  }

  /** What the region's durable marks must hold. */
  marks(region: number): RegionMarks {
    let marks = withMarks(this.stale, region, null);
    marks = withMarks(this.#unflushed, region, marks);
    for (const flush of this.#flushes) marks = withMarks(flush.blocks, region, marks);
    return marks;
  }
}
