/**
 * One resource in the parent: its role, its worker, its device. Everything that changes them
 * runs in one queue per resource, one operation at a time, and every wait in it has a bound.
 *
 * Invariants:
 * - a worker exists in the states starting, secondary, promoting, primary, leaving, stopping;
 * - the device is shown only in `primary`, and in `leaving` while it is taken away;
 * - a failed change leaves the role it came from, or says which role it had to fall to;
 * - the role hook runs once for each change of the role, whatever caused it.
 */
import * as path from 'node:path';
import { setTimeout as setTimeoutAsync } from 'node:timers/promises';
import { assert } from '../base/assert.ts';
import { HastError, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ResourceConfig } from '../config/model.ts';
import type { RoleWord } from '../control/messages.ts';
import type { ResourceStatus } from '../format/status.ts';
import { Deadline, within } from './deadline.ts';
import type { DeviceOperations } from './device.ts';
import { Device } from './device.ts';
import type { Hooks } from './hooks.ts';
import { withFields } from './log-fields.ts';
import { idleStatus } from './idle-status.ts';
import type { SupervisorEvent, SupervisorState } from './states.ts';
import { roleOf, transitions } from './states.ts';
import type { Timing } from './timing.ts';
import type { WorkerEvent, WorkerExit, WorkerProgram } from './worker-process.ts';
import { WorkerProcess, exitText } from './worker-process.ts';

export interface SupervisorOptions {
  resource: ResourceConfig;
  node: string;
  rundir: string;
  devdir: string;
  program: WorkerProgram;
  operations: DeviceOperations;
  hooks: Hooks;
  log: Logger;
  timing: Timing;
}

export interface RoleChange {
  from: RoleWord;
  to: RoleWord;
}

/** A worker and the parent's own /dev/fuse description of it. */
interface Run {
  worker: WorkerProcess;
  fuseFd: number | null;
}

