/** The control socket against clients and daemons that do not behave. */
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { silentLogger } from '../../lib/base/log.ts';
import { callDaemon } from '../../lib/control/client.ts';
import { lineBytesMax } from '../../lib/control/messages.ts';
import type { ControlRequest } from '../../lib/control/messages.ts';
import { startControlServer } from '../../lib/control/server.ts';
import { parseReply, parseRequest } from '../../lib/control/validate.ts';
import { resourceConfig } from '../daemon/world.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';

const pong = { pid: 7, node: 'h1', release: '0.0.0', startedAt: 1 };

t.jobs = 4;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

function socketPath(test: Test): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-'));
  test.teardown(() => fs.rmSync(directory, { recursive: true, force: true }));
  return path.join(directory, 'socket');
}

/** `clientMs` is short where a test waits for it. */
async function served(
  test: Test,
  clientMs = 10_000,
  handle?: (request: ControlRequest) => Promise<never>,
) {
  const file = socketPath(test);
  const server = await startControlServer({
    path: file, log: silentLogger, clientMs, connectionsMax: 3,
    handle: handle ?? (async () => pong),
  });
  test.teardown(() => server.close());
  return file;
}

/** What the server says to these bytes, sent in pieces and perhaps ended. */
async function answer(file: string, pieces: (string | Buffer)[], end = false): Promise<string> {
  const socket = net.connect({ path: file, allowHalfOpen: true });
  socket.on('error', () => undefined);
  for (const piece of pieces) {
    socket.write(piece);
    await new Promise(setImmediate);
  }
  if (end) socket.end();
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  socket.destroy();
  return Buffer.concat(chunks).toString();
}

it('server: noise, wrong requests, too much, half a line', async (test) => {
  const file = await served(test);
  const ping = '{"schema":1,"command":"ping"}\n';
  test.match(JSON.parse(await answer(file, [ping])), { ok: true, pid: 7 });
  test.match(JSON.parse(await answer(file, [...ping])), { ok: true }, 'byte by byte');
  const wrong = [
    ['\n'], ['GET / HTTP/1.1\n'], ['{"schema":2,"command":"ping"}\n'],
    ['{"schema":1,"command":"reboot"}\n'], ['[]\n'], ['null\n'],
    ['{"schema":1,"command":"role","role":"primary","resources":[]}\n'],
    ['{"schema":1,"command":"role","role":"king","resources":[],"force":false}\n'],
    ['{"schema":1,"command":"status","resources":[3]}\n'],
    ['{"schema":1,"command":"detach"}\n'],
    ['{"schema":1,"command":"resync","resources":[]}\n'],
    ['{"schema":1,"command":"undo","resource":"a","file":"relative"}\n'],
    ['{"schema":1,"command":"resolve","resource":"a","discard":"local","dryRun":true}\n'],
    ['{"schema":1,"command":"resolve","resource":"a","discard":"both","dryRun":true,' +
      '"undo":null}\n'],
    [Buffer.from([0xff, 0xfe, 0x0a])], [`${ping}${ping}`],
    [Buffer.alloc(lineBytesMax, 'x'), 'x\n'],
  ];
  for (const pieces of wrong) {
    const reply = JSON.parse(await answer(file, pieces));
    test.match(reply, { ok: false, error: { code: 'HAST_E_PROTOCOL' } });
  }
  test.match(JSON.parse(await answer(file, ['{"sch'], true)), { ok: false });
});

it('server: silence is ended', async (test) => {
  const file = await served(test, 100);
  test.match(JSON.parse(await answer(file, ['{"sch'])), { error: { code: 'HAST_E_TIMEOUT' } });
  test.match(JSON.parse(await answer(file, [])), { error: { code: 'HAST_E_TIMEOUT' } });
});

it('server: silent clients do not keep others out for long', async (test) => {
  const file = await served(test, 1000);
  const silent = await Promise.all([1, 2, 3].map(() => new Promise<net.Socket>((resolve) => {
    const socket = net.connect(file, () => resolve(socket));
    socket.on('error', () => undefined);
  })));
  const call = { path: file, timeoutMs: 10_000 };
  const full = callDaemon({ command: 'ping' }, call);
  const ended = silent.map((socket) =>
    new Promise((resolve) => socket.resume().once('close', resolve)));
  await test.rejects(full, { code: 'HAST_E_PROTOCOL' });
  await Promise.all(ended);
  test.match(await callDaemon({ command: 'ping' }, call), { pid: 7 });
});

it('server: errors keep code and hint; what is unexpected is internal', async (test) => {
  const thrown = [
    new HastError('HAST_E_ROLE', 'not now', { hint: 'later' }), new Error('bug'),
  ];
  const file = await served(test, 10_000, async () => {
    throw thrown.shift() ?? new Error('none');
  });
  const call = { path: file, timeoutMs: 10_000 };
  await test.rejects(callDaemon({ command: 'ping' }, call), {
    code: 'HAST_E_ROLE', message: 'not now', hint: 'later',
  });
  await test.rejects(callDaemon({ command: 'ping' }, call), { code: 'HAST_E_INTERNAL' });
});

