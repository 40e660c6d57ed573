/**
 * The worker of one resource in the parent: the state the resource is in, and how its worker is
 * started, ended, and started again with a growing pause. What a role needs beside a worker is
 * the supervisor's: lib/daemon/supervisor.ts. Everything here runs in the supervisor's queue.
 *
 * Invariants:
 * - a worker exists in the states starting, secondary, promoting, primary, leaving, stopping;
 * - the state changes only along the edges of lib/daemon/states.ts.
 */
import * as path from 'node:path';
import { assert } from '../base/assert.ts';
import { HastError, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ResourceConfig } from '../config/model.ts';
import type { RoleWord } from '../control/messages.ts';
import { within } from './deadline.ts';
import type { DeviceOperations } from './device.ts';
import { LocalGuard } from './local-guard.ts';
import { withFields } from './log-fields.ts';
import type { SupervisorEvent, SupervisorState } from './states.ts';
import { roleOf, transitions } from './states.ts';
import type { Timing } from './timing.ts';
import type { WorkerEvent, WorkerExit, WorkerProgram } from './worker-process.ts';
import { WorkerProcess } from './worker-process.ts';

export interface KeeperOptions {
  resource: ResourceConfig;
  node: string;
  rundir: string;
  program: WorkerProgram;
  operations: DeviceOperations;
  log: Logger;
  timing: Timing;
}

export interface KeeperEvents {
  /** The worker says that something happened. */
  event(event: WorkerEvent): void;
  /** A worker is gone, whatever the reason; also one that was told to end. */
  ended(run: Run, exit: WorkerExit): void;
  /** The pause is over: start() is to be called in the queue, if the state is still backoff. */
  retry(): void;
}

/** A worker and the parent's own /dev/fuse description of it. */
export interface Run {
  worker: WorkerProcess;
  fuseFd: number | null;
}

/** Time given to a worker that failed to start or to promote, before it is killed. */
export const failedStopMs = 2000;

export class WorkerKeeper {
  readonly log: Logger;
  readonly guard: LocalGuard;
  resource: ResourceConfig;
  /** Why the state is what it is; shown in status. */
  detail = '';
  /** Starts without success in a row. */
  restarts = 0;
  readonly #options: KeeperOptions;
  readonly #timing: Timing;
  readonly #events: KeeperEvents;
  #state: SupervisorState = 'init';
  #run: Run | undefined;
  #retryTimer: NodeJS.Timeout | undefined;

  constructor(options: KeeperOptions, events: KeeperEvents) {
    this.#options = options;
    this.#timing = options.timing;
    this.#events = events;
    this.resource = options.resource;
    this.log = withFields(options.log, () => ({ resource: this.name, role: this.role }));
    this.guard = new LocalGuard(
      this.name, options.operations, this.log, options.timing.stepMs,
    );
  }

  get name(): string {
    return this.resource.name;
  }

  get state(): SupervisorState {
    return this.#state;
  }

