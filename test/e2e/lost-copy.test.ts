/**
 * Goal: a copy that failed or was detached is let go of and never read again, by no worker that
 * comes later; and what the operator does next works, and ends within bounds.
 * Method: components that fail on command, killed workers, the open files of every process.
 */
import * as fs from 'node:fs';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { isAlive } from '../../lib/daemon/process-state.ts';
import { until } from '../../cli/lab-run.ts';
import { killPart } from '../fixtures/e2e-kill.ts';
import { Hook, pairTest } from '../fixtures/e2e-lab.ts';
import { Load } from '../fixtures/e2e-load.ts';
import { FailingDisk } from '../fixtures/failing-disk.ts';

const size = 64 * MiB;
const timeout = 2;
/** A worker that its disk keeps is asked, killed and given up within this. */
const boundMs = 15_000;
/** At most; a case ends its load when it has seen enough. */
const loadMs = 60_000;

async function loaded(lab: Lab): Promise<Load> {
  const load = new Load(lab, { size: 16 * MiB, raw: true });
  await lab.bringUp();
  await load.fill(lab.h1);
  await lab.settle();
  return load;
}

/** Processes of the node that have its component open. */
function users(node: LabNode): number[] {
  const component = fs.realpathSync(node.local);
  return node.processes().filter((pid) => {
    try {
      return fs.readdirSync(`/proc/${pid}/fd`).some((fd) =>
        fs.readlinkSync(`/proc/${pid}/fd/${fd}`) === component);
    } catch {
      return false;
    }
  });
}

async function letGo(node: LabNode): Promise<void> {
  await until(`${node.name} to let go of the disk`, 20_000, () =>
    users(node).length === 0 ? true : undefined);
}

async function timed(work: Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work;
  return performance.now() - begun;
}

const isDiskless = ({ status }: { status: string }): boolean => status === 'diskless';
const killWorker = async (node: LabNode): Promise<void> =>
  killPart(node, 'worker', (await node.status()).worker);

/** What the worker wrote before it died never reached the disk. */
async function deadSecondary(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const disk = await FailingDisk.under(lab, h2);
  const load = await loaded(lab);
  await disk.fail({ op: 'flush', does: 'error' });
  await killWorker(h2);
  const { detail, worker } = await h2.untilStatus('the failed copy', (now) => now.needsHuman);
  inner.match(detail, /EIO.*hastctl attach shared/);
  inner.equal(worker, null, 'no other worker reads it');
  await letGo(h2);
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  const running = load.start(h1, loadMs);
  await running.more(50);
  inner.equal((await running.finish()).error, null, 'the application goes on');
  await disk.repair();
  const { code } = await h2.hastctl('role', 'secondary', resourceName);
  inner.not(code, 0, 'only an attach says that the disk is well');
  await h2.control('attach', resourceName);
  await lab.settle();
  await inner.resolves(lab.compare(), 'both copies are complete and equal');
  inner.match(await load.check(h1), { lost: 0 });
}

async function deadPrimary(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const disk = await FailingDisk.under(lab, h1);
  const load = await loaded(lab);
  await disk.fail({ op: 'flush', does: 'error' });
  await killWorker(h1);
  const failed = await h1.untilStatus('the failed copy', (now) => now.needsHuman);
  inner.match(failed, { status: 'failed', role: 'secondary', localDisk: 'failed' });
  const { code, stderr } = await h1.hastctl('role', 'primary', '--force', resourceName);
  inner.not(code, 0, `not to be promoted: ${stderr.trim()}`);
  await h2.control('role', 'primary', '--force', resourceName);
  inner.match(await load.check(h2), { lost: 0 }, 'the peer has everything');
  await disk.repair();
  await h1.control('attach', resourceName);
  await lab.settle();
  inner.match(await h1.status(), { role: 'secondary' });
  await inner.resolves(lab.compare(), 'both copies are complete and equal');
}

