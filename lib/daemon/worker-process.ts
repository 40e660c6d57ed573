/**
 * The parent's handle on one worker process: requests with a bound, handing over peer connections,
 * and how it ended. It decides nothing: lib/daemon/supervisor.ts does.
 */
import type * as net from 'node:net';
import { HastError } from '../base/errors.ts';
import type { Resolution } from '../control/messages.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import type { VolumeMap } from '../format/volume-map.ts';
import { within } from './deadline.ts';
import type { WorkerLink } from './worker-link.ts';
import type { Order, ParentMessage, WorkerMessage } from './worker-protocol.ts';

/** A worker that said `failed` outside of a request ends by itself, or is killed after this. */
const failedExitMs = 10_000;

export interface WorkerExit {
  code: number | null;
  signal: string | null;
  /** What the worker said in its last `failed` message. */
  failure: HastError | undefined;
}

/** What a worker says of itself. */
export type WorkerView = Extract<WorkerMessage, { type: 'status' }>;

export type WorkerEvent = Extract<WorkerMessage, { type: 'event' }>['event'];

/** What a worker says unasked. */
export interface WorkerSays {
  event(event: WorkerEvent): void;
  /** Nobody can use the volume any more, and it was not the parent who saw to that. */
  unmounted(): void;
  /** What the peer said. */
  switchover(said: SwitchoverSaid): void;
}

interface Waiter {
  answers: readonly string[];
  /** Of an order: only the answer with the same one counts. */
  id?: number | undefined;
  resolve(message: WorkerMessage): void;
  reject(error: Error): void;
}

export class WorkerProcess {
  /** Resolves once, however the process ended; never rejects. */
  readonly exited: Promise<WorkerExit>;
  /** Set from the moment the process has ended. */
  exit: WorkerExit | undefined;
  readonly startedAt = performance.now();
  readonly #link: WorkerLink;
  readonly #waiters = new Set<Waiter>();
  #failure: HastError | undefined;
  #viewPending: Promise<WorkerView> | undefined;
  #orders = 0;
  readonly #says: WorkerSays;
  readonly #stuck: Promise<void>;
  readonly #loaded: Promise<void>;
  #saysLoaded: () => void = () => undefined;
  #saysStuck: () => void = () => undefined;

