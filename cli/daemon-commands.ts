/** The commands that ask the daemon: role, status, list. */
import { HastError } from '../lib/base/errors.ts';
import type { Config } from '../lib/config/model.ts';
import { callDaemon } from '../lib/control/client.ts';
import type { ControlCommand, ReplyOf, RoleResult, RoleWord } from '../lib/control/messages.ts';
import { fromFailure, roleWords } from '../lib/control/messages.ts';
import type { ResourceStatus } from '../lib/format/status.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import {
  formatList, formatListPeople, formatStatusPeople, formatStatusTable,
} from './format-status.ts';
import type { Context } from './output.ts';
import { configOf, print, printJson, reportError, resourceNames } from './output.ts';
import { defaultFile } from './report.ts';
import { isForPeople, paintOut } from './terminal.ts';

const statusMs = 15_000;
/** What a role change may take beyond the resource's timeout: ending the old worker by force. */
export const roleExtraMs = 120_000;

export interface StatusOptions {
  watch?: string | true;
}

export async function statusCommand(
  context: Context, names: string[], { watch }: StatusOptions,
): Promise<number> {
  if (watch !== undefined) {
    const { secondsOfWatch, watchStatus } = await import('./watch.ts');
    const seconds = secondsOfWatch(watch);
    return await watchStatus(() => statusOf(context, names), seconds, context.json);
  }
  const resources = await statusOf(context, names);
  if (context.json) printJson(resources);
  else if (isForPeople(process.stdout)) print(formatStatusPeople(resources, paintOut()));
  else print(formatStatusTable(resources));
  return ExitCode.ok;
}

export async function listCommand(context: Context, names: string[]): Promise<number> {
  const resources = await statusOf(context, names);
  if (context.json) printJson(resources);
  else if (isForPeople(process.stdout)) print(formatListPeople(resources, paintOut()));
  else print(formatList(resources));
  return ExitCode.ok;
}

export interface RoleOptions {
  force?: true;
  ifInit?: true;
}

/** Silent on success; every failure is printed, the first decides the exit code. */
export async function roleCommand(
  context: Context,
  role: string,
  names: string[],
  { force = false, ifInit = false }: { force?: boolean; ifInit?: boolean },
): Promise<number> {
  const config = configOf(context);
  const to = roleWord(role);
  let resources = resourceNames(names);
  if (ifInit) {
    const inInit = (await statusOf(context, resources)).filter((one) => one.role === 'init');
    resources = inInit.map(({ name }) => name);
    // An empty list would mean all of them.
    if (resources.length === 0) {
      if (context.json) printJson([]);
      return ExitCode.ok;
    }
  }
  const command: ControlCommand = { command: 'role', role: to, resources, force };
  const { withProgress } = await import('./progress.ts');
  const { results } = await withProgress(
    context, `role ${to}`, () => ask(context, config, command, roleMs(config)),
    { watch: () => statusOf(context, resources) },
  );
  if (context.json) printJson(results);
  let code: number = ExitCode.ok;
  for (const result of results) {
    if (result.error === null) continue;
    const error = resultError(result);
    reportError(context, error);
    if (code === ExitCode.ok) code = exitCodeOf(error);
  }
  return code;
}

/** One resource; throws the daemon's refusal. */
export async function askRole(
  context: Context, config: Config, role: RoleWord, name: string,
): Promise<RoleResult> {
  const command = { command: 'role', role, resources: [name], force: false } as const;
  const { results } = await ask(context, config, command, roleMs(config));
  const [result] = results;
  if (result === undefined) throw new HastError('HAST_E_INTERNAL', `hastd says nothing of ${name}`);
  if (result.error !== null) throw resultError(result);
  return result;
}

function roleMs(config: Config): number {
  return roleExtraMs + 1000 * Math.max(10, ...config.resources.map(({ timeout }) => timeout));
}

function resultError({ name, from, to, error }: RoleResult): HastError {
  if (error === null) throw new Error('no error');
  const { code, message, hint } = error;
  const moved = from === to ? '' : ` (the role is ${to} now)`;
  return fromFailure({ code, hint, message: `${name}: ${message}${moved}` });
}

export function roleWord(word: string): RoleWord {
  const role = roleWords.find((one) => one === word);
  if (role !== undefined) return role;
  throw new HastError('HAST_E_USAGE', `unknown role '${word}'`, {
    hint: `one of ${roleWords.join(', ')}`,
  });
}

export async function statusOf(context: Context, names: string[]): Promise<ResourceStatus[]> {
  const config = configOf(context);
  const command: ControlCommand = { command: 'status', resources: resourceNames(names) };
  const { resources } = await ask(context, config, command, statusMs);
  return resources;
}

/** The daemon's answer; where there is no daemon, the error says how to start it. */
export async function ask<C extends ControlCommand>(
  context: Context,
  config: Config,
  command: C,
  timeoutMs: number,
): Promise<ReplyOf[C['command']]> {
  try {
    return await callDaemon(command, { path: config.control.path, timeoutMs });
  } catch (error) {
    const absent = error instanceof HastError && error.code === 'HAST_E_NO_DAEMON' &&
      error.hint === 'start hastd';
    if (!absent) throw error;
    // The command that starts the daemon of this very configuration.
    const { file, node } = context.config;
    const start = ['hastd'];
    if (file !== defaultFile) start.push('-c', file);
    if (node !== undefined) start.push('--node', node);
    throw new HastError('HAST_E_NO_DAEMON', error.message, {
      cause: error, hint: start.join(' '),
    });
  }
}
