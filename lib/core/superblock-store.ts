/**
 * The superblock in memory and its two copies on disk.
 *
 * - An update counts only when both copies hold it, written durably one after the other: a torn
 *   write leaves the other copy, and never two different newest ones.
 * - Updates that arrive while one is being written are merged into the next.
 */
import { HastError } from '../base/errors.ts';
import { limits } from '../format/limits.ts';
import {
  decodeSuperblock, encodeSuperblock, tailOffset, type Superblock,
} from '../format/superblock.ts';
import type { DiskPort, Done } from './ports.ts';

export type SuperblockPatch = Partial<Superblock>;

/**
 * The copy that counts: the valid one with the higher sequence. Throws what decoding the first
 * copy threw where neither is valid.
 */
export function chooseSuperblock(head: Buffer, tail: Buffer | null): Superblock {
  let best: Superblock | null = null;
  let failure: unknown = null;
  for (const raw of [head, tail]) {
    if (raw === null) continue;
    try {
      const one = decodeSuperblock(raw);
      if (best === null || one.sequence > best.sequence) best = one;
    } catch (error) {
      // A version or feature this program does not know wins over a readable older copy.
      if (error instanceof HastError && error.code === 'HAST_E_UNSUPPORTED') throw error;
      failure ??= error;
    }
  }
  if (best === null) throw failure;
  return best;
}

export class SuperblockStore {
  #value: Superblock;
  readonly #disk: DiskPort;
  #writing = false;
  #changed = false;
  #waiting: Done[] = [];

  constructor(disk: DiskPort, value: Superblock) {
    this.#disk = disk;
    this.#value = value;
  }

  /** As last asked for; durable where the update's callback has come. */
  get value(): Readonly<Superblock> {
    return this.#value;
  }

  /** Merges `patch` and calls `done` when both copies hold it, or with the disk's errno. */
  update(patch: SuperblockPatch, done: Done): void {
    this.#value = { ...this.#value, ...patch };
    this.#changed = true;
    this.#waiting.push(done);
    if (!this.#writing) this.#write();
  }

  #write(): void {
    this.#writing = true;
    this.#changed = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#value = { ...this.#value, sequence: this.#value.sequence + 1 };
    const raw = encodeSuperblock(this.#value);
    const finish = (errno: number): void => {
      this.#writing = false;
      for (const done of waiting) done(errno);
      if (this.#changed && !this.#writing) this.#write();
    };
    this.#disk.writeDurable(0, raw, (errno) => {
      if (errno !== 0) finish(errno);
      else this.#disk.writeDurable(tailOffset(this.#value.localSize), raw, finish);
    });
  }
}

/**
 * `history` with `generation` in front, the oldest dropped; never `peer`, the generation the
 * peer's copy had last: without it the two would seem to have nothing in common.
 */
export function withAncestor(
  history: readonly bigint[], generation: bigint, peer = 0n,
): bigint[] {
  const all = [generation, ...history];
  const kept = all.slice(0, limits.historyCount);
  if (peer !== 0n && all.includes(peer) && !kept.includes(peer)) kept[kept.length - 1] = peer;
  return kept;
}
