/**
 * `hastctl switchover`: the primary leaves, the other node takes over. It runs on the primary; from
 * the other node it asks the primary to run it. After a failure the former state is restored where
 * it is certain that the other node is not primary; else it is said what to type.
 */
import { HastError, errorText } from '../lib/base/errors.ts';
import type { SwitchoverWhat } from '../lib/control/messages.ts';
import type { ResourceStatus } from '../lib/format/status.ts';
import { bringUp, takeDown } from './bring-up.ts';
import type { Place } from './bring-up.ts';
import { ask, statusOf } from './daemon-commands.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import type { Context } from './output.ts';
import { chooseResources, configOf, print, printJson, reportError } from './output.ts';
import { Steps, stepsJson } from './steps.ts';

export interface SwitchoverOptions {
  /** hastd runs it because the peer asked: only on the primary, and without asking back. */
  peerAsked?: true;
}

/** A little more than hastd's own bound, so that its error arrives. */
const askMs = 1700_000;

interface Run extends Place {
  steps: Steps;
  /** What the peer printed. */
  peer: string[];
  pauseSeconds: number | null;
}

export async function switchoverCommand(
  context: Context, name: string, { peerAsked }: SwitchoverOptions,
): Promise<number> {
  const config = configOf(context);
  const [resource] = chooseResources(config, [name]);
  if (resource === undefined) throw new HastError('HAST_E_INTERNAL', 'no resource');
  const [status] = await statusOf(context, [name]);
  if (status === undefined) throw new HastError('HAST_E_INTERNAL', 'hastd gives no status');
  const run: Run = {
    context, config, resource, steps: new Steps(context, name), peer: [], pauseSeconds: null,
  };
  let failure: unknown = null;
  try {
    refuseEarly(status, peerAsked === true);
    if (status.role === 'primary') await giveAway(run);
    else await askFor(run);
  } catch (error) {
    failure = error;
    reportError(context, error);
  }
  const { steps, peer, pauseSeconds } = run;
  if (context.json) {
    printJson({ ...stepsJson({ name, steps: steps.done, error: failure }), peer, pauseSeconds });
  }
  return failure === null ? ExitCode.ok : exitCodeOf(failure);
}

/** Before anything is changed. */
function refuseEarly(status: ResourceStatus, peerAsked: boolean): void {
  const { name, role, peerRole, connection, protocolFeatures = [] } = status;
  if (role !== 'primary' && (peerAsked || peerRole !== 'primary')) {
    const why = peerAsked ? 'this node is not primary' : 'neither node is known to be primary';
    throw new HastError('HAST_E_ROLE', `${name}: ${why}`, { hint: `hastctl up ${name}` });
  }
  if (status.status !== 'complete') {
    throw new HastError(
      'HAST_E_REFUSED', `${name}: the pair is not complete (${status.status}, ${connection})`,
      { hint: `hastctl wait --synced ${name}` },
    );
  }
  if (!protocolFeatures.includes('switchover')) {
    throw new HastError(
      'HAST_E_REFUSED', `${name}: the peer, or this node's worker, is of a release without it`,
      { hint: `hastctl upgrade on both; or hastctl down ${name} here, hastctl up ${name} there` },
    );
  }
}

/** On the primary. */
async function giveAway(run: Run): Promise<void> {
  const { steps, resource: { name } } = run;
  const startedAt = performance.now();
  try {
    await takeDown(run, steps);
  } catch (error) {
    const isUnmounted = steps.done.some(({ step, already }) => step === 'unmount' && !already);
    if (isUnmounted) await mountAgain(run, error);
    throw error;
  }
  try {
    await steps.run('peer is primary', () => askPeer(run, 'take-over'));
  } catch (error) {
    if (error instanceof HastError && error.code === 'HAST_E_TIMEOUT') throw unknown(name, error);
    await takeBack(run, error);
  }
  run.pauseSeconds = Math.round(performance.now() - startedAt) / 1000;
  steps.add({ step: 'pause', seconds: run.pauseSeconds, already: false, note: '' });
}

/** This node has not left. What cannot be mounted again is said beside why it could not leave. */
async function mountAgain({ steps, ...place }: Run, why: unknown): Promise<void> {
  try {
    await bringUp(place, steps);
  } catch (error) {
    const { name } = place.resource;
    throw new HastError(
      'HAST_E_REFUSED', `${errorText(why)}; and it is not mounted again: ${errorText(error)}`,
      { cause: error, hint: `hastctl list ${name}, then: hastctl up ${name}` },
    );
  }
}

function unknown(name: string, error: HastError): HastError {
  const message = `${name}: no answer from the peer, which may be primary: ${error.message}`;
  return new HastError('HAST_E_TIMEOUT', message, {
    cause: error,
    hint: `hastctl status ${name} on both nodes, then hastctl up ${name} on the one that shall be`,
  });
}

/** The peer has not become primary, or has left again. The promotion is guarded all the same. */
async function takeBack({ steps, ...place }: Run, why: unknown): Promise<never> {
  const { name } = place.resource;
  const failed = `${name}: the peer did not take over: ${errorText(why)}`;
  try {
    await bringUp(place, steps);
  } catch (error) {
    const hint = error instanceof HastError && error.hint !== undefined ? error.hint
      : `hastctl status ${name} on both, then hastctl up ${name} on one`;
    throw new HastError('HAST_E_REFUSED', `${failed}; and here: ${errorText(error)}`, {
      cause: error, hint,
    });
  }
  throw new HastError('HAST_E_REFUSED', `${failed}; this node is primary again`, {
    cause: why, hint: 'mend it there, then switch over again',
  });
}

/** On the other node: the primary does it, and asks this node's hastd in turn. */
async function askFor(run: Run): Promise<void> {
  const { context, steps, resource: { name } } = run;
  await steps.run('peer hands over', () => askPeer(run, 'hand-over'));
  const [status] = await statusOf(context, [name]);
  if (status?.role === 'primary') return;
  throw new HastError('HAST_E_REFUSED', `${name}: the role here is ${status?.role ?? 'unknown'}`, {
    hint: `hastctl status ${name} on both nodes`,
  });
}

/** Throws what its hastctl said where that failed. */
async function askPeer(run: Run, what: SwitchoverWhat): Promise<void> {
  const { context, config, resource: { name } } = run;
  const command = { command: 'switchover', resource: name, what } as const;
  const { code, text } = await ask(context, config, command, askMs);
  run.peer = text.split('\n').filter((line) => line !== '');
  const isError = (line: string): boolean => line.startsWith('hastctl: error: ');
  if (!context.json) {
    for (const line of run.peer) if (!isError(line)) print(`peer: ${line}\n`);
  }
  if (code === ExitCode.ok) return;
  const errors = run.peer.filter(isError).map((line) => line.replace('hastctl: error: ', ''));
  throw new HastError('HAST_E_REFUSED', errors.join('; ') || `exit code ${code} there`, {
    hint: 'see its log',
  });
}
