/**
 * Roles of one resource, against a fake worker process and a fake kernel: what is built in
 * which order, what is taken back when a step fails, and when a worker is started again.
 */
import * as childProcess from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import type { ResourceConfig } from '../../lib/config/model.ts';
import { roleOf, transitions } from '../../lib/daemon/states.ts';
import { Supervisor } from '../../lib/daemon/supervisor.ts';
import { refuseUndoOnVolume } from '../../lib/daemon/supervisor-orders.ts';
import type { Timing } from '../../lib/daemon/timing.ts';
import {
  FakeKernel, fakeHooks, fakeWorker, recordingLog, resourceConfig, testTiming, until,
} from './world.ts';

// Most of the time is the start of worker processes and waiting for bounds.
t.jobs = 4;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

function world(
  test: Test,
  more: Partial<ResourceConfig> = {},
  timing: Partial<Timing> = {},
) {
  const directory = test.testdir({ run: {}, dev: {} });
  const kernel = new FakeKernel();
  const { hooks, ran } = fakeHooks();
  const { log, lines } = recordingLog();
  const supervisor = new Supervisor({
    resource: resourceConfig('shared', more),
    node: 'h1',
    rundir: path.join(directory, 'run'),
    devdir: path.join(directory, 'dev'),
    program: fakeWorker,
    operations: kernel,
    hooks,
    log,
    timing: { ...testTiming, ...timing },
  });
  test.teardown(async () => {
    kernel.failing.clear();
    kernel.hanging.clear();
    await supervisor.changeRole('init', true).catch(() => undefined);
  });
  const link = path.join(directory, 'dev', 'shared');
  const workerPid = async (): Promise<number> => {
    const { worker } = await supervisor.status();
    if (worker === null) throw new Error('no worker');
    return worker;
  };
  return { supervisor, kernel, ran, lines, link, workerPid };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function failure(work: Promise<unknown>): Promise<HastError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof HastError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

it('states: every edge leads to a state that has a role', async (test) => {
  for (const edges of Object.values(transitions)) {
    for (const to of Object.values(edges)) test.ok(roleOf[to]);
  }
});

it('roles: up and down in order, hooks once for each change', async (test) => {
  const { supervisor, kernel, ran, link } = world(test);
  test.same(await supervisor.changeRole('secondary', false), { from: 'init', to: 'secondary' });
  await supervisor.changeRole('secondary', false);
  test.same(await supervisor.changeRole('primary', false), { from: 'secondary', to: 'primary' });
  test.equal(fs.readlinkSync(link), '/dev/loop0');
  test.same(kernel.calls, ['openFuse', 'mountFuse', 'attachLoop']);
  const status = await supervisor.status();
  test.match(status, { role: 'primary', status: 'complete', device: link });
  test.same(JSON.parse(status.detail), ['start:3', 'promote', 'serve']);
  kernel.calls.length = 0;
  await supervisor.changeRole('secondary', false);
  test.same(kernel.calls, ['detachLoop', 'unmountFuse', 'closeFuse', 'openFuse']);
  test.throws(() => fs.lstatSync(link));
  await supervisor.changeRole('init', false);
  test.same(ran, [
    'role shared init secondary', 'role shared secondary primary',
    'role shared primary secondary', 'role shared secondary init',
  ]);
  test.same(kernel.left, []);
  test.match(await supervisor.status(), { role: 'init', status: 'init', worker: null });
});

it('roles: operations asked for at once run one after the other', async (test) => {
  const { supervisor, ran } = world(test);
  await Promise.all([
    supervisor.changeRole('primary', false),
    supervisor.changeRole('init', false),
    supervisor.changeRole('secondary', false),
  ]);
  test.same(ran, [
    'role shared init primary', 'role shared primary init', 'role shared init secondary',
  ]);
});

it('promotion refused: code and hint are the worker’s, the role is as before', async (test) => {
  const { supervisor, kernel, ran } = world(test, { local: 'refuse' });
  const error = await failure(supervisor.changeRole('primary', false));
  test.match(error, { code: 'HAST_E_PROMOTE_REFUSED', hint: 'hastctl peer-gone it' });
  test.equal(supervisor.role, 'init');
  test.same([kernel.left, ran], [[], []]);
  await supervisor.changeRole('secondary', false);
  await failure(supervisor.changeRole('primary', false));
  test.equal(supervisor.state, 'secondary');
  await supervisor.changeRole('primary', true);
  test.equal(supervisor.role, 'primary');
});

/** A resource and bounds with which waiting for something that never comes is short. */
const impatient = [{ timeout: 0.3 }, { promoteMsMin: 300, stepMs: 300, stopMs: 100 }] as const;

for (const step of ['mountFuse', 'attachLoop']) {
  it(`promotion undone: ${step} fails`, async (test) => {
    const { supervisor, kernel, link } = world(test);
    await supervisor.changeRole('secondary', false);
    kernel.failing.add(step);
    test.match(await failure(supervisor.changeRole('primary', false)), { message: /fails/ });
    test.equal(supervisor.state, 'secondary');
    test.same([kernel.mounts, kernel.loops.size, kernel.open.size], [[], 0, 1]);
    test.throws(() => fs.lstatSync(link));
  });

  it(`promotion undone: ${step} never returns`, async (test) => {
    const { supervisor, kernel } = world(test, ...impatient);
    await supervisor.changeRole('secondary', false);
    kernel.hanging.add(step);
    test.match(await failure(supervisor.changeRole('primary', false)), { code: 'HAST_E_TIMEOUT' });
    test.match(supervisor.role, 'secondary');
    test.same([kernel.mounts, kernel.loops.size], [[], 0]);
  });
}

it('promotion undone: the worker fails or dies', async (test) => {
  for (const [local, code] of [
    ['fail-serve', 'HAST_E_IO'], ['die-promote', 'HAST_E_INTERNAL'], ['corrupt', 'HAST_E_CORRUPT'],
  ] as const) {
    const { supervisor, kernel, ran } = world(test, { local });
    const error = await failure(supervisor.changeRole('primary', false));
    test.equal(error.code, code, local);
    test.equal(supervisor.state, 'init');
    test.same([kernel.left, ran], [[], []]);
  }
});

it('promotion undone: the worker hangs', async (test) => {
  for (const local of ['hang-start', 'hang-promote']) {
    const { supervisor, kernel, ran } = world(test, { local, ...impatient[0] }, impatient[1]);
    const error = await failure(supervisor.changeRole('primary', false));
    test.equal(error.code, 'HAST_E_TIMEOUT', local);
    test.equal(supervisor.state, 'init');
    test.same([kernel.left, ran], [[], []]);
  }
});

it('promotion: what a killed daemon left is taken away first', async (test) => {
  const { supervisor, kernel, link } = world(test);
  const mountPoint = path.join(path.dirname(link), '../run/shared');
  kernel.mounts.push(mountPoint, mountPoint);
  kernel.loops.set('/dev/loop7', path.join(mountPoint, 'volume'));
  fs.symlinkSync('/dev/loop7', link);
  await supervisor.changeRole('primary', false);
  test.same(kernel.calls, [
    'openFuse', 'unmountFuse:lazy', 'unmountFuse:lazy', 'detachLoop:lazy',
    'mountFuse', 'attachLoop',
  ]);
  test.equal(fs.readlinkSync(link), '/dev/loop0');
});

it('promotion: a file in the place of the link is not touched', async (test) => {
  const { supervisor, kernel, link } = world(test);
  fs.writeFileSync(link, 'mine');
  const error = await failure(supervisor.changeRole('primary', false));
  test.match(error, { code: 'HAST_E_DEVICE', message: /is not a link/ });
  test.equal(fs.readFileSync(link, 'utf8'), 'mine');
  test.same(kernel.left, []);
});

it('leaving primary: refused while in use, forced with everything taken away', async (test) => {
  const { supervisor, kernel, link } = world(test);
  await supervisor.changeRole('primary', false);
  kernel.users = ['mounted on /data'];
  const error = await failure(supervisor.changeRole('init', false));
  test.match(error, { code: 'HAST_E_DEVICE_IN_USE', message: /mounted on \/data/ });
  test.match(error.hint, /unmount/);
  test.equal(supervisor.role, 'primary');
  test.equal(fs.readlinkSync(link), '/dev/loop0');
  kernel.calls.length = 0;
  await supervisor.changeRole('init', true);
  test.same(kernel.calls, ['detachLoop:lazy', 'closeFuse', 'unmountFuse:lazy']);
  test.same(kernel.left, []);
});

it('leaving primary: a device that got a user meanwhile stays', async (test) => {
  const { supervisor, kernel, link, ran } = world(test);
  await supervisor.changeRole('primary', false);
  kernel.failing.add('detachLoop');
  test.equal((await failure(supervisor.changeRole('secondary', false))).code, 'HAST_E_DEVICE');
  test.equal(supervisor.role, 'primary');
  test.equal(fs.readlinkSync(link), '/dev/loop0');
  test.same(ran, ['role shared init primary']);
});

it('leaving primary: a loop number that somebody else has by now is left alone', async (test) => {
  const { supervisor, kernel } = world(test);
  await supervisor.changeRole('primary', false);
  kernel.loops.set('/dev/loop0', '/somebody/else');
  kernel.users = ['mounted on /else'];
  await supervisor.changeRole('init', false);
  test.same(kernel.left, ['/dev/loop0']);
});

it('leaving primary: a worker that does not stop is killed', async (test) => {
  const { supervisor, kernel, workerPid } = world(test, { local: 'hang-stop' }, { stopMs: 100 });
  await supervisor.changeRole('primary', false);
  const pid = await workerPid();
  await supervisor.changeRole('init', false);
  test.notOk(isAlive(pid));
  test.same(kernel.left, []);
});

it('worker of a secondary: ended, it is started again with back-off', async (test) => {
  const { supervisor, ran, workerPid, lines } = world(test);
  await supervisor.changeRole('secondary', false);
  const first = await workerPid();
  process.kill(first, 'SIGKILL');
  await until('back-off', () => supervisor.state === 'backoff');
  test.match(await supervisor.status(), { role: 'secondary', status: 'waiting', worker: null });
  await until('a new worker', () => supervisor.state === 'secondary');
  const second = await workerPid();
  test.not(second, first);
  process.kill(second, 'SIGKILL');
  await until('a third worker', async () => {
    const { worker } = await supervisor.status();
    return supervisor.state === 'secondary' && worker !== second;
  });
  const delays = lines.flatMap((line) => /"delayMs":(\d+)/.exec(line)?.[1] ?? []);
  test.same(delays, ['50', '100']);
  test.same(ran, ['role shared init secondary']);
});

it('worker of a secondary: corrupt, it waits for a person', async (test) => {
  const { supervisor, workerPid } = world(test);
  await supervisor.changeRole('secondary', false);
  process.kill(await workerPid(), 'SIGUSR2');
  await until('failed', () => supervisor.state === 'failed');
  const status = await supervisor.status();
  test.match(status, { role: 'secondary', status: 'failed', detail: /fake HAST_E_CORRUPT.*hint/ });
  await supervisor.changeRole('secondary', false);
  test.equal(supervisor.state, 'secondary', 'asked for again, it is tried again');
});

it('worker of a secondary: not started, the command fails and the role stays', async (test) => {
  const { supervisor, kernel, ran } = world(test, { local: 'no-metadata' });
  const error = await failure(supervisor.changeRole('secondary', false));
  test.match(error, { code: 'HAST_E_NO_METADATA', hint: 'fake hint' });
  test.equal(supervisor.role, 'init');
  test.same([kernel.left, ran], [[], []]);
});

it('worker of a primary: not to be replaced, the device goes, role init', async (test) => {
  const { supervisor, kernel, ran, link, lines, workerPid } = world(test, { local: 'old-kernel' });
  await supervisor.changeRole('primary', false);
  kernel.calls.length = 0;
  process.kill(await workerPid(), 'SIGKILL');
  await until('init', () => supervisor.state === 'init');
  test.same(kernel.calls, ['closeFuse', 'unmountFuse:lazy', 'detachLoop:lazy']);
  test.throws(() => fs.lstatSync(link));
  test.same(kernel.left, []);
  await until('the hook', () => ran.length === 2);
  test.equal(ran[1], 'role shared primary init');
  test.ok(lines.some((line) => line.startsWith('error') && line.includes('hastctl role primary')));
  test.match(await supervisor.status(), { status: 'init', detail: /SIGKILL/ });
  test.equal(lines.filter((line) => line.includes('cannot be replaced')).length, 2,
    'said at the promotion, and when it happened');
});

it('worker events run hooks; fuse-native gets no descriptor', async (test) => {
  const { supervisor, kernel, ran, workerPid } = world(test, { frontend: 'fuse-native' });
  await supervisor.changeRole('primary', false);
  test.same(JSON.parse((await supervisor.status()).detail), ['start:null', 'promote', 'serve']);
  test.same(kernel.calls, ['attachLoop']);
  process.kill(await workerPid(), 'SIGUSR1');
  await until('the hook', () => ran.includes('connect shared'));
});

it('a split brain runs its hook once, whoever of the workers sees it', async (test) => {
  const { supervisor, ran, lines, workerPid } = world(test);
  const seen = (): number => lines.filter((line) => line.includes('split-brain')).length;
  const told = (): number => ran.filter((line) => line === 'split-brain shared').length;
  const see = async (): Promise<void> => {
    const before = seen();
    process.kill(await workerPid(), 'SIGALRM');
    await until('the event', () => seen() > before);
  };
  await supervisor.changeRole('secondary', false);
  await see();
  await see();
  await supervisor.changeRole('init', false);
  await supervisor.changeRole('secondary', false);
  await see();
  test.equal(told(), 1);
  process.kill(await workerPid(), 'SIGUSR1');
  await until('it was resolved', () => ran.includes('connect shared'));
  await see();
  test.equal(told(), 2, 'another one');
});

it('orders: passed to the worker in any role but init, refusals come back', async (test) => {
  const { supervisor } = world(test);
  test.match(await failure(supervisor.order({ kind: 'detach' })), {
    code: 'HAST_E_ROLE', hint: 'hastctl role secondary shared',
  });
  await supervisor.changeRole('primary', false);
  for (const kind of ['detach', 'attach', 'peer-gone'] as const) {
    test.equal(await supervisor.order({ kind }), null);
  }
  await supervisor.order({ kind: 'resync', paused: true });
  await supervisor.order({ kind: 'undo', file: '/undo' });
  const resolve = { kind: 'resolve', discard: 'local', dryRun: true, undo: null } as const;
  test.match(await supervisor.order(resolve), { copyBytes: 1052672, peer: { more: 7 } });
  test.same(JSON.parse((await supervisor.status()).detail).slice(3), [
    'order:detach', 'order:attach', 'order:peer-gone', 'order:resync', 'order:undo',
    'order:resolve',
  ]);
  const other = world(test, { local: 'refuse-order' });
  await other.supervisor.changeRole('secondary', false);
  test.match(await failure(other.supervisor.order({ kind: 'detach' })), {
    code: 'HAST_E_REFUSED', message: 'fake refusal of detach', hint: 'not now',
  });
});

it('orders: a worker that does not answer, or ends', async (test) => {
  const slow = world(test, { local: 'hang-order' }, { orderMs: 100, copyMs: 60_000 });
  await slow.supervisor.changeRole('secondary', false);
  test.equal((await failure(slow.supervisor.order({ kind: 'detach' }))).code, 'HAST_E_TIMEOUT');
  const copying = failure(slow.supervisor.order({ kind: 'undo', file: '/undo' }));
  await slow.supervisor.changeRole('init', false);
  test.match(await copying, { message: /the worker ended/ }, 'a role change is not kept waiting');
  const dying = world(test, { local: 'die-order' });
  await dying.supervisor.changeRole('secondary', false);
  test.match(await failure(dying.supervisor.order({ kind: 'peer-gone' })), {
    message: /the worker ended before it answered/,
  });
});

it('attach as secondary: a worker without its copy is replaced, another one not', async (test) => {
  const { supervisor, workerPid, ran } = world(test);
  await supervisor.changeRole('secondary', false);
  const first = await workerPid();
  test.match(await failure(supervisor.order({ kind: 'attach' })), {
    code: 'HAST_E_REFUSED', hint: /hastctl detach shared first/,
  });
  test.equal(await workerPid(), first);
  process.kill(first, 'SIGUSR2');
  await until('failed', () => supervisor.state === 'failed');
  await supervisor.order({ kind: 'attach' });
  test.equal(supervisor.state, 'secondary', 'a resource that waits for a person is tried again');
  const detached = world(test, { local: 'detached' });
  await detached.supervisor.changeRole('secondary', false);
  const old = await detached.workerPid();
  await detached.supervisor.order({ kind: 'attach' });
  test.equal(detached.supervisor.state, 'secondary');
  test.not(await detached.workerPid(), old);
  test.notOk(isAlive(old));
  test.same([detached.ran, ran], [['role shared init secondary'], ['role shared init secondary']]);
  test.match(await failure(world(test).supervisor.order({ kind: 'attach' })), {
    code: 'HAST_E_ROLE',
  });
});

/** Makes a device node with the number of the file system it lies on; why not, or null. */
function ownDevice(folder: string): string | null {
  const { dev } = fs.statSync(folder);
  const number = [Math.floor(dev / 256), dev % 256].map(String);
  const made = childProcess.spawnSync('mknod', [path.join(folder, 'device'), 'b', ...number]);
  return made.status === 0 ? null : `SKIPPED: mknod: ${String(made.stderr)}`;
}

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-'));
t.teardown(() => fs.rmSync(scratch, { recursive: true, force: true }));
const noDevice = ownDevice(scratch);
const needsDevice = noDevice === null ? {} : { skip: noDevice };
void t.test('resolve: no undo file on the volume itself', needsDevice, async (test) => {
  const device = path.join(scratch, 'device');
  const folder = scratch;
  const order = { kind: 'resolve', discard: 'local', dryRun: false } as const;
  const refuse = (undo: string | null, loop: string | undefined): Promise<void> =>
    refuseUndoOnVolume({ ...order, undo }, { loop });
  test.match(await failure(refuse(path.join(folder, 'undo'), device)), {
    code: 'HAST_E_REFUSED', hint: /another file system/,
  });
  await refuse('/proc/undo', device);
  await refuse(path.join(folder, 'missing/undo'), device);
  await refuse(path.join(folder, 'undo'), undefined);
  await refuse(null, device);
});

it('status: a worker that does not answer is said to', async (test) => {
  const { supervisor } = world(test, { local: 'mute' }, { statusMs: 100 });
  await supervisor.changeRole('secondary', false);
  const status = await supervisor.status();
  test.match(status, { role: 'secondary', status: 'failed', detail: /gives no status/ });
  test.type(status.worker, 'number');
});
