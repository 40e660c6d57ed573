/** Named deadlines on the clock port's time; who drives the core calls `run` when one is due. */

export class Timers {
  readonly #deadlines = new Map<string, { at: number; run: () => void }>();
  readonly #onSet: () => void;

  /** `onSet` is called after each set(): the next deadline may be an earlier one. */
  constructor(onSet: () => void = () => undefined) {
    this.#onSet = onSet;
  }

  /** Sets or moves the timer `name` to the monotonic millisecond `at`. */
  set(name: string, at: number, run: () => void): void {
    this.#deadlines.set(name, { at, run });
    this.#onSet();
  }

  clear(name: string): void {
    this.#deadlines.delete(name);
  }

  has(name: string): boolean {
    return this.#deadlines.has(name);
  }

  /** The earliest deadline, or null. */
  next(): number | null {
    let next: number | null = null;
    for (const { at } of this.#deadlines.values()) if (next === null || at < next) next = at;
    return next;
  }

  /** Runs what is due at `now`, earliest first; each timer once. */
  run(now: number): void {
    const due = [...this.#deadlines].filter(([, timer]) => timer.at <= now);
    due.sort(([, one], [, other]) => one.at - other.at);
    for (const [name, timer] of due) {
      if (this.#deadlines.get(name) !== timer) continue;
      this.#deadlines.delete(name);
      timer.run();
    }
  }
}
