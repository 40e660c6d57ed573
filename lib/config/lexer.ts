/**
 * hast.conf as tokens. Words are runs of everything but space, braces, `#` and `"`; a character
 * the original does not know is reported, and its word kept, so that one slip is one problem.
 */
import { quote } from './problems.ts';
import type { Problems, SourceText, Span } from './problems.ts';

export interface Token {
  kind: 'word' | 'string' | 'open' | 'close' | 'end';
  /** Without quotes and escapes. */
  text: string;
  span: Span;
  /** Something in it was reported. */
  damaged: boolean;
}

const space = /[ \t\r\n]+|#[^\n]*/y;
const word = /[^ \t\r\n{}#"]+/y;
const string = /"((?:[^"\\\n]|\\[^\n])*)("?)/y;
const badCharacters = /[^A-Za-z0-9._\-/:[\]%]+/;
/** In the value of `options`, which is a list for mount(8). */
const badInOptions = /[^A-Za-z0-9._\-/:[\]%,=+@]+/;

/** The tokens of the file; the last one is `end`. */
export function tokenize(source: SourceText, problems: Problems): Token[] {
  const tokens: Token[] = [];
  const { text } = source;
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  while (at < text.length) {
    const skipped = match(space, text, at);
    if (skipped !== null) {
      at += skipped[0].length;
      continue;
    }
    const char = text[at];
    if (char === '{' || char === '}') {
      const kind = char === '{' ? 'open' : 'close';
      tokens.push({ kind, text: char, span: source.span(at, 1), damaged: false });
      at++;
      continue;
    }
    const quoted = match(string, text, at);
    if (quoted !== null) {
      tokens.push(stringToken(quoted, at, source, problems));
      at += quoted[0].length;
      continue;
    }
    const bare = match(word, text, at)?.[0] ?? text.slice(at, at + 1);
    const isOptions = tokens.at(-1)?.text === 'options' && tokens.at(-1)?.kind === 'word';
    const bad = (isOptions ? badInOptions : badCharacters).exec(bare);
    const token = wordToken(bare, at, bad, source, problems);
    if (token !== null) tokens.push(token);
    at += bare.length;
  }
  tokens.push({ kind: 'end', text: '', span: source.span(text.length, 0), damaged: false });
  return tokens;
}

function match(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function wordToken(
  text: string,
  at: number,
  bad: RegExpExecArray | null,
  source: SourceText,
  problems: Problems,
): Token | null {
  const span = source.span(at, text.length);
  if (bad === null) return { kind: 'word', text, span, damaged: false };
  const where = source.span(at + bad.index, bad[0].length);
  problems.error(where, `unexpected character ${quote(bad[0])}`, characterHint(bad[0], text));
  return bad[0].length === text.length ? null : { kind: 'word', text, span, damaged: true };
}

function characterHint(bad: string, text: string): string {
  if (bad === ';' || bad === ',') return 'statements are separated by spaces or line ends';
  if (bad === '=') return 'keyword and value are separated by a space';
  if (bad.includes("'")) return 'use double quotes';
  return `put a value with other characters in double quotes: "${text.slice(0, 40)}"`;
}

function stringToken(
  found: RegExpExecArray,
  at: number,
  source: SourceText,
  problems: Problems,
): Token {
  const span = source.span(at, found[0].length);
  let damaged = false;
  const report = (where: Span, message: string, hint: string): void => {
    if (!damaged) problems.error(where, message, hint);
    damaged = true;
  };
  if (found[2] !== '"') report(span, 'a string is not closed', 'add a \'"\' on the same line');
  const text = (found[1] ?? '').replace(/\\(.)/gs, (escape, char: string, index: number) => {
    if (char === '"' || char === '\\') return char;
    const hint = 'only \\" and \\\\ are known; write \\\\ for a backslash';
    report(source.span(at + 1 + index, 2), `unknown escape ${quote(escape)}`, hint);
    return char;
  });
  if (text.includes('\ufffd')) report(span, 'this is not UTF-8', 'save the file as UTF-8');
  return { kind: 'string', text, span, damaged };
}
