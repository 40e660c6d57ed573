/**
 * Overlapping ranges in flight, one after the other and in the order of their arrival, so that
 * both copies end with the same bytes. Readers take no lock.
 *
 * Invariants: no two held ranges overlap; a range waits while it overlaps a held one or one that
 * waits since before it (so nobody starves).
 *
 * Linear in the number of ranges in flight, which the request slots bound (about a hundred).
 */

export interface RangeLock {
  from: number;
  /** One past the last byte. */
  to: number;
  /** Called when a lock that had to wait is held. */
  onGranted(): void;
}

function overlap(one: RangeLock, other: RangeLock): boolean {
  return one.from < other.to && other.from < one.to;
}

export class RangeLocks {
  readonly #held: RangeLock[] = [];
  readonly #waiting: RangeLock[] = [];

  get heldCount(): number {
    return this.#held.length;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** True: held now. False: `onGranted` is called later. */
  acquire(lock: RangeLock): boolean {
    for (const held of this.#held) {
      if (overlap(held, lock)) return this.#wait(lock);
    }
    for (const waiting of this.#waiting) {
      if (overlap(waiting, lock)) return this.#wait(lock);
    }
    this.#held.push(lock);
    return true;
  }

  release(lock: RangeLock): void {
    const index = this.#held.indexOf(lock);
    const last = this.#held.pop() as RangeLock;
    if (last !== lock) this.#held[index] = last;
    if (this.#waiting.length > 0) this.#grant(lock);
  }

  /** `lock` waits no longer; nothing where it does not wait. */
  withdraw(lock: RangeLock): void {
    const index = this.#waiting.indexOf(lock);
    if (index < 0) return;
    this.#waiting.splice(index, 1);
    this.#grant(lock);
  }

  /** `next` holds the range of `held` from now on; both name the same range. */
  replace(held: RangeLock, next: RangeLock): void {
    this.#held[this.#held.indexOf(held)] = next;
  }

  #wait(lock: RangeLock): false {
    this.#waiting.push(lock);
    return false;
  }

  #grant(released: RangeLock): void {
    const granted: RangeLock[] = [];
    for (let index = 0; index < this.#waiting.length; index++) {
      const lock = this.#waiting[index] as RangeLock;
      if (!overlap(released, lock) || this.#blocked(lock, index)) continue;
      this.#waiting.splice(index, 1);
      index--;
      this.#held.push(lock);
      granted.push(lock);
    }
    for (const lock of granted) lock.onGranted();
  }

  #blocked(lock: RangeLock, index: number): boolean {
    for (const held of this.#held) if (overlap(held, lock)) return true;
    for (let before = 0; before < index; before++) {
      if (overlap(this.#waiting[before] as RangeLock, lock)) return true;
    }
    return false;
  }
}
