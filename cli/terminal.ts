/**
 * What a terminal is given that a file is not: colours, columns, a screen that is drawn again.
 * Colours never carry a meaning alone. NO_COLOR and FORCE_COLOR are honoured (no-color.org).
 */
import { styleText } from 'node:util';

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan' | 'alarm';
export type Paint = (style: Style, text: string) => string;

type Stream = Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'rows'>;

const styles = {
  bold: ['bold'], dim: ['dim'], red: ['red'], green: ['green'], yellow: ['yellow'],
  cyan: ['cyan'], alarm: ['bold', 'inverse', 'red'],
} as const satisfies Record<Style, readonly string[]>;

/** Null where nothing forces or forbids it. */
function forced(env: NodeJS.ProcessEnv): boolean | null {
  const force = env['FORCE_COLOR'];
  if (force !== undefined && force !== '') return force !== '0' && force !== 'false';
  return (env['NO_COLOR'] ?? '') === '' ? null : false;
}

export function hasColours(stream: Stream, env: NodeJS.ProcessEnv = process.env): boolean {
  return forced(env) ?? (stream.isTTY && env['TERM'] !== 'dumb');
}

/** A person reads it: on a terminal, or where FORCE_COLOR says so. */
export function isForPeople(stream: Stream, env: NodeJS.ProcessEnv = process.env): boolean {
  return stream.isTTY || forced(env) === true;
}

export function painter(isOn: boolean): Paint {
  return (style, text) => {
    if (!isOn || text === '') return text;
    return styleText([...styles[style]], text);
  };
}

/** Of standard output. */
export function paintOut(): Paint {
  return painter(hasColours(process.stdout));
}

/** Columns and rows; 80 by 24 where nobody says. */
export function sizeOf({ columns, rows }: Stream): { columns: number; rows: number } {
  return { columns: columns || 80, rows: rows || 24 };
}

/** What Control Sequence Introducers take up nothing on the screen. */
const escapes = /\u001b\[[0-9;?]*[A-Za-z]/g;

export function shownLength(text: string): number {
  return text.replaceAll(escapes, '').length;
}

/** At most `columns` characters on the screen, with all the escapes that were in it. */
export function cut(line: string, columns: number): string {
  if (shownLength(line) <= columns) return line;
  let left = columns;
  let result = '';
  for (let at = 0; at < line.length;) {
    escapes.lastIndex = at;
    const found = escapes.exec(line);
    const next = found?.index ?? line.length;
    const text = line.slice(at, next);
    result += text.slice(0, left) + (found?.[0] ?? '');
    left -= Math.min(left, text.length);
    at = next + (found?.[0].length ?? 0);
    if (found === null) break;
  }
  escapes.lastIndex = 0;
  return result;
}

export const control = {
  alternate: '\u001b[?1049h', normal: '\u001b[?1049l', hideCursor: '\u001b[?25l',
  showCursor: '\u001b[?25h', home: '\u001b[H', clearBelow: '\u001b[J', clearLine: '\u001b[K',
  /** Lines are cut at the edge instead of going on below. */
  noWrap: '\u001b[?7l', wrap: '\u001b[?7h',
} as const;

/** `lines` from the upper left corner on, without flicker. */
export function fullScreen(lines: readonly string[], { columns, rows }: {
  columns: number; rows: number;
}): string {
  const shown = lines.slice(0, rows).map((line) => `${cut(line, columns)}${control.clearLine}`);
  return `${control.home}${shown.join('\r\n')}${control.clearBelow}`;
}

/**
 * Lines of output as `list` and `dump` print them (`  label: value`) for a person: the values of
 * one block below each other.
 */
export function inColumns(text: string, paint: Paint): string {
  const pattern = /^( +)([A-Za-z][^:]*): (?=\S)(.*)$/;
  const lines = text.split('\n');
  const labels = lines.map((line) => pattern.exec(line)?.[2]?.length ?? 0);
  const width = Math.max(0, ...labels.filter((length) => length <= 20));
  return lines.map((line) => {
    const found = pattern.exec(line);
    if (found === null) return /^\S/.test(line) ? paint('bold', line) : line;
    const [, indent = '', label = '', value = ''] = found;
    const padding = ' '.repeat(Math.max(0, width - label.length));
    return `${indent}${paint('dim', `${label}:`)} ${padding}${value}`;
  }).join('\n');
}

/** Resolves at the first SIGINT or SIGTERM; `ended` also when nobody reads standard output. */
export function untilTold(): { signal: AbortSignal; stop(): void } {
  const controller = new AbortController();
  const end = (): void => controller.abort();
  process.once('SIGINT', end).once('SIGTERM', end);
  process.stdout.on('error', end);
  return {
    signal: controller.signal,
    stop: () => void process.off('SIGINT', end).off('SIGTERM', end).stdout.off('error', end),
  };
}
