/**
 * A primary's worker that dies is replaced under its mounted volume: link, loop device, mount and
 * the parent's /dev/fuse description stay, the kernel keeps what was asked, and the next worker
 * gets all of it again. docs/lifecycle.md describes it, docs/decisions/013 says why it may.
 *
 * Invariants:
 * - no worker is started before the dead one has left the kernel and its writes were flushed;
 * - the device is given up only where it cannot be kept (`lose`), never for the number of deaths.
 *
 * Everything here runs in the supervisor's queue; nothing in it waits for the peer.
 */
import { HastError } from '../base/errors.ts';
import { canResend, type Negotiated } from '../fuse/session.ts';
import type { Timing } from './timing.ts';
import {
  asHastError, isForPerson, sentence, type Run, type WorkerKeeper,
} from './worker-keeper.ts';

export interface RevivalHost {
  /** Runs `work` in the queue. */
  operate(work: () => Promise<void>): void;
  /** The device cannot be kept: it is taken away, and its users get EIO. `then`: the next role. */
  lose(why: HastError, then: 'init' | 'secondary'): Promise<void>;
}

/** The longest time a timer takes. */
const foreverMs = 2 ** 31 - 1;

export class Revival {
  readonly #keeper: WorkerKeeper;
  readonly #timing: Timing;
  readonly #host: RevivalHost;
  /** What the kernel and the first worker settled; null where a worker cannot be replaced. */
  #negotiated: Negotiated | null = null;
  /** The primary lost its local copy, or gave it back: a new worker would take it up again. */
  #isDetached = false;
  /** Deaths in a row of workers that had not served for a while. */
  #deaths = 0;
  /** Monotonic milliseconds: since when the present worker serves; when the last one died. */
  #servedAt = 0;
  #diedAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #needsHuman = false;
  #pauseMs = 0;

  constructor(keeper: WorkerKeeper, timing: Timing, host: RevivalHost) {
    this.#keeper = keeper;
    this.#timing = timing;
    this.#host = host;
  }

  /** In `reviving`: no pause and no peer ends it. */
  get needsHuman(): boolean {
    return this.#needsHuman && this.#keeper.state === 'reviving';
  }

  /** What a worker after this one needs; null where none may follow. */
  get negotiated(): Negotiated | null {
    return this.#negotiated;
  }

  get isDetached(): boolean {
    return this.#isDetached;
  }

  /** How long users waited for the worker that serves now, in milliseconds. */
  get pauseMs(): number {
    return this.#pauseMs;
  }

