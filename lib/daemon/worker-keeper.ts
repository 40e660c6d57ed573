/**
 * The worker of one resource in the parent: the state the resource is in, and how its worker is
 * started, ended, and started again with a growing pause. What a role needs beside a worker is
 * the supervisor's: lib/daemon/supervisor.ts. Everything here runs in the supervisor's queue.
 *
 * Invariants:
 * - a worker exists in the states starting, secondary, promoting, primary, resuming, leaving,
 *   stopping; in `leaving` it may have ended;
 * - the /dev/fuse description of a primary is open here until its device is taken away;
 * - the state changes only along the edges of lib/daemon/states.ts.
 */
import * as path from 'node:path';
import { assert } from '../base/assert.ts';
import { HastError, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ResourceConfig } from '../config/model.ts';
import type { RoleWord } from '../control/messages.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import { within } from './deadline.ts';
import type { DeviceOperations } from './device.ts';
import { LocalGuard } from './local-guard.ts';
import { withFields } from './log-fields.ts';
import type { SupervisorEvent, SupervisorState } from './states.ts';
import { roleOf, transitions } from './states.ts';
import type { Timing } from './timing.ts';
import type { DescriptorStore } from './service-manager.ts';
import { hashOf, workerFile } from './worker-files.ts';
import { AdoptedLink, ChildLink, type WorkerLink, type WorkerProgram } from './worker-link.ts';
import type { WorkerEvent, WorkerExit } from './worker-process.ts';
import { exitText, WorkerProcess } from './worker-process.ts';
import type { WorkerMemo } from './worker-protocol.ts';

export interface KeeperOptions {
  resource: ResourceConfig;
  node: string;
  rundir: string;
  program: WorkerProgram;
  operations: DeviceOperations;
  store?: DescriptorStore | undefined;
  log: Logger;
  timing: Timing;
  /** What the peer of a resource says of a switchover. */
  onSwitchover?: (resource: string, said: SwitchoverSaid) => void;
  /** Something may be different now, for those who watch. */
  onNotice?: (resource: string, notice: Notice) => void;
}

/** `state`: of this object. `ended`: its worker did. */
export type Notice =
  | { kind: 'state' } | { kind: 'event'; event: WorkerEvent } | { kind: 'ended'; why: string };

