/**
 * HOT PATH. Whether to look for news for a while before sleeping. To wake a thread takes the waker
 * 10 us and the woken 20 to 50 us where processors are virtual; who still looks sees the news at
 * once and need not be woken. `npm run bench`, write-1: fullsync 48 us (p50), 148 without;
 * docs/decisions/021-inline-writes-and-busy-polling.md has the reasons.
 *
 * It is done where it pays: while waits have been short, as they are when one request follows the
 * other, and rounds had little to do. With many requests under way there is nearly always
 * something to do, and others need the processor. So do the kernel's threads while they work for
 * this one: to look meanwhile made a flush of the disk slower. Where others wanted the processor
 * while this one looked, it counts as a long wait.
 */

/** A wait that ended with a wake-up was longer by that: twice the time counts as short. */
const sleptFactor = 2;
/** One long wait outweighs so many short ones. */
const longWeight = 2;
const trustMax = 8;
const trustMin = 4;
/** Completions of a round, on average. */
const fewMax = 4;
const averageOf = 8;

export class BusyPoll {
  /** How long to look, in milliseconds; 0: never. */
  milliseconds = 0;
  #trust = 0;
  #perRound = 0;
  /** Operations that threads of the kernel do. */
  #elsewhere = 0;

  get pays(): boolean {
    return this.#trust >= trustMin && this.#elsewhere === 0 && this.#perRound <= fewMax &&
      this.milliseconds > 0;
  }

  /** An operation has begun that a thread of the kernel does. */
  began(): void {
    this.#elsewhere++;
  }

  ended(): void {
    this.#elsewhere--;
  }

  /** A wait of `milliseconds` ended, or was given up; `slept`: at least partly. */
  waited(milliseconds: number, slept: boolean): void {
    // How long a flush took says nothing about the next request.
    if (this.#elsewhere > 0) return;
    const short = slept ? this.milliseconds * sleptFactor : this.milliseconds;
    this.#trust = milliseconds <= short
      ? Math.min(trustMax, this.#trust + 1)
      : Math.max(0, this.#trust - longWeight);
  }

  /** Another thread had the processor for a while meanwhile. */
  interrupted(): void {
    this.#trust = Math.max(0, this.#trust - longWeight);
  }

  /** A round had so many completions. */
  round(completions: number): void {
    this.#perRound += (completions - this.#perRound) / averageOf;
  }
}
