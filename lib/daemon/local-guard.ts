/**
 * The parent's own description of `local`, opened before the worker's.
 *
 * The kernel tells a write that did not reach the disk once to each description that was open then.
 * A worker that dies takes its own along; pages that could not be written are dropped or look clean
 * afterwards: a new worker would read, and copy to the peer, what is not on the disk. So the next
 * starts only after a flush through this description: an error there is a failed copy.
 */
import { HastError, errnoName, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { within } from './deadline.ts';

export interface LocalOperations {
  /** Opens it for writing, without a lock. */
  openLocal(path: string): Promise<number>;
  /**
   * fdatasync. Rejects with the errno as `code`, and with a HastError where it could not be asked.
   * May take for ever.
   */
  flushLocal(fd: number): Promise<void>;
  closeLocal(fd: number): Promise<void>;
}

interface Description {
  path: string;
  fd: number;
}

export class LocalGuard {
  readonly #name: string;
  readonly #operations: LocalOperations;
  readonly #log: Logger;
  /** Bound on opening it, in milliseconds. */
  readonly #stepMs: number;
  #open: Description | null = null;
  /** A worker ended without having given the copy back. */
  #isSuspect = false;
  #flushing: Promise<void> | null = null;
  #failure: { path: string; error: HastError } | null = null;

  /** `name` of the resource. */
  constructor(name: string, operations: LocalOperations, log: Logger, stepMs: number) {
    this.#name = name;
    this.#operations = operations;
    this.#log = log;
    this.#stepMs = stepMs;
  }

  get isOpen(): boolean {
    return this.#open !== null;
  }

  /** The copy failed, and nobody said since that the disk was replaced. */
  get hasFailed(): boolean {
    return this.#failure !== null;
  }

  /** Before a worker opens `path`, which says what stands against it. */
  async open(path: string): Promise<void> {
    this.close();
    const opening = this.#operations.openLocal(path);
    let isLate = false;
    opening.then((fd) => {
      if (isLate) this.#close(fd);
      else this.#open = { path, fd };
    }, () => undefined);
    await within(this.#stepMs, `opening ${path}`, opening).catch((error: unknown) => {
      isLate = true;
      this.#log.debug({ error: errorText(error) }, 'the parent cannot open the local copy');
    });
  }

  /** The worker ended in order or let go of the copy: so does the parent. */
  close(): void {
    const open = this.#open;
    this.#open = null;
    this.#isSuspect = false;
    this.#flushing = null;
    if (open !== null) this.#close(open.fd);
  }

  /** The worker ends, but not in order; `ended` resolves when it is gone. The flush begins then. */
  suspect(ended: Promise<unknown>): void {
    if (this.#open === null) return;
    this.#isSuspect = true;
    this.#flushing = this.#flush(this.#open, ended);
    this.#flushing.catch(() => undefined); // met in settle()
  }

  /**
   * Before the next worker of the copy at `path`. Throws HAST_E_IO, from then on every time, where
   * what the last one wrote is not on the disk; HAST_E_TIMEOUT where the disk does not answer
   * within `ms`.
   */
  async settle(path: string, ms: number): Promise<void> {
    if (this.#isSuspect && this.#open !== null) {
      this.#flushing ??= this.#flush(this.#open, Promise.resolve());
      await within(ms, `a flush of ${this.#open.path} after its worker's end`, this.#flushing);
    }
    if (this.#failure?.path === path) throw this.#failure.error;
    this.#failure = null;
  }

  async #flush(open: Description, ended: Promise<unknown>): Promise<void> {
    await ended;
    try {
      await this.#operations.flushLocal(open.fd);
    } catch (error) {
      if (this.#open !== open) return;
      if (error instanceof HastError) {
        this.#flushing = null;
        throw error;
      }
      const failure = copyFailed(open.path, this.#name, errnoName(error) ?? errorText(error));
      this.#log.error({ hint: failure.hint }, failure.message);
      this.#failure = { path: open.path, error: failure };
    }
    if (this.#open === open) this.close();
  }

  /** A person says that the copy may be used again. */
  forget(): void {
    this.#failure = null;
    this.close();
  }

  #close(fd: number): void {
    // Not waited for: it may wait for the disk.
    this.#operations.closeLocal(fd).catch((error: unknown) => {
      this.#log.warn({ error: errorText(error) }, 'closing the local copy failed');
    });
  }
}

function copyFailed(path: string, name: string, why: string): HastError {
  return new HastError(
    'HAST_E_IO', `the copy failed: what its last worker wrote is not on ${path} (${why})`,
    { hint: `replace the disk, hastctl create ${name}, then: hastctl attach ${name}`, errno: why },
  );
}
