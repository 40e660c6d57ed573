/**
 * The manual pages, made from docs/commands.md and docs/configuration.md: hastd(8), hastctl(8) and
 * hast.conf(5). Tables become lists of terms, because a terminal has no room for seven columns;
 * links become their text.
 */
import type { PhrasingContent, Root, RootContent, Table, TableRow } from 'mdast';
import remarkGfm from 'remark-gfm';
import remarkMan from 'remark-man';
import remarkParse from 'remark-parse';
import { unified } from 'unified';

export interface Sources {
  /** Text of docs/commands.md and docs/configuration.md. */
  commands: string;
  configuration: string;
  release: string;
}

export interface Page {
  /** As man finds it: `hastd.8`. */
  file: string;
  roff: string;
}

/** Stands before a term, where the compiler knows no such thing. */
const term = 'TERM-OF-A-LIST';
/** Column heads that say nothing beside their cell. */
const plainHeads = /^(meaning|effect|what it does|why|means|then|what happens|it means)$/i;

const parser = unified().use(remarkParse).use(remarkGfm);

export function manualPages({ commands, configuration, release }: Sources): Page[] {
  const all = parser.parse(commands).children;
  const hooks = section(all, 'Hooks', true);
  const codes = section(all, 'Exit codes', true);
  const files = (list: string): RootContent[] => blocks(`## Files\n\n${list}`);
  const common = '- `/etc/hast.conf`\n- `/run/hast/hastctl.sock`\n- `/run/hast/hastd.log`\n' +
    '- `/dev/hast/NAME`\n- `/var/lib/hast`';
  const see = (...pages: string[]): RootContent[] =>
    blocks(`## See also\n\n${pages.join(', ')}, and docs/operations.md of the package.`);
  return [
    page('hastd', 8, 'daemon of hast-linux: replicates block devices between two nodes', [
      ...synopsis(section(all, 'hastd', false)), ...hooks, ...codes, ...files(common),
      ...see('hastctl(8)', 'hast.conf(5)'),
    ], release),
    page('hastctl', 8, 'controls hast-linux: roles, status, copies, failover', [
      ...synopsis(raised(section(all, 'hastctl', false))), ...files(common),
      ...see('hastd(8)', 'hast.conf(5)'),
    ], release),
    page('hast.conf', 5, 'configuration of hastd and hastctl', [
      ...description(parser.parse(configuration).children.slice(1)),
      ...see('hastd(8)', 'hastctl(8)'),
    ], release),
  ];
}

function page(
  name: string, number: number, what: string, body: RootContent[], release: string,
): Page {
  const tree: Root = { type: 'root', children: body.flatMap(forTerminal) };
  const compiled = unified().use(remarkMan, {
    name, section: number, description: what, date: '', version: `hast-linux ${release}`,
    manual: 'hast-linux',
  }).stringify(tree);
  return { file: `${name}.${number}`, roff: asTerms(compiled) };
}

function blocks(markdown: string): RootContent[] {
  return parser.parse(markdown).children;
}

/** What stands below a heading, without it unless `whole`, up to the next of its depth. */
function section(all: readonly RootContent[], title: string, whole: boolean): RootContent[] {
  const at = all.findIndex((node) => node.type === 'heading' && textOf(node.children) === title);
  const head = all[at];
  if (head?.type !== 'heading') throw new Error(`there is no section '${title}'`);
  const rest = all.slice(at + 1);
  const end = rest.findIndex((node) => node.type === 'heading' && node.depth <= head.depth);
  const body = end < 0 ? rest : rest.slice(0, end);
  return whole ? [{ ...head, depth: 2 }, ...body] : body;
}

/** Subsections become sections of the page. */
function raised(nodes: readonly RootContent[]): RootContent[] {
  return nodes.map((node) => node.type === 'heading' ? { ...node, depth: 2 } : node);
}

/** The first block is how the program is called. */
function synopsis([first, ...rest]: RootContent[]): RootContent[] {
  if (first === undefined) throw new Error('no synopsis');
  return [...blocks('## Synopsis'), first, ...description(rest)];
}

function description(nodes: RootContent[]): RootContent[] {
  return [...blocks('## Description'), ...nodes];
}

/** A block as a terminal can show it. */
function forTerminal(node: RootContent): RootContent[] {
  if (node.type === 'table') return termsOf(node);
  if (node.type === 'link') return node.children.flatMap(forTerminal) as RootContent[];
  if ('children' in node) {
    const children = node.children.flatMap((child) => forTerminal(child as RootContent));
    return [{ ...node, children } as RootContent];
  }
  return [node];
}

function termsOf({ children: [head, ...rows] }: Table): RootContent[] {
  if (head === undefined) return [];
  return rows.flatMap((row) => {
    const [first, ...others] = row.children;
    if (first === undefined) return [];
    const said = others.map((cell, index) => cellText(head, index + 1, cell.children));
    const marked: PhrasingContent[] = [
      { type: 'text', value: term }, { type: 'strong', children: plain(first.children) },
    ];
    return [
      { type: 'paragraph', children: marked }, { type: 'paragraph', children: joined(said, head) },
    ] satisfies RootContent[];
  });
}

interface Said {
  head: string;
  words: PhrasingContent[];
}

function cellText(head: TableRow, column: number, cell: PhrasingContent[]): Said {
  return { head: textOf(head.children[column]?.children ?? []), words: plain(cell) };
}

/** `Level: global, resource. Value: seconds. Default: 20.`; columns that say yes share a label. */
function joined(said: readonly Said[], head: TableRow): PhrasingContent[] {
  const places = said.flatMap(({ head: place, words }) => {
    const [, more] = /^yes(?:, (.*))?$/.exec(textOf(words)) ?? [];
    if (!textOf(words).startsWith('yes')) return [];
    return [more === undefined ? place : `${place} (${more})`];
  });
  const parts: PhrasingContent[][] = [];
  if (places.length > 0) parts.push([{ type: 'text', value: `Level: ${places.join(', ')}` }]);
  for (const { head: label, words } of said) {
    const text = textOf(words);
    if (text === '' || text.startsWith('yes')) continue;
    const isAlone = head.children.length === 2 || plainHeads.test(label);
    parts.push(isAlone ? words : [{ type: 'text', value: `${capital(label)}: ` }, ...words]);
  }
  return parts.flatMap((words, index) =>
    index === 0 ? words : [{ type: 'text', value: '. ' } as const, ...words]);
}

function capital(label: string): string {
  return `${label.slice(0, 1).toUpperCase()}${label.slice(1)}`;
}

function plain(nodes: readonly PhrasingContent[]): PhrasingContent[] {
  return nodes.flatMap((node) => forTerminal(node) as PhrasingContent[]);
}

function textOf(nodes: readonly PhrasingContent[]): string {
  return nodes.map((node) => {
    if ('value' in node) return node.value;
    return 'children' in node ? textOf(node.children) : '';
  }).join('');
}

/** The compiler's paragraphs with the mark become tagged ones. */
function asTerms(roff: string): string {
  const tagged = new RegExp(`^\\.P\\n${term.replaceAll('-', '\\\\?-')}(.*)\\n\\.P\\n`, 'gm');
  return roff.replaceAll(tagged, '.TP\n$1\n');
}
