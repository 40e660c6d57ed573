/** `hastctl events`: what happens to resources, a line each, for as long as it runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError, errorText } from '../lib/base/errors.ts';
import { followDaemon } from '../lib/control/follow.ts';
import type { StateEvent } from '../lib/format/state-event.ts';
import { ask } from './daemon-commands.ts';
import { ExitCode } from './exit-codes.ts';
import type { Context } from './output.ts';
import { configOf, print, resourceNames } from './output.ts';
import type { Paint, Style } from './terminal.ts';
import { paintOut, untilTold } from './terminal.ts';

const pingMs = 5000;
const againMs = 500;

/** Ends at SIGINT or SIGTERM. Throws only where there is no daemon at the beginning. */
export async function eventsCommand(context: Context, names: string[]): Promise<number> {
  const config = configOf(context);
  const resources = resourceNames(names);
  await ask(context, config, { command: 'ping' }, pingMs);
  const told = untilTold();
  const paint = paintOut();
  const show = (event: StateEvent): void => {
    print(context.json ? `${JSON.stringify(event)}\n` : formatEvent(event, paint));
  };
  let isGone = false;
  try {
    while (!told.signal.aborted) {
      try {
        for await (const event of followDaemon(resources, config.control.path, told.signal)) {
          if (isGone) show(daemonEvent('back', ''));
          isGone = false;
          show(event);
        }
      } catch (error) {
        if (isFinal(error)) throw error;
        if (!isGone) show(daemonEvent('gone', errorText(error)));
        isGone = true;
      }
      await pause(told.signal);
    }
  } finally {
    told.stop();
  }
  return ExitCode.ok;
}

/** The daemon is there, and trying again changes nothing; a stream it cut off is followed anew. */
function isFinal(error: unknown): boolean {
  if (!(error instanceof HastError)) return true;
  return error.code === 'HAST_E_UNKNOWN_RESOURCE' ||
    (error.code === 'HAST_E_BUSY' && error.message.includes('follow events already'));
}

async function pause(signal: AbortSignal): Promise<void> {
  await sleep(againMs, undefined, { signal }).catch(() => undefined);
}

function daemonEvent(to: 'gone' | 'back', why: string): StateEvent {
  const time = Date.now() / 1000;
  return { schema: 1, time, resource: null, kind: 'daemon', from: null, to, why };
}

const words: Partial<Record<StateEvent['kind'], string>> = {
  localDisk: 'local disk', peerDisk: 'peer disk', peerRole: 'peer role', sync: 'resync',
  daemon: 'hastd', needsHuman: 'needs a person',
};

/** `10:06:38  shared  status: waiting -> complete  (why)` */
export function formatEvent(event: StateEvent, paint: Paint): string {
  const { time, resource, kind, from, to, why, state } = event;
  const clock = paint('dim', localTime(time));
  const who = resource === null ? '' : `${paint('bold', resource)}  `;
  const reason = why === '' ? '' : `  (${why})`;
  if (state !== undefined) {
    const { role, status, connection, localDisk, peerDisk, peerRole, worker } = state;
    const human = state.needsHuman ? `, ${paint('red', 'needs a person')}` : '';
    const disks = `disks ${localDisk}/${peerDisk}, peer ${peerRole}`;
    return `${clock}  ${who}now: ${role}, ${paint(styleOfWord(status), status)}, ${connection}, ` +
      `${disks}, worker ${worker ?? 'none'}${human}${reason}\n`;
  }
  const before = from === null && kind !== 'worker' ? '' : `${shown(from)} -> `;
  const after = paint(styleOfWord(to), shown(to));
  return `${clock}  ${who}${words[kind] ?? kind}: ${before}${after}${reason}\n`;
}

function shown(value: StateEvent['to']): string {
  if (value === null) return 'none';
  return typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value);
}

function styleOfWord(word: StateEvent['to']): Style {
  if (word === 'failed' || word === 'split-brain' || word === 'gone' || word === true) return 'red';
  if (word === 'complete' || word === 'up-to-date' || word === 'back' || word === 'done') {
    return 'green';
  }
  return word === 'degraded' || word === 'refused' || word === 'interrupted' ? 'yellow' : 'bold';
}

/** `2026-11-26 10:06:38`, in the time zone of this terminal. */
export function localTime(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}
