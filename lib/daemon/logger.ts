/**
 * The log of hastd and of its workers: one line per event to stderr. JSON where stderr is a
 * file or a pipe (the launcher makes it RUNDIR/hastd.log), readable text on a terminal.
 * Nothing is written synchronously to a pipe: a reader that stalls must not stop the daemon;
 * beyond `backlogMax` unwritten bytes lines are dropped.
 */
import { pino } from 'pino';
import type { Logger } from '../base/log.ts';

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
  const settings = {
    level,
    base: { pid: process.pid, ...options.fields },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  if (process.stderr.isTTY) {
    return pino(settings, { write: (line: string) => process.stderr.write(readable(line)) });
  }
  const destination = pino.destination({ fd: 2, sync: false, maxLength: backlogMax });
  destination.on('error', () => undefined); // nowhere left to say it
  process.on('exit', () => {
    try {
      destination.flushSync();
    } catch {
      // the file is full or gone; the program ends all the same
    }
  });
  return pino(settings, destination);
}

function levelFromEnvironment(): LogLevel {
  const value = process.env[logLevelVariable];
  return value === 'debug' || value === 'trace' ? value : 'info';
}

/** `17:03:21 warn  [shared] (primary) message key=value` */
export function readable(line: string): string {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return line;
  }
  const { time, level, pid, resource, role, msg, ...rest } = fields;
  void pid;
  const words = [String(time).slice(11, 19), String(level).padEnd(5)];
  if (resource !== undefined) words.push(`[${String(resource)}]`);
  if (role !== undefined) words.push(`(${String(role)})`);
  words.push(String(msg));
  for (const [key, value] of Object.entries(rest)) {
    words.push(`${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  }
  return `${words.join(' ')}\n`;
}
