/**
 * Goal: what a worker that died had written is on the disk before its copy is used again, or the
 * copy counts as failed until a person says otherwise.
 * Method: a fake worker process and a fake kernel whose flush fails or hangs; and the real flush.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { systemDevice } from '../../lib/daemon/device-operations.ts';
import { Supervisor } from '../../lib/daemon/supervisor.ts';
import type { Timing } from '../../lib/daemon/timing.ts';
import {
  FakeKernel, fakeHooks, fakeWorker, recordingLog, resourceConfig, testTiming, until,
} from './world.ts';

t.jobs = 4;

function world(test: Test, timing: Partial<Timing> = {}) {
  const directory = test.testdir({ run: {}, dev: {} });
  const kernel = new FakeKernel();
  const { hooks, ran } = fakeHooks();
  const supervisor = new Supervisor({
    resource: resourceConfig('shared'), node: 'h1', rundir: path.join(directory, 'run'),
    devdir: path.join(directory, 'dev'), program: fakeWorker, operations: kernel, hooks,
    log: recordingLog().log, timing: { ...testTiming, ...timing },
  });
  test.teardown(() => supervisor.changeRole('init', true).catch(() => undefined));
  const kill = async (): Promise<void> => {
    const { worker } = await supervisor.status();
    if (worker === null) throw new Error('no worker');
    process.kill(worker, 'SIGKILL');
  };
  return { supervisor, kernel, ran, kill };
}

async function failure(work: Promise<unknown>): Promise<HastError> {
  const error = await work.then(() => null, (reason: unknown) => reason);
  if (error instanceof HastError) return error;
  throw new Error(`no HastError: ${String(error)}`);
}

void t.test('an orderly end needs no flush, and lets go of the disk', async (test) => {
  const { supervisor, kernel } = world(test);
  await supervisor.changeRole('primary', false);
  test.equal(kernel.locals.size, 1, 'opened');
  await supervisor.changeRole('secondary', false);
  test.equal(kernel.locals.size, 1, 'once');
  await supervisor.changeRole('init', false);
  test.equal(kernel.locals.size, 0, 'let go of');
  test.equal(kernel.flushes, 0);
});

void t.test('a secondary: flushed before it is started again', async (test) => {
  const { supervisor, kernel, kill } = world(test);
  await supervisor.changeRole('secondary', false);
  await kill();
  await until('a new worker', () => kernel.flushes === 1 && supervisor.state === 'secondary');
  test.equal(kernel.locals.size, 1);
});

void t.test('a secondary: an error is a failed copy until somebody attaches', async (test) => {
  const { supervisor, kernel, kill } = world(test);
  await supervisor.changeRole('secondary', false);
  kernel.flushError = 'EIO';
  await kill();
  await until('failed', () => supervisor.state === 'failed');
  test.match(await supervisor.status(), {
    status: 'failed', needsHuman: true, localDisk: 'failed', detail: /EIO.*hastctl attach shared/,
  });
  kernel.flushError = null;
  for (const role of ['secondary', 'primary', 'init', 'primary', 'secondary'] as const) {
    const change = supervisor.changeRole(role, true);
    if (role === 'init') await change;
    else test.match(await failure(change), { code: 'HAST_E_IO', hint: /hastctl attach shared/ });
  }
  test.equal(supervisor.state, 'init');
  await supervisor.order({ kind: 'attach' });
  await supervisor.changeRole('secondary', false);
  test.equal(supervisor.state, 'secondary');
  test.equal(kernel.flushes, 1, 'the failed copy was not asked again');
});

void t.test('attach starts the worker of a failed copy', async (test) => {
  const { supervisor, kernel, kill } = world(test);
  await supervisor.changeRole('secondary', false);
  kernel.flushError = 'ENOSPC';
  await kill();
  await until('failed', () => supervisor.state === 'failed');
  await supervisor.order({ kind: 'attach' });
  test.equal(supervisor.state, 'secondary');
});

void t.test('a primary: an error leaves no role init to be promoted from', async (test) => {
  const { supervisor, kernel, ran, kill } = world(test);
  await supervisor.changeRole('primary', false);
  kernel.flushError = 'EIO';
  await kill();
  await until('failed', () => supervisor.state === 'failed');
  test.match(await failure(supervisor.changeRole('primary', true)), { code: 'HAST_E_IO' });
  test.match(await supervisor.status(), { status: 'failed', role: 'secondary' });
  test.equal(ran.at(-1), 'role shared primary secondary');
  test.equal(kernel.left.length, 0);
});

void t.test('a disk that does not answer is waited for with a bound', async (test) => {
  const { supervisor, kernel, kill } = world(test, { stepMs: 200 });
  await supervisor.changeRole('secondary', false);
  kernel.hanging.add('flushLocal');
  await kill();
  await until('the pause', () => supervisor.state === 'backoff');
  test.match(await failure(supervisor.changeRole('primary', false)), { code: 'HAST_E_TIMEOUT' });
  test.equal(kernel.flushes, 1, 'one flush is enough');
  test.match((await supervisor.status()).detail, /a flush of well .* took more than/);
});

void t.test('the real flush says what the kernel says', async (test) => {
  const file = path.join(test.testdir({ local: 'data' }), 'local');
  const fd = await systemDevice.openLocal(file);
  fs.writeSync(fd, 'more');
  await systemDevice.flushLocal(fd);
  await systemDevice.closeLocal(fd);
  test.throws(() => fs.fstatSync(fd), { code: 'EBADF' });
  await test.rejects(systemDevice.openLocal(`${file}-not`), { code: 'ENOENT' });
  // It has nothing to be flushed, and says so.
  const device = fs.openSync('/dev/null', 'r');
  await test.rejects(systemDevice.flushLocal(device), { code: 'EINVAL' });
  fs.closeSync(device);
});
