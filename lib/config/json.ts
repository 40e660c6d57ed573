/**
 * The JSON form to raw tree: strict JSON with the position of every key and value. A second
 * key of the same name and a comma too many are reported and stepped over; any other slip
 * ends the parse, since what follows cannot be trusted.
 */
import { limits } from './limits.ts';
import { quote } from './problems.ts';
import type { Problems, SourceText, Span } from './problems.ts';
import { emptyTree, isSection, newSection, pointerTo } from './tree.ts';
import type { Raw, RawTree } from './tree.ts';

interface Reader {
  source: SourceText;
  at: number;
  problems: Problems;
  tree: RawTree;
  depth: number;
}

/** Ends the parse after a problem was reported. */
class Stop extends Error {}

/** Never throws; undefined where the text is not JSON or not an object. */
export function parseJson(source: SourceText, problems: Problems): RawTree | undefined {
  const at = source.text.charCodeAt(0) === 0xfeff ? 1 : 0;
  const reader: Reader = { source, at, problems, tree: emptyTree(), depth: 0 };
  try {
    skipSpace(reader);
    const span = source.span(reader.at, 1);
    const root = readValue(reader, '', span);
    skipSpace(reader);
    if (reader.at < source.text.length) fail(reader, 'unexpected text after the end of the object');
    if (!isSection(root)) {
      problems.error(span, 'the configuration must be an object', 'write { ... }');
      return undefined;
    }
    reader.tree.root = root;
    return reader.tree;
  } catch (error) {
    if (error instanceof Stop) return undefined;
    throw error;
  }
}

function fail(reader: Reader, message: string, hint?: string, length = 1): never {
  reader.problems.error(reader.source.span(reader.at, length), message, hint);
  throw new Stop();
}

const space = /[ \t\r\n]*/y;
const literal = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null/y;
const wordLike = /[^\s{}[\],:"]+/y;

function take(reader: Reader, pattern: RegExp): string {
  pattern.lastIndex = reader.at;
  return pattern.exec(reader.source.text)?.[0] ?? '';
}

function skipSpace(reader: Reader): void {
  reader.at += take(reader, space).length;
}

function char(reader: Reader): string {
  return reader.source.text[reader.at] ?? '';
}

function readValue(reader: Reader, pointer: string, key: Span): Raw {
  const start = reader.at;
  const value = readRaw(reader, pointer);
  const composite = typeof value === 'object' && value !== null;
  const length = composite ? 1 : reader.at - start;
  reader.tree.places.set(pointer, { key, value: reader.source.span(start, length) });
  return value;
}

function readRaw(reader: Reader, pointer: string): Raw {
  switch (char(reader)) {
    case '':
      return fail(reader, 'the file ends where a value belongs', undefined, 0);
    case '{':
      return nested(reader, () => readObject(reader, pointer));
    case '[':
      return nested(reader, () => readArray(reader, pointer));
    case '"':
      return readString(reader);
    default:
      return readLiteral(reader);
  }
}

function nested<T>(reader: Reader, read: () => T): T {
  if (++reader.depth > limits.jsonDepthMax) fail(reader, 'nested too deep');
  const value = read();
  reader.depth--;
  return value;
}

function readLiteral(reader: Reader): Raw {
  const word = take(reader, wordLike) || char(reader);
  const text = take(reader, literal);
  if (text !== word) {
    let hint = 'a value is a string in double quotes, a number, true, false, null, { } or [ ]';
    if (word.startsWith('//') || word.startsWith('#') || word.startsWith('/*')) {
      hint = 'JSON has no comments';
    } else if (word.startsWith("'") || /^[a-zA-Z]/.test(word)) {
      hint = 'put text in double quotes';
    }
    fail(reader, `unexpected ${quote(word)}`, hint, word.length);
  }
  reader.at += text.length;
  return JSON.parse(text) as Raw;
}

const stringBody = /"((?:[^"\\\u0000-\u001f]|\\[^\u0000-\u001f])*)"/y;

function readString(reader: Reader): string {
  const text = take(reader, stringBody);
  if (text === '') {
    const rest = reader.source.line(reader.source.span(reader.at, 0).line).length;
    fail(reader, 'a string is not closed', 'add a \'"\' on the same line', rest);
  }
  try {
    const value = JSON.parse(text) as string;
    reader.at += text.length;
    return value;
  } catch {
    const known = 'known are \\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX';
    return fail(reader, 'a string holds an unknown escape', known, text.length);
  }
}

function readObject(reader: Reader, pointer: string): Raw {
  const section = newSection();
  reader.at++;
  readMembers(reader, '}', () => {
    const keyAt = reader.at;
    if (char(reader) !== '"') {
      const word = take(reader, wordLike) || char(reader);
      const message = `expected a key, found ${quote(word)}`;
      fail(reader, message, 'put keys in double quotes', word.length);
    }
    const key = readString(reader);
    const span = reader.source.span(keyAt, reader.at - keyAt);
    skipSpace(reader);
    if (char(reader) !== ':') fail(reader, `':' is missing after ${quote(key)}`);
    reader.at++;
    skipSpace(reader);
    const member = pointerTo(pointer, key);
    if (!Object.hasOwn(section, key)) {
      section[key] = readValue(reader, member, span);
      return;
    }
    const line = reader.tree.places.get(member)?.key.line ?? 0;
    reader.problems.error(
      span, `${quote(key)} is defined twice`, `the first is in line ${line}`,
    );
    // Read in a place of its own: the places of the first one must stay.
    readValue(reader, `${member}\0`, span);
  });
  return section;
}

function readArray(reader: Reader, pointer: string): Raw {
  const list: Raw[] = [];
  reader.at++;
  readMembers(reader, ']', () => {
    const item = pointerTo(pointer, list.length);
    const start = reader.at;
    const value = readValue(reader, item, reader.source.span(start, 1));
    const place = reader.tree.places.get(item);
    if (place !== undefined) place.key = place.value;
    list.push(value);
  });
  return list;
}

function readMembers(reader: Reader, close: '}' | ']', readOne: () => void): void {
  skipSpace(reader);
  if (char(reader) === close) {
    reader.at++;
    return;
  }
  for (;;) {
    readOne();
    skipSpace(reader);
    const found = char(reader);
    if (found === close) {
      reader.at++;
      return;
    }
    if (found !== ',') {
      const what = found === '' ? 'the end of the file' : quote(take(reader, wordLike) || found);
      fail(reader, `expected ',' or '${close}', found ${what}`, undefined, found.length);
    }
    const comma = reader.source.span(reader.at, 1);
    reader.at++;
    skipSpace(reader);
    if (char(reader) === close) {
      reader.problems.error(comma, `a ',' before '${close}'`, 'remove it');
      reader.at++;
      return;
    }
  }
}
