/**
 * A primary's worker that dies, against a fake worker process and a fake kernel: what stays, what
 * the next worker is told, when the device is given up, and that everything can be ended meanwhile.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import type { ResourceConfig } from '../../lib/config/model.ts';
import { Supervisor } from '../../lib/daemon/supervisor.ts';
import type { Timing } from '../../lib/daemon/timing.ts';
import {
  FakeKernel, fakeHooks, fakeWorker, recordingLog, resourceConfig, testTiming, until,
} from './world.ts';

t.jobs = 3;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

interface World {
  supervisor: Supervisor;
  kernel: FakeKernel;
  ran: string[];
  lines: string[];
  link: string;
  workerPid(): Promise<number>;
  /** The rest of the words that `local` means from the next worker on. */
  becomes(local: string): Promise<void>;
  /** SIGKILL for the worker. */
  kill(): Promise<void>;
}

async function primary(
  test: Test, more: Partial<ResourceConfig> = {}, timing: Partial<Timing> = {},
): Promise<World> {
  const directory = test.testdir({ run: {}, dev: {} });
  const kernel = new FakeKernel();
  const { hooks, ran } = fakeHooks();
  const { log, lines } = recordingLog();
  const resource = resourceConfig('shared', more);
  const supervisor = new Supervisor({
    resource, node: 'h1',
    rundir: path.join(directory, 'run'), devdir: path.join(directory, 'dev'),
    program: fakeWorker, operations: kernel, hooks, log, timing: { ...testTiming, ...timing },
  });
  test.teardown(async () => {
    kernel.failing.clear();
    kernel.hanging.clear();
    await supervisor.changeRole('init', true).catch(() => undefined);
  });
  const workerPid = async (): Promise<number> => {
    const { worker } = await supervisor.status();
    if (worker === null) throw new Error('no worker');
    return worker;
  };
  await supervisor.changeRole('primary', false);
  kernel.calls.length = 0;
  return {
    supervisor, kernel, ran, lines, workerPid, link: path.join(directory, 'dev', 'shared'),
    becomes: (local) => supervisor.reconfigure({ ...resource, local }),
    kill: async () => {
      process.kill(await workerPid(), 'SIGKILL');
    },
  };
}

const revived = async ({ supervisor, workerPid }: World, old: number): Promise<void> =>
  await until('a new worker that serves', async () =>
    supervisor.state === 'primary' && await workerPid().catch(() => old) !== old);

it('revival: link, loop device, mount and description stay, nobody is told', async (test) => {
  const world = await primary(test);
  const { supervisor, kernel, ran, link } = world;
  const [description] = kernel.open;
  for (let death = 0; death < 2; death++) {
    const old = await world.workerPid();
    await world.kill();
    await revived(world, old);
  }
  test.same(kernel.calls, [], 'nothing is asked of the kernel');
  test.same([...kernel.open], [description]);
  test.equal(fs.readlinkSync(link), '/dev/loop0');
  test.same(ran, ['role shared init primary']);
  test.equal(kernel.flushes, 2, 'what each dead worker wrote is flushed first');
  const status = await supervisor.status();
  test.match(status, { role: 'primary', status: 'complete' });
  test.same(JSON.parse(status.detail), ['start:3:resumes', 'resume', 'serve:4096']);
  await supervisor.changeRole('init', false);
  test.same(kernel.left, []);
});

it('revival: the first at once, then with pauses; never given up', async (test) => {
  const world = await primary(test, {}, { reviveMsMin: 60, reviveMsMax: 100 });
  const { supervisor, lines, kernel } = world;
  await world.becomes('die-start');
  await world.kill();
  const attempts = (): number => lines.filter((line) => line.includes('no new worker')).length;
  await until('some deaths', () => attempts() > 4);
  const { role, status, worker, detail } = await pausing(world);
  test.match({ role, status, worker }, { role: 'primary', status: 'waiting', worker: null });
  test.match(detail, /started in 0.1 s, requests wait: hastctl role secondary --force shared/);
  test.equal(kernel.loops.size, 1);
  // What was wrong is mended, and a person asks for it.
  await world.becomes('well');
  await until('it serves', () => supervisor.state === 'primary');
});

/** A status between two workers. */
async function pausing({ supervisor }: World) {
  let status = await supervisor.status();
  await until('a pause', async () => {
    status = await supervisor.status();
    return status.worker === null;
  });
  return status;
}

