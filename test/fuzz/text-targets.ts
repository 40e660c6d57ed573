/** Lines and files of text: the configuration, the control socket, a worker's messages. */
import { EventEmitter } from 'node:events';
import type * as net from 'node:net';
import { keywords } from '../../lib/config/keywords.ts';
import { loadConfig } from '../../lib/config/load.ts';
import { readLine } from '../../lib/control/line.ts';
import type { ReplyOf } from '../../lib/control/messages.ts';
import { replySchemas } from '../../lib/control/schemas.ts';
import { parseReply, parseRequest } from '../../lib/control/validate.ts';
import { MessageSocket } from '../../lib/daemon/message-socket.ts';
import { check, takenLater, type FuzzTarget } from './property.ts';
import { edge, mangle, type Random } from './random.ts';

const words = [
  ...Object.keys(keywords), 'resource', 'on', 'mount', '{', '}', '{', '}', 'shared', 'h1', 'h2',
  'fullsync', 'async', 'none', '/dev/sdb1', '/data', 'tcp://10.0.0.1', 'tcp://[::1]:8457',
  'uds:///run/x', '"quoted text"', '"open', '#', '\n', 'ext4', 'auto', '64k', '1G', '-1',
  '99999999999999999999', '0',
  'constructor', '__proto__', 'toString', '\u0000', '\ufeff', '\\',
];
const conf = `timeout 20\nexec /usr/local/bin/hook
resource shared {\n  replication memsync\n  checksum sha256\n  mount {\n    filesystem ext4
    mountpoint /data\n    options noatime\n  }\n  on h1 {\n    local /dev/sdb1
    remote tcp://10.0.0.233\n  }\n  on h2 {\n    local /dev/sdb1
    remote tcp://10.0.0.231\n  }\n}
`;
const confTokens = conf.split(/(\s+)/);
const json = {
  timeout: 20, listen: ['tcp://0.0.0.0:8457'], on: { h1: { rundir: '/run/hast' } },
  resources: {
    shared: {
      replication: 'async', 'async-lag': '64M', mount: { filesystem: 'xfs', mountpoint: '/data' },
      on: {
        h1: { local: '/dev/sdb1', remote: 'tcp://10.0.0.2' },
        h2: { local: '/dev/sdb1', remote: 'none' },
      },
    },
  },
};

function anyText(random: Random): string {
  return random.bytes(random.int(60)).toString(random.chance(0.5) ? 'latin1' : 'utf8');
}

/** Words exchanged, left out, put in, doubled. */
function spoilTokens(random: Random, tokens: readonly string[]): string {
  const copy = [...tokens];
  for (let round = random.int(4); round > 0; round--) {
    const at = random.int(copy.length);
    const kind = random.int(5);
    if (kind === 0) copy.splice(at, 1 + random.int(4));
    else if (kind === 1) copy.splice(at, 0, ` ${random.pick(words)} `);
    else if (kind === 2) copy[at] = random.pick(words);
    else if (kind === 3) copy.splice(at, 0, ...copy.slice(at, at + random.int(12)));
    else copy[at] = anyText(random);
  }
  return copy.join('');
}

function load(file: string, text: string | Buffer): void {
  const { config, problems, format } = loadConfig({
    file, node: 'h1', hostname: 'h1', machineId: '', readFile: () => text, interfaces: () => ({}),
  });
  const isFine = !problems.some(({ severity }) => severity === 'error');
  check((config !== undefined) === isFine, 'a configuration, or errors: one of the two', text);
  check(problems.length <= 101, 'problems are summed up', text);
  check(problems.length === 0 || format().length > 0, 'problems have a text', text);
}

function runConf(random: Random): void {
  const raw = random.chance(0.1)
    ? mangle(random, Buffer.from(conf), Buffer.from(conf))
    : Buffer.from(spoilTokens(random, confTokens));
  load('/etc/hast.conf', raw);
}

type Json = unknown;

function anyJson(random: Random): Json {
  switch (random.int(9)) {
    case 0: return null;
    case 1: return edge(random);
    case 2: return -edge(random) / 3;
    case 3: return random.chance(0.5);
    case 4: return [];
    case 5: return {};
    case 6: return random.pick(words);
    case 7: return [random.pick(words), edge(random), {}];
    default: return anyText(random);
  }
}

/** One value somewhere below becomes another, goes away, or gets company. */
function spoilJson(random: Random, value: Json): Json {
  if (value === null || typeof value !== 'object' || random.chance(0.15)) return anyJson(random);
  if (Array.isArray(value)) {
    const copy = [...value] as Json[];
    copy.splice(random.int(copy.length), random.int(2), anyJson(random));
    return copy;
  }
  const entries = Object.entries(value);
  const at = random.int(entries.length);
  const entry = entries[at];
  const more: [string, Json] = [random.pick(words), anyJson(random)];
  if (entry === undefined || random.chance(0.1)) entries.push(more);
  else if (random.chance(0.1)) entries.splice(at, 1);
  else entry[1] = spoilJson(random, entry[1]);
  return Object.fromEntries(entries);
}

/** Nested far deeper than anything means. */
function deep(random: Random): string {
  const depth = random.int(3000);
  return random.chance(0.5) ? '['.repeat(depth) : '{"a":'.repeat(depth);
}

