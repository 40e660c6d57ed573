/**
 * What a client of the status page may send: requests with parts exchanged, left out, too long, cut
 * into pieces, one behind the other. The server answers with a status of its own and repeats
 * nothing of what it was sent; a request that is good gets the page.
 */
import type * as http from 'node:http';
import { Duplex } from 'node:stream';
import { silentLogger } from '../../lib/base/log.ts';
import { Pages } from '../../lib/monitor/pages.ts';
import { pageServer, webLimits } from '../../lib/monitor/web-server.ts';
import { idleFacts, nodeFacts } from '../monitor/facts.ts';
import { check, outcomes, type FuzzTarget } from './property.ts';
import { edge, mangle, type Random } from './random.ts';

const marker = 'xyzzy';
const known = ['/', '/metrics', '/status.json', '/healthz', '/healthz/shared', '/page.js'];
const targets = [
  ...known, `/${marker}`, '/../hast.conf', '//etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '*', '',
  `/healthz/${marker}`, '/healthz/..', '/healthz/__proto__', 'http://other/metrics', '/metrics?a=b',
  '/\u0000', '/ /', `/?${marker}`, '/constructor', '/toString',
];
const methods = ['HEAD', 'POST', 'OPTIONS', 'CONNECT', 'TRACE', 'get', marker, ''];
const versions = ['HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', marker];
const bodies = ['5\r\nabcde\r\n0\r\n\r\n', 'abcde', 'ffffffff\r\n'];
const fields = [
  'Host: h1', 'Connection: close', 'Connection: keep-alive', 'Connection: upgrade',
  'Upgrade: websocket', 'Expect: 100-continue', `Expect: ${marker}`, 'Transfer-Encoding: chunked',
  'Transfer-Encoding: identity, chunked', 'Content-Length: 5', 'Content-Length: -1',
  'Content-Length: 99999999999999999999', 'Host: other', ` ${marker}`, marker, `${marker}: \u0001`,
  `Cookie: ${marker}`, 'Range: bytes=0-', 'Origin: null',
];
const statuses = [200, 400, 404, 405, 408, 413, 414, 417, 431, 503];

/** The other end of a connection that takes no time. */
class Wire extends Duplex {
  readonly said: Buffer[] = [];

  override _read(): void {
    // What the client sends is pushed.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.said.push(chunk);
    done();
  }

  text(): string {
    return Buffer.concat(this.said).toString('latin1');
  }
}

let made: Promise<http.Server> | null = null;

function server(): Promise<http.Server> {
  made ??= Pages.open({
    facts: async () => nodeFacts(idleFacts('shared')), map: async () => null, events: () => [],
  }).then((pages) => pageServer(silentLogger, (path) => pages.answer(path), webLimits));
  return made;
}

function request(random: Random): string {
  const any = (good: string, list: readonly string[]): string =>
    random.chance(0.7) ? good : random.pick(list);
  const path = random.pick(random.chance(0.6) ? known : targets);
  const lines = [`${any('GET', methods)} ${path} ${any('HTTP/1.1', versions)}`];
  if (random.chance(0.8)) lines.push('Host: h1');
  for (let count = random.int(3); count > 0; count--) lines.push(random.pick(fields));
  if (random.chance(0.02)) lines.push(`X: ${marker.repeat(edge(random) % 4000)}`);
  if (random.chance(0.02)) {
    for (let count = random.int(2500); count > 0; count--) lines.push('A: b');
  }
  const body = random.chance(0.3) ? random.pick(bodies) : '';
  return `${lines.join(random.chance(0.02) ? '\n' : '\r\n')}\r\n\r\n${body}`;
}

function hostile(random: Random): Buffer {
  let text = '';
  for (let count = 1 + random.int(3); count > 0; count--) text += request(random);
  const raw = Buffer.from(text, 'latin1');
  return random.chance(0.3) ? mangle(random, raw, raw) : raw;
}

/** Until nothing more is said for so many turns. */
async function quiet(wire: Wire, turns: number): Promise<void> {
  let before = -1;
  while (wire.said.length !== before) {
    before = wire.said.length;
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
}

async function exchange(raw: Buffer, pieces: number, turns: number): Promise<string> {
  const wire = new Wire();
  (await server()).emit('connection', wire);
  const size = Math.max(1, Math.ceil(raw.length / pieces));
  for (let at = 0; at < raw.length && !wire.destroyed; at += size) {
    wire.push(raw.subarray(at, at + size));
  }
  await quiet(wire, turns);
  wire.destroy();
  return wire.text();
}

async function run(random: Random): Promise<void> {
  const raw = hostile(random);
  const said = await exchange(raw, 1 + random.int(4), 3);
  for (const [, status] of said.matchAll(/^HTTP\/1\.1 (\d+)/gm)) {
    const number = Number(status);
    check(statuses.includes(number) || number === 100, `it answers ${number}`, raw);
    if (number === 200) outcomes.taken++;
    else outcomes.refused++;
  }
  check(said === '' || said.startsWith('HTTP/1.1 '), 'it says something else', raw);
  check(!said.includes(marker), 'it repeats what it was sent', raw);
  if (!random.chance(0.02)) return;
  const path = random.pick(known);
  const good = await exchange(Buffer.from(`GET ${path} HTTP/1.1\r\nHost: h1\r\n\r\n`), 1, 200);
  check(/^HTTP\/1\.1 (200|503) /.test(good), 'afterwards a good request is answered', path);
}

export const httpTargets: readonly FuzzTarget[] = [{ name: 'http', run, shortRuns: 1000 }];
