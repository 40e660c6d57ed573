/**
 * One resource steps over to the code that is installed now: its worker is replaced by a new one. A
 * primary's keeps its device, as after a death, but its successor is loaded before it is killed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError } from '../base/errors.ts';
import { Deadline } from './deadline.ts';
import type { Revival } from './revival.ts';
import type { Timing } from './timing.ts';
import type { Run, WorkerKeeper } from './worker-keeper.ts';

export interface StepOver {
  /** How long users of the device waited, in milliseconds; null where there is none. */
  pauseMs: number | null;
}

type Operate = (work: () => Promise<void>) => Promise<void>;

const lookMs = 10;

/**
 * Null where the role is init. Throws HAST_E_REFUSED where a primary's worker cannot be replaced,
 * HAST_E_BUSY where it is being replaced already, HAST_E_TIMEOUT where the new one does not serve
 * yet.
 */
export async function stepOver(
  keeper: WorkerKeeper, revival: Revival, timing: Timing, former: Run | undefined,
  operate: Operate,
): Promise<StepOver | null> {
  const { role } = keeper;
  if (role === 'init') return null;
  await operate(async () => {
    if (former === undefined || keeper.run !== former) throw busy(keeper);
    if (keeper.state === 'primary') await replacePrimary(keeper, revival, former);
    else if (keeper.state === 'secondary') await replaceSecondary(keeper, timing, former);
    else throw busy(keeper);
  });
  if (role !== 'primary') return { pauseMs: null };
  await untilServing(keeper, new Deadline(timing.orderMs));
  return { pauseMs: revival.pauseMs };
}

async function replacePrimary(keeper: WorkerKeeper, revival: Revival, run: Run): Promise<void> {
  revival.requireReplaceable();
  await keeper.prepare();
  await revival.begin(run, 'it is replaced by the installed release');
}

async function replaceSecondary(keeper: WorkerKeeper, timing: Timing, run: Run): Promise<void> {
  keeper.become('stop');
  await keeper.end(run, false, timing.stopMs);
  keeper.become('stopped');
  await keeper.start('retry', timing.readyMs);
}

async function untilServing(keeper: WorkerKeeper, deadline: Deadline): Promise<void> {
  while (keeper.state !== 'primary') {
    if (keeper.role !== 'primary') {
      throw new HastError('HAST_E_DEVICE', `the device was taken away: ${keeper.detail}`, {
        hint: `hastctl status ${keeper.name}`,
      });
    }
    if (deadline.left(0) === 0) {
      throw new HastError('HAST_E_TIMEOUT', `the new worker does not serve yet: ${keeper.detail}`, {
        hint: `hastctl status ${keeper.name}`,
      });
    }
    await sleep(lookMs);
  }
}

function busy({ name, detail }: WorkerKeeper): HastError {
  const why = detail === '' ? 'it is being started or ended' : detail;
  return new HastError('HAST_E_BUSY', `no worker is there to be replaced: ${why}`, {
    hint: `hastctl status ${name}, then again`,
  });
}