export interface KeeperEvents {
  /** The worker says that something happened. */
  event(event: WorkerEvent): void;
  /** A worker is gone, whatever the reason; also one that was told to end. */
  ended(run: Run, exit: WorkerExit): void;
  /** The volume of this worker was unmounted by somebody else. */
  unmounted(run: Run): void;
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
  /** In `reviving`: the mounted description of the worker that died. */
  #mountedFd: number | null = null;
  #retryTimer: NodeJS.Timeout | undefined;
  /** Loaded, and told nothing yet. */
  #prepared: Run | undefined;

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
      this.#state === 'primary' || this.#state === 'resuming' || this.#state === 'leaving';
    return takes ? this.#run?.worker : undefined;
  }

  become(event: SupervisorEvent): void {
    const to = transitions[this.#state][event];
    assert(to !== undefined, `${this.name}: '${event}' is impossible in '${this.#state}'`);
    this.log.debug({ from: this.#state, to, event }, 'state');
    this.#state = to;
    if (to !== 'backoff' && to !== 'failed' && to !== 'reviving') this.detail = '';
    this.#options.onNotice?.(this.name, { kind: 'state' });
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
      const fuseFd = await this.#openFuse();
      await this.guard.open(this.resource.local);
      run = this.#spawn(fuseFd);
      await this.#ready(run, false, readyMs);
    } catch (error) {
      const failure = asHastError(error);
      if (run !== undefined) await this.end(run, true, failedStopMs);
      if (onFailure === 'init') this.become('undone');
      else this.rest(failure);
      throw failure;
    }
  }

  /**
   * Loads the code of the next worker while the present one serves. Throws where it does not come
   * so far; nothing has changed then.
   */
  async prepare(): Promise<void> {
    const fuseFd = this.#run?.fuseFd ?? null;
    const next = this.#newRun(new ChildLink(this.#options.program, fuseFd), null);
    try {
      await next.worker.whenLoaded(this.#timing.readyMs);
      this.#prepared = next;
    } catch (error) {
      await next.worker.kill(this.#timing.killMs);
      throw asHastError(error);
    }
  }

  /**
   * A primary's worker is gone, or is killed here: the description of its mount is kept, so that
   * the kernel keeps what was asked of it, and the next worker may be given it.
   */
  async bereave(run: Run): Promise<void> {
    this.become('died');
    this.#mountedFd = run.fuseFd;
    run.fuseFd = null;
    // Not asked to stop: it would answer what waits with errors.
    await run.worker.kill(this.#timing.killMs);
    await this.forget(run);
  }

  /**
   * Starts the successor of a primary's worker. Throws, the state being the same, where it does not
   * come so far: HAST_E_IO where what the last one wrote is not on the disk.
   */
  async revive(): Promise<Run> {
    assert(this.#state === 'reviving' && this.#mountedFd !== null, 'no device to be served');
    // It reads nothing before it is told to start: its own beginning need not wait for the flush.
    const run = this.#spawn(this.#mountedFd);
    this.#mountedFd = null;
    let isStarted = false;
    try {
      await this.settle(this.#timing.stepMs);
      await this.guard.open(this.resource.local);
      isStarted = true;
      await this.#ready(run, true, this.#timing.readyMs);
      return run;
    } catch (error) {
      this.#mountedFd = run.fuseFd;
      run.fuseFd = null;
      await run.worker.kill(this.#timing.killMs);
      // One that was never started wrote nothing; the flush that is waited for goes on.
      if (isStarted) await this.forget(run);
      else this.#run = undefined;
      throw asHastError(error);
    }
  }

  /**
   * Takes over the worker that an earlier parent started: its state, its resource as it knows it,
   * and the description of /dev/fuse. Null where there is none. Throws where there is one that
   * cannot be taken over: it goes on as it is.
   */
  async adopt(): Promise<WorkerMemo | null> {
    const found = await AdoptedLink.connect(this.#socketPath, this.#timing.stepMs);
    if (found === null) return null;
    const { link, memo } = found;
    const { fuseFd } = memo.start;
    const descriptor = fuseFd === null ? -1 : link.descriptor(fuseFd);
    this.#follow(link, descriptor < 0 ? null : descriptor);
    // Keywords that its release does not know yet keep their values.
    this.resource = { ...this.resource, ...memo.start.resource };
    if (!memo.isDetached) await this.guard.open(this.resource.local);
    const states = { secondary: 'secondary', serving: 'primary', resuming: 'resuming' } as const;
    this.become(`adopted-${states[memo.state]}`);
    return memo;
  }

  /** The mount of a primary that died with its parent, if its description was kept. */
  async adoptDead(): Promise<boolean> {
    const fd = this.#options.store?.take(this.#storeName) ?? null;
    if (fd === null) return false;
    this.#mountedFd = fd;
    this.become('adopted-dead');
    await this.guard.open(this.resource.local);
    this.guard.suspect(Promise.resolve());
    return true;
  }

  /** The device is there: its description outlives this process, where somebody keeps it. */
  keepMounted(): void {
    const fuseFd = this.#run?.fuseFd ?? null;
    if (fuseFd !== null) this.#options.store?.keep(this.#storeName, fuseFd);
  }

  /** Ends the connection of a mount that has no worker: what its users wait for fails. */
  async closeMounted(): Promise<void> {
    const fuseFd = this.#mountedFd;
    this.#mountedFd = null;
    // It has a descriptor of the connection, which ends with the last one.
    await this.#prepared?.worker.kill(this.#timing.killMs);
    this.#prepared = undefined;
    if (fuseFd !== null) await this.#closeFuse(fuseFd);
  }

  /** What the last worker wrote is on the disk, or this throws: see LocalGuard.settle. */
  async settle(ms: number): Promise<void> {
    await this.guard.settle(this.resource.local, ms);
  }

  /** After a worker's unexpected end: why its copy must not be used any more, or null. */
  async copyFailure(): Promise<HastError | null> {
    const failure = await this.settle(this.#timing.stepMs).then(() => null, asHastError);
    return this.guard.hasFailed ? failure : null;
  }

  /** Role secondary without a worker: tried again later, or not before a person acted. */
  rest(failure: HastError): void {
    if (isForPerson(failure)) {
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
    if (fuseFd !== null) await this.#closeFuse(fuseFd);
  }

  async #openFuse(): Promise<number | null> {
    if (this.resource.frontend !== 'direct') return null;
    const opening = this.#options.operations.openFuse();
    return await within(this.#timing.stepMs, 'opening /dev/fuse', opening);
  }

  get #socketPath(): string {
    return workerFile(this.#options.rundir, this.name, 'socket');
  }

  get #storeName(): string {
    return `fuse-${hashOf(this.name)}`;
  }

  async #closeFuse(fuseFd: number): Promise<void> {
    this.#options.store?.letGo(this.#storeName);
    await this.#options.operations.closeFuse(fuseFd).catch((error: unknown) => {
      this.log.error({ error: errorText(error) }, 'closing /dev/fuse failed');
    });
  }

  /** Its memory and descriptors are its own: it is one worker process, and it waits for `start`. */
  #spawn(fuseFd: number | null): Run {
    const prepared = this.#prepared;
    this.#prepared = undefined;
    if (prepared === undefined || prepared.worker.exit !== undefined) {
      return this.#follow(new ChildLink(this.#options.program, fuseFd), fuseFd);
    }
    prepared.fuseFd = fuseFd;
    this.#run = prepared;
    return prepared;
  }

  #follow(link: WorkerLink, fuseFd: number | null): Run {
    const run = this.#newRun(link, fuseFd);
    this.#run = run;
    return run;
  }

  #newRun(link: WorkerLink, fuseFd: number | null): Run {
    const worker = new WorkerProcess(link, {
      event: (event) => {
        this.#options.onNotice?.(this.name, { kind: 'event', event });
        this.#events.event(event);
      },
      unmounted: () => this.#events.unmounted(run),
      switchover: (said) => this.#options.onSwitchover?.(this.name, said),
    });
    const run: Run = { worker, fuseFd };
    void worker.exited.then((exit) => {
      this.#options.onNotice?.(this.name, { kind: 'ended', why: exitText(exit) });
      this.#events.ended(run, exit);
    });
    return run;
  }

  async #ready(run: Run, resumes: boolean, readyMs: number): Promise<void> {
    await run.worker.request({
      type: 'start',
      resource: this.resource,
      node: this.#options.node,
      mountPoint: this.mountPoint,
      fuseFd: run.fuseFd === null ? null : 3,
      resumes,
      socket: this.#socketPath,
    }, ['ready'], readyMs);
    this.become('ready');
  }
}

export function asHastError(error: unknown): HastError {
  if (error instanceof HastError) return error;
  return new HastError('HAST_E_INTERNAL', errorText(error), { cause: error });
}

/** Nothing but a person's act ends it. */
export function isForPerson({ errorClass, code }: HastError): boolean {
  return errorClass === 'config' || errorClass === 'corruption' ||
    (errorClass === 'device' && code !== 'HAST_E_INTERNAL');
}

export function sentence(error: HastError): string {
  return error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
}
