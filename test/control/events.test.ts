/** The stream of events over the control socket: slow and many readers, and what is told. */
import * as net from 'node:net';
import * as path from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { silentLogger } from '../../lib/base/log.ts';
import { callDaemon } from '../../lib/control/client.ts';
import { followDaemon } from '../../lib/control/follow.ts';
import { unreadBytesMax } from '../../lib/control/followers.ts';
import { startControlServer } from '../../lib/control/server.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import { Watchers } from '../../lib/daemon/watchers.ts';
import type { StateEvent } from '../../lib/format/state-event.ts';
import type { ResourceStatus } from '../../lib/format/status.ts';
import { resourceConfig, shortDirectory, until } from '../daemon/world.ts';

t.jobs = 4;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

function event(why = ''): StateEvent {
  return { schema: 1, time: 1, resource: 'a', kind: 'status', from: 'x', to: 'y', why };
}

/** A daemon without resources, whose events the test sends. */
async function served(test: Test, followersMax?: number) {
  const file = path.join(shortDirectory(test), 'socket');
  const sends = new Set<(event: object) => void>();
  const server = await startControlServer({
    path: file, log: silentLogger, clientMs: 10_000,
    ...(followersMax === undefined ? {} : { followersMax }),
    handle: async () => ({ pid: 1, node: 'a', release: '0', startedAt: 1 }),
    follow: async (_, send) => {
      sends.add(send);
      return () => void sends.delete(send);
    },
  });
  test.teardown(() => server.close());
  return { file, server, sends, all: (one: object) => sends.forEach((send) => send(one)) };
}

it('events: each reader gets them, until it leaves', async (test) => {
  const { file, sends, all } = await served(test);
  const [one, two] = [followDaemon([], file), followDaemon([], file)];
  const first = [one.next(), two.next()];
  await until('it', () => sends.size === 2);
  all(event('first'));
  for (const got of first) test.match((await got).value, { why: 'first' });
  await one.return(undefined);
  await until('it', () => sends.size === 1);
  const second = two.next();
  all(event('second'));
  test.match((await second).value, { why: 'second' });
  await two.return(undefined);
  await until('it', () => sends.size === 0);
});

it('events: one that ends, or says more, is let go', async (test) => {
  const { file, sends } = await served(test);
  for (const last of ['', 'noise']) {
    const socket = net.connect(file);
    socket.on('error', () => undefined).resume();
    socket.write('{"schema":1,"command":"events","resources":[]}\n');
    await until('it', () => sends.size === 1);
    socket.end(last);
    await until('it', () => sends.size === 0);
  }
});

it('events: a slow reader is cut off with a message, and holds up nobody', async (test) => {
  const { file, sends, all } = await served(test);
  const slow = net.connect(file);
  slow.on('error', () => undefined).pause();
  slow.write('{"schema":1,"command":"events","resources":[]}\n');
  await until('it', () => sends.size === 1);
  const quick = followDaemon([], file);
  const got = quick.next();
  await until('it', () => sends.size === 2);
  const big = event('x'.repeat(60_000));
  let sent = 0;
  while (sends.size === 2) {
    all(big);
    sent += 60_000;
    test.ok(sent < 10 * unreadBytesMax, 'bounded');
    await new Promise(setImmediate);
    // The other one reads on.
    await (sent === 60_000 ? got : quick.next());
  }
  test.match(await callDaemon({ command: 'ping' }, { path: file, timeoutMs: 10_000 }), { pid: 1 });
  const chunks: Buffer[] = [];
  for await (const chunk of slow) chunks.push(chunk as Buffer);
  const lines = Buffer.concat(chunks).toString().trimEnd().split('\n');
  test.match(JSON.parse(lines[0] as string), { ok: true });
  test.match(JSON.parse(lines.at(-1) as string), {
    ok: false, error: { code: 'HAST_E_BUSY', message: /fast enough/ },
  });
  await quick.return(undefined);
});

it('events: too many followers leave room for commands', async (test) => {
  const { file, sends } = await served(test, 2);
  const streams = [followDaemon([], file), followDaemon([], file)];
  for (const stream of streams) void stream.next().catch(() => undefined);
  await until('it', () => sends.size === 2);
  await test.rejects(followDaemon([], file).next(), { code: 'HAST_E_BUSY' });
});

it('events: a daemon that ends, an abort, a wrong line', async (test) => {
  const { file, server, sends, all } = await served(test);
  const abort = new AbortController();
  const [aborted, wrong, lost] = [
    followDaemon([], file, abort.signal), followDaemon([], file), followDaemon([], file),
  ].map((stream) => stream.next()) as [Promise<unknown>, Promise<unknown>, Promise<unknown>];
  await until('it', () => sends.size === 3);
  abort.abort();
  test.match(await aborted, { done: true });
  await until('it', () => sends.size === 2);
  all({ schema: 1, time: 'now' });
  await test.rejects(wrong, { code: 'HAST_E_PROTOCOL', message: /event/ });
  lost.catch(() => undefined);
  await server.close();
  await test.rejects(lost, { code: 'HAST_E_PROTOCOL' });
  await test.rejects(followDaemon([], file).next(), { code: 'HAST_E_NO_DAEMON' });
});

it('watchers: the state first, then changes with why; nothing without anybody', async (test) => {
  const status: ResourceStatus = {
    ...idleStatus(resourceConfig('a', {}), '/dev/a', 'secondary', ''), worker: 7,
  };
  let asked = 0;
  const watchers = new Watchers(() => [{
    name: 'a', status: async () => {
      asked++;
      return { ...status };
    },
  }], 10);
  watchers.noticed('a', { kind: 'state' });
  test.equal(asked, 0);
  const got: StateEvent[] = [];
  const stop = await watchers.follow(['a'], (one) => got.push(one));
  test.match(got, [{
    kind: 'now', resource: 'a', to: 'waiting', state: { role: 'secondary', worker: 7 },
  }]);
  Object.assign(status, { status: 'complete', connection: 'connected', detail: 'fine' });
  await until('it', () => got.length === 3);
  test.match(got.slice(1), [
    { kind: 'status', from: 'waiting', to: 'complete', why: 'fine' },
    { kind: 'connection', from: 'none', to: 'connected' },
  ]);
  watchers.noticed('a', { kind: 'event', event: 'syncstart' });
  test.match(got.at(-1), { kind: 'sync', to: 'started' });
  Object.assign(status, { worker: null });
  watchers.noticed('a', { kind: 'ended', why: 'SIGKILL' });
  await until('it', () => got.length === 5);
  test.match(got.at(-1), { kind: 'worker', from: 7, to: null, why: 'SIGKILL' });
  const late: StateEvent[] = [];
  const stopLate = await watchers.follow(['a', 'b'], (one) => late.push(one));
  test.match(late, [{ kind: 'now', to: 'complete' }]);
  stopLate();
  stopLate();
  test.equal(watchers.count, 1);
  stop();
  const before = asked;
  await new Promise((resolve) => setTimeout(resolve, 50));
  test.equal(asked, before);
});
