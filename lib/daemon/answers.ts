/** What one resource answers to what hastctl asks of it: a failure is part of the reply. */
import type {
  ControlRequest, OrderResult, ReplacedWorker, RoleResult,
} from '../control/messages.ts';
import { toFailure } from '../control/messages.ts';
import type { Supervisor } from './supervisor.ts';
import type { Order } from './worker-protocol.ts';

export type OrderRequest = Exclude<ControlRequest, {
  command:
    | 'ping' | 'status' | 'statistics' | 'events' | 'map' | 'role' | 'switchover' | 'peer-facts'
    | 'replace-hastd' | 'replace-workers';
}>;

export function orderOf(request: OrderRequest): Order {
  switch (request.command) {
    case 'resync': return { kind: 'resync', paused: request.paused };
    case 'resolve': {
      const { discard, dryRun, undo } = request;
      return { kind: 'resolve', discard, dryRun, undo };
    }
    case 'undo': return { kind: 'undo', file: request.file };
    case 'detach': case 'attach': case 'peer-gone': return { kind: request.command };
  }
}

export async function carryOut(supervisor: Supervisor, order: Order): Promise<OrderResult> {
  const { name } = supervisor;
  try {
    await supervisor.order(order);
    return { name, error: null };
  } catch (error) {
    return { name, error: toFailure(error) };
  }
}

export async function replaceWorker(supervisor: Supervisor): Promise<ReplacedWorker> {
  const { name } = supervisor;
  try {
    const { pauseMs } = await supervisor.stepOver() ?? { pauseMs: null };
    const { worker, release } = await supervisor.status();
    return { name, error: null, worker, release, pauseMs };
  } catch (error) {
    const none = { worker: null, release: null, pauseMs: null };
    return { name, error: toFailure(error), ...none };
  }
}

export async function changeRole(
  supervisor: Supervisor,
  role: RoleResult['to'],
  force: boolean,
): Promise<RoleResult> {
  const { name } = supervisor;
  const before = supervisor.role;
  try {
    return { name, ...await supervisor.changeRole(role, force), error: null };
  } catch (error) {
    return { name, from: before, to: supervisor.role, error: toFailure(error) };
  }
}
