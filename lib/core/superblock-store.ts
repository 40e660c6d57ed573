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
  decodeSuperblock, encodeSuperblock, SuperblockFlag, tailOffset, type Superblock,
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
  readonly #now: (() => number) | null;
  readonly #onGeneration: (generation: bigint) => void;
  #writing = false;
  #changed = false;
  #isAbandoned = false;
  #fence: SuperblockPatch | null = null;
  #oldestWrite: number | null = null;
  #waiting: Done[] = [];
  /** Served by the write under way. */
  #inWrite: Done[] = [];

  /**
   * `now`: milliseconds, for `oldestWrite`. `onGeneration` is called before another generation may
   * be on the disk.
   */
  constructor(
    disk: DiskPort, value: Superblock, now: (() => number) | null = null,
    onGeneration: (generation: bigint) => void = () => undefined,
  ) {
    this.#disk = disk;
    this.#value = value;
    this.#now = now;
    this.#onGeneration = onGeneration;
  }

  /** As last asked for; durable where the update's callback has come. */
  get value(): Readonly<Superblock> {
    return this.#value;
  }

  /** Merges `patch` and calls `done` when both copies hold it, or with the disk's errno. */
  update(patch: SuperblockPatch, done: Done): void {
    const { generation } = patch;
    const isOther = generation !== undefined && generation !== this.#value.generation;
    if (isOther) this.#onGeneration(generation);
    this.#value = { ...this.#value, ...patch };
    if (this.#isAbandoned) {
      done(0);
      return;
    }
    this.#changed = true;
    this.#waiting.push(done);
    if (!this.#writing) this.#write();
  }

  /**
   * When the write under way was issued, by the constructor's clock: a disk that hangs shows
   * here. null where there is none.
   */
  get oldestWrite(): number | null {
    return this.#oldestWrite;
  }

  /**
   * The local disk was given up: nothing is written any more, and updates count in memory only.
   * Whoever waits for one goes on. With `fence` the disk is asked once more, after what is under
   * way, to record that it was given up: a process that dies now must not find it good. Nobody
   * waits for the answer.
   */
  abandon(fence: SuperblockPatch | null = null): void {
    this.#isAbandoned = true;
    this.#fence = fence;
    if (!this.#writing) this.#writeFence();
    this.#oldestWrite = null;
    const waiting = [...this.#inWrite, ...this.#waiting];
    this.#inWrite = [];
    this.#waiting = [];
    for (const done of waiting) done(0);
  }

  #write(): void {
    this.#writing = true;
    this.#changed = false;
    this.#inWrite = this.#waiting;
    this.#waiting = [];
    this.#value = { ...this.#value, sequence: this.#value.sequence + 1 };
    const raw = encodeSuperblock(this.#value);
    this.#writeCopy(0, raw, (headError) => {
      const finish = (errno: number): void => {
        this.#writing = false;
        const waiting = this.#inWrite;
        this.#inWrite = [];
        for (const done of waiting) done(errno);
        if (this.#changed && !this.#writing && !this.#isAbandoned) this.#write();
      };
      if (headError !== 0) finish(headError);
      else this.#writeCopy(tailOffset(this.#value.localSize), raw, finish);
    });
  }

  #writeCopy(offset: number, raw: Buffer, done: Done): void {
    this.#oldestWrite = this.#now === null ? null : this.#now();
    this.#disk.writeDurable(offset, raw, (errno) => {
      if (this.#isAbandoned) {
        this.#writeFence();
        return;
      }
      this.#oldestWrite = null;
      done(errno);
    });
  }

  #writeFence(): void {
    const fence = this.#fence;
    this.#fence = null;
    if (fence === null) return;
    const sequence = this.#value.sequence + 1;
    const raw = encodeSuperblock({ ...this.#value, ...fence, sequence });
    this.#disk.writeDurable(0, raw, (errno) => {
      const at = tailOffset(this.#value.localSize);
      if (errno === 0) this.#disk.writeDurable(at, raw, () => undefined);
    });
  }
}

/**
 * For the complete copy of a peer that is being promoted, under `lineage`. From then on the peer is
 * the last primary: also where this node was it before, and was killed. With both remembered as
 * such the older one could win later, over what the peer had acknowledged.
 */
export function ofPromotedPeer(
  value: Superblock, lineage: { generation: bigint; history: bigint[] },
): SuperblockPatch {
  const flags = value.flags & ~SuperblockFlag.primaryActive;
  return { ...lineage, peerGeneration: lineage.generation, flags };
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
