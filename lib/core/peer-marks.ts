/**
 * Blocks that the peer lacks, and those of them that it lacks only for want of a flush: what a
 * process of the peer has executed is in the cache of its machine, and needs no copy as long as the
 * same process answers.
 *
 * Invariants
 * - `executed` is a part of `stale`: with another process there it counts for nothing;
 * - a block that was stale before its latest write is not in `executed`: that write may have been
 *   to a part of it.
 *
 * Hot path: set() and sent() run once per write; figures as in dirty-tracker.ts.
 */
import { BlockMap } from './block-map.ts';

/** What the process before knew of the blocks that the durable marks name. */
export interface HandedDown {
  /** Process of the peer that holds all of them as they are here, but for `unanswered`. */
  instance: bigint;
  unanswered: BlockMap;
}

export class PeerMarks {
  readonly stale: BlockMap;
  readonly #mediaSize: number;
  #executed: BlockMap;
  #instance = 0n;

  /** `handedDown`: null where nothing is known of `stale`. */
  constructor(stale: BlockMap, mediaSize: number, handedDown: HandedDown | null = null) {
    this.stale = stale;
    this.#mediaSize = mediaSize;
    this.#executed = this.#empty();
    if (handedDown === null) return;
    this.#instance = handedDown.instance;
    this.#executed.merge(stale);
    this.#executed.subtract(handedDown.unanswered);
  }

  /** The peer lacks these bytes. */
  set(offset: number, length: number): void {
    this.stale.setRange(offset, length);
    this.#executed.clearTouched(offset, length);
  }

  /** The `bits` of a region (null: all of it). */
  mergeRegion(region: number, bits: Uint8Array | null): void {
    // The whole region: a little more is copied, and a secondary's map rarely names any.
    this.#executed.clearRegion(region);
    if (bits === null) this.stale.setFull(region);
    else this.stale.mergeBits(region, bits);
  }

  setAll(): void {
    this.stale.setAll();
    this.#executed = this.#empty();
  }

  /** Blocks that lie wholly within the bytes are in the stream. */
  sent(offset: number, length: number): void {
    this.stale.clearRange(offset, length);
    this.#executed.clearRange(offset, length);
  }

  clearAll(): void {
    this.stale.clearAll();
    this.#executed = this.#empty();
  }

  /**
   * A stream to the process `instance` of the peer ended (0: one that is not trusted). `blocks`
   * were written on both copies and are not known to be durable, but for `unanswered`.
   */
  streamEnded(blocks: BlockMap, unanswered: BlockMap, instance: bigint): void {
    if (instance !== this.#instance) this.#executed = this.#empty();
    this.#instance = instance;
    const executed = this.#empty();
    if (instance !== 0n) executed.merge(blocks);
    executed.subtract(this.stale);
    this.stale.merge(blocks);
    this.#executed.merge(executed);
    this.#executed.subtract(unanswered);
  }

  /** Stale blocks that the process `instance` has executed. */
  executedCount(instance: bigint): number {
    return instance === this.#instance ? this.#executed.count : 0;
  }

  /** These are stale no longer; who takes them sees to the flush of both copies. */
  takeExecuted(instance: bigint): BlockMap {
    const executed = instance === this.#instance ? this.#executed : this.#empty();
    this.#executed = this.#empty();
    this.stale.subtract(executed);
    return executed;
  }

  /** Never coarser than what was put in: more would be less copied. */
  #empty(): BlockMap {
    return new BlockMap(this.#mediaSize, Infinity);
  }
}