it('revival: a worker that dies while it resumes or takes over is replaced too', async (test) => {
  for (const local of ['die-resume', 'die-take-over']) {
    const world = await primary(test);
    const old = await world.workerPid();
    await world.becomes(local);
    await world.kill();
    await until('deaths', () =>
      world.lines.filter((line) => line.includes('worker of the primary ended')).length > 2);
    await until('between', async () => {
      await world.becomes('well').catch(() => undefined);
      return world.supervisor.state === 'primary' && await world.workerPid() !== old;
    });
    test.equal(world.kernel.loops.size, 1, local);
  }
});

it('revival: the peer was promoted meanwhile, so the device goes and the role', async (test) => {
  const world = await primary(test);
  const { supervisor, kernel, ran, link } = world;
  await world.becomes('refuse-resume');
  await world.kill();
  await until('the end of its role', () => supervisor.state === 'secondary');
  test.same(kernel.calls, ['closeFuse', 'unmountFuse:lazy', 'detachLoop:lazy', 'openFuse'],
    'first the connection, so that nothing hangs');
  test.throws(() => fs.lstatSync(link));
  test.same(ran, ['role shared init primary', 'role shared primary secondary']);
});

it('revival: what the dead worker wrote is not on the disk', async (test) => {
  const { supervisor, kernel, kill } = await primary(test);
  kernel.flushError = 'EIO';
  await kill();
  await until('the failed copy', () => supervisor.state === 'failed');
  test.match(await supervisor.status(), { role: 'secondary', status: 'failed', needsHuman: true });
  test.same([kernel.mounts, kernel.loops.size, kernel.open.size], [[], 0, 0]);
});

it('revival: a disk that does not answer the flush is waited for', async (test) => {
  const world = await primary(test, {}, { stepMs: 150 });
  const { supervisor, kernel, kill, lines } = world;
  kernel.hanging.add('flushLocal');
  await kill();
  await until('attempts', () => lines.filter((line) => line.includes('no new worker')).length > 1);
  test.match(await supervisor.status(), { role: 'primary', status: 'waiting' });
  test.equal(kernel.flushes, 1, 'one flush, however often it is tried');
  await supervisor.changeRole('init', true);
  test.same([kernel.mounts, kernel.loops.size, kernel.open.size], [[], 0, 0]);
});

it('revival: a copy that needs a person; on-no-data says what users get', async (test) => {
  const waits = await primary(test);
  await waits.becomes('corrupt');
  await waits.kill();
  await until('a person is asked for', async () => (await waits.supervisor.status()).needsHuman);
  test.equal(waits.supervisor.role, 'primary');
  const fails = await primary(test, { onNoData: 'fail' });
  await fails.supervisor.reconfigure(resourceConfig('shared', {
    local: 'corrupt', onNoData: 'fail',
  }));
  await fails.kill();
  await until('the end of the device', () => fails.supervisor.state === 'init');
  test.match((await fails.supervisor.status()).detail, /fake HAST_E_CORRUPT/);
  test.same(fails.kernel.loops.size, 0);
});

it('revival: a copy that was detached is not taken up by a new worker', async (test) => {
  const world = await primary(test);
  process.kill(await world.workerPid(), 'SIGTTIN');
  await until('the event', () => world.ran.includes('detach shared'));
  await world.kill();
  await until('the end of the device', () => world.supervisor.state === 'init');
  test.match((await world.supervisor.status()).detail, /the local copy is detached/);
  test.same(world.kernel.left, []);
});

it('revival: can be ended meanwhile, in role and by signal', async (test) => {
  for (const [local, state] of [['hang-resume', 'resuming'], ['die-start', 'reviving']] as const) {
    const world = await primary(test);
    const { supervisor, kernel, link } = world;
    await world.becomes(local);
    await world.kill();
    await until(state, () => supervisor.state === state);
    kernel.users = ['mounted on /data'];
    const refused = await supervisor.changeRole('init', false).catch((error: unknown) => error);
    test.match(refused, { code: 'HAST_E_DEVICE_IN_USE' });
    test.equal(supervisor.role, 'primary');
    test.same(await supervisor.holders(), ['mounted on /data'], 'a signal is refused by this');
    kernel.users = [];
    await supervisor.changeRole('init', state === 'resuming');
    test.equal(supervisor.state, 'init');
    test.throws(() => fs.lstatSync(link));
    test.same(kernel.left, [], state);
  }
});

it('revival: unmounted by somebody else, the device and the role go', async (test) => {
  const world = await primary(test);
  world.kernel.mounts.length = 0;
  process.kill(await world.workerPid(), 'SIGWINCH');
  await until('the end of the device', () => world.supervisor.state === 'init');
  test.match((await world.supervisor.status()).detail, /unmounted, or its connection aborted/);
  test.same(world.kernel.left, []);
});