function jsonText(random: Random, value: Json): string {
  if (random.chance(0.005)) return deep(random);
  const text = JSON.stringify(random.chance(0.95) ? spoilJson(random, value) : value);
  if (!random.chance(0.1)) return text;
  return mangle(random, Buffer.from(text), Buffer.from(text)).toString('utf8');
}

function runJson(random: Random): void {
  load('/etc/hast.json', jsonText(random, json));
}

const requests: readonly Json[] = [
  { schema: 1, command: 'ping' }, { schema: 1, command: 'status', resources: ['shared'] },
  { schema: 1, command: 'role', role: 'primary', resources: [], force: false },
  { schema: 1, command: 'resolve', resource: 'shared', discard: 'local', dryRun: true, undo: null },
  { schema: 1, command: 'undo', resource: 'shared', file: '/x' },
  { schema: 1, command: 'switchover', resource: 'shared', what: 'take-over' },
  { schema: 1, command: 'replace-workers', resources: ['shared'] },
];

async function runRequest(random: Random): Promise<void> {
  const text = jsonText(random, random.pick(requests));
  const found = await takenLater(['HAST_E_PROTOCOL'], text, () => parseRequest(text));
  check(found === null || typeof found.value.command === 'string', 'a command', text);
}

const error = { code: 'HAST_E_BUSY', message: 'm', hint: 'h' };
const range = { bytes: 1, ranges: [{ offset: 0, length: 512 }], more: 0 };
const replies: readonly [keyof ReplyOf, Json][] = [
  ['ping', { schema: 1, ok: true, pid: 1, node: 'h1', release: '1', startedAt: 0 }],
  ['ping', { schema: 1, ok: false, error }],
  ['role', { schema: 1, ok: true, results: [{ name: 'a', from: 'init', to: 'init', error }] }],
  ['status', { schema: 1, ok: true, resources: [{}] }],
  ['attach', { schema: 1, ok: true, results: [{ name: 'a', error: null }] }],
  ['resolve', { schema: 1, ok: true, resolution: {
    localGeneration: '1', peerGeneration: '2', local: range, peer: range, copyBytes: 0, full: true,
  } }],
];

async function runReply(random: Random): Promise<void> {
  const [known, value] = random.pick(replies);
  const command = random.chance(0.9) ? known
    : random.pick(Object.keys(replySchemas) as (keyof ReplyOf)[]);
  const text = jsonText(random, value);
  await takenLater(['HAST_E_PROTOCOL'], text, () => parseReply(text, command));
}

/** As much of a socket as who reads lines from one looks at. */
class Pieces extends EventEmitter {
  pause(): void {}
  destroy(): void {}

  feed(random: Random, raw: Buffer): void {
    for (let from = 0; from < raw.length;) {
      const to = random.chance(0.5) ? raw.length : from + 1 + random.int(30);
      this.emit('data', raw.subarray(from, to));
      from = to;
    }
    this.emit('end');
    this.emit('close');
  }
}

const lineBytes = 200;

async function runLine(random: Random): Promise<void> {
  const socket = new Pieces();
  const text = jsonText(random, random.pick(requests)).slice(0, random.int(400));
  const raw = random.chance(0.2) ? random.bytes(random.int(300)) : Buffer.from(`${text}\n`);
  const codes = ['HAST_E_PROTOCOL'] as const;
  const found = await takenLater(codes, raw, () => {
    const bounds = { bytesMax: lineBytes, timeoutMs: 10_000 };
    const line = readLine(socket as unknown as net.Socket, bounds);
    socket.feed(random, raw);
    return line;
  });
  if (found === null) return;
  // What comes in a later piece, behind the line, is not read.
  const size = Buffer.byteLength(found.value);
  check(size < lineBytes && !found.value.includes('\n'), 'a line within its bound', raw);
}

const messages: readonly Json[] = [
  { type: 'adopt', version: 1 }, { type: 'status' }, { type: 'order', id: 1, order: {} },
  { type: 'peer-at', id: 1, preface: 'AAAA', pid: 1, fd: 3, inode: 1 },
  { type: 'adopted', memo: {} },
];

function runMessages(random: Random): void {
  const socket = new Pieces();
  const lines = Array.from({ length: 1 + random.int(3) }, () =>
    jsonText(random, random.pick(messages)));
  const raw = Buffer.from(`${lines.join('\n')}\n`);
  let ends = 0;
  new MessageSocket(socket as unknown as net.Socket, {
    message: (message) => {
      const { type } = message as { type: unknown };
      check(ends === 0 && typeof type === 'string', 'a message has a type', raw);
    },
    closed: () => {
      ends++;
    },
  });
  socket.feed(random, raw);
  check(ends === 1, 'it ends once', raw);
}

export const textTargets: readonly FuzzTarget[] = [
  { name: 'hast.conf', run: runConf, shortRuns: 2000 },
  { name: 'hast.json', run: runJson, shortRuns: 2000 },
  { name: 'request', run: runRequest },
  { name: 'reply', run: runReply },
  { name: 'line', run: runLine },
  { name: 'messages', run: runMessages },
];