  constructor(link: WorkerLink, says: WorkerSays) {
    this.#link = link;
    this.#says = says;
    this.#stuck = new Promise((resolve) => {
      this.#saysStuck = resolve;
    });
    this.#loaded = new Promise((resolve) => {
      this.#saysLoaded = resolve;
    });
    this.exited = new Promise((resolve) => {
      const settle = (code: number | null, signal: string | null): void => {
        if (this.exit !== undefined) return;
        this.exit = { code, signal, failure: this.#failure };
        this.#rejectAll(this.#exitError(this.exit));
        resolve(this.exit);
      };
      link.listen({
        message: (message) => this.#receive(message),
        ended: settle,
        failed: (why) => {
          this.#failure ??= new HastError('HAST_E_BUSY', `cannot start it: ${why}`, {
            hint: "see hastd's log; memory or processes may be exhausted",
          });
          settle(null, null);
        },
      });
    });
  }

  get pid(): number | null {
    return this.#link.pid;
  }

  /** A copy of descriptor `fd` of an adopted worker; -1 where it cannot be had. */
  descriptor(fd: number): number {
    return this.#link.descriptor(fd);
  }

  /**
   * Sends `message` and waits for one of `answers`. Throws the worker's own error where it
   * answers `failed`, HAST_E_TIMEOUT after `timeoutMs`, and an error where it ends instead.
   */
  async request<T extends WorkerMessage['type']>(
    message: ParentMessage,
    answers: readonly T[],
    timeoutMs: number,
    id?: number,
  ): Promise<Extract<WorkerMessage, { type: T }>> {
    if (this.exit !== undefined) throw this.#exitError(this.exit);
    let waiter: Waiter | undefined;
    const answer = new Promise<WorkerMessage>((resolve, reject) => {
      waiter = { answers, id, resolve, reject };
      this.#waiters.add(waiter);
      this.#send(message, reject);
    });
    try {
      const got = await within(timeoutMs, `the worker's answer to '${message.type}'`, answer);
      return got as Extract<WorkerMessage, { type: T }>;
    } finally {
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  /** Requests at the same time share one answer. */
  view(timeoutMs: number): Promise<WorkerView> {
    this.#viewPending ??= this.request({ type: 'status' }, ['status'], timeoutMs)
      .finally(() => { this.#viewPending = undefined; });
    return this.#viewPending;
  }

  async map(cells: number, timeoutMs: number): Promise<VolumeMap> {
    const id = ++this.#orders;
    const { map } = await this.request({ type: 'map', id, cells }, ['map'], timeoutMs, id);
    return map;
  }

  /** Throws what the worker declines it with. */
  async order(order: Order, timeoutMs: number): Promise<Resolution | null> {
    const id = ++this.#orders;
    const answers = ['ordered', 'declined'] as const;
    const answer = await this.request({ type: 'order', id, order }, answers, timeoutMs, id);
    if (answer.type === 'ordered') return answer.resolution;
    const hint = answer.hint === '' ? {} : { hint: answer.hint };
    throw new HastError(answer.code, answer.message, hint);
  }

  /** Gives an accepted connection away; the socket is not usable here afterwards. */
  handOver(preface: Uint8Array, socket: net.Socket): void {
    if (this.exit !== undefined || !this.#link.isOpen) socket.destroy();
    else this.#link.sendSocket(preface, socket);
  }

  /** Its code is loaded. Throws where it ends, or takes longer than `timeoutMs`. */
  async whenLoaded(timeoutMs: number): Promise<void> {
    const loaded = Promise.race([this.#loaded, this.whenEnded()]);
    await within(timeoutMs, 'loading the worker', loaded);
  }

  /** Rejects when it has ended. */
  async whenEnded(): Promise<never> {
    const exit = await this.exited;
    throw exit.failure ??
      new HastError('HAST_E_INTERNAL', `the worker ended meanwhile (${exitText(exit)})`);
  }

  /** Asks it to end and waits; false where it is still there after `timeoutMs`, or stuck. */
  async stop(force: boolean, timeoutMs: number): Promise<boolean> {
    if (this.exit !== undefined) return true;
    this.#send({ type: 'stop', force }, () => undefined);
    return await this.#endedWithin(timeoutMs, this.#stuck);
  }

  /** SIGKILL; false where the kernel does not let it go within `timeoutMs`. */
  async kill(timeoutMs: number): Promise<boolean> {
    if (this.exit !== undefined) return true;
    this.#link.kill();
    return await this.#endedWithin(timeoutMs);
  }

  async #endedWithin(timeoutMs: number, ...or: Promise<void>[]): Promise<boolean> {
    const end = Promise.race([this.exited, ...or]);
    await within(timeoutMs, 'ending the worker', end).catch(() => undefined);
    return this.exit !== undefined;
  }

  #send(message: ParentMessage, onError: (error: Error) => void): void {
    if (this.#link.isOpen) this.#link.send(message, onError);
    else onError(new HastError('HAST_E_INTERNAL', 'the worker does not listen any more'));
  }

  #receive(message: WorkerMessage): void {
    if (message.type === 'event') {
      this.#says.event(message.event);
      return;
    }
    if (message.type === 'switchover' || message.type === 'facts') {
      this.#says.switchover(message.said);
      return;
    }
    if (message.type === 'unmounted') {
      this.#says.unmounted();
      return;
    }
    if (message.type === 'failed') {
      this.#fail(message);
      return;
    }
    if (message.type === 'stuck') {
      this.#saysStuck();
      return;
    }
    if (message.type === 'loaded') {
      this.#saysLoaded();
      return;
    }
    for (const waiter of this.#waiters) {
      const isMeant = waiter.id === undefined || ('id' in message && message.id === waiter.id);
      if (isMeant && waiter.answers.includes(message.type)) waiter.resolve(message);
    }
  }

  #fail(message: Extract<WorkerMessage, { type: 'failed' }>): void {
    const hint = message.hint === undefined || message.hint === '' ? {} : { hint: message.hint };
    this.#failure = new HastError(message.code, message.message, hint);
    let asked = false;
    for (const waiter of this.#waiters) {
      if (waiter.answers.includes('status') || waiter.id !== undefined) continue;
      asked = true;
      waiter.reject(this.#failure);
    }
    if (!asked) setTimeout(() => void this.kill(failedExitMs), failedExitMs).unref();
  }

  #exitError(exit: WorkerExit): HastError {
    return exit.failure ??
      new HastError('HAST_E_INTERNAL', `the worker ended before it answered (${exitText(exit)})`, {
        hint: "see hastd's log",
      });
  }

  #rejectAll(error: Error): void {
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters.clear();
  }
}

/** The device of a primary is gone, and nothing could be done about it. */
export function lostDevice(why: string, name: string): HastError {
  return new HastError('HAST_E_DEVICE', why, {
    hint: `umount what was mounted on it, then: hastctl up ${name}`,
  });
}

/** Why a worker ended, where it did not say so itself. */
export function asFailure(exit: WorkerExit): HastError {
  return new HastError('HAST_E_TIMEOUT', exitText(exit), { hint: "see hastd's log" });
}

/** How a process ended, for logs. */
export function exitText(exit: WorkerExit): string {
  const how = exit.signal === null ? `exit code ${exit.code ?? 'none'}` : exit.signal;
  return exit.failure === undefined ? how : `${how}: ${exit.failure.message}`;
}
