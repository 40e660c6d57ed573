/**
 * HOT PATH. Whether a write through the page cache is done by the thread of the ring itself, as a
 * copy: no other thread has to be woken for it, which takes longer than the copy.
 * `npm run bench`, write-1: fullsync 48 us (p50), 103 without;
 * docs/decisions/021-inline-writes-and-busy-polling.md has the reasons.
 *
 * That thread must not wait for a disk, or a disk that hangs would stop acknowledgements and
 * keepalives. A copy waits
 *
 * - for what belongs to the file system, or to a device that wants its pages stable: not used there
 *   (page-cache.ts);
 * - for a page that is on its way to the disk, and for the lock of the file: while nothing else of
 *   this disk is under way that could hold them, neither is. The kernel writes pages out by itself
 *   after 30 seconds (dirty_expire_centisecs); checkpoints flush sooner;
 * - where much memory is dirty: DirtyMemory tells;
 * - for what nobody thought of: a copy that took long closes this way for a second.
 */
import { type DirtyMemory } from './dirty-memory.ts';

/** Of one turn. More is faster on another thread, beside this one. */
const bytesMax = 128 * 1024;
const longMs = 2;
const closedMs = 1000;

export class InlineWrites {
  readonly #memory: DirtyMemory;
  /** Under way elsewhere: flushes, writes, discards. */
  #others = 0;
  #closedUntil = 0;

  constructor(memory: DirtyMemory) {
    this.#memory = memory;
  }

  began(): void {
    this.#others++;
  }

  ended(): void {
    this.#others--;
  }

  /** `bytes` of all that is to be written in this turn; `now` in milliseconds that only rise. */
  allow(bytes: number, now: number): boolean {
    return this.#others === 0 && bytes <= bytesMax && now >= this.#closedUntil &&
      this.#memory.take(bytes, now);
  }

  /** What was allowed at `since` has been done. */
  done(since: number, now: number): void {
    if (now - since > longMs) this.#closedUntil = now + closedMs;
  }
}
