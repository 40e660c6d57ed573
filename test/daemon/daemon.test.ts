/**
 * The parent as a whole, in this process: control socket, peers handed to workers, reload,
 * stop, hooks and the pidfile. Workers are fake processes, the kernel is a fake.
 */
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import type { LoadResult } from '../../lib/config/load.ts';
import type { Config, ResourceConfig } from '../../lib/config/model.ts';
import { callDaemon } from '../../lib/control/client.ts';
import type { RoleWord } from '../../lib/control/messages.ts';
import { Daemon } from '../../lib/daemon/daemon.ts';
import { Hooks, slowDefaultMs } from '../../lib/daemon/hooks.ts';
import { Listener } from '../../lib/daemon/listener.ts';
import type { PeerTarget } from '../../lib/daemon/listener.ts';
import { PeerAddresses } from '../../lib/daemon/peer-addresses.ts';
import { takePidfile } from '../../lib/daemon/pidfile.ts';
import { PrefaceAnswer, encodePreface } from '../../lib/format/preface.ts';
import {
  FakeKernel, fakeWorker, nodeConfig, recordingLog, resourceConfig, shortDirectory, testTiming,
  until,
} from './world.ts';

t.jobs = 4;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

const loopback = { family: 'tcp', host: '127.0.0.1', port: 8457 } as const;
const elsewhere = { family: 'tcp', host: '192.0.2.1', port: 8457 } as const;

function loaded(config: Config): LoadResult {
  return { config, problems: [], format: () => '' };
}

async function world(test: Test, resources: ResourceConfig[]) {
  const config = nodeConfig(shortDirectory(test), { resources });
  const kernel = new FakeKernel();
  const { log, lines } = recordingLog();
  const file = { now: loaded(config) };
  const daemon = await Daemon.start({
    config, load: () => file.now, log, program: fakeWorker, operations: kernel,
    timing: testTiming,
  });
  test.teardown(async () => {
    kernel.users = [];
    await role('init', [], true).catch(() => undefined);
    await daemon.stop();
  });
  const call = { path: config.control.path, timeoutMs: 20_000 };
  const role = async (word: RoleWord, names: string[] = [], force = false) => {
    const command = { command: 'role', role: word, resources: names, force } as const;
    return (await callDaemon(command, call)).results;
  };
  const status = async (...names: string[]) =>
    (await callDaemon({ command: 'status', resources: names }, call)).resources;
  return { daemon, config, kernel, log, lines, file, call, role, status };
}

/** Everything the other side sends until it ends, or resets the connection. */
function received(socket: net.Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  return new Promise((resolve) => {
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(Buffer.concat(chunks)));
  });
}

it('control: ping, roles of all in parallel, status, unknown names', async (test) => {
  const { call, role, status, kernel } = await world(test, [
    resourceConfig('alpha', { exec: null }),
    resourceConfig('beta', { exec: null, local: 'refuse' }),
  ]);
  test.match(await callDaemon({ command: 'ping' }, call), {
    schema: 1, ok: true, pid: process.pid, node: 'h1', release: /^\d+\./, startedAt: Number,
  });
  const results = await role('primary');
  test.match(results, [
    { name: 'alpha', from: 'init', to: 'primary', error: null },
    { name: 'beta', from: 'init', to: 'init', error: { code: 'HAST_E_PROMOTE_REFUSED' } },
  ]);
  test.match(await status(), [
    { name: 'alpha', role: 'primary' }, { name: 'beta', role: 'init' },
  ]);
  test.match(await status('beta'), [{ name: 'beta' }]);
  const counted = await callDaemon({ command: 'statistics', resources: ['alpha'] }, call);
  test.match(counted.resources, [{ status: { name: 'alpha', role: 'primary' }, statistics: null }],
    'a worker that counts nothing');
  await test.rejects(role('init', ['alpha', 'betta']), {
    code: 'HAST_E_UNKNOWN_RESOURCE', hint: "did you mean 'beta'?",
  });
  test.equal((await status('alpha'))[0]?.role, 'primary', 'nothing was done');
  kernel.users = ['mounted on /data'];
  test.match(await role('init', ['alpha']), [
    { to: 'primary', error: { code: 'HAST_E_DEVICE_IN_USE' } },
  ]);
});

