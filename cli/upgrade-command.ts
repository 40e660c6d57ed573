/** hastctl upgrade: hastd and its workers become what is installed now. */
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError } from '../lib/base/errors.ts';
import type { Config } from '../lib/config/model.ts';
import { fromFailure, type ReplacedWorker, type ReplyOf } from '../lib/control/messages.ts';
import { ask } from './daemon-commands.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import type { Context } from './output.ts';
import { configOf, print, printJson, reportError, resourceNames } from './output.ts';
import { withProgress } from './progress.ts';

const pingMs = 5000;
/** hastd lets operations that are under way end first. */
const replaceMs = 120_000;
const returnMs = 60_000;
const lookMs = 50;
/** A primary's worker asks its peer before it serves, and hastd gives it a minute. */
const workersMs = 180_000;

export async function upgradeCommand(context: Context, names: string[]): Promise<number> {
  const config = configOf(context);
  const before = await ask(context, config, { command: 'ping' }, pingMs);
  await withProgress(context, 'hastd: upgrade', () =>
    ask(context, config, { command: 'replace-hastd' }, replaceMs));
  const after = await withProgress(context, 'hastd: start', () =>
    untilBack(context, config, before.startedAt));
  const resources = resourceNames(names);
  const request = { command: 'replace-workers', resources } as const;
  const { results } = await withProgress(context, 'workers: upgrade', () =>
    ask(context, config, request, workersMs));
  if (context.json) {
    printJson({ hastd: { before: before.release, after: after.release, pid: after.pid }, results });
  } else {
    print(`hastd: ${releases(before.release, after.release)}, pid ${after.pid}\n`);
    for (const result of results) print(workerLine(result));
  }
  let code: number = ExitCode.ok;
  for (const { name, error } of results) {
    if (error === null) continue;
    const failure = fromFailure({ ...error, message: `${name}: ${error.message}` });
    reportError(context, failure);
    if (code === ExitCode.ok) code = exitCodeOf(failure);
  }
  return code;
}

/** The hastd that answers next. */
async function untilBack(
  context: Context, config: Config, startedAt: number,
): Promise<ReplyOf['ping']> {
  const end = performance.now() + returnMs;
  for (;;) {
    await sleep(lookMs);
    const reply = await ask(context, config, { command: 'ping' }, pingMs).catch(() => null);
    if (reply !== null && reply.startedAt !== startedAt) return reply;
    if (performance.now() < end) continue;
    throw new HastError('HAST_E_TIMEOUT', `hastd did not come back within ${returnMs / 1000} s`, {
      hint: "its workers go on serving; see hastd's log, then start hastd",
    });
  }
}

function releases(before: string, after: string): string {
  return before === after ? `release ${after}` : `release ${before} -> ${after}`;
}

function workerLine({ name, error, worker, release, pauseMs }: ReplacedWorker): string {
  if (error !== null) return '';
  if (worker === null) return `${name}: no worker, the role is init\n`;
  const pause = pauseMs === null ? '' : `, I/O paused for ${pauseMs} ms`;
  return `${name}: release ${release ?? 'unknown'}, worker ${worker}${pause}\n`;
}