it('server: a path that is no socket, or too long, is refused', async (test) => {
  const file = socketPath(test);
  fs.writeFileSync(file, 'mine');
  const start = (name: string) => startControlServer({
    path: name, log: silentLogger, handle: async () => pong,
  });
  await test.rejects(start(file), { code: 'HAST_E_ADDRESS_IN_USE', message: /not a socket/ });
  test.equal(fs.readFileSync(file, 'utf8'), 'mine');
  await test.rejects(start(`/tmp/${'x'.repeat(110)}`), { code: 'HAST_E_CONFIG' });
  await test.rejects(start('/nonexistent/socket'), { code: 'HAST_E_ADDRESS_IN_USE' });
});

it('messages: every order passes as it is, and its reply is checked', async (test) => {
  const resources = ['a', 'b'];
  const orders = [
    { command: 'resync', paused: true, resources }, { command: 'detach', resources },
    { command: 'attach', resources: [] }, { command: 'peer-gone', resources },
    { command: 'resolve', resource: 'a', discard: 'peer', dryRun: false, undo: null },
    { command: 'resolve', resource: 'a', discard: 'local', dryRun: true, undo: '/root/undo' },
    { command: 'undo', resource: 'a', file: '/root/undo' },
  ];
  for (const order of orders) {
    const request = { schema: 1, ...order };
    test.same(await parseRequest(JSON.stringify(request)), request);
  }
  const head = { schema: 1, ok: true };
  const error = { code: 'HAST_E_REFUSED', message: 'm', hint: '' };
  const results = { ...head, results: [{ name: 'a', error: null }, { name: 'b', error }] };
  for (const command of ['resync', 'detach', 'attach', 'peer-gone', 'undo'] as const) {
    test.match(await parseReply(JSON.stringify(results), command), { reply: results });
    await test.rejects(parseReply(JSON.stringify(head), command), { code: 'HAST_E_PROTOCOL' });
  }
  const side = { bytes: 4096, ranges: [{ offset: 0, length: 4096 }], more: 0 };
  const resolution = {
    localGeneration: 'aa', peerGeneration: 'bb', local: side, peer: side, copyBytes: 4096,
    full: false,
  };
  const reply = { ...head, resolution };
  test.match(await parseReply(JSON.stringify(reply), 'resolve'), { reply });
  const bad = { ...head, resolution: { ...resolution, peer: { ...side, ranges: [[0, 4096]] } } };
  await test.rejects(parseReply(JSON.stringify(bad), 'resolve'), { code: 'HAST_E_PROTOCOL' });
});

it('client: no daemon, a daemon that leaves, babbles, or says nothing', async (test) => {
  const file = socketPath(test);
  const ping = (timeoutMs = 10_000): Promise<unknown> =>
    callDaemon({ command: 'ping' }, { path: file, timeoutMs });
  await test.rejects(ping(), { code: 'HAST_E_NO_DAEMON', message: /ENOENT/, hint: 'start hastd' });
  let say: string | null = null;
  const server = net.createServer((socket) => {
    socket.on('error', () => undefined).resume();
    if (say === null) socket.destroy();
    else socket.write(say);
  });
  test.teardown(() => { server.close(); });
  await new Promise<void>((resolve) => server.listen(file, resolve));
  await test.rejects(ping(), { code: 'HAST_E_PROTOCOL' });
  say = 'what?\n';
  await test.rejects(ping(), { code: 'HAST_E_PROTOCOL' });
  say = `${JSON.stringify({ schema: 1, ok: true, ...pong, pid: 'seven' })}\n`;
  await test.rejects(ping(), { code: 'HAST_E_PROTOCOL', message: /pid/ });
  say = '';
  await test.rejects(ping(100), { code: 'HAST_E_TIMEOUT' });
});

it('messages: what the daemon makes passes; an unknown error code is internal', async (test) => {
  const status = idleStatus(resourceConfig('shared'), '/dev/hast/shared', 'init', '');
  const line = JSON.stringify({ schema: 1, ok: true, resources: [status] });
  test.match(await parseReply(line, 'status'), { ok: true, reply: { resources: [status] } });
  const partial = JSON.stringify({ schema: 1, ok: true, resources: [{ ...status, role: 'x' }] });
  await test.rejects(parseReply(partial, 'status'), { code: 'HAST_E_PROTOCOL' });
  const counted = JSON.stringify({
    schema: 1, ok: true, resources: [{ status, statistics: null }],
  });
  test.match(await parseReply(counted, 'statistics'), { ok: true });
  const wrong = JSON.stringify({
    schema: 1, ok: true, resources: [{ status, statistics: { schema: 1, age: -1 } }],
  });
  await test.rejects(parseReply(wrong, 'statistics'), { code: 'HAST_E_PROTOCOL' });
  const more = await parseRequest('{"schema":1,"command":"status","resources":["a"],"new":1}');
  test.match(more, { command: 'status', resources: ['a'] });
  const failed = '{"schema":1,"ok":false,"error":{"code":"HAST_E_NEW","message":"m","hint":""}}';
  test.match(await parseReply(failed, 'ping'), { ok: false, error: { code: 'HAST_E_NEW' } });
});
