/**
 * One resource in the parent: its role, its worker, its device. Everything that changes them
 * runs in one queue per resource, one operation at a time, and every wait in it has a bound.
 * The worker's life is lib/daemon/worker-keeper.ts.
 *
 * Invariants:
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
import type { Resolution, RoleWord } from '../control/messages.ts';
import type { ResourceStatus } from '../format/status.ts';
import { Deadline, within } from './deadline.ts';
import { Device } from './device.ts';
import type { Hooks } from './hooks.ts';
import { Revival } from './revival.ts';
import { goOnWith } from './adoption.ts';
import { viewOf, type ResourceView } from './resource-view.ts';
import { RoleRecordFile } from './role-record.ts';
import type { SupervisorState } from './states.ts';
import { stepOver, type StepOver } from './step-over.ts';
import { attachCopy, giveOrder, refuseUndoOnVolume, reloadWorker } from './supervisor-orders.ts';
import type { Timing } from './timing.ts';
import type { KeeperOptions, Run } from './worker-keeper.ts';
import { WorkerKeeper, asHastError, failedStopMs } from './worker-keeper.ts';
import { workerFile } from './worker-files.ts';
import type { WorkerEvent, WorkerExit, WorkerProcess } from './worker-process.ts';
import { asFailure, exitText, lostDevice } from './worker-process.ts';
import type { Order } from './worker-protocol.ts';

export interface SupervisorOptions extends KeeperOptions {
  devdir: string;
  hooks: Hooks;
}

export interface RoleChange {
  from: RoleWord;
  to: RoleWord;
}

const holderAttempts = 4;

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #timing: Timing;
  readonly #log: Logger;
  readonly #keeper: WorkerKeeper;
  readonly #revival: Revival;
  readonly #record: RoleRecordFile;
  #device: Device;
  #tail: Promise<unknown> = Promise.resolve();
  #isSplitBrainTold = false;
  /** Workers that ended out of order. */
  workerDeaths = 0;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#timing = options.timing;
    this.#keeper = new WorkerKeeper(options, {
      event: (event) => this.#workerEvent(event),
      ended: (run, exit) => this.#workerEnded(run, exit),
      unmounted: (run) => this.#unmounted(run),
      retry: () => this.#retry(),
    });
    this.#revival = new Revival(this.#keeper, this.#timing, {
      operate: (work) => void this.#operate(work),
      lose: (why, then) => this.#loseDevice(why, then),
    });
    this.#log = this.#keeper.log;
    const record = workerFile(options.rundir, options.resource.name, 'record');
    this.#record = new RoleRecordFile(record, this.#log);
    this.#device = this.#newDevice();
  }

  get name(): string {
    return this.#keeper.name;
  }

  get resource(): ResourceConfig {
    return this.#keeper.resource;
  }

  get state(): SupervisorState {
    return this.#keeper.state;
  }

  get role(): RoleWord {
    return this.#keeper.role;
  }

  /** The worker that can take a peer's connection now. */
  get peerWorker(): WorkerProcess | undefined {
    return this.#keeper.activeWorker;
  }

  /**
   * Goes on with what an earlier parent left that ended out of order; nothing where the role was
   * init. To be called once, before anything else.
   */
  adopt(): Promise<void> {
    const record = this.#record.read();
    return this.#operate(async () => {
      await goOnWith({
        record, keeper: this.#keeper, revival: this.#revival, timing: this.#timing,
        findDevice: () => {
          this.#device = this.#newDevice();
          return this.#device.adopt();
        },
        lose: (why, then) => this.#loseDevice(why, then),
      });
    }, record?.role);
  }

  /** The same role again does nothing, except that it wakes a worker that waits or failed. */
  changeRole(to: RoleWord, force: boolean): Promise<RoleChange> {
    return this.#operate(async () => {
      const from = this.role;
      const { state } = this.#keeper;
      const resting = state === 'backoff' || state === 'failed' || state === 'reviving';
      if (to === from && !resting) return { from, to };
      this.#log.info({ from, to, force }, 'the role is changed');
      this.#keeper.restarts = 0;
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
      if (this.#keeper.run === undefined) {
        this.#setResource(next);
        // What failed before may work with the new values; if not, status says so.
        if (this.#keeper.state === 'reviving') return await this.#revival.start();
        if (this.#keeper.state === 'init') return;
        await this.#keeper.start('retry', this.#timing.readyMs).catch(() => undefined);
        return;
      }
      await reloadWorker(this.#keeper.run.worker, next, this.#timing.reloadMs);
      this.#setResource(next);
    });
  }

  /**
   * What an operator asks for beside the role. A resolution and its undoing copy data: they run
   * outside of the queue, so that a role change ends them instead of waiting for them.
   */
  async order(order: Order): Promise<Resolution | null> {
    if (order.kind !== 'switchover') this.#log.info({ order }, 'an order');
    const { orderMs, copyMs, stepMs } = this.#timing;
    if (order.kind === 'resolve') {
      await within(stepMs, 'looking at the undo file', refuseUndoOnVolume(order, this.#device));
    }
    if (order.kind === 'resolve' || order.kind === 'undo') {
      return await giveOrder(this.#keeper, order, copyMs);
    }
    return await this.#operate(async () => {
      if (order.kind === 'attach') await attachCopy(this.#keeper, this.#timing);
      else await giveOrder(this.#keeper, order, orderMs);
      return null;
    });
  }

  /** No operation is under way. */
  settled(): Promise<void> {
    return this.#operate(async () => undefined);
  }

  /** Its worker becomes what is installed now; null where the role is init. */
  stepOver(): Promise<StepOver | null> {
    const { run } = this.#keeper;
    return stepOver(this.#keeper, this.#revival, this.#timing, run, (work) => this.#operate(work));
  }

  async status(): Promise<ResourceStatus> {
    return (await this.view()).status;
  }

  /** Bounded by `timeoutMs`, or by that of a status. */
  view(timeoutMs = this.#timing.statusMs): Promise<ResourceView> {
    return viewOf(this.#keeper, this.#device.link, this.#revival.needsHuman, timeoutMs);
  }

  // --- queue, states, hooks

  /** `before`: the role as the world knows it, where that is not this object's. */
  #operate<T>(work: () => Promise<T>, before?: RoleWord): Promise<T> {
    const result = this.#tail.then(async () => {
      const from = before ?? this.role;
      try {
        return await work();
      } finally {
        this.#announce(from, this.role);
        this.#remember();
      }
    });
    this.#tail = result.catch(() => undefined);
    return result;
  }

  #remember(): void {
    const { role, resource } = this.#keeper;
    const { negotiated, isDetached } = this.#revival;
    const isPrimary = role === 'primary';
    this.#record.write(role === 'init' ? null : {
      role, resource, negotiated: isPrimary ? negotiated : null, isDetached,
    });
  }

  #announce(from: RoleWord, to: RoleWord): void {
    if (from === to) return;
    this.#log.info({ from, to }, 'the role is');
    this.#options.hooks.run(this.#keeper.resource.exec, 'role', this.name, [from, to]);
  }

  #setResource(next: ResourceConfig): void {
    const moved = next.deviceName !== this.#keeper.resource.deviceName;
    this.#keeper.resource = next;
    if (moved) this.#device = this.#newDevice();
  }

  #newDevice(): Device {
    const { devdir, operations } = this.#options;
    const paths = {
      mountPoint: this.#keeper.mountPoint,
      link: path.join(devdir, this.#keeper.resource.deviceName),
    };
    return new Device(paths, operations, this.#log, this.#timing.stepMs);
  }

  // --- the worker

  #workerEvent(event: WorkerEvent): void {
    this.#log.debug({ event }, 'event'); // the worker has said why
    // So that the disk can be taken out.
    if (event === 'detach') this.#keeper.guard.close();
    if (event === 'detach' || event === 'attach') {
      this.#revival.copyDetached(event === 'detach');
      this.#remember();
    }
    // Each worker sees a split brain anew; a person is told once, until it is resolved.
    const isTold = event === 'split-brain' && this.#isSplitBrainTold;
    if (event === 'connect' || event === 'split-brain') {
      this.#isSplitBrainTold = event === 'split-brain';
    }
    if (isTold) return;
    this.#options.hooks.run(this.#keeper.resource.exec, event, this.name);
  }

  #retry(): void {
    void this.#operate(async () => {
      if (this.#keeper.state !== 'backoff') return;
      // A failure is in the log and in status by then.
      await this.#keeper.start('retry', this.#timing.readyMs).catch(() => undefined);
    });
  }

  /** Ends that an operation waits for are handled there; this is for the others. */
  #workerEnded(run: Run, exit: WorkerExit): void {
    if (run !== this.#keeper.run) return;
    if (this.#keeper.state === 'secondary') {
      void this.#operate(async () => {
        if (run !== this.#keeper.run || this.#keeper.state !== 'secondary') return;
        this.workerDeaths++;
        this.#log.error({ end: exitText(exit) }, 'the worker ended unexpectedly');
        const lived = performance.now() - run.worker.startedAt;
        if (lived >= this.#timing.stableMs) this.#keeper.restarts = 0;
        await this.#keeper.forget(run);
        const failure = await this.#keeper.copyFailure();
        this.#keeper.rest(failure ?? exit.failure ?? asFailure(exit));
      });
    } else {
      void this.#operate(async () => {
        const { state } = this.#keeper;
        if (run !== this.#keeper.run || (state !== 'primary' && state !== 'resuming')) return;
        this.workerDeaths++;
        await this.#revival.begin(run, exitText(exit));
      });
    }
  }

  #unmounted(run: Run): void {
    void this.#operate(async () => {
      if (run !== this.#keeper.run || this.#keeper.state !== 'primary') return;
      const why = 'the volume was unmounted, or its connection aborted, by somebody else';
      await this.#loseDevice(lostDevice(why, this.name), 'init');
    });
  }

  // --- role changes

  async #toInit(force: boolean): Promise<void> {
    if (this.role === 'primary') return await this.#leavePrimary(force);
    if (this.#keeper.state === 'secondary') return await this.#stopSecondary();
    this.#keeper.cancelRetry();
    this.#keeper.become('stop');
  }

  async #toSecondary(force: boolean): Promise<void> {
    const { state } = this.#keeper;
    if (state === 'init') return await this.#keeper.start('init', this.#timing.readyMs);
    if (this.role === 'primary') await this.#leavePrimary(force);
    await this.#keeper.start('retry', this.#timing.readyMs);
  }

  async #stopSecondary(): Promise<void> {
    assert(this.#keeper.run !== undefined, 'a secondary has a worker');
    this.#keeper.become('stop');
    await this.#keeper.end(this.#keeper.run, false, this.#timing.stopMs);
    this.#keeper.become('stopped');
  }

  async #toPrimary(force: boolean): Promise<void> {
    const ms = Math.max(this.#timing.promoteMsMin, this.#keeper.resource.timeout * 1000);
    const deadline = new Deadline(ms);
    const former = this.role;
    if (this.#keeper.state === 'reviving') return await this.#revival.start();
    if (this.#keeper.state !== 'secondary') {
      await this.#keeper.start(former === 'init' ? 'init' : 'retry', deadline.left(0));
    }
    const run = this.#keeper.run;
    assert(run !== undefined, 'a secondary has a worker');
    this.#keeper.become('promote');
    this.#revival.copyDetached(false);
    try {
      const refusal = await this.#askPromotion(run, force, deadline);
      if (refusal !== undefined) return await this.#refused(run, former, refusal);
      await this.#showDevice(run, deadline);
      this.#keeper.become('shown');
    } catch (error) {
      // A refused promotion has settled its state; anything else is undone here.
      const isOpen = this.#keeper.state === 'promoting';
      if (isOpen) await this.#undoPromotion(run, former, asHastError(error));
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
    this.#keeper.become('refused');
    if (former === 'init') await this.#stopSecondary();
    else if (run.worker.exit !== undefined) this.#workerEnded(run, run.worker.exit);
    throw refusal;
  }

  async #showDevice(run: Run, deadline: Deadline): Promise<void> {
    const device = this.#device;
    const step = <T>(what: string, work: Promise<T>): Promise<T> =>
      within(deadline.left(1000), what, Promise.race([work, run.worker.whenEnded()]));
    await step('removing what an earlier daemon left', device.clear());
    await step('making the mount point', device.prepare());
    if (run.fuseFd !== null) await step('mounting', device.mount(run.fuseFd));
    const message = { type: 'serve', takeOver: null } as const;
    const { negotiated } = await run.worker.request(message, ['serving'], deadline.left(1000));
    await step('attaching the device', device.show());
    this.#revival.shown(negotiated);
  }

  /** In reverse: link, loop device, mount, worker; then the former role. */
  async #undoPromotion(run: Run, former: RoleWord, failure: HastError): Promise<void> {
    const fields = { error: failure.message, hint: failure.hint };
    this.#log.error(fields, 'the promotion failed and is undone');
    this.#keeper.become('undo');
    await this.#device.clear().catch(() => undefined); // once more below
    await this.#keeper.end(run, true, failedStopMs);
    // A step that was given up may have ended only now, with the worker.
    await this.#clearLogged();
    await this.#device.removeMountPoint();
    this.#keeper.become('stopped');
    if (former === 'init') return;
    await this.#keeper.start('retry', this.#timing.readyMs).catch(() => undefined);
  }

  /** To `init`; throws, and stays primary, where the device is in use and not `force`. */
  async #leavePrimary(force: boolean): Promise<void> {
    if (!force) await this.#refuseWhileInUse();
    if (this.#keeper.state !== 'primary') return await this.#takeAway();
    const run = this.#keeper.run;
    assert(run !== undefined, 'a primary has a worker');
    this.#keeper.become('leave');
    try {
      await this.#device.hide(force);
    } catch (error) {
      if (!force) {
        this.#keeper.become('kept');
        if (run.worker.exit !== undefined) this.#workerEnded(run, run.worker.exit);
        throw error;
      }
      this.#log.warn({ error: errorText(error) }, 'the device is taken away by force');
    }
    if (force) {
      // The worker first: it fails what is pending, and its readers are woken through the mount.
      await this.#keeper.end(run, true, this.#timing.stopMs);
      await this.#logged('the volume stays mounted', this.#device.unmount(true));
    } else {
      await this.#logged('the volume stays mounted', this.#device.unmount(false));
      await this.#keeper.end(run, false, this.#timing.stopMs);
    }
    await this.#clearLogged();
    await this.#device.removeMountPoint();
    this.#keeper.become('stopped');
  }

  async #refuseWhileInUse(): Promise<void> {
    const holders = await this.holders();
    if (holders.length === 0) return;
    throw new HastError(
      'HAST_E_DEVICE_IN_USE', `${this.#device.link} is in use: ${holders.join(', ')}`,
      { hint: 'unmount it or end its users first; --force takes it away and they get EIO' },
    );
  }

  /** The device cannot be kept; whatever the role was to be, a failed copy waits for a person. */
  async #loseDevice(why: HastError, then: 'init' | 'secondary'): Promise<void> {
    const hint = `users of ${this.#device.link} get EIO: unmount it, see hastctl status, ` +
      `then: hastctl role primary ${this.name}`;
    this.#log.error({ error: why.message, hint }, 'the device of the primary is taken away');
    await this.#takeAway();
    this.#keeper.detail = why.message;
    const failure = await this.#keeper.copyFailure();
    if (failure !== null) {
      this.#keeper.become('start');
      this.#keeper.rest(failure);
    } else if (then === 'secondary') {
      await this.#keeper.start('retry', this.#timing.readyMs).catch(() => undefined);
    }
  }

  /** The device of a primary that nobody serves, to role init. */
  async #takeAway(): Promise<void> {
    this.#keeper.become('leave');
    this.#revival.cancel();
    // First the connection: requests that hang would block losetup and umount.
    const { run } = this.#keeper;
    if (run !== undefined) await this.#keeper.end(run, false, this.#timing.stopMs);
    await this.#keeper.closeMounted();
    await this.#clearLogged();
    await this.#device.removeMountPoint();
    this.#keeper.become('stopped');
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