const holderAttempts = 4;
/** Time given to a worker that failed to start or to promote, before it is killed. */
const failedStopMs = 2000;

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #timing: Timing;
  readonly #log: Logger;
  #resource: ResourceConfig;
  #device: Device;
  #state: SupervisorState = 'init';
  #run: Run | undefined;
  /** Why the state is what it is; shown in status. */
  #detail = '';
  #restarts = 0;
  #retryTimer: NodeJS.Timeout | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#timing = options.timing;
    this.#resource = options.resource;
    this.#log = withFields(options.log, () => ({ resource: this.name, role: this.role }));
    this.#device = this.#newDevice();
  }

  get name(): string {
    return this.#resource.name;
  }

  get resource(): ResourceConfig {
    return this.#resource;
  }

  get state(): SupervisorState {
    return this.#state;
  }

  get role(): RoleWord {
    return roleOf[this.#state];
  }

  /** The worker that can take a peer's connection now. */
  get peerWorker(): WorkerProcess | undefined {
    const takes = this.#state === 'secondary' || this.#state === 'promoting' ||
      this.#state === 'primary' || this.#state === 'leaving';
    return takes ? this.#run?.worker : undefined;
  }

  /** The same role again does nothing, except that it wakes a worker that waits or failed. */
  changeRole(to: RoleWord, force: boolean): Promise<RoleChange> {
    return this.#operate(async () => {
      const from = this.role;
      const resting = this.#state === 'backoff' || this.#state === 'failed';
      if (to === from && !resting) return { from, to };
      this.#log.info({ from, to, force }, 'the role is changed');
      this.#restarts = 0;
      if (to === 'init') await this.#toInit(force);
      else if (to === 'secondary') await this.#toSecondary(force);
      else await this.#toPrimary(force);
      return { from, to };
    });
  }

  /**
   * Who uses the device; empty unless primary. udev and the like open a device for moments:
   * somebody counts who is there each time.
   */
  async holders(): Promise<string[]> {
    let holders: string[] = [];
    for (let attempt = 0; attempt < holderAttempts; attempt++) {
      if (attempt > 0) await setTimeoutAsync(this.#timing.holderRetryMs);
      holders = await this.#device.holders();
      if (holders.length === 0) break;
    }
    return holders;
  }

  /**
   * Takes new values over. lib/config/reload.ts lets only those through that a worker can take
   * live; throws, and keeps the old ones, where it does not.
   */
  reconfigure(next: ResourceConfig): Promise<void> {
    return this.#operate(async () => {
      if (this.#run === undefined) {
        this.#setResource(next);
        // What failed before may work with the new values; if not, status says so.
        if (this.#state === 'init') return;
        await this.#start('retry', this.#timing.readyMs).catch(() => undefined);
        return;
      }
      const message = { type: 'reload', resource: next } as const;
      await this.#run.worker.request(message, ['reloaded'], this.#timing.reloadMs);
      this.#setResource(next);
    });
  }

  async status(): Promise<ResourceStatus> {
    const run = this.#run;
    const idle = idleStatus(this.#resource, this.#device.link, this.#state, this.#detail);
    if (run === undefined || this.#state === 'starting') {
      return { ...idle, worker: run?.worker.pid ?? null };
    }
    try {
      const status = await run.worker.status(this.#timing.statusMs);
      return { ...status, role: this.role, device: this.#device.link, worker: run.worker.pid };
    } catch (error) {
      const detail = `the worker gives no status: ${errorText(error)}`;
      return { ...idle, status: 'failed', detail, worker: run.worker.pid };
    }
  }

  // --- queue, states, hooks

  #operate<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(async () => {
      const from = this.role;
      try {
        return await work();
      } finally {
        this.#announce(from, this.role);
      }
    });
    this.#tail = result.catch(() => undefined);
    return result;
  }

  #announce(from: RoleWord, to: RoleWord): void {
    if (from === to) return;
    this.#log.info({ from, to }, 'the role is');
    this.#options.hooks.run(this.#resource.exec, 'role', this.name, [from, to]);
  }

  #become(event: SupervisorEvent): void {
    const to = transitions[this.#state][event];
    assert(to !== undefined, `${this.name}: '${event}' is impossible in '${this.#state}'`);
    this.#log.debug({ from: this.#state, to, event }, 'state');
    this.#state = to;
    if (to !== 'backoff' && to !== 'failed') this.#detail = '';
  }

  #setResource(next: ResourceConfig): void {
    const moved = next.deviceName !== this.#resource.deviceName;
    this.#resource = next;
    if (moved) this.#device = this.#newDevice();
  }

  #newDevice(): Device {
    const { rundir, devdir, operations } = this.#options;
    const paths = {
      mountPoint: path.join(rundir, this.#resource.name),
      link: path.join(devdir, this.#resource.deviceName),
    };
    return new Device(paths, operations, this.#log, this.#timing.stepMs);
  }

  // --- the worker

  /**
   * Starts a worker and waits until it is ready. Where it fails, the state is `init`, or with
   * `retry` one in which it is tried again or waits for a person; the failure is thrown.
   */
  async #start(onFailure: 'init' | 'retry', readyMs: number): Promise<void> {
    clearTimeout(this.#retryTimer);
    this.#become('start');
    let run: Run | undefined;
    try {
      run = await this.#spawn();
      this.#run = run;
      const message = {
        type: 'start',
        resource: this.#resource,
        node: this.#options.node,
        mountPoint: this.#device.mountPoint,
        fuseFd: run.fuseFd === null ? null : 3,
      } as const;
      await run.worker.request(message, ['ready'], readyMs);
      this.#become('ready');
    } catch (error) {
      const failure = asHastError(error);
      if (run !== undefined) await this.#endWorker(run, true, failedStopMs);
      if (onFailure === 'init') this.#become('undone');
      else this.#rest(failure);
      throw failure;
    }
  }

  async #spawn(): Promise<Run> {
    const fuseFd = this.#resource.frontend === 'direct'
      ? await within(this.#timing.stepMs, 'opening /dev/fuse', this.#options.operations.openFuse())
      : null;
    const worker = new WorkerProcess(
      this.#options.program, fuseFd, (event) => this.#workerEvent(event),
    );
    const run = { worker, fuseFd };
    void worker.exited.then((exit) => this.#workerEnded(run, exit));
    return run;
  }

  #workerEvent(event: WorkerEvent): void {
    this.#log.info({ event }, 'event');
    this.#options.hooks.run(this.#resource.exec, event, this.name);
  }

  /** Ends that an operation waits for are handled there; this is for the others. */
  #workerEnded(run: Run, exit: WorkerExit): void {
    if (run !== this.#run) return;
    if (this.#state === 'secondary') {
      void this.#operate(async () => {
        if (run !== this.#run || this.#state !== 'secondary') return;
        this.#log.error({ end: exitText(exit) }, 'the worker ended unexpectedly');
        if (performance.now() - run.worker.startedAt >= this.#timing.stableMs) this.#restarts = 0;
        await this.#forget(run);
        this.#rest(exit.failure ?? new HastError('HAST_E_TIMEOUT', exitText(exit)));
      });
    } else if (this.#state === 'primary') {
      void this.#operate(async () => {
        if (run === this.#run && this.#state === 'primary') await this.#losePrimary(run, exit);
      });
    }
  }

  /** Role secondary without a worker: tried again later, or not before a person acted. */
  #rest(failure: HastError): void {
    const forPerson = failure.errorClass === 'config' || failure.errorClass === 'corruption' ||
      (failure.errorClass === 'device' && failure.code !== 'HAST_E_INTERNAL');
    if (forPerson) {
      this.#become('broken');
      this.#detail = sentence(failure);
      const hint = failure.hint ?? `correct the cause, then: hastctl role secondary ${this.name}`;
      this.#log.error({ error: failure.message, hint }, 'the worker is not started again');
      return;
    }
    const { backoffMsMin, backoffMsMax } = this.#timing;
    const delay = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(this.#restarts, 30));
    this.#restarts++;
    this.#become('lost');
    this.#detail = `the worker is started again in ${delay / 1000} s: ${sentence(failure)}`;
    this.#log.warn({ error: failure.message, delayMs: delay }, 'the worker is restarted later');
    this.#retryTimer = setTimeout(() => {
      void this.#operate(async () => {
        if (this.#state !== 'backoff') return;
        // A failure is in the log and in status by then.
        await this.#start('retry', this.#timing.readyMs).catch(() => undefined);
      });
    }, delay);
  }

  async #endWorker(run: Run, force: boolean, stopMs: number): Promise<void> {
    if (!await run.worker.stop(force, stopMs)) {
      this.#log.warn({ worker: run.worker.pid }, 'the worker does not stop: it is killed');
      if (!await run.worker.kill(this.#timing.killMs)) {
        this.#log.error(
          { worker: run.worker.pid },
          'the worker is stuck in the kernel and cannot be ended; its disk does not answer',
        );
      }
    }
    await this.#forget(run);
  }

  /** Closes the parent's /dev/fuse description: with the worker's gone, pending I/O gets EIO. */
  async #forget(run: Run): Promise<void> {
    if (this.#run === run) this.#run = undefined;
    const { fuseFd } = run;
    run.fuseFd = null;
    if (fuseFd === null) return;
    await this.#logged('closing /dev/fuse failed', this.#options.operations.closeFuse(fuseFd));
  }

  // --- role changes

  async #toInit(force: boolean): Promise<void> {
    if (this.#state === 'primary') return await this.#leavePrimary(force);
    if (this.#state === 'secondary') return await this.#stopSecondary();
    clearTimeout(this.#retryTimer);
    this.#become('stop');
  }

  async #toSecondary(force: boolean): Promise<void> {
    if (this.#state === 'init') return await this.#start('init', this.#timing.readyMs);
    if (this.#state === 'primary') await this.#leavePrimary(force);
    await this.#start('retry', this.#timing.readyMs);
  }

  async #stopSecondary(): Promise<void> {
    assert(this.#run !== undefined, 'a secondary has a worker');
    this.#become('stop');
    await this.#endWorker(this.#run, false, this.#timing.stopMs);
    this.#become('stopped');
  }

  async #toPrimary(force: boolean): Promise<void> {
    const ms = Math.max(this.#timing.promoteMsMin, this.#resource.timeout * 1000);
    const deadline = new Deadline(ms);
    const former = this.role;
    if (this.#state !== 'secondary') {
      await this.#start(former === 'init' ? 'init' : 'retry', deadline.left(0));
    }
    const run = this.#run;
    assert(run !== undefined, 'a secondary has a worker');
    this.#become('promote');
    try {
      const refusal = await this.#askPromotion(run, force, deadline);
      if (refusal !== undefined) return await this.#refused(run, former, refusal);
      await this.#showDevice(run, deadline);
      this.#become('shown');
    } catch (error) {
      // A refused promotion has settled its state; anything else is undone here.
      if (this.#state === 'promoting') await this.#undoPromotion(run, former, asHastError(error));
      throw error;
    }
    if (run.worker.exit !== undefined) this.#workerEnded(run, run.worker.exit);
  }

  async #askPromotion(
    run: Run,
    force: boolean,
    deadline: Deadline,
  ): Promise<HastError | undefined> {
    const left = deadline.left(1000);
    const timeoutMs = Math.max(left / 2, left - this.#timing.deviceReserveMs);
    const message = { type: 'promote', force, timeoutMs } as const;
    // The worker keeps the bound itself; the parent's is for a worker that hangs.
    const answer = await run.worker.request(message, ['promoted', 'refused'], left);
    if (answer.type === 'promoted') return undefined;
    const hint = answer.hint === '' ? {} : { hint: answer.hint };
    return new HastError(answer.code, answer.message, hint);
  }

  async #refused(run: Run, former: RoleWord, refusal: HastError): Promise<never> {
    this.#log.warn({ error: refusal.message, hint: refusal.hint }, 'the promotion is refused');
    this.#become('refused');
    if (former === 'init') await this.#stopSecondary();
    else if (run.worker.exit !== undefined) this.#workerEnded(run, run.worker.exit);
    throw refusal;
  }

  async #showDevice(run: Run, deadline: Deadline): Promise<void> {
    const device = this.#device;
    const step = <T>(what: string, work: Promise<T>): Promise<T> =>
      within(deadline.left(1000), what, Promise.race([work, whenEnded(run.worker)]));
    await step('removing what an earlier daemon left', device.clear());
    await step('making the mount point', device.prepare());
    if (run.fuseFd !== null) await step('mounting', device.mount(run.fuseFd));
    await run.worker.request({ type: 'serve' }, ['serving'], deadline.left(1000));
    await step('attaching the device', device.show());
  }

  /** In reverse: link, loop device, mount, worker; then the former role. */
  async #undoPromotion(run: Run, former: RoleWord, failure: HastError): Promise<void> {
    const fields = { error: failure.message, hint: failure.hint };
    this.#log.error(fields, 'the promotion failed and is undone');
    this.#become('undo');
    await this.#device.clear().catch(() => undefined); // once more below
    await this.#endWorker(run, true, failedStopMs);
    // A step that was given up may have ended only now, with the worker.
    await this.#clearLogged();
    await this.#device.removeMountPoint();
    this.#become('stopped');
    if (former === 'init') return;
    await this.#start('retry', this.#timing.readyMs).catch(() => undefined);
  }

  /** To `init`; throws, and stays primary, where the device is in use and not `force`. */
  async #leavePrimary(force: boolean): Promise<void> {
    const run = this.#run;
    assert(run !== undefined, 'a primary has a worker');
    if (!force) await this.#refuseWhileInUse();
    this.#become('leave');
    try {
      await this.#device.hide(force);
    } catch (error) {
      if (!force) {
        this.#become('kept');
        if (run.worker.exit !== undefined) this.#workerEnded(run, run.worker.exit);
        throw error;
      }
      this.#log.warn({ error: errorText(error) }, 'the device is taken away by force');
    }
    if (force) {
      // The worker first: it fails what is pending, and its readers are woken through the mount.
      await this.#endWorker(run, true, this.#timing.stopMs);
      await this.#logged('the volume stays mounted', this.#device.unmount(true));
    } else {
      await this.#logged('the volume stays mounted', this.#device.unmount(false));
      await this.#endWorker(run, false, this.#timing.stopMs);
    }
    await this.#clearLogged();
    await this.#device.removeMountPoint();
    this.#become('stopped');
  }

  async #refuseWhileInUse(): Promise<void> {
    const holders = await this.holders();
    if (holders.length === 0) return;
    throw new HastError(
      'HAST_E_DEVICE_IN_USE', `${this.#device.link} is in use: ${holders.join(', ')}`,
      { hint: 'unmount it or end its users first; --force takes it away and they get EIO' },
    );
  }

  /** The worker of a primary is gone: so is the device, and the role is init. */
  async #losePrimary(run: Run, exit: WorkerExit): Promise<void> {
    this.#log.error(
      {
        end: exitText(exit),
        hint: `users of ${this.#device.link} get EIO: unmount it, see why the worker ended, ` +
          `then: hastctl role primary ${this.name}`,
      },
      'the worker of the primary ended: its device is taken away, the role is init',
    );
    this.#become('leave');
    await this.#forget(run); // first: requests that hang would block losetup and umount
    await this.#clearLogged();
    await this.#device.removeMountPoint();
    this.#become('stopped');
    this.#detail = `the worker ended while primary (${exitText(exit)})`;
  }

  #clearLogged(): Promise<void> {
    return this.#logged('parts of the device could not be removed', this.#device.clear());
  }

  /** Steps of taking something away: what fails is said, and the rest goes on. */
  async #logged(failure: string, work: Promise<void>): Promise<void> {
    await work.catch((error: unknown) => {
      this.#log.error({ error: errorText(error) }, failure);
    });
  }
}

function whenEnded(worker: WorkerProcess): Promise<never> {
  return worker.exited.then((exit) => {
    throw exit.failure ??
      new HastError('HAST_E_INTERNAL', `the worker ended meanwhile (${exitText(exit)})`);
  });
}

function asHastError(error: unknown): HastError {
  if (error instanceof HastError) return error;
  return new HastError('HAST_E_INTERNAL', errorText(error), { cause: error });
}

function sentence(error: HastError): string {
  return error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
}