  /** Throws where the worker cannot be replaced under its device. */
  requireReplaceable(): void {
    if (this.#negotiated !== null && !this.#isDetached) return;
    const { name } = this.#keeper;
    const why = this.#isDetached ? 'its local copy is detached'
      : 'it cannot be replaced while it serves (frontend direct and Linux 6.9 are needed)';
    const how = this.#isDetached ? `hastctl attach ${name}, then again` :
      `unmount, hastctl role secondary ${name}, hastctl role primary ${name}`;
    throw new HastError('HAST_E_REFUSED', `the worker goes on: ${why}`, { hint: how });
  }

  /** A parent that begins found the device served. */
  adopted(negotiated: Negotiated | null, isDetached: boolean): void {
    this.shown(negotiated);
    this.#isDetached = isDetached;
  }

  /** It found a worker that has not served yet. */
  adoptedResuming(run: Run, negotiated: Negotiated | null): void {
    this.adopted(negotiated, false);
    this.#servedAt = 0;
    this.#diedAt = performance.now();
    this.#resume(run);
  }

  /** It found the device, and nobody who serves it. */
  async adoptedDead(negotiated: Negotiated): Promise<void> {
    this.adopted(negotiated, false);
    this.#servedAt = 0;
    this.#diedAt = performance.now();
    await this.#soon('the worker ended together with hastd');
  }

  /** A promotion built the device; says once where a dead worker would take it along. */
  shown(negotiated: Negotiated | null): void {
    const { log, resource } = this.#keeper;
    this.#negotiated = negotiated !== null && canResend(negotiated) ? negotiated : null;
    this.#deaths = 0;
    this.#servedAt = performance.now();
    this.#keeper.keepMounted();
    if (this.#negotiated !== null) return;
    const why = resource.frontend === 'direct' ? 'this kernel is older than Linux 6.9'
      : `it needs 'frontend direct'`;
    log.warn({ why }, 'if the worker dies, the device is taken away: it cannot be replaced');
  }

  copyDetached(isDetached: boolean): void {
    this.#isDetached = isDetached;
  }

  /** The worker of a primary ended, or does not what it should: its successor, now or soon. */
  async begin(run: Run, why: string): Promise<void> {
    const { log } = this.#keeper;
    if (this.#negotiated === null || this.#isDetached) {
      const reason = this.#isDetached ? 'the local copy is detached' : 'it cannot be replaced';
      const text = `the worker ended while primary (${why}); ${reason}`;
      await this.#host.lose(new HastError('HAST_E_INTERNAL', text), 'init');
      return;
    }
    const now = performance.now();
    const hasServed = this.#servedAt > 0 && now - this.#servedAt >= this.#timing.reviveStableMs;
    if (this.#deaths === 0 || hasServed) this.#diedAt = now;
    if (hasServed) this.#deaths = 0;
    this.#servedAt = 0;
    log.error({ end: why, deaths: this.#deaths + 1 }, 'the worker of the primary ended');
    await this.#keeper.bereave(run);
    await this.#soon(`the worker ended (${why})`);
  }

  /** Starts the successor: the pause is over, or a person does not want to wait for it. */
  async start(): Promise<void> {
    this.cancel();
    let run: Run;
    try {
      run = await this.#keeper.revive();
    } catch (error) {
      await this.#failed(asHastError(error));
      return;
    }
    this.#needsHuman = false;
    this.#resume(run);
  }

  #resume(run: Run): void {
    const answer = run.worker.request({ type: 'resume' }, ['promoted', 'refused'], foreverMs);
    answer.then((got) => this.#host.operate(async () => {
      if (!this.#isPresent(run)) return;
      if (got.type === 'promoted') await this.#serve(run);
      else await this.#refused(got.message, got.hint);
    }), (error: unknown) => this.#broken(run, error));
  }

  /** No timer starts a worker any more. */
  cancel(): void {
    clearTimeout(this.#timer);
  }

  #isPresent(run: Run): boolean {
    return run === this.#keeper.run && this.#keeper.state === 'resuming';
  }

  async #serve(run: Run): Promise<void> {
    const message = { type: 'serve', takeOver: this.#negotiated } as const;
    try {
      await run.worker.request(message, ['serving'], this.#timing.stepMs);
    } catch (error) {
      this.#broken(run, error);
      return;
    }
    this.#keeper.become('resumed');
    this.#servedAt = performance.now();
    this.#pauseMs = Math.round(this.#servedAt - this.#diedAt);
    const pauseMs = this.#pauseMs;
    this.#keeper.log.warn({ worker: run.worker.pid, pauseMs }, 'a new worker serves the device');
  }

  async #refused(message: string, hint: string): Promise<void> {
    const failure = new HastError('HAST_E_PROMOTE_REFUSED', message, { hint });
    await this.#host.lose(failure, 'secondary');
  }

  /** It did not come to serve the device; one that ended is handled like every other end. */
  #broken(run: Run, error: unknown): void {
    if (run.worker.exit !== undefined) return;
    this.#host.operate(async () => {
      if (this.#isPresent(run)) await this.begin(run, asHastError(error).message);
    });
  }

  async #failed(failure: HastError): Promise<void> {
    const { guard, resource, log } = this.#keeper;
    this.#needsHuman = isForPerson(failure);
    const isOver = guard.hasFailed || (this.#needsHuman && resource.onNoData === 'fail');
    if (isOver) {
      await this.#host.lose(failure, 'init');
      return;
    }
    log.error({ error: failure.message, hint: failure.hint }, 'no new worker could be started');
    await this.#soon(sentence(failure));
  }

  async #soon(why: string): Promise<void> {
    const { reviveMsMin, reviveMsMax } = this.#timing;
    const doubled = reviveMsMin * 2 ** Math.min(this.#deaths - 1, 30);
    const delay = this.#deaths === 0 ? 0 : Math.min(reviveMsMax, doubled);
    this.#deaths++;
    const when = delay === 0 ? 'now' : `in ${delay / 1000} s`;
    this.#keeper.detail = `${why}; the next is started ${when}, requests wait: ` +
      `hastctl role secondary --force ${this.#keeper.name} ends them with errors`;
    if (delay === 0) {
      await this.start();
      return;
    }
    this.#timer = setTimeout(() => this.#host.operate(async () => {
      if (this.#keeper.state === 'reviving') await this.start();
    }), delay);
  }
}