/** The copy was lost before, and then the worker of the primary dies. */
async function deadDiskless(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const disk = await FailingDisk.under(lab, h1);
  const load = await loaded(lab);
  await disk.fail({ op: 'write', does: 'error' });
  const running = load.start(h1, loadMs);
  await h1.untilStatus('diskless', isDiskless);
  await running.more(20);
  inner.equal((await running.finish()).error, null);
  await letGo(h1);
  await killWorker(h1);
  await h1.untilStatus('the end of the role', ({ role }) => role === 'init');
  const broken = await h1.hastctl('role', 'primary', resourceName);
  inner.not(broken.code, 0, `the disk fails still: ${broken.stderr.trim()}`);
  await disk.repair();
  await h1.control('role', 'primary', resourceName);
  inner.match(await load.check(h1), { lost: 0 }, 'what only the peer had is there');
  await lab.settle();
  await inner.resolves(lab.compare(), 'both copies are complete and equal');
}

/** Detach, another disk in its place, attach: while the device is in use. */
async function replaced(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const hook = new Hook(lab);
  const load = await loaded(lab);
  inner.ok(users(h1).length > 0, 'the disk is in use');
  const running = load.start(h1, loadMs);
  await running.more(20);
  await h1.control('detach', resourceName);
  await letGo(h1);
  await h1.replaceBlockDevice();
  await h1.control('create', resourceName);
  inner.match((await h1.status()).status, 'diskless');
  await h1.control('attach', resourceName);
  await running.more(20);
  inner.equal((await running.finish()).error, null, 'the application saw no error');
  await lab.settle();
  await inner.resolves(lab.compare(), 'the new disk got everything');
  inner.match(await load.check(h1), { lost: 0 });
  const ownCalls = hook.calls().filter((call) => /^h1 (at|de)tach/.test(call));
  inner.same(ownCalls, [`h1 detach ${resourceName}`, `h1 attach ${resourceName}`], 'hooks once');
  await h2.control('detach', resourceName);
  await letGo(h2);
  inner.match(await h2.status(), { localDisk: 'detached' });
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  await h2.control('attach', resourceName);
  await lab.settle();
}

/** A primary whose disk hangs can be ended, also where nobody serves it any more. */
async function ends(inner: Test, lab: Lab, isServed: boolean): Promise<void> {
  const { h1, h2 } = lab;
  const disk = await FailingDisk.under(lab, h1);
  const load = await loaded(lab);
  await disk.fail({ op: 'any', does: 'hang' });
  const running = load.start(h1, loadMs);
  const { worker } = await h1.untilStatus('diskless', isDiskless);
  if (worker === null) throw new Error('no worker');
  if (isServed) {
    await running.more(20);
    inner.equal((await running.finish()).error, null);
    const ms = await timed(h1.stop(boundMs));
    inner.ok(ms < boundMs, `a signal ends it (${Math.round(ms)} ms)`);
  } else {
    await running.more(20);
    await killPart(h2, 'node', (await h2.status()).worker);
    await h1.untilStatus('nobody who serves', ({ status }) => status === 'failed');
    inner.not((await h1.hastctl('role', 'init', resourceName)).code, 0, 'the device is in use');
    const ms = await timed(h1.control('role', 'init', '--force', resourceName));
    inner.ok(ms < boundMs, `it is taken away by force (${Math.round(ms)} ms)`);
    inner.match(await h1.status(), { role: 'init' });
    inner.match((await running.ended()).error, / E[A-Z]+$/, 'its user gets an error');
    await h1.stop(boundMs);
  }
  await disk.repair();
  await until('the end of the worker', 5000, () => isAlive(worker) ? undefined : true);
}

t.setTimeout(290_000);
const options = { sizes: [size, size] as const, timeout, resource: ['disk-timeout 3'] };
await pairTest(t, 'lost copy: a secondary\'s worker dies, its writes are not on the disk', options,
  deadSecondary);
await pairTest(t, 'lost copy: the same as primary', options, deadPrimary);
await pairTest(t, 'lost copy: diskless, and the worker dies', options, deadDiskless);
await pairTest(t, 'lost copy: the disk is replaced in use', { ...options, local: 'block' },
  replaced);
await pairTest(t, 'lost copy: diskless with a disk that hangs, SIGTERM', options, (inner, lab) =>
  ends(inner, lab, true));
await pairTest(t, 'lost copy: nobody serves, role init', options, (inner, lab) =>
  ends(inner, lab, false));
