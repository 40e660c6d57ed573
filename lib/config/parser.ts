/**
 * hast.conf to raw tree, by recursive descent. Keywords are contextual: what stands where a
 * value or a name belongs is a value or a name. After a problem it goes on with the next
 * statement or section, so that all problems of a file are found at once.
 */
import { isKnownWord, keywordAt, namelessSections, sectionAt, unknownWord } from './keywords.ts';
import type { Keyword, Level } from './keywords.ts';
import { tokenize } from './lexer.ts';
import type { Token } from './lexer.ts';
import { quote } from './problems.ts';
import type { Problems, SourceText } from './problems.ts';
import { emptyTree, excuse, isSection, newSection, pointerTo } from './tree.ts';
import type { RawTree, Section } from './tree.ts';

interface Parser {
  tokens: Token[];
  /** Index of the next token. */
  at: number;
  problems: Problems;
  tree: RawTree;
  /** Index of a `resource` up to which open sections are closed without another word. */
  closeUpTo: number;
}

interface Scope {
  level: Level;
  section: Section;
  pointer: string;
  /** Its name, for the message that it is not closed; undefined for the file. */
  open: Token | undefined;
}

/** Never throws; the tree holds what could be understood. */
export function parseConf(source: SourceText, problems: Problems): RawTree {
  const tree = emptyTree();
  const tokens = tokenize(source, problems);
  const parser: Parser = { tokens, at: 0, problems, tree, closeUpTo: -1 };
  parseScope(parser, { level: 'global', section: tree.root, pointer: '', open: undefined });
  return tree;
}

function peek(parser: Parser, ahead = 0): Token {
  const last = parser.tokens.length - 1;
  return parser.tokens[Math.min(parser.at + ahead, last)] as Token;
}

function next(parser: Parser): Token {
  const token = peek(parser);
  if (parser.at < parser.tokens.length - 1) parser.at++;
  return token;
}

function parseScope(parser: Parser, scope: Scope): void {
  for (;;) {
    const token = peek(parser);
    switch (token.kind) {
      case 'end':
        if (scope.open !== undefined) {
          parser.problems.error(scope.open.span, 'this section is never closed', "add a '}'");
        }
        return;
      case 'close':
        next(parser);
        if (scope.open !== undefined) return;
        parser.problems.error(token.span, "unexpected '}'", "no '{' is open here");
        break;
      case 'open':
        parser.problems.error(
          token.span, "unexpected '{'",
          "a section is 'resource NAME {', 'on NODE {', 'mount {' or 'tls {'",
        );
        skipBlock(parser);
        break;
      case 'string':
        parser.problems.error(
          token.span, `expected a keyword, found the string ${quote(token.text)}`,
          'keywords are written without quotes',
        );
        skipStatement(parser, scope.level);
        break;
      case 'word':
        if (parseWord(parser, scope) === 'leave') return;
        break;
    }
  }
}

/** One statement or section; `leave` where the scope must end without its `}`. */
function parseWord(parser: Parser, scope: Scope): 'stay' | 'leave' {
  const token = peek(parser);
  if (sectionAt(token.text, scope.level)) {
    if (token.text in namelessSections) parseNameless(parser, scope, token.text as 'mount' | 'tls');
    else parseSection(parser, scope);
    return 'stay';
  }
  const keyword = keywordAt(token.text, scope.level);
  if (keyword !== undefined) {
    parseStatement(parser, scope, keyword);
    return 'stay';
  }
  if (parser.closeUpTo === parser.at) return 'leave';
  if (startsOuterSection(parser, scope)) {
    parser.problems.error(
      token.span,
      `${quote(token.text)} cannot stand inside this section`,
      "a '}' is missing before it",
    );
    parser.closeUpTo = parser.at;
    return 'leave';
  }
  const unknown = unknownWord(token.text, scope.level);
  if (!token.damaged) parser.problems.error(token.span, unknown.message, unknown.hint);
  const { meant } = unknown;
  if (meant !== undefined) {
    excuse(parser.tree, scope.pointer, meant === 'resource' ? 'resources' : meant);
  }
  skipStatement(parser, scope.level);
  return 'stay';
}

