/**
 * The keywords of the configuration: where each may stand and what it takes. The grammar, the
 * JSON schema and the messages are all made from this table.
 */
import { limits } from './limits.ts';
import { alternatives, quote } from './problems.ts';

export const levels = ['global', 'node', 'resource', 'resource-node', 'mount', 'tls'] as const;
export type Level = (typeof levels)[number];

export type ValueKind =
  | 'control'
  | 'listen'
  | 'metrics'
  | 'remote'
  | 'source'
  | 'path'
  | 'directory'
  | 'program'
  | 'name'
  | 'group'
  | 'options'
  | 'choice'
  | 'switch'
  | 'seconds'
  | 'microseconds'
  | 'bytes'
  | 'rate';

export interface Keyword {
  levels: readonly Level[];
  kind: ValueKind;
  /** What a right value looks like, for messages. */
  expects: string;
  /** Kind `choice`: the words allowed. */
  choices?: readonly string[];
  /** Kinds `seconds`, `microseconds`, `bytes`, `rate` and `metrics`. */
  min?: number;
  max?: number;
}

const nodeWide = ['global', 'node'] as const;
const everywhere = ['global', 'node', 'resource', 'resource-node'] as const;
const inherited = ['global', 'resource'] as const;
const everyResource = ['global', 'resource', 'resource-node'] as const;

function choice(allowed: readonly Level[], choices: readonly string[]): Keyword {
  return { levels: allowed, kind: 'choice', choices, expects: alternatives(choices) };
}

function seconds(min: number, max: number): Keyword {
  const expects = `a whole number of seconds from ${min} to ${max}, without a unit`;
  return { levels: inherited, kind: 'seconds', expects, min, max };
}

const path = 'an absolute path';

export const keywords: Readonly<Record<string, Keyword>> = {
  control: { levels: nodeWide, kind: 'control', expects: "a unix socket: 'uds:///PATH'" },
  'control-group': { levels: nodeWide, kind: 'group', expects: 'a group of this machine' },
  pidfile: { levels: nodeWide, kind: 'path', expects: path },
  listen: { levels: nodeWide, kind: 'listen', expects: "an address: 'tcp://HOST[:PORT]'" },
  metrics: {
    levels: nodeWide,
    kind: 'metrics',
    expects: "an address: 'tcp://HOST[:PORT]', a port, or 'none'",
    min: limits.portMin,
    max: limits.portMax,
  },
  rundir: { levels: nodeWide, kind: 'directory', expects: path },
  devdir: { levels: nodeWide, kind: 'directory', expects: path },
  'undo-directory': { levels: nodeWide, kind: 'directory', expects: path },
  replication: choice(inherited, ['fullsync', 'memsync', 'async']),
  checksum: choice(inherited, ['none', 'crc32', 'sha256']),
  compression: choice(inherited, ['none', 'hole', 'lz4', 'lzf']),
  timeout: seconds(limits.timeoutSecondsMin, limits.timeoutSecondsMax),
  exec: { levels: inherited, kind: 'program', expects: `${path} of a program, or 'none'` },
  metaflush: { levels: everyResource, kind: 'switch', expects: "'on' or 'off'" },
  frontend: choice(everyResource, ['direct', 'fuse-native']),
  'async-lag': {
    levels: inherited,
    kind: 'bytes',
    expects: 'a number of bytes from 4k to 1G, with k, M or G if wanted',
    min: limits.asyncLagBytesMin,
    max: limits.asyncLagBytesMax,
  },
  'async-lag-time': seconds(limits.asyncLagSecondsMin, limits.asyncLagSecondsMax),
  'disk-timeout': seconds(limits.diskTimeoutSecondsMin, limits.diskTimeoutSecondsMax),
  'busy-poll': {
    levels: everyResource,
    kind: 'microseconds',
    expects: 'a whole number of microseconds from 0 to 1000, without a unit',
    min: limits.busyPollMicrosecondsMin,
    max: limits.busyPollMicrosecondsMax,
  },
  'on-no-data': choice(inherited, ['stall', 'fail']),
  cache: choice(everyResource, ['direct', 'writeback']),
  'on-stop': choice(inherited, ['keep', 'refuse', 'force']),
  'resync-rate': {
    levels: inherited,
    kind: 'rate',
    expects: "bytes a second from 64k to 1T, with k, M, G or T if wanted, or 'auto'",
    min: limits.resyncRateMin,
    max: limits.resyncRateMax,
  },
  secret: { levels: everywhere, kind: 'path', expects: `${path} of a file` },
  insecure: { levels: ['global'], kind: 'switch', expects: "'on' or 'off'" },
  name: { levels: ['resource', 'resource-node'], kind: 'name', expects: 'a device name' },
  local: { levels: ['resource', 'resource-node'], kind: 'path', expects: path },
  remote: {
    levels: ['resource-node'],
    kind: 'remote',
    expects: "an address: 'tcp://HOST[:PORT]', or 'none'",
  },
  source: {
    levels: ['resource-node'],
    kind: 'source',
    expects: "an address: 'tcp://HOST[:PORT]'",
  },
  filesystem: choice(['mount'], ['ext2', 'ext3', 'ext4', 'xfs', 'btrfs']),
  mountpoint: { levels: ['mount'], kind: 'directory', expects: path },
  options: { levels: ['mount'], kind: 'options', expects: "options for mount: 'noatime,ro'" },
  mkfs: { levels: ['mount'], kind: 'switch', expects: "'on' or 'off'" },
  cert: { levels: ['tls'], kind: 'path', expects: `${path} of a certificate (PEM)` },
  key: { levels: ['tls'], kind: 'path', expects: `${path} of a private key (PEM)` },
  ca: { levels: ['tls'], kind: 'path', expects: `${path} of certificates (PEM)` },
};

