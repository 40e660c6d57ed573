/**
 * Memory for what is sent to the peer after the request that it came with was answered: async, and
 * writes while the peer is not complete. Fresh memory for each write would have to be faulted in,
 * and the collector could not keep up: async wrote 206 MiB/s where fullsync wrote 530.
 *
 * Hot path: take() and giveBack() run once per such write. `npm run bench`, seqwrite: async writes
 * 0.85 of what fullsync does.
 */
import { limits, MiB } from '../format/limits.ts';

/** Kept at most: more than half of what may be under way with the default window. */
const spareBytesMax = 40 * MiB;
/** Room before the payload, for the frame's header. */
export const copyLead = limits.blockSize;

export class CopyPool {
  /** By the binary logarithm of the payload that they have room for. */
  readonly #spare: Buffer[][] = [];
  #spareBytes = 0;

  get spareBytes(): number {
    return this.#spareBytes;
  }

  /** A copy of the payload, at `copyLead`. It may be longer than asked for. */
  take(source: Buffer, from: number, length: number): Buffer {
    const power = 32 - Math.clz32(length - 1);
    const spare = this.#spare[power]?.pop();
    if (spare !== undefined) this.#spareBytes -= spare.length;
    const copy = spare ?? Buffer.allocUnsafeSlow(copyLead + 2 ** power);
    source.copy(copy, copyLead, from, from + length);
    return copy;
  }

  /** Nobody reads it any more: the peer has executed the frame. */
  giveBack(copy: Buffer): void {
    if (this.#spareBytes + copy.length > spareBytesMax) return;
    const power = Math.log2(copy.length - copyLead);
    const spare = this.#spare[power] ??= [];
    spare.push(copy);
    this.#spareBytes += copy.length;
  }
}