  get role(): RoleWord {
    return roleOf[this.#state];
  }

  get run(): Run | undefined {
    return this.#run;
  }

  get mountPoint(): string {
    return path.join(this.#options.rundir, this.name);
  }

  /** The worker while it can take a peer's connection, or an order. */
  get activeWorker(): WorkerProcess | undefined {
    const takes = this.#state === 'secondary' || this.#state === 'promoting' ||
      this.#state === 'primary' || this.#state === 'leaving';
    return takes ? this.#run?.worker : undefined;
  }

  become(event: SupervisorEvent): void {
    const to = transitions[this.#state][event];
    assert(to !== undefined, `${this.name}: '${event}' is impossible in '${this.#state}'`);
    this.log.debug({ from: this.#state, to, event }, 'state');
    this.#state = to;
    if (to !== 'backoff' && to !== 'failed') this.detail = '';
  }

  /**
   * Starts a worker and waits until it is ready. Where it fails, the state is `init`, or with
   * `retry` one in which it is tried again or waits for a person; the failure is thrown.
   */
  async start(onFailure: 'init' | 'retry', readyMs: number): Promise<void> {
    this.cancelRetry();
    this.become('start');
    let run: Run | undefined;
    try {
      await this.settle(Math.min(readyMs, this.#timing.stepMs));
      run = await this.#spawn();
      this.#run = run;
      const message = {
        type: 'start',
        resource: this.resource,
        node: this.#options.node,
        mountPoint: this.mountPoint,
        fuseFd: run.fuseFd === null ? null : 3,
      } as const;
      await run.worker.request(message, ['ready'], readyMs);
      this.become('ready');
    } catch (error) {
      const failure = asHastError(error);
      if (run !== undefined) await this.end(run, true, failedStopMs);
      if (onFailure === 'init') this.become('undone');
      else this.rest(failure);
      throw failure;
    }
  }

  /** What the last worker wrote is on the disk, or this throws: see LocalGuard.settle. */
  async settle(ms: number): Promise<void> {
    await this.guard.settle(this.resource.local, ms);
  }

  /** Role secondary without a worker: tried again later, or not before a person acted. */
  rest(failure: HastError): void {
    const forPerson = failure.errorClass === 'config' || failure.errorClass === 'corruption' ||
      (failure.errorClass === 'device' && failure.code !== 'HAST_E_INTERNAL');
    if (forPerson) {
      this.become('broken');
      this.detail = sentence(failure);
      const hint = failure.hint ?? `correct the cause, then: hastctl role secondary ${this.name}`;
      this.log.error({ error: failure.message, hint }, 'the worker is not started again');
      return;
    }
    const { backoffMsMin, backoffMsMax } = this.#timing;
    const delay = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(this.restarts, 30));
    this.restarts++;
    this.become('lost');
    this.detail = `the worker is started again in ${delay / 1000} s: ${sentence(failure)}`;
    this.log.warn({ error: failure.message, delayMs: delay }, 'the worker is restarted later');
    this.#retryTimer = setTimeout(() => this.#events.retry(), delay);
  }

  cancelRetry(): void {
    clearTimeout(this.#retryTimer);
  }

  /** Asks the worker to end, kills it where it does not, and forgets it. */
  async end(run: Run, force: boolean, stopMs: number): Promise<void> {
    if (!await run.worker.stop(force, stopMs)) {
      this.log.warn({ worker: run.worker.pid }, 'the worker does not stop: it is killed');
      if (!await run.worker.kill(this.#timing.killMs)) {
        this.log.error(
          { worker: run.worker.pid },
          'the worker is stuck in the kernel and cannot be ended; its disk does not answer',
        );
      }
    }
    await this.forget(run);
  }

  /** Closes the parent's /dev/fuse description: with the worker's gone, pending I/O gets EIO. */
  async forget(run: Run): Promise<void> {
    if (this.#run === run) this.#run = undefined;
    if (run.worker.exit?.code === 0) this.guard.close();
    else this.guard.suspect(run.worker.exited);
    const { fuseFd } = run;
    run.fuseFd = null;
    if (fuseFd === null) return;
    await this.#options.operations.closeFuse(fuseFd).catch((error: unknown) => {
      this.log.error({ error: errorText(error) }, 'closing /dev/fuse failed');
    });
  }

  async #spawn(): Promise<Run> {
    const fuseFd = this.resource.frontend === 'direct'
      ? await within(this.#timing.stepMs, 'opening /dev/fuse', this.#options.operations.openFuse())
      : null;
    await this.guard.open(this.resource.local);
    const worker = new WorkerProcess(
      this.#options.program, fuseFd, (event) => this.#events.event(event),
    );
    const run = { worker, fuseFd };
    void worker.exited.then((exit) => this.#events.ended(run, exit));
    return run;
  }
}

export function asHastError(error: unknown): HastError {
  if (error instanceof HastError) return error;
  return new HastError('HAST_E_INTERNAL', errorText(error), { cause: error });
}

function sentence(error: HastError): string {
  return error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
}
