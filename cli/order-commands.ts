/** What is asked beside the role: resync, detach, attach, peer-gone, resolve, undo. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { HastError } from '../lib/base/errors.ts';
import type { Config } from '../lib/config/model.ts';
import type {
  ControlCommand, OrderResult, Resolution, ResolveSide,
} from '../lib/control/messages.ts';
import { fromFailure } from '../lib/control/messages.ts';
import { ask, roleExtraMs, statusOf } from './daemon-commands.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import { sized } from './format-status.ts';
import type { Context } from './output.ts';
import { configOf, print, printJson, reportError, resourceNames } from './output.ts';
import { withProgress } from './progress.ts';

export interface ResolveOptions {
  discardLocal?: true;
  discardPeer?: true;
  dryRun?: true;
  undo?: string;
}

/** The daemon gives a worker 60 s; a role change that is under way comes before. */
const orderMs = roleExtraMs + 60_000;
/** The daemon's own bound, and a little more, so that its error arrives. */
const copyMs = 24 * 3600 * 1000 + 60_000;

export function resyncCommand(context: Context, action: string, names: string[]): Promise<number> {
  if (action !== 'pause' && action !== 'resume') {
    throw new HastError('HAST_E_USAGE', `unknown action '${action}'`, {
      hint: 'hastctl resync pause|resume all|NAME...',
    });
  }
  const resources = resourceNames(names);
  return giveOrder(context, { command: 'resync', paused: action === 'pause', resources });
}

export function orderCommand(
  context: Context,
  command: 'detach' | 'attach' | 'peer-gone',
  names: string[],
): Promise<number> {
  return giveOrder(context, { command, resources: resourceNames(names) });
}

export function undoCommand(context: Context, resource: string, name: string): Promise<number> {
  const file = path.resolve(name);
  if (!fs.existsSync(file)) {
    throw new HastError('HAST_E_DEVICE', `${file} does not exist`, {
      hint: 'name the file that hastctl resolve --undo made', errno: 'ENOENT',
    });
  }
  return giveOrder(context, { command: 'undo', resource, file });
}

/** Silent on success; every failure is printed, the first decides the exit code. */
async function giveOrder(
  context: Context,
  command: Extract<ControlCommand, {
    command: 'resync' | 'detach' | 'attach' | 'peer-gone' | 'undo';
  }>,
): Promise<number> {
  const config = configOf(context);
  const timeoutMs = command.command === 'undo' ? copyMs : boundOf(config);
  const names = 'resource' in command ? [command.resource] : [...command.resources];
  const { results } = await withProgress(
    context, command.command, () => ask(context, config, command, timeoutMs),
    { watch: () => statusOf(context, names) },
  );
  if (context.json) printJson(results);
  let code: number = ExitCode.ok;
  for (const result of results) {
    const error = errorOf(result);
    if (error === null) continue;
    reportError(context, error);
    if (code === ExitCode.ok) code = exitCodeOf(error);
  }
  return code;
}

function boundOf(config: Config): number {
  return orderMs + 1000 * Math.max(10, ...config.resources.map(({ timeout }) => timeout));
}

function errorOf({ name, error }: OrderResult): HastError | null {
  return error === null ? null : fromFailure({ ...error, message: `${name}: ${error.message}` });
}

export async function resolveCommand(
  context: Context,
  resource: string,
  options: ResolveOptions,
): Promise<number> {
  if ((options.discardLocal === true) === (options.discardPeer === true)) {
    throw new HastError('HAST_E_USAGE', 'whose writes since the fork are given up?', {
      hint: `hastctl resolve ${resource} --discard-local|--discard-peer --dry-run`,
    });
  }
  const discard: ResolveSide = options.discardLocal === true ? 'local' : 'peer';
  const undo = options.undo === undefined ? null : path.resolve(options.undo);
  if (undo !== null && fs.existsSync(undo)) {
    throw new HastError('HAST_E_USAGE', `${undo} exists: an undo file is never overwritten`, {
      hint: 'name a file that does not exist',
    });
  }
  const dryRun = options.dryRun === true;
  const config = configOf(context);
  const command = { command: 'resolve', resource, discard, dryRun, undo } as const;
  const { resolution } = await withProgress(
    context, `${resource}: resolve`, () => ask(context, config, command, copyMs),
    { watch: () => statusOf(context, [resource]) },
  );
  const result = { name: resource, discard, dryRun, undo, ...resolution };
  if (context.json) printJson({ schema: 1, ...result });
  else print(formatResolution(result));
  return ExitCode.ok;
}

export interface ShownResolution extends Resolution {
  name: string;
  discard: ResolveSide;
  dryRun: boolean;
  undo: string | null;
}

/** `resource: NAME`, then four-space lines as dump's. */
export function formatResolution(result: ShownResolution): string {
  const { name, discard, dryRun, undo, copyBytes, full } = result;
  const lines = [`resource: ${name}`, `    given up: ${discard}`];
  for (const side of ['local', 'peer'] as const) {
    const { bytes, ranges, more } = result[side];
    const generation = side === 'local' ? result.localGeneration : result.peerGeneration;
    lines.push(`    ${side} generation: ${generation}`);
    lines.push(`    ${side} writes: ${sized(bytes)}`);
    for (const range of ranges) lines.push(`        ${range.offset} ${range.length}`);
    if (more > 0) lines.push(`        and ${more} more`);
  }
  const all = full ? ', the whole volume: a map does not speak of the other copy' : '';
  lines.push(`    copied to ${discard}: ${sized(copyBytes)}${all}`);
  if (undo !== null && !dryRun) lines.push(`    undo: ${undo}`);
  if (dryRun) lines.push('    dry run: nothing was changed');
  return `${lines.join('\n')}\n`;
}
