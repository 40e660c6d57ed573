/** `hastctl wait`: for scripts that go on when a resource is connected, in sync, or in a role. */
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError } from '../lib/base/errors.ts';
import type { RoleWord } from '../lib/control/messages.ts';
import type { ResourceStatus } from '../lib/format/status.ts';
import { roleWord, statusOf } from './daemon-commands.ts';
import { ExitCode } from './exit-codes.ts';
import type { Context } from './output.ts';
import { printJson, reportError } from './output.ts';
import { withProgress } from './progress.ts';

export interface WaitOptions {
  connected?: true;
  synced?: true;
  role?: string;
  timeout?: string;
}

interface Conditions {
  connected: boolean;
  synced: boolean;
  role: RoleWord | undefined;
}

const pollMs = 500;

/** Polls until all conditions hold for all resources. Without --timeout it waits for ever. */
export async function waitCommand(
  context: Context,
  names: string[],
  options: WaitOptions,
): Promise<number> {
  const conditions: Conditions = {
    connected: options.connected === true,
    synced: options.synced === true,
    role: options.role === undefined ? undefined : roleWord(options.role),
  };
  if (!conditions.connected && !conditions.synced && conditions.role === undefined) {
    throw new HastError('HAST_E_USAGE', 'what is waited for?', {
      hint: 'one or more of --connected, --synced and --role',
    });
  }
  const { timeout } = options;
  const seconds = timeout === undefined ? Infinity : secondsOption('--timeout', timeout);
  let last: ResourceStatus[] = [];
  const missing = await withProgress(context, `waiting for ${names.join(' ')}`, async () => {
    const end = performance.now() + seconds * 1000;
    for (;;) {
      last = await statusOf(context, names);
      const lacking = last.filter((resource) => !holds(resource, conditions));
      const left = end - performance.now();
      if (lacking.length === 0 || left <= 0) return lacking;
      await sleep(Math.min(pollMs, left));
    }
  }, { watch: async () => last });
  if (missing.length > 0) {
    reportError(context, late(missing, seconds));
    return ExitCode.notReached;
  }
  if (context.json) printJson(last);
  return ExitCode.ok;
}

export function holds(resource: ResourceStatus, conditions: Conditions): boolean {
  const { connection, status, role } = resource;
  const isConnected = connection === 'connected' || connection === 'syncing' ||
    connection === 'paused';
  return (!conditions.connected || isConnected) &&
    (!conditions.synced || status === 'complete') &&
    (conditions.role === undefined || role === conditions.role);
}

/** Throws HAST_E_USAGE. */
export function secondsOption(option: string, text: string): number {
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  throw new HastError('HAST_E_USAGE', `${option} '${text}' is not a number of seconds`, {
    hint: `${option} 60`,
  });
}

function late(missing: readonly ResourceStatus[], seconds: number): HastError {
  const states = missing.map(({ name, role, status, connection, detail }) =>
    `${name} is ${role}, ${status}, ${connection}${detail === '' ? '' : ` (${detail})`}`);
  return new HastError('HAST_E_TIMEOUT', `not within ${seconds} s: ${states.join('; ')}`, {
    hint: `hastctl list ${missing.map(({ name }) => name).join(' ')}`,
  });
}
