/** The parent's part of what an operator asks for beside the role. */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { HastError } from '../base/errors.ts';
import { authenticationOf } from '../config/authentication.ts';
import type { ResourceConfig } from '../config/model.ts';
import type { Resolution } from '../control/messages.ts';
import type { VolumeMap } from '../format/volume-map.ts';
import type { Device } from './device.ts';
import type { Supervisor } from './supervisor.ts';
import type { Timing } from './timing.ts';
import type { WorkerKeeper } from './worker-keeper.ts';
import type { WorkerProcess } from './worker-process.ts';
import type { Order } from './worker-protocol.ts';

/** Throws, with the worker as it was, where it cannot take the values. */
export async function reloadWorker(
  worker: WorkerProcess, resource: ResourceConfig, timeoutMs: number,
): Promise<void> {
  const message = { type: 'reload', resource } as const;
  const { authentication } = await worker.request(message, ['reloaded'], timeoutMs);
  const { kind } = authenticationOf(resource);
  if (kind === 'none' || authentication === kind) return;
  throw new HastError('HAST_E_UNSUPPORTED',
    `the worker of ${resource.name} runs a release that does not know '${kind}'`,
    { hint: `hastctl upgrade ${resource.name}, then reload` });
}

/** The worker's answer. Throws its refusal, and HAST_E_ROLE where there is no worker to ask. */
export async function giveOrder(
  keeper: WorkerKeeper,
  order: Order,
  timeoutMs: number,
): Promise<Resolution | null> {
  const worker = keeper.activeWorker;
  if (worker !== undefined) return await worker.order(order, timeoutMs);
  throw noWorker(keeper);
}

/** Throws HAST_E_ROLE where there is no worker to ask. */
export async function mapOf(
  supervisor: Pick<Supervisor, 'name' | 'state' | 'peerWorker' | 'status'>,
  cells: number, timeoutMs: number,
): Promise<VolumeMap> {
  const { name, state, peerWorker } = supervisor;
  if (peerWorker !== undefined) return await peerWorker.map(cells, timeoutMs);
  throw noWorker({ name, state, detail: (await supervisor.status()).detail });
}

function noWorker(
  { name, state, detail }: Pick<WorkerKeeper, 'name' | 'state' | 'detail'>,
): HastError {
  if (state === 'init') {
    return new HastError('HAST_E_ROLE', 'the role is init: nothing uses the copy', {
      hint: `hastctl role secondary ${name}`,
    });
  }
  const why = detail === '' ? 'it is being started or ended' : detail;
  return new HastError('HAST_E_BUSY', `no worker is there to do it: ${why}`, {
    hint: `hastctl status ${name}`,
  });
}

/**
 * Takes the copy into use again. A primary's worker opens it anew and goes on; a secondary's, which
 * has nothing to lose, is replaced by one that reads the disk from the beginning.
 */
export async function attachCopy(keeper: WorkerKeeper, timing: Timing): Promise<void> {
  const { state, run } = keeper;
  const { guard } = keeper;
  if (state === 'primary') {
    const wasOpen = guard.isOpen;
    await guard.open(keeper.resource.local);
    try {
      await giveOrder(keeper, { kind: 'attach' }, timing.orderMs);
    } catch (error) {
      if (!wasOpen) guard.close();
      throw error;
    }
    return;
  }
  if (state === 'init' && guard.hasFailed) {
    guard.forget();
    return;
  }
  if (state === 'backoff' || state === 'failed') {
    guard.forget();
    keeper.restarts = 0;
    await keeper.start('retry', timing.readyMs);
    return;
  }
  if (state !== 'secondary' || run === undefined) throw noWorker(keeper);
  // A worker that says nothing is one whose disk may be gone: it is replaced too.
  const view = await run.worker.view(timing.statusMs).catch(() => null);
  const status = view?.status ?? null;
  const isUsed = status !== null && status.status !== 'failed' &&
    status.localDisk !== 'failed' && status.localDisk !== 'detached';
  if (isUsed) {
    throw new HastError('HAST_E_REFUSED', `the copy is attached already (${status.localDisk})`, {
      hint: `hastctl detach ${keeper.name} first, if it is to be read anew`,
    });
  }
  keeper.become('stop');
  await keeper.end(run, true, timing.stopMs);
  keeper.become('stopped');
  await keeper.start('retry', timing.readyMs);
}

/**
 * Throws HAST_E_REFUSED where the undo file would lie on the file system of the very volume that is
 * overwritten, as far as that can be told: not behind LVM and the like.
 */
export async function refuseUndoOnVolume(
  { undo }: Extract<Order, { kind: 'resolve' }>,
  { loop }: Pick<Device, 'loop'>,
): Promise<void> {
  if (undo === null || loop === undefined) return;
  const stats = await Promise.all([fs.stat(path.dirname(undo)), fs.stat(loop)])
    .catch(() => null); // creating the file says what is wrong
  if (stats === null || stats[0].dev !== stats[1].rdev) return;
  throw new HastError('HAST_E_REFUSED', `${undo} would lie on the volume itself`, {
    hint: 'name a file on another file system',
  });
}

export function isStopping(): HastError {
  return new HastError('HAST_E_BUSY', 'hastd is stopping, or is being replaced', {
    hint: 'wait until it has ended or answers again; start it where it does not: hastd',
  });
}
