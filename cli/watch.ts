/** `hastctl status --watch`: the table again and again, for as long as it runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError, errorText } from '../lib/base/errors.ts';
import type { ResourceStatus } from '../lib/format/status.ts';
import { ExitCode } from './exit-codes.ts';
import { localTime } from './events-command.ts';
import { formatStatusPeople, formatStatusTable } from './format-status.ts';
import { print } from './output.ts';
import { control, fullScreen, paintOut, sizeOf, untilTold } from './terminal.ts';

const defaultSeconds = 2;

/** Throws HAST_E_USAGE; `true` is the option without a number. */
export function secondsOfWatch(value: string | true): number {
  if (value === true) return defaultSeconds;
  const seconds = Number(value);
  if (/^[0-9]+(\.[0-9]+)?$/.test(value) && seconds >= 0.1 && seconds <= 86_400) return seconds;
  throw new HastError('HAST_E_USAGE', `--watch '${value}' is not a number of seconds`, {
    hint: 'from 0.1 on, after the names of resources: hastctl status shared --watch 5',
  });
}

/**
 * Asks every `seconds`. On a terminal it draws the table anew in place; else it prints a block when
 * something in it changed (JSON: one line). Without a daemon at the beginning it throws; when the
 * daemon goes later it says so, and goes on asking. Ends at SIGINT and SIGTERM.
 */
export async function watchStatus(
  get: () => Promise<ResourceStatus[]>, seconds: number, json: boolean,
): Promise<number> {
  let resources = await get();
  const told = untilTold();
  const isScreen = process.stdout.isTTY && !json;
  let last = '';
  let gone: string | null = null;
  const show = (): void => {
    const now = localTime(Date.now() / 1000);
    if (isScreen) {
      print(fullScreen(screenOf(resources, gone, seconds, now), sizeOf(process.stdout)));
      return;
    }
    const text = blockOf(resources, gone, json);
    if (text === last) return;
    last = text;
    print(json ? text : `${now}\n${text}\n`);
  };
  if (isScreen) {
    print(`${control.hideCursor}${control.home}${control.clearBelow}`);
    process.stdout.on('resize', show);
  }
  try {
    while (!told.signal.aborted) {
      show();
      await sleep(seconds * 1000, undefined, { signal: told.signal }).catch(() => undefined);
      if (told.signal.aborted) break;
      try {
        resources = await get();
        gone = null;
      } catch (error) {
        const isLost = error instanceof HastError &&
          (error.code === 'HAST_E_NO_DAEMON' || error.code === 'HAST_E_PROTOCOL' ||
            error.code === 'HAST_E_TIMEOUT');
        if (!isLost) throw error;
        gone = errorText(error);
      }
    }
  } finally {
    told.stop();
    process.stdout.off('resize', show);
    if (isScreen) print(`${control.showCursor}\r\n`);
  }
  return ExitCode.ok;
}

function screenOf(
  resources: readonly ResourceStatus[], gone: string | null, seconds: number, now: string,
): string[] {
  const paint = paintOut();
  const table = formatStatusPeople(resources, paint).trimEnd().split('\n');
  const foot = gone === null ? paint('dim', `${now}, every ${seconds} s; ctrl-c ends`)
    : `${now}  ${paint('alarm', 'hastd does not answer')} ${gone}; this is what it said last`;
  return [...table, '', foot];
}

/** For programs: without what changes all the time. */
function blockOf(resources: readonly ResourceStatus[], gone: string | null, json: boolean): string {
  if (!json) return gone === null ? formatStatusTable(resources) : 'hastd does not answer\n';
  return `${JSON.stringify(gone === null ? resources : { schema: 1, gone })}\n`;
}
