/**
 * How much may be written to memory before the kernel makes writers wait: below
 * nr_dirty_background_threshold nobody waits (mm/page-writeback.c, balance_dirty_pages: the bound
 * is halfway between that and nr_dirty_threshold, which is twice as high by default). Others write
 * too: half of what is left counts, and it is looked at again soon. Limits of control groups come
 * in addition: MemoryGroups.
 */
import * as fs from 'node:fs';
import { MemoryGroups } from './memory-groups.ts';

const lookAgainMs = 100;
/** Pages are larger on some machines: then this is on the safe side. */
const pageSize = 4096;

export class DirtyMemory {
  readonly #file: string;
  readonly #groups: MemoryGroups;
  /** Bytes that may be written until the next look. */
  #left = 0;
  #lookAt = 0;

  constructor(file = '/proc/vmstat', groups = new MemoryGroups()) {
    this.#file = file;
    this.#groups = groups;
  }

  /**
   * Whether `bytes` more are far from making anybody wait; they count as written then. `now`:
   * milliseconds that only rise.
   */
  take(bytes: number, now: number): boolean {
    if (now >= this.#lookAt) this.#look(now);
    if (bytes > this.#left) return false;
    this.#left -= bytes;
    return true;
  }

  #look(now: number): void {
    this.#lookAt = now + lookAgainMs;
    this.#left = 0;
    try {
      const text = fs.readFileSync(this.#file, 'latin1');
      const bound = figure(text, 'nr_dirty_background_threshold');
      const dirty = figure(text, 'nr_dirty') + figure(text, 'nr_writeback');
      const left = Math.min((bound - dirty) * pageSize, this.#groups.left(now));
      this.#left = Math.max(0, left / 2);
    } catch {
      // Not told: nothing is taken.
    }
  }
}

/** Throws where the kernel does not tell it. */
function figure(text: string, name: string): number {
  const found = new RegExp(`^${name} (\\d+)$`, 'm').exec(text);
  if (found === null) throw new Error(`no ${name}`);
  return Number(found[1]);
}