it('control: orders, for some and for all, with a result for each', async (test) => {
  const { call, role } = await world(test, [
    resourceConfig('alpha', { exec: null }),
    resourceConfig('beta', { exec: null, local: 'refuse-order' }),
  ]);
  await role('secondary');
  const all = await callDaemon({ command: 'resync', paused: true, resources: [] }, call);
  test.match(all.results, [
    { name: 'alpha', error: null },
    { name: 'beta', error: { code: 'HAST_E_REFUSED', hint: 'not now' } },
  ]);
  const one = await callDaemon({ command: 'detach', resources: ['alpha'] }, call);
  test.same(one.results, [{ name: 'alpha', error: null }]);
  const undone = await callDaemon({ command: 'undo', resource: 'alpha', file: '/undo' }, call);
  test.same(undone.results, [{ name: 'alpha', error: null }]);
  const resolve = { command: 'resolve', discard: 'peer', dryRun: true, undo: null } as const;
  const { resolution } = await callDaemon({ ...resolve, resource: 'alpha' }, call);
  test.match(resolution, { localGeneration: '00000000000000aa', copyBytes: 1052672 });
  await test.rejects(callDaemon({ ...resolve, resource: 'beta' }, call), {
    code: 'HAST_E_REFUSED', message: 'fake refusal of resolve',
  });
  await test.rejects(callDaemon({ ...resolve, resource: 'betta' }, call), {
    code: 'HAST_E_UNKNOWN_RESOURCE',
  });
});

it('peers: the preface in single bytes, then handed over with no byte lost', async (test) => {
  const { daemon, role, status } = await world(test, [
    resourceConfig('shared', { exec: null, remote: loopback }),
  ]);
  await role('secondary');
  const socket = net.connect({ port: daemon.port, host: '127.0.0.1', noDelay: true });
  test.teardown(() => socket.destroy());
  for (const byte of encodePreface('shared', 'h2', 1)) {
    socket.write(Uint8Array.of(byte));
    if (byte % 16 === 0) await new Promise(setImmediate);
  }
  const [answer] = await new Promise<Buffer>((resolve) => socket.once('data', resolve));
  test.equal(answer, PrefaceAnswer.ok);
  // At once after the answer, while the parent may still hold its copy of the descriptor.
  const sent = Buffer.alloc(300_000, 'stream');
  const echo = received(socket);
  socket.end(sent);
  test.ok((await echo).equals(sent), 'every byte came back from the worker');
  const [shared] = await status();
  test.same(JSON.parse(shared?.detail ?? ''), ['start:3', 'peer']);
});

/** `prefaceMs` is short where a test waits for it. */
function listenerWorld(
  test: Test,
  targets: Record<string, Partial<PeerTarget>>,
  prefaceMs = 10_000,
) {
  const { log, lines } = recordingLog();
  const handed: string[] = [];
  const all = new Map(Object.entries(targets).map(([name, target]) => [name, {
    remote: loopback,
    state: 'ready' as const,
    handOver: (_: Uint8Array, socket: net.Socket) => {
      handed.push(name);
      socket.destroy();
    },
    ...target,
  }]));
  const lookup = async (host: string): Promise<string[]> => {
    if (host === 'peer.example') return ['127.0.0.1', '::1'];
    throw new Error('no such host');
  };
  const listener = new Listener({
    log, targets: () => all, addresses: new PeerAddresses(log, lookup),
    prefaceMs, unreadMax: 2,
  });
  test.teardown(() => listener.close());
  const dial = async (): Promise<net.Socket> => {
    const socket = net.connect({ port: listener.port, host: '127.0.0.1' });
    socket.on('error', () => undefined);
    await new Promise((resolve) => socket.once('connect', resolve));
    return socket;
  };
  const answerTo = async (bytes: Uint8Array): Promise<number | undefined> => {
    const socket = await dial();
    socket.write(bytes);
    return (await received(socket))[0];
  };
  return { listener, log, lines, handed, dial, answerTo };
}

