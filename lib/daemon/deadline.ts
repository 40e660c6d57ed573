/** Bounds on waiting: every wait of the parent goes through one of these. */
import { HastError } from '../base/errors.ts';

/**
 * The result of `work`, or HAST_E_TIMEOUT after `ms`. The work itself goes on; what it ends
 * with later is dropped.
 */
export function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new HastError('HAST_E_TIMEOUT', `${what} took more than ${ms / 1000} s`, {
        hint: "see hastd's log and the kernel's (dmesg): a disk or the kernel may hang",
      }));
    }, ms);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** One budget for several steps. */
export class Deadline {
  readonly #end: number;

  constructor(ms: number) {
    this.#end = performance.now() + ms;
  }

  /** Milliseconds left, at least `least` so that the last step still gets a chance. */
  left(least: number): number {
    return Math.max(least, Math.round(this.#end - performance.now()));
  }
}

/** Keys come from outside, such as addresses: beyond this many the memory of them is dropped. */
const keysMax = 1024;

/** Lets one call per key through each `ms`; says how many it held back since. */
export class RateLimit {
  readonly #ms: number;
  readonly #keys = new Map<string, { since: number; held: number }>();

  constructor(ms: number) {
    this.#ms = ms;
  }

  /** The number of calls held back since the last one let through, or undefined: hold back. */
  take(key: string): number | undefined {
    const now = performance.now();
    const entry = this.#keys.get(key);
    if (entry !== undefined && now - entry.since < this.#ms) {
      entry.held++;
      return undefined;
    }
    if (this.#keys.size >= keysMax) this.#keys.clear();
    this.#keys.set(key, { since: now, held: 0 });
    return entry?.held ?? 0;
  }
}
