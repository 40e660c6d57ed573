/**
 * Rule 1 and 2 at every step: whatever may differ between the two stable images, now or after a
 * power cut of either machine, is durably marked on one side.
 *
 * A block may differ where a write of it is in flight, or not flushed, or the stable bytes differ.
 * Marks only speak of a pair that was equal once: see `isMeaningful`.
 */
import { limits } from '../../../lib/format/limits.ts';
import type { SimDisk } from '../../fixtures/sim-disk.ts';
import type { DurableMeta } from '../durable-meta.ts';

const { blockSize } = limits;

export interface MarkedCopy {
  disk: SimDisk;
  meta: DurableMeta;
}

export class MarksCheck {
  /** Both copies were equal once, and neither was replaced or rolled back since. */
  isMeaningful = false;
  readonly #suspects = new Set<number>();
  readonly #fresh: number[] = [];
  readonly #dataOffset: number;
  readonly #mediaSize: number;
  #metaChanged = false;
  checks = 0;

  constructor(dataOffset: number, mediaSize: number) {
    this.#dataOffset = dataOffset;
    this.#mediaSize = mediaSize;
  }

  touched(offset: number, length: number): void {
    const from = offset - this.#dataOffset;
    if (from < 0 || from >= this.#mediaSize) return;
    const last = Math.floor((from + length - 1) / blockSize);
    for (let block = Math.floor(from / blockSize); block <= last; block++) {
      this.#fresh.push(block);
    }
  }

  metadataChanged(): void {
    this.#metaChanged = true;
  }

  /** The pair is equal from now on, but for what is marked. */
  start(): void {
    this.isMeaningful = true;
    this.#metaChanged = true;
    for (let block = 0; block < this.#mediaSize / blockSize; block++) this.#suspects.add(block);
  }

  /** What is wrong, or null. */
  problem(one: MarkedCopy, other: MarkedCopy): string | null {
    if (!this.#metaChanged && this.#fresh.length === 0) return null;
    for (const block of this.#fresh) this.#suspects.add(block);
    const blocks = this.#metaChanged ? [...this.#suspects] : this.#fresh.splice(0);
    this.#fresh.length = 0;
    this.#metaChanged = false;
    if (!this.isMeaningful) return null;
    this.checks++;
    for (const block of blocks) {
      if (one.meta.isMarked(block) || other.meta.isMarked(block)) continue;
      const at = this.#dataOffset + block * blockSize;
      const why = one.disk.isVolatile(at, blockSize) || other.disk.isVolatile(at, blockSize)
        ? 'may change'
        : one.disk.durable.compare(other.disk.durable, at, at + blockSize, at, at + blockSize) !== 0
          ? 'differs' : null;
      if (why !== null) return `block ${block} ${why} and is not marked`;
      this.#suspects.delete(block);
    }
    return null;
  }
}
