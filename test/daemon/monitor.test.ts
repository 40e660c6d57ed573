/**
 * Metrics and status page of a whole hastd whose workers are fakes: what it takes from its
 * supervisors, a worker that does not answer, and the address at start and reload.
 */
import * as http from 'node:http';
import * as net from 'node:net';
import t from 'tap';
import type { Test } from 'tap';
import { callDaemon } from '../../lib/control/client.ts';
import type { Config, ResourceConfig } from '../../lib/config/model.ts';
import { Daemon } from '../../lib/daemon/daemon.ts';
import { silentLogger } from '../../lib/base/log.ts';
import {
  FakeKernel, fakeWorker, nodeConfig, resourceConfig, shortDirectory, testTiming, until,
} from './world.ts';

const anywhere = { family: 'tcp', host: '127.0.0.1', port: 0 } as const;

t.jobs = 3;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

async function world(test: Test, metrics: Config['metrics'], resources: ResourceConfig[]) {
  const config = nodeConfig(shortDirectory(test), { resources, metrics });
  const file = { now: config };
  const daemon = await Daemon.start({
    config, load: () => ({ config: file.now, problems: [], format: () => '' }),
    log: silentLogger, program: fakeWorker, operations: new FakeKernel(), timing: testTiming,
  });
  const call = { path: config.control.path, timeoutMs: 20_000 };
  const role = async (word: 'init' | 'primary' | 'secondary', force = false) => {
    const command = { command: 'role', role: word, resources: [], force } as const;
    return (await callDaemon(command, call)).results;
  };
  test.teardown(async () => {
    await role('init', true).catch(() => undefined);
    await daemon.stop();
  });
  return { daemon, config, file, role };
}

async function get(port: number, path: string): Promise<{ status: number; text: string }> {
  return await new Promise((resolve, reject) => {
    http.get({ port, path, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => resolve({
        status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString(),
      }));
    }).on('error', reject);
  });
}

/** A listening socket that is not ours. */
async function taken(test: Test): Promise<Exclude<Config['metrics'], null>> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.teardown(() => server.close());
  return { ...anywhere, port: (server.address() as net.AddressInfo).port };
}

it('monitor: what the pages say', async (test) => {
  const { daemon, role } = await world(test, anywhere, [
    resourceConfig('alpha', { exec: null }),
    resourceConfig('beta', { exec: null, local: 'refuse' }),
  ]);
  const port = daemon.metricsPort;
  const metrics = await get(port, '/metrics');
  test.match(metrics, { status: 200, text: /hast_role\{resource="alpha",role="init"\} 1\n/ });
  test.match(await get(port, '/healthz'), { status: 200 });
  test.match(await get(port, '/healthz/alpha'), { status: 503, text: /init/ });
  test.match(await get(port, '/healthz/gamma'), { status: 404 });
  await role('primary');
  await until('alpha is primary there', async () =>
    (await get(port, '/healthz/alpha')).status === 200);
  test.match(await get(port, '/healthz/beta'), { status: 503 });
  const said = JSON.parse((await get(port, '/status.json')).text) as {
    node: string; resources: { status: { name: string } }[]; events: { kind: string }[];
  };
  test.match(said, { node: 'h1', resources: [{ status: { name: 'alpha', role: 'primary' } }, {}] });
  await until('the change is an event', async () =>
    (await get(port, '/status.json')).text.includes('"kind":"role"'));
  test.match(await get(port, '/'), { status: 200, text: /<title>HAST/ });
  test.match(await get(port, '/page.js'), { status: 200 });
});

it('monitor: a worker that does not answer is shown so, in time', async (test) => {
  const { daemon, role } = await world(test, anywhere, [
    resourceConfig('mute', { exec: null, local: 'mute' }), resourceConfig('well', { exec: null }),
  ]);
  await role('secondary');
  let text = '';
  let took = Infinity;
  // On a busy machine the other one may be late as well.
  await until('the other one is up', async () => {
    const begun = performance.now();
    ({ text } = await get(daemon.metricsPort, '/metrics'));
    took = performance.now() - begun;
    return text.includes('hast_up{resource="well"} 1\n');
  });
  test.match(text, /hast_up\{resource="mute"\} 0\n/);
  test.match(text, /hast_status\{resource="mute",status="failed"\} 1\n/);
  test.ok(took < testTiming.statusMs, `${took} ms: sooner than a status would give up`);
});

it('monitor: an address that cannot be had, at the start and at a reload', async (test) => {
  const there = await taken(test);
  await test.rejects(world(test, there, []), {
    code: 'HAST_E_ADDRESS_IN_USE', message: /cannot serve metrics/, hint: /metrics/,
  });
  const { daemon, config, file } = await world(test, anywhere, [
    resourceConfig('a', { exec: null }),
  ]);
  const port = daemon.metricsPort;
  file.now = { ...config, metrics: there };
  test.match(await daemon.reload(), { applied: false, text: /cannot serve metrics.*EADDRINUSE/ });
  test.match(await get(port, '/metrics'), { status: 200 }, 'the old one goes on');
  const more = [...config.resources, resourceConfig('b', { exec: null })];
  file.now = { ...config, resources: more };
  test.match(await daemon.reload(), { applied: true });
  await until('the new one is there', async () =>
    (await get(port, '/metrics')).text.includes('resource="b"'));
  file.now = { ...config, metrics: null };
  test.match(await daemon.reload(), { applied: true });
  await test.rejects(get(port, '/metrics'), { code: 'ECONNREFUSED' });
  test.equal(daemon.metricsPort, 0);
  file.now = config;
  test.match(await daemon.reload(), { applied: true });
  test.match(await get(daemon.metricsPort, '/metrics'), { status: 200 });
});