/** `resource NAME {` below the top level, `on NODE {` inside an `on`: a `}` was forgotten. */
function startsOuterSection(parser: Parser, scope: Scope): boolean {
  const word = peek(parser).text;
  if (word in namelessSections && word === scope.level) return peek(parser, 1).kind === 'open';
  if (word !== 'resource' && word !== 'on') return false;
  return scope.open !== undefined && isValue(peek(parser, 1)) && peek(parser, 2).kind === 'open';
}

function isValue(token: Token): boolean {
  return token.kind === 'word' || token.kind === 'string';
}

function parseSection(parser: Parser, scope: Scope): void {
  const opener = next(parser);
  const name = peek(parser);
  if (!isValue(name)) {
    const form = opener.text === 'on' ? 'on NODE {' : 'resource NAME {';
    parser.problems.error(opener.span, `'${opener.text}' without a name`, `write '${form}'`);
    excuse(parser.tree, scope.pointer, opener.text === 'on' ? 'on' : 'resources');
    if (name.kind === 'open') skipBlock(parser);
    return;
  }
  next(parser);
  const open = peek(parser);
  if (open.kind === 'open') {
    next(parser);
  } else {
    const form = opener.text === 'on' ? 'on NODE' : 'resource NAME';
    parser.problems.error(
      name.span, `'{' is missing after ${quote(name.text)}`, `write '${form} { ... }'`,
    );
    const level = childLevel(scope, opener);
    if (keywordAt(open.text, level) === undefined && !sectionAt(open.text, level)) {
      excuse(parser.tree, scope.pointer, opener.text === 'on' ? 'on' : 'resources');
      skipRestOfLine(parser, scope.level, opener.span.line);
      return;
    }
  }
  parseScope(parser, { ...childScope(parser, scope, opener, name), open: name });
}

/** A section without a name. */
function parseNameless(parser: Parser, scope: Scope, word: 'mount' | 'tls'): void {
  const { tree, problems } = parser;
  const opener = next(parser);
  const name = peek(parser);
  const isNamed = isValue(name) && name.span.line === opener.span.line &&
    keywordAt(name.text, word) === undefined;
  if (isNamed) {
    next(parser);
    problems.error(
      name.span, `'${word}' has no name, found ${quote(name.text)}`,
      `write '${word} { ${namelessSections[word] ?? ''} }'`,
    );
  }
  if (peek(parser).kind !== 'open') {
    const message = `'{' is missing after '${word}'`;
    if (!isNamed) problems.error(opener.span, message, `write '${word} { ... }'`);
    skipRestOfLine(parser, scope.level, opener.span.line);
    return;
  }
  next(parser);
  const pointer = pointerTo(scope.pointer, word);
  const earlier = scope.section[word];
  const section = isSection(earlier) ? earlier : newSection();
  if (!isSection(earlier)) {
    scope.section[word] = section;
    tree.places.set(pointer, { key: opener.span, value: opener.span });
  }
  parseScope(parser, { level: word, section, pointer, open: opener });
}

function childLevel(scope: Scope, opener: Token): Level {
  if (opener.text === 'resource') return 'resource';
  return scope.level === 'resource' ? 'resource-node' : 'node';
}

function childScope(parser: Parser, scope: Scope, opener: Token, name: Token): Scope {
  const { tree, problems } = parser;
  const key = opener.text === 'on' ? 'on' : 'resources';
  const base = pointerTo(scope.pointer, key);
  let group = scope.section[key];
  if (!isSection(group)) {
    group = newSection();
    scope.section[key] = group;
    tree.places.set(base, { key: opener.span, value: opener.span });
  }
  let pointer = pointerTo(base, name.text);
  const earlier = group[name.text];
  let section = isSection(earlier) ? earlier : newSection();
  if (isSection(earlier) && key === 'resources') {
    const line = tree.places.get(pointer)?.key.line ?? 0;
    problems.error(
      name.span, `resource ${quote(name.text)} is defined twice`, `the first is in line ${line}`,
    );
    // Parsed for its grammar only, in a place of its own: merging would blame the first one.
    pointer += '\0';
    section = newSection();
  } else {
    group[name.text] = section;
    if (!isSection(earlier)) tree.places.set(pointer, { key: name.span, value: name.span });
  }
  if (name.damaged) tree.damaged.add(pointer);
  return { level: childLevel(scope, opener), section, pointer, open: undefined };
}