/** Words that open a section, and the levels at which they may. */
const sections: Readonly<Record<string, readonly Level[]>> = {
  on: ['global', 'resource'],
  resource: ['global'],
  mount: ['resource', 'resource-node'],
  tls: everywhere,
};

/** Sections without a name, and an example of what stands in each. */
export const namelessSections: Readonly<Record<string, string>> = {
  mount: 'mountpoint ...', tls: 'cert ...',
};

const levelNames: Readonly<Record<Level, string>> = {
  global: 'at the top level of the file',
  node: "in an 'on' section at the top level",
  resource: "in a 'resource' section",
  'resource-node': "in an 'on' section of a resource",
  mount: "in a 'mount' section",
  tls: "in a 'tls' section",
};

export function keywordAt(word: string, level: Level): Keyword | undefined {
  const found = Object.hasOwn(keywords, word) ? keywords[word] : undefined;
  return found?.levels.includes(level) ? found : undefined;
}

export function sectionAt(word: string, level: Level): boolean {
  return Object.hasOwn(sections, word) && (sections[word] ?? []).includes(level);
}

/** Whether the word means anything at any level. */
export function isKnownWord(word: string): boolean {
  return Object.hasOwn(keywords, word) || Object.hasOwn(sections, word);
}

export interface UnknownWord {
  message: string;
  hint: string;
  /** The keyword probably meant. */
  meant?: string;
}

/** What to say of a word that is no keyword at this level. */
export function unknownWord(word: string, level: Level): UnknownWord {
  const where = levelNames[level];
  if (isKnownWord(word)) {
    const allowed = keywords[word]?.levels ?? sections[word] ?? [];
    const places = allowed.map((one) => levelNames[one]).join(', ');
    return {
      message: `${quote(word)} is not allowed ${where}`,
      hint: `it belongs ${places}`,
      meant: word,
    };
  }
  const here = [...Object.keys(keywords), ...Object.keys(sections)].filter(
    (one) => keywordAt(one, level) !== undefined || sectionAt(one, level),
  );
  const message = `unknown keyword ${quote(word)}`;
  const near = nearest(word, here);
  if (near !== undefined) return { message, hint: `did you mean '${near}'?`, meant: near };
  const far = nearest(word, [...Object.keys(keywords), ...Object.keys(sections)]);
  if (far !== undefined) {
    const elsewhere = unknownWord(far, level);
    return { message, hint: `did you mean '${far}'? ${elsewhere.hint}`, meant: far };
  }
  return { message, hint: `allowed here: ${here.join(', ')}` };
}

/** The candidate closest to `word`, if one is close enough to be a slip of the finger. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  if (word.length > 40) return undefined;
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate);
    if (distance < bestDistance && distance < candidate.length) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (last[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, replace);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (beforeLast[j - 2] ?? 0) + 1);
      }
      row.push(cost);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}
