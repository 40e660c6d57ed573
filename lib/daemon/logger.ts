/**
 * The log of hastd and of its workers: one line per event to stderr. JSON where stderr is a
 * file or a pipe (the launcher makes it RUNDIR/hastd.log), text for a person on a terminal. For
 * the journal of systemd the priority stands before the JSON, as sd-daemon(3) says; time and pid,
 * which the journal has, are left out. Nothing is written synchronously to a pipe: a reader that
 * stalls must not stop the daemon; beyond `backlogMax` unwritten bytes lines are dropped.
 */
import * as fs from 'node:fs';
import { pino, type DestinationStream } from 'pino';
import type { Logger } from '../base/log.ts';

/** Loaded only where it is used: a worker's start waits for it. */
const pretty = process.stderr.isTTY ? (await import('pino-pretty')).default : null;

const backlogMax = 1024 * 1024;

export type LogLevel = 'info' | 'debug' | 'trace';

/** Workers take the level from here. */
export const logLevelVariable = 'HAST_LOG_LEVEL';

export interface LoggerOptions {
  /** Default: HAST_LOG_LEVEL, else info. */
  level?: LogLevel;
  /** Fields of every line, such as the resource's name. */
  fields?: object;
}

/** The level of `-d` given `count` times. */
export function levelOf(count: number): LogLevel {
  if (count <= 0) return 'info';
  return count === 1 ? 'debug' : 'trace';
}

export function createLogger(options: LoggerOptions = {}): Logger {
  const level = options.level ?? levelFromEnvironment();
  const isJournal = writesToJournal();
  const settings = {
    level,
    base: isJournal ? { ...options.fields } : { pid: process.pid, ...options.fields },
    timestamp: isJournal ? false : pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  if (pretty !== null) return pino(settings, forTerminal(pretty));
  const destination = pino.destination({ fd: 2, sync: false, maxLength: backlogMax });
  destination.on('error', () => undefined); // nowhere left to say it
  process.on('exit', () => {
    try {
      destination.flushSync();
    } catch {
      // the file is full or gone; the program ends all the same
    }
  });
  return pino(settings, isJournal ? journalStream(destination) : destination);
}

function levelFromEnvironment(): LogLevel {
  const value = process.env[logLevelVariable];
  return value === 'debug' || value === 'trace' ? value : 'info';
}

/** systemd tells the device and the inode of the stream that it made. */
export function writesToJournal(
  stream = process.env['JOURNAL_STREAM'], fd = 2,
): boolean {
  if (stream === undefined) return false;
  try {
    const { dev, ino } = fs.fstatSync(fd);
    return stream === `${dev}:${ino}`;
  } catch {
    return false; // stderr is closed
  }
}

/** Priorities of syslog(3) by pino's levels. */
function priorityOf(level: number): number {
  if (level >= 60) return 2;
  if (level >= 50) return 3;
  if (level >= 40) return 4;
  return level >= 30 ? 6 : 7;
}

/** Puts `<PRIORITY>` before each line. */
export function journalStream(to: DestinationStream): DestinationStream {
  const stream = {
    // Makes pino set `lastLevel` before it writes.
    [Symbol.for('pino.metadata')]: true,
    lastLevel: 30,
    write: (line: string): void => {
      to.write(`<${priorityOf(stream.lastLevel)}>${line}`);
    },
  };
  return stream;
}

/** `17:03:21 WARN: [shared] (primary) disconnected reason: "..."` */
function forTerminal(make: NonNullable<typeof pretty>): DestinationStream {
  const { NO_COLOR: noColor, TERM: term } = process.env;
  return make({
    destination: 2, sync: true, singleLine: true, ignore: 'pid,resource,role',
    translateTime: 'SYS:HH:MM:ss', colorize: !noColor && term !== 'dumb',
    messageFormat: (log, key) => {
      const { resource, role } = log;
      const words = [String(log[key])];
      if (typeof role === 'string') words.unshift(`(${role})`);
      if (typeof resource === 'string') words.unshift(`[${resource}]`);
      return words.join(' ');
    },
  });
}