it('listener: each refusal has its answer byte', async (test) => {
  const { listener, answerTo, handed } = listenerWorld(test, {
    shared: {},
    named: { remote: { ...loopback, host: 'peer.example' } },
    unresolved: { remote: { ...loopback, host: 'gone.example' } },
    resting: { state: 'init' },
    busy: { state: 'busy' },
    foreign: { remote: elsewhere },
    nobody: { remote: null },
  });
  await listener.listen([{ family: 'tcp4', host: '127.0.0.1', port: 0 }]);
  const ask = (resource: string) => answerTo(encodePreface(resource, 'h2', 0));
  test.equal(await ask('resting'), PrefaceAnswer.roleInit);
  test.equal(await ask('busy'), PrefaceAnswer.busy);
  test.equal(await ask('foreign'), PrefaceAnswer.addressRefused);
  test.equal(await ask('unresolved'), PrefaceAnswer.addressRefused);
  test.equal(await ask('nobody'), PrefaceAnswer.addressRefused);
  test.equal(await ask('unknown'), PrefaceAnswer.unknownResource);
  test.equal(await answerTo(Buffer.alloc(1000, 'GET / HTTP/1.1')), PrefaceAnswer.malformed);
  test.same(handed, []);
  await ask('named');
  test.same(handed, ['named']);
});

it('listener: silence, half a preface, too many, more than the preface', async (test) => {
  const { listener, dial, answerTo, handed, lines } = listenerWorld(test, { shared: {} }, 300);
  await listener.listen([{ family: 'tcp4', host: '127.0.0.1', port: 0 }]);
  const silent = received(await dial());
  const second = await dial();
  const half = received(second);
  second.write(encodePreface('shared', 'h2', 0).subarray(0, 100));
  const third = received(await dial());
  test.equal((await silent).length, 0, 'one too many: the oldest has to go');
  test.equal((await half).length, 0, 'dropped for half a preface');
  test.equal((await third).length, 0, 'dropped for silence');
  const more = Buffer.concat([encodePreface('shared', 'h2', 0), Buffer.from('x')]);
  test.equal(await answerTo(more), undefined);
  test.same(handed, []);
  test.equal(lines.filter((line) => line.includes('is refused')).length, 1, 'one line for all');
});

it('listener: a stranger is not read at all; addresses change whole or not', async (test) => {
  const { listener, answerTo, dial } = listenerWorld(test, { shared: { remote: elsewhere } });
  const first = { family: 'tcp4', host: '127.0.0.1', port: 0 } as const;
  await listener.listen([first]);
  test.equal(await answerTo(Uint8Array.of(1)), PrefaceAnswer.addressRefused);
  const taken = { family: 'tcp4', host: '127.0.0.1', port: listener.port } as const;
  await test.rejects(listener.listen([{ ...taken, host: '127.0.0.2' }, taken]), {
    code: 'HAST_E_ADDRESS_IN_USE', message: /127\.0\.0\.1.*EADDRINUSE/, hint: /change 'listen'/,
  });
  (await dial()).destroy();
  await test.rejects(listener.listen([{ ...first, host: '192.0.2.1' }]), {
    code: 'HAST_E_ADDRESS_IN_USE', hint: /give this machine the address/,
  });
});

it('reload: live changes reach the worker, new resources appear', async (test) => {
  const { daemon, config, file, role, status } = await world(test, [
    resourceConfig('a', { exec: null }), resourceConfig('b', { exec: null }),
  ]);
  await role('secondary', ['a']);
  const next = { ...config, resources: [
    resourceConfig('a', { exec: null, timeout: 5 }), resourceConfig('c', { exec: null }),
  ] };
  file.now = loaded(next);
  test.same(await daemon.reload(), { applied: true });
  test.same((await status()).map(({ name }) => name), ['a', 'c']);
  test.same(JSON.parse((await status('a'))[0]?.detail ?? ''), ['start:3', 'reload']);
});

it('reload: one change that cannot be live keeps the old configuration whole', async (test) => {
  const { daemon, config, file, role, status, lines } = await world(test, [
    resourceConfig('a', { exec: null }), resourceConfig('b', { exec: null }),
  ]);
  await role('secondary', ['a']);
  const next = { ...config, resources: [
    resourceConfig('a', { exec: null, local: 'other' }), resourceConfig('c', { exec: null }),
  ] };
  file.now = loaded(next);
  test.match(await daemon.reload(), { applied: false, refused: [{ what: /local/ }] });
  test.same((await status()).map(({ name }) => name), ['a', 'b']);
  test.equal(daemon.config, config);
  file.now = { config: undefined, problems: [], format: () => 'line 3: nonsense' };
  test.match(await daemon.reload(), { applied: false, text: 'line 3: nonsense' });
  test.equal(lines.filter((line) => line.includes('not reloaded')).length, 2);
});

