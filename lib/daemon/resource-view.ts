/** What the parent shows of a resource: what its worker says, or what is known without one. */
import { errorText } from '../base/errors.ts';
import type { ResourceStatistics } from '../format/statistics.ts';
import type { ResourceStatus } from '../format/status.ts';
import { within } from './deadline.ts';
import { idleStatus } from './idle-status.ts';
import type { WorkerKeeper } from './worker-keeper.ts';

export interface ResourceView {
  status: ResourceStatus;
  /** null without a worker that says what it counted. */
  statistics: ResourceStatistics | null;
  /** There is no worker to ask, or it answered. */
  hasAnswered: boolean;
}

/** `link`: of the device. Takes at most `timeoutMs`; a worker that says nothing is shown so. */
export async function viewOf(
  keeper: WorkerKeeper, link: string, revivalNeedsHuman: boolean, timeoutMs: number,
): Promise<ResourceView> {
  const { run, resource, state, detail } = keeper;
  const idle = idleStatus(resource, link, state, detail);
  if (run === undefined || state === 'starting' || state === 'reviving') {
    const needsHuman = idle.needsHuman || revivalNeedsHuman;
    const status = { ...idle, needsHuman, worker: run?.worker.pid ?? null };
    return { status, statistics: null, hasAnswered: true };
  }
  const { pid } = run.worker;
  try {
    // The question may be another one's, with more patience.
    const view = run.worker.view(timeoutMs);
    const { status, statistics } = await within(timeoutMs, 'the status', view);
    // One of an older release does not say everything.
    const said = { ...idle, authentication: 'none' as const, ...status };
    const whole = { ...said, role: keeper.role, device: link, worker: pid };
    return { status: whole, statistics: statistics ?? null, hasAnswered: true };
  } catch (error) {
    const why = `the worker gives no status: ${errorText(error)}`;
    const status = { ...idle, status: 'failed' as const, detail: why, worker: pid };
    return { status, statistics: null, hasAnswered: false };
  }
}
