/**
 * Problems of a configuration file: where, what, and what would be right. A problem is data;
 * nothing in lib/config throws because of what a file says.
 */
import { limits } from './limits.ts';

/** A piece of one source line. `offset` and `length` count UTF-16 units. */
export interface Span {
  offset: number;
  /** From 1. */
  line: number;
  /** From 1. */
  column: number;
  /** 0 where there is nothing to underline; never reaches past the line. */
  length: number;
}

export interface Problem {
  severity: 'error' | 'warning';
  /** `missing-file`: the file could not be read at all (exit code 72 instead of 78). */
  kind: 'missing-file' | 'config';
  message: string;
  /** What would be right. */
  hint?: string;
  file: string;
  line: number;
  column: number;
  length: number;
}

/** The text of a file together with the positions of its lines. */
export class SourceText {
  readonly text: string;
  readonly #lineStarts: number[] = [0];

  constructor(text: string) {
    this.text = text;
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) {
      this.#lineStarts.push(at + 1);
    }
  }

  get lineCount(): number {
    return this.#lineStarts.length;
  }

  /** Text of line `line` (from 1) without its line end. */
  line(line: number): string {
    const start = this.#lineStarts[line - 1] ?? this.text.length;
    return this.text.slice(start, this.#lineEnd(line));
  }

  /** The span of `length` units from `offset`, cut at the end of the line. */
  span(offset: number, length: number): Span {
    let low = 0;
    let high = this.#lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#lineStarts[middle] ?? 0) <= offset) low = middle;
      else high = middle - 1;
    }
    const column = offset - (this.#lineStarts[low] ?? 0) + 1;
    const room = Math.max(0, this.#lineEnd(low + 1) - offset);
    return { offset, line: low + 1, column, length: Math.min(length, room) };
  }

  #lineEnd(line: number): number {
    const next = this.#lineStarts[line];
    if (next === undefined) return this.text.length;
    return this.text[next - 2] === '\r' ? next - 2 : next - 1;
  }
}

/** Collects problems; keeps at most `limits.problemCountMax`. */
export class Problems {
  readonly list: Problem[] = [];
  readonly #file: string;
  #hidden = 0;
  #errorHidden = false;

  constructor(file: string) {
    this.#file = file;
  }

  error(span: Span, message: string, hint?: string): void {
    this.#add('error', span, message, hint);
  }

  warn(span: Span, message: string, hint?: string): void {
    this.#add('warning', span, message, hint);
  }

  get hasErrors(): boolean {
    return this.#errorHidden || this.list.some((problem) => problem.severity === 'error');
  }

  /** All problems in the order of the file; the last one says how many were left out. */
  sorted(): Problem[] {
    const list = [...this.list].sort((a, b) => a.line - b.line || a.column - b.column);
    if (this.#hidden > 0) {
      list.push({
        severity: this.#errorHidden ? 'error' : 'warning',
        kind: 'config',
        message: `${this.#hidden} more problems are not shown`,
        hint: 'correct the ones above first',
        file: this.#file,
        line: 1,
        column: 1,
        length: 0,
      });
    }
    return list;
  }

  #add(severity: Problem['severity'], span: Span, message: string, hint?: string): void {
    if (this.list.length >= limits.problemCountMax) {
      this.#hidden++;
      if (severity === 'error') this.#errorHidden = true;
      return;
    }
    const { line, column, length } = span;
    const problem: Problem = {
      severity, kind: 'config', message: printable(message), file: this.#file, line, column, length,
    };
    if (hint !== undefined) problem.hint = printable(hint);
    this.list.push(problem);
  }
}

/** The problem of a file that cannot be read. */
export function missingFile(file: string, why: string): Problem {
  return {
    severity: 'error',
    kind: 'missing-file',
    message: `cannot read the configuration: ${why}`,
    hint: 'name another file with -c FILE or HAST_CONF',
    file,
    line: 1,
    column: 1,
    length: 0,
  };
}

const shownMax = 60;

/** A piece of the file for a message: in quotes, of bounded length. */
export function quote(text: string): string {
  const cut = text.length > shownMax ? `${text.slice(0, shownMax)}...` : text;
  return `'${cut}'`;
}

/** `a, b or c`, each in quotes. */
export function alternatives(words: readonly string[]): string {
  const quoted = words.map((word) => `'${word}'`);
  const last = quoted.pop() ?? '';
  return quoted.length === 0 ? last : `${quoted.join(', ')} or ${last}`;
}

// A file must not be able to write escape sequences to the terminal of whoever checks it.
// One unit is replaced by one unit: the pointer below the line stays where it belongs.
function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '?');
}

const windowColumns = 96;

/** One problem as shown to a person: position, source line, pointer, and what would be right. */
export function formatProblem(problem: Problem, source: SourceText | undefined): string {
  const { file, line, column, length, severity, message, hint } = problem;
  if (problem.kind === 'missing-file' || source === undefined) {
    const lines = [`${file}: ${severity}: ${message}`];
    if (hint !== undefined) lines.push(`  = ${hint}`);
    return lines.join('\n');
  }
  const lines = [`${file}:${line}:${column}: ${severity}: ${message}`];
  const gutter = ' '.repeat(String(line).length);
  if (length > 0) {
    const text = source.line(line);
    const from = column - 1 > windowColumns / 2 && text.length > windowColumns
      ? column - 1 - windowColumns / 4
      : 0;
    const part = text.slice(from, from + windowColumns);
    const before = part.slice(0, column - 1 - from).replace(/[^\t]/g, ' ');
    const marked = Math.max(1, Math.min(length, part.length - (column - 1 - from)));
    const shown = printable(part.replaceAll('\t', '\u0001')).split('');
    const tabs = shown.map((char, index) => (part[index] === '\t' ? '\t' : char)).join('');
    lines.push(`  ${line} | ${tabs}`.trimEnd());
    lines.push(`  ${gutter} | ${before}^${'~'.repeat(marked - 1)}`);
  }
  if (hint !== undefined) lines.push(`  ${gutter} = ${hint}`);
  return lines.join('\n');
}