it('reload: a worker that refuses takes everything back', async (test) => {
  const { daemon, config, file, role, status } = await world(test, [
    resourceConfig('a', { exec: null }),
    resourceConfig('b', { exec: null, local: 'refuse-reload' }),
  ]);
  await role('secondary');
  const next = { ...config, resources: config.resources.map((one) => ({ ...one, timeout: 7 })) };
  file.now = loaded(next);
  test.match(await daemon.reload(), { applied: false, text: 'fake reload' });
  test.equal(daemon.config, config);
  test.same(JSON.parse((await status('a'))[0]?.detail ?? ''), ['start:3', 'reload', 'reload']);
});

it('stop: refused while a device is in use, then everything is taken down', async (test) => {
  const { daemon, config, kernel, role, lines, call } = await world(test, [
    resourceConfig('a', { exec: null }), resourceConfig('b', { exec: null }),
  ]);
  await role('primary');
  kernel.users = ['mounted on /data'];
  test.equal(await daemon.stop(), false);
  test.ok(lines.some((line) => line.includes('mounted on /data') && line.startsWith('error')));
  test.equal(kernel.loops.size, 2, 'nothing was taken away');
  kernel.users = [];
  test.equal(await daemon.stop(), true);
  test.same(kernel.left, []);
  test.same(fs.readdirSync(config.rundir), [], 'pidfile, socket and mount points are gone');
  await test.rejects(callDaemon({ command: 'ping' }, call), { code: 'HAST_E_NO_DAEMON' });
});

it('start: a second daemon is told who runs; a stale socket is replaced', async (test) => {
  const { daemon, config, log } = await world(test, []);
  const options = {
    config, load: () => loaded(config), log, program: fakeWorker, operations: new FakeKernel(),
  };
  await test.rejects(Daemon.start(options), {
    code: 'HAST_E_BUSY', message: new RegExp(`pid ${process.pid} `),
  });
  const other = { ...config, pidfile: path.join(config.rundir, 'other.pid') };
  await test.rejects(Daemon.start({ ...options, config: other }), {
    code: 'HAST_E_BUSY', message: /another hastd answers/,
  });
  test.same(fs.readdirSync(config.rundir).sort(), ['hastctl.sock', 'hastd.pid']);
  test.equal(fs.statSync(config.control.path).mode & 0o777, 0o600);
  const kept = path.join(config.rundir, 'kept');
  fs.linkSync(config.control.path, kept);
  await daemon.stop();
  fs.renameSync(kept, config.control.path);
  const next = await Daemon.start(options);
  test.equal(await next.stop(), true);
});

it('pidfile: locked by whoever lives, whatever it says', async (test) => {
  const file = path.join(test.testdir({ pid: '1\n' }), 'pid');
  const first = await takePidfile(file);
  test.equal(fs.readFileSync(file, 'utf8'), `${process.pid}\n`);
  await test.rejects(takePidfile(file), { code: 'HAST_E_BUSY' });
  await first.release();
  test.notOk(fs.existsSync(file));
});

it('hooks: arguments as the original’s, failures in the log', async (test) => {
  const directory = test.testdir({ hook: '#!/bin/sh\necho "$# $*" >"$0.out"; exit 3\n' });
  const hook = path.join(directory, 'hook');
  fs.chmodSync(hook, 0o755);
  const { log, lines } = recordingLog();
  const hooks = new Hooks({ log });
  hooks.run(null, 'connect', 'shared');
  hooks.run(path.join(directory, 'missing'), 'connect', 'shared');
  hooks.run(hook, 'role', 'shared', ['init', 'primary']);
  await until('both lines', () => lines.length >= 2);
  test.equal(fs.readFileSync(`${hook}.out`, 'utf8'), '4 role shared init primary\n');
  test.match(lines.sort(), [/cannot be started .*ENOENT/, /hook failed .*"code":3/]);
  fs.writeFileSync(hook, '#!/bin/sh\nsleep 0.2\n');
  new Hooks({ log, slowMs: 20 }).run(hook, 'disconnect', 'shared');
  const slow = (): string[] => lines.filter((line) => line.includes('still running'));
  await until('the slow one, again and again', () => slow().length >= 2);
  test.match(slow()[0], /^warn .*"resource":"shared","event":"disconnect"/);
  test.equal(slowDefaultMs, 60_000, 'as the original');
  await until('its end', () => lines.some((line) => line.includes('the hook ended')));
});