function parseStatement(parser: Parser, scope: Scope, keyword: Keyword): void {
  const word = next(parser);
  const value = peek(parser);
  // Line ends are plain space: a keyword on a later line is taken as the next statement only
  // because a forgotten value is far more likely than a value that looks like a keyword.
  const forgotten = !isValue(value) || (value.kind === 'word' &&
    value.span.line !== word.span.line && isKnownWord(value.text));
  if (forgotten) {
    parser.problems.error(
      word.span, `'${word.text}' has no value`, `expected ${keyword.expects}`,
    );
    excuse(parser.tree, scope.pointer, word.text);
    if (value.kind === 'open') skipBlock(parser);
    return;
  }
  next(parser);
  store(parser, scope, keyword, word, value);
  const extra = peek(parser);
  if (isValue(extra) && extra.span.line === value.span.line && !isKnownWord(extra.text)) {
    parser.problems.error(
      extra.span, `unexpected ${quote(extra.text)} after the value of '${word.text}'`,
      `'${word.text}' takes one value; put a value with spaces in double quotes`,
    );
    skipRestOfLine(parser, scope.level, value.span.line);
  } else if (extra.kind === 'open') {
    parser.problems.error(
      extra.span, `'${word.text}' opens no section`, 'remove the braces',
    );
    skipBlock(parser);
  }
}

function store(parser: Parser, scope: Scope, keyword: Keyword, word: Token, value: Token): void {
  const { tree } = parser;
  const pointer = pointerTo(scope.pointer, word.text);
  const numeric = ['seconds', 'microseconds', 'bytes', 'rate'].includes(keyword.kind);
  const raw = numeric && /^-?[0-9]{1,15}$/.test(value.text) ? Number(value.text) : value.text;
  const place = { key: word.span, value: value.span };
  if (keyword.kind === 'listen') {
    const before = scope.section[word.text];
    const list = Array.isArray(before) ? before : [];
    scope.section[word.text] = list;
    const item = pointerTo(pointer, list.push(raw) - 1);
    tree.places.set(item, place);
    if (list.length === 1) tree.places.set(pointer, place);
    if (value.damaged) tree.damaged.add(item);
    return;
  }
  if (Object.hasOwn(scope.section, word.text)) {
    parser.problems.warn(
      word.span, `'${word.text}' is set twice in this section`, 'the last one holds',
    );
  }
  scope.section[word.text] = raw;
  tree.places.set(pointer, place);
  if (value.damaged) tree.damaged.add(pointer);
  else tree.damaged.delete(pointer);
}

/** Skips an unknown word, its value, its block, and what else on the line makes no sense. */
function skipStatement(parser: Parser, level: Level): void {
  const first = next(parser);
  const value = peek(parser);
  if (isValue(value) && value.span.line === first.span.line) next(parser);
  skipRestOfLine(parser, level, first.span.line);
}

function skipRestOfLine(parser: Parser, level: Level, line: number): void {
  for (;;) {
    const token = peek(parser);
    if (token.kind === 'open') return skipBlock(parser);
    if (!isValue(token) || token.span.line !== line) return;
    if (keywordAt(token.text, level) !== undefined || sectionAt(token.text, level)) return;
    next(parser);
  }
}

/** Skips from a `{` to behind its `}`. */
function skipBlock(parser: Parser): void {
  let depth = 0;
  do {
    const token = next(parser);
    if (token.kind === 'open') depth++;
    else if (token.kind === 'close') depth--;
    else if (token.kind === 'end') return;
  } while (depth > 0);
}
