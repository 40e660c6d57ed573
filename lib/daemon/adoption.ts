/**
 * What a parent does at its start with one resource that an earlier parent had and did not end: its
 * worker goes on, or died as well. docs/lifecycle.md describes it. Runs in the supervisor's queue.
 */
import type { HastError } from '../base/errors.ts';
import type { Revival } from './revival.ts';
import type { RoleRecord } from './role-record.ts';
import type { Timing } from './timing.ts';
import { asHastError, type WorkerKeeper } from './worker-keeper.ts';
import type { WorkerMemo } from './worker-protocol.ts';
import { lostDevice } from './worker-process.ts';

export interface Left {
  /** What the earlier parent recorded; null where the role was init, or for another boot. */
  record: RoleRecord | null;
  keeper: WorkerKeeper;
  revival: Revival;
  timing: Timing;
  /** Looks for the device of the resource as it is now; false where there is none. */
  findDevice(): Promise<boolean>;
  /** The device cannot be kept: it is taken away, and its users get EIO. `then`: the next role. */
  lose(why: HastError, then: 'init' | 'secondary'): Promise<void>;
}

export async function goOnWith(left: Left): Promise<void> {
  const { keeper, record } = left;
  let memo: WorkerMemo | null;
  try {
    memo = await keeper.adopt();
  } catch (error) {
    const { message, hint } = asHastError(error);
    keeper.log.error({ error: message, hint }, 'a worker without a parent cannot be taken over');
    keeper.detail = message;
    return;
  }
  if (memo !== null) await goOnWithWorker(left, memo);
  else if (record !== null) await goOnWithout(left, record);
}

async function goOnWithWorker(left: Left, memo: WorkerMemo): Promise<void> {
  const { keeper } = left;
  const { run } = keeper;
  if (run === undefined) return; // it has ended meanwhile, which is handled like every end
  keeper.log.warn({ worker: memo.pid, state: memo.state }, 'a worker is taken over');
  const isHeld = run.fuseFd !== null || keeper.resource.frontend !== 'direct';
  if (!isHeld) {
    const hint = 'Linux 5.6 and the right to trace processes (CAP_SYS_PTRACE) are needed';
    keeper.log.warn({ hint }, 'the description of /dev/fuse cannot be taken over');
  }
  if (memo.state === 'secondary') {
    if (isHeld) return;
    // It could not be promoted; a new one can.
    keeper.become('stop');
    await keeper.end(run, false, left.timing.stopMs);
    keeper.become('stopped');
    await keeper.start('retry', left.timing.readyMs).catch(() => undefined);
    return;
  }
  await goOnAsPrimary(left, memo);
}

async function goOnAsPrimary(left: Left, memo: WorkerMemo): Promise<void> {
  const { keeper, revival, record } = left;
  const { run } = keeper;
  if (run === undefined) return;
  const isShown = await left.findDevice();
  // One that has not served yet does not know what its predecessors settled.
  const negotiated = memo.negotiated ?? record?.negotiated ?? null;
  if (memo.state === 'resuming') {
    revival.adoptedResuming(run, negotiated);
    return;
  }
  revival.adopted(run.fuseFd === null ? null : negotiated, memo.isDetached);
  if (memo.isUnmounted) {
    const why = 'the volume was unmounted, or its connection aborted, while hastd was not there';
    await left.lose(lostDevice(why, keeper.name), 'init');
  } else if (!isShown) {
    const why = 'its loop device is gone, or hastd ended before it was there';
    await left.lose(lostDevice(why, keeper.name), 'secondary');
  }
}

async function goOnWithout(left: Left, record: RoleRecord): Promise<void> {
  const { role, negotiated, isDetached } = record;
  const { keeper, revival, timing } = left;
  if (role === 'secondary') {
    keeper.log.warn({}, 'the worker ended with its parent: another one is started');
    // A failure is in the log and in status by then.
    await keeper.start('retry', timing.readyMs).catch(() => undefined);
    return;
  }
  if (negotiated !== null && !isDetached && await keeper.adoptDead()) {
    if (await left.findDevice()) {
      await revival.adoptedDead(negotiated);
      return;
    }
    const why = 'its loop device is gone, and so is its worker';
    await left.lose(lostDevice(why, keeper.name), 'init');
    return;
  }
  const hint = `unmount what used it, then: hastctl role primary ${keeper.name}`;
  keeper.log.error({ hint }, 'the primary’s worker ended together with hastd: its device is lost');
  keeper.detail = 'the worker of the primary ended together with hastd';
}
