/** `hastctl pair`: two processes with one code between them, and everything that is no code. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { inspectCredentials } from '../../lib/net/credentials.ts';
import { Authority } from '../../lib/pairing/certificates.ts';
import { formatCode, parseCode } from '../../lib/pairing/code.ts';
import { joinPair, type NodeFiles, offerPair } from '../../lib/pairing/exchange.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const hastctl = fileURLToPath(new URL('../../cli/hastctl.js', import.meta.url));
const here = { host: '127.0.0.1', port: 0 };

function start(test: Test, node: string, ...args: string[]) {
  const argv = [hastctl, 'pair', ...args, '--node', node, '-c', '/nonexistent/hast.conf'];
  const child: ChildProcess = spawn('env', [...plainNode, ...argv],
    { stdio: ['ignore', 'pipe', 'pipe'] });
  test.teardown(() => child.kill('SIGKILL'));
  const said = { text: '' };
  child.stdout?.on('data', (chunk: Buffer) => { said.text += chunk.toString(); });
  child.stderr?.on('data', (chunk: Buffer) => { said.text += chunk.toString(); });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return { said, ended };
}

async function codeFrom(said: { text: string }): Promise<string> {
  for (let round = 0; round < 600; round++) {
    const code = /hast1\.[\w-]+/.exec(said.text)?.[0];
    if (code !== undefined) return code;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  throw new Error(`no code in: ${said.text}`);
}

t.test('pair: two commands, and both nodes have what TLS needs', async (test) => {
  const directory = test.testdir();
  const [one, two] = [path.join(directory, 'one', 'tls'), path.join(directory, 'two')];
  // Any free port of the loopback network.
  const init = start(test, 'h1', 'init', '--directory', one, '--address', '127.0.0.1:28458');
  const code = await codeFrom(init.said);
  const join = start(test, 'h2.example.org', 'join', code, '--directory', two);
  test.equal(await join.ended, 0, join.said.text);
  test.equal(await init.ended, 0, init.said.text);
  for (const [place, said] of [[one, init.said], [two, join.said]] as const) {
    test.match(said.text, new RegExp(`insecure off\\n +tls \\{\\n +cert ${place}/node.crt\\n`));
    test.match(said.text, /hastctl check && systemctl reload hastd/);
    test.equal(fs.statSync(place).mode & 0o777, 0o700);
    test.same(fs.readdirSync(place).sort(), ['ca.crt', 'node.crt', 'node.key']);
    for (const file of fs.readdirSync(place)) {
      test.equal(fs.statSync(path.join(place, file)).mode & 0o777, 0o600);
    }
  }
  const files = (place: string) => ({
    kind: 'tls' as const, cert: `${place}/node.crt`, key: `${place}/node.key`, ca: `${one}/ca.crt`,
  });
  test.same(inspectCredentials({ ...files(one), own: 'h1', peers: [] }).problems, []);
  test.same(inspectCredentials({ ...files(two), own: 'h2', peers: [] }).problems, []);
  test.same(inspectCredentials({ ...files(two), own: 'h2.example.org', peers: [] }).problems, []);
  const again = spawnSync('env', [...plainNode, hastctl, 'pair', 'init', '--directory', one],
    { encoding: 'utf8' });
  test.match(again, { status: 77, stderr: /exists already; try: --force on both nodes/ });
  const late = start(test, 'h2', 'join', code, '--directory', `${two}x`);
  test.equal(await late.ended, 77);
  test.match(late.said.text, /nobody waits at 127.0.0.1 port 28458.*pair init again/);
  test.notOk(fs.existsSync(`${two}x`));
});

t.test('pair: what is typed wrong says what is right', async (test) => {
  const run = (...args: string[]) =>
    spawnSync('env', [...plainNode, hastctl, 'pair', ...args], { encoding: 'utf8' });
  test.match(run('join', 'hast1.abc'), { status: 64, stderr: /no code.*whole word/ });
  test.match(run('join'), { status: 64, stderr: /hastctl pair join CODE/ });
  test.match(run('make'), { status: 64, stderr: /hastctl pair init on one node/ });
  test.match(run('init', '--minutes', '0', '--directory', '/nonexistent/x'), {
    status: 64, stderr: /--minutes '0'/,
  });
  const code = formatCode({
    host: '::1', port: 65535, fingerprint: Buffer.alloc(32, 7), key: Buffer.alloc(16, 8),
  });
  test.match(parseCode(` ${code}\n`), { host: '::1', port: 65535 });
  for (let at = 6; at < code.length - 1; at += 5) {
    const other = code[at] === 'A' ? 'B' : 'A';
    const wrong = code.slice(0, at) + other + code.slice(at + 1);
    test.throws(() => parseCode(wrong), { code: 'HAST_E_USAGE' }, `character ${at}`);
  }
});

interface Offer {
  code: string;
  kept: NodeFiles[];
  refused: string[];
  ended: Promise<string[]>;
}

async function offer(timeoutMs: number, keep?: () => void): Promise<Offer> {
  const kept: NodeFiles[] = [];
  const refused: string[] = [];
  let ended: Promise<string[]> = Promise.resolve([]);
  const code = await new Promise<string>((resolve) => {
    ended = offerPair({
      ...here, names: ['h1'], timeoutMs, onCode: resolve, onRefused: (why) => refused.push(why),
      keep: keep ?? ((files) => kept.push(files)),
    });
    ended.catch(() => undefined);
  });
  return { code, kept, refused, ended };
}

t.test('pair: a wrong key, five times at most; a used code; time', async (test) => {
  const busy = await offer(30_000);
  const right = parseCode(busy.code);
  const wrong = { ...right, key: Buffer.alloc(16) };
  for (let attempt = 0; attempt < 4; attempt++) {
    await test.rejects(joinPair(wrong, { names: ['h2'] }), { message: /does not know this code/ });
  }
  await test.rejects(joinPair(right, { names: ['h1'] }), { message: /both nodes are called 'h1'/ });
  await test.rejects(joinPair(right, { names: ['a b'] }), { message: /makes no sense/ });
  const forged = { ...right, fingerprint: Buffer.alloc(32) };
  const second = await offer(30_000);
  await test.rejects(joinPair({ ...parseCode(second.code), fingerprint: forged.fingerprint }, {
    names: ['h2'],
  }), { message: /CA is not the one/ });
  const { files, names } = await joinPair(right, { names: ['h2'] });
  test.same([names, await busy.ended, busy.kept.length], [['h1'], ['h2'], 1]);
  test.ok(new X509Certificate(files.certificate).checkHost('h2'));
  await test.rejects(joinPair(right, { names: ['h2'] }), { message: /nobody waits|closed/ });
  const closed = await offer(30_000);
  const other = { ...parseCode(closed.code), key: Buffer.alloc(16) };
  for (let attempt = 0; attempt < 5; attempt++) {
    await test.rejects(joinPair(other, { names: ['h2'] }), { code: 'HAST_E_REFUSED' });
  }
  await test.rejects(closed.ended, { code: 'HAST_E_REFUSED', message: /5 attempts/ });
  test.same(closed.kept, []);
  await test.rejects((await offer(50)).ended, { code: 'HAST_E_TIMEOUT' });
  const full = await offer(30_000, () => { throw new Error('no space'); });
  await test.rejects(joinPair(parseCode(full.code), { names: ['h2'] }), { message: /no space/ });
  await test.rejects(full.ended, { message: 'no space' });
});

t.test('pair: a CA signs nothing that could sign', async (test) => {
  const { certificate } = await (await Authority.create('x')).issue(['h1']);
  test.equal(new X509Certificate(certificate).ca, false);
});
