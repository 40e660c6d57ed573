/**
 * HOT PATH. What a transfer past the page cache asks for (open(2), O_DIRECT): whole blocks, and
 * memory that begins on a sector. Other memory is exchanged for one of a pool that does.
 * `npm run bench`, write-32: local-direct 0.53 of a bare loop device.
 */
import { addressOf } from '../base/libc.ts';

/** Covers every logical sector size, and what file systems ask for. */
const blockSize = 4096;
const memoryAlignment = 512;
/** Sizes that are kept: of the smallest and of the largest requests. */
const sizes = [64 * 1024, 1024 * 1024] as const;
/** So many of each are kept; as many more as are needed are made. */
const keptMax = 32;

export function isWholeBlocks(offset: number, length: number): boolean {
  return offset % blockSize === 0 && length % blockSize === 0;
}

export function isAligned(address: number): boolean {
  return address % memoryAlignment === 0;
}

/** Memory that begins on a block. */
export class AlignedMemory {
  readonly address: number;
  /** Exactly the usable bytes. */
  readonly bytes: Buffer;

  constructor(size: number) {
    const memory = Buffer.allocUnsafeSlow(size + blockSize);
    const start = addressOf(memory);
    const skip = (blockSize - start % blockSize) % blockSize;
    this.bytes = memory.subarray(skip, skip + size);
    this.address = start + skip;
  }
}

export class AlignedPool {
  readonly #free = sizes.map((): AlignedMemory[] => []);

  /** Memory of at least `length` bytes. */
  take(length: number): AlignedMemory {
    const kind = kindOf(length);
    const size = sizes[kind];
    if (size === undefined) return new AlignedMemory(length);
    return this.#free[kind]?.pop() ?? new AlignedMemory(size);
  }

  giveBack(memory: AlignedMemory): void {
    const free = this.#free[kindOf(memory.bytes.length)];
    if (free !== undefined && free.length < keptMax) free.push(memory);
  }
}

function kindOf(length: number): number {
  const kind = sizes.findIndex((size) => length <= size);
  return kind < 0 ? sizes.length : kind;
}
