/** Requests that leave a data path while a local disk may still use their memory. */
import type { AppRequest } from './ports.ts';

/** A local operation that may still use the request's memory. */
export class Held {
  #isOver = false;
  #release: (() => void) | null = null;

  /** The operation returned after all. */
  over(): void {
    this.#isOver = true;
    this.#release?.();
  }

  /** Answers `app`; its memory is kept while the operation may touch it. */
  answer(app: AppRequest, errno: number, data: Buffer | null): void {
    if (this.#isOver) {
      if (data !== null) data.copy(app.buffer, app.bufferOffset);
      app.complete(errno);
    } else {
      this.#release = app.completeHeld(errno, data);
    }
  }
}

/** A request on its way from one data path to the other. */
export interface Pending {
  app: AppRequest;
  held: Held | null;
  /** Monotonic milliseconds of its arrival. */
  since: number;
}
