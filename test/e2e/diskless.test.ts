/**
 * Goal: the loss of a disk is no error for the application while the peer has everything; the
 * disk comes back with `hastctl attach`; where no copy is left, writes wait or fail as the
 * configuration says, and nothing is acknowledged.
 * Method: components that fail on command under load with a ledger; every case ends with both
 * copies complete and equal byte for byte.
 */
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep } from '../../cli/lab-run.ts';
import { FailingDisk } from '../fixtures/failing-disk.ts';
import type { DiskFault } from '../fixtures/failing-volume.ts';
import { killPart } from '../fixtures/e2e-kill.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';
import { Load, type RunningLoad } from '../fixtures/e2e-load.ts';

const size = 64 * MiB;
const loadSize = 16 * MiB;
/** At most; a case ends its load when it has seen enough. */
const loadMs = 60_000;
const timeout = 2;
const diskTimeout = 3;
/** What a hang may cost one write: it is noticed, the peer is told, the write is repeated. */
const hangMsMax = (diskTimeout + 2 * timeout + 2) * 1000;

interface Rig {
  load: Load;
  /** Of h1 and h2; null where the component is a plain file. */
  disks: [FailingDisk | null, FailingDisk | null];
}

async function bringUp(lab: Lab, failing: readonly LabNode[]): Promise<Rig> {
  const disks: Rig['disks'] = [null, null];
  for (const [index, node] of lab.nodes.entries()) {
    if (failing.includes(node)) disks[index] = await FailingDisk.under(lab, node);
  }
  const load = new Load(lab, { size: loadSize, raw: true });
  await lab.bringUp();
  await load.fill(lab.h1);
  await lab.settle();
  return { load, disks };
}

function disk(rig: Rig, index: 0 | 1): FailingDisk {
  const found = rig.disks[index];
  if (found === null) throw new Error('this node has a plain file');
  return found;
}

/** Ends the load, which met no error, and finds everything. */
async function soundEnd(inner: Test, lab: Lab, rig: Rig, running: RunningLoad): Promise<number> {
  const { error, slowestMs } = await running.finish();
  inner.equal(error, null, `the application saw no error; its longest wait was ${slowestMs} ms`);
  inner.match(await rig.load.check(lab.h1), { lost: 0 }, 'everything acknowledged can be read');
  return slowestMs;
}

async function attach(inner: Test, lab: Lab, node: LabNode): Promise<void> {
  const { code, stderr } = await node.hastctl('attach', resourceName);
  inner.equal(code, 0, `attach on ${node.name} ${stderr.trim()}`);
  await lab.settle();
  await inner.resolves(lab.compare(), 'both copies are complete and equal');
}

/** The local disk of the primary fails, or hangs, while the peer is complete. */
async function primaryLoses(inner: Test, lab: Lab, fault: DiskFault): Promise<void> {
  const { h1, h2 } = lab;
  const rig = await bringUp(lab, [h1]);
  const running = rig.load.start(h1, loadMs);
  await running.more(20);
  await disk(rig, 0).fail(fault);
  const status = await h1.untilStatus('diskless', (now) => now.status === 'diskless');
  inner.match(status.localDisk, /^(failed|detached)$/);
  inner.match(status, { role: 'primary', connection: 'connected', peerDisk: 'up-to-date' });
  inner.equal((await h2.status()).role, 'secondary');
  await running.more(50);
  const slowest = await soundEnd(inner, lab, rig, running);
  if (fault.does === 'hang') inner.ok(slowest < hangMsMax, `less than ${hangMsMax} ms`);
  if (fault.does === 'error' && fault.op === 'write') {
    const early = await h1.hastctl('attach', resourceName);
    inner.not(early.code, 0, `an attach of the failed disk is refused: ${early.stderr.trim()}`);
    inner.equal((await h1.status()).status, 'diskless', 'and changes nothing');
  }
  await disk(rig, 0).repair();
  const again = rig.load.start(h1, loadMs);
  await again.more(20);
  await h1.control('attach', resourceName);
  await again.more(50);
  await soundEnd(inner, lab, rig, again);
  await lab.settle();
  await inner.resolves(lab.compare(), 'both copies are complete and equal');
  // What had failed is a full copy again.
  await h1.control('role', 'secondary', resourceName);
  await h2.control('role', 'primary', resourceName);
  inner.match(await rig.load.check(h2), { lost: 0 });
}

/** `hastctl detach` is the same on purpose. */
async function detach(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const rig = await bringUp(lab, []);
  const running = rig.load.start(h1, loadMs);
  await running.more(20);
  await h1.control('detach', resourceName);
  inner.match(await h1.status(), { status: 'diskless', localDisk: 'detached' });
  await running.more(50);
  await soundEnd(inner, lab, rig, running);
  await attach(inner, lab, h1);
  await lab.h2.stop();
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  const { code, stderr } = await h1.hastctl('detach', resourceName);
  inner.not(code, 0, `refused without a complete peer: ${stderr.trim()}`);
  inner.match(await rig.load.check(h1), { lost: 0 });
}

/** A range of the primary's disk cannot be read: the peer's data, and the range is rewritten. */
async function badRange(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const rig = await bringUp(lab, [h1]);
  const { dataOffset } = h1.dump().superblock;
  const from = dataOffset + 5 * MiB;
  await disk(rig, 0).fail({ op: 'read', does: 'bad', from, to: from + 256 * 1024 });
  inner.match(await rig.load.check(h1), { lost: 0 }, 'reads give the right data');
  await h1.untilStatus('complete', ({ status }) => status === 'complete');
  inner.ok((await h1.status()).statistics.localReadErrors > 0, 'the errors are counted');
  inner.equal((await disk(rig, 0).counts()).badSectors, 0, 'the range was rewritten');
  await disk(rig, 0).fail({ op: 'read', does: 'bad', from, to: from + MiB });
  const running = rig.load.start(h1, loadMs);
  await running.more(400);
  await soundEnd(inner, lab, rig, running);
  await disk(rig, 0).repair();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

/** The secondary's disk fails, or hangs: the primary goes on with its own. */
async function secondaryLoses(inner: Test, lab: Lab, fault: DiskFault): Promise<void> {
  const { h1, h2 } = lab;
  const rig = await bringUp(lab, [h2]);
  const running = rig.load.start(h1, loadMs);
  await running.more(20);
  await disk(rig, 1).fail(fault);
  const { localDisk } = await h1.untilStatus('the loss', ({ status, peerDisk }) =>
    status === 'degraded' && peerDisk === 'failed');
  inner.equal(localDisk, 'up-to-date');
  await h2.untilStatus('failed', (now) => now.status === 'failed' && now.localDisk === 'failed');
  await running.more(50);
  const slowest = await soundEnd(inner, lab, rig, running);
  if (fault.does === 'hang') inner.ok(slowest < hangMsMax, `less than ${hangMsMax} ms`);
  await disk(rig, 1).repair();
  await attach(inner, lab, h2);
}

/** The load came to rest and nothing is acknowledged any more. */
async function stalls(inner: Test, running: RunningLoad): Promise<void> {
  await sleep(timeout * 1000 + 500);
  const before = running.acknowledged;
  await sleep(1500);
  inner.equal(running.acknowledged, before, 'nothing is acknowledged');
}

/** Diskless, and the peer dies: everything waits for it. */
async function peerDies(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const rig = await bringUp(lab, [h1]);
  await disk(rig, 0).fail({ op: 'write', does: 'error' });
  const running = rig.load.start(h1, loadMs);
  await h1.untilStatus('diskless', ({ status }) => status === 'diskless');
  await running.more(20);
  await killPart(h2, 'node', (await h2.status()).worker);
  await stalls(inner, running);
  inner.equal((await h1.status()).status, 'failed', 'neither copy can serve');
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await running.more(20, 20_000);
  inner.equal((await h1.status()).status, 'diskless', 'it goes on when the peer is back');
  await soundEnd(inner, lab, rig, running);
  await disk(rig, 0).repair();
  await attach(inner, lab, h1);
}

/** Both disks fail, the primary's first: what could not be written waits for the peer's disk. */
async function bothDisks(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const rig = await bringUp(lab, [h1, h2]);
  await disk(rig, 0).fail({ op: 'write', does: 'error' });
  const running = rig.load.start(h1, loadMs);
  await h1.untilStatus('diskless', ({ status }) => status === 'diskless');
  await running.more(20);
  await disk(rig, 1).fail({ op: 'write', does: 'error' });
  await h1.untilStatus('the end of both', ({ status }) => status === 'failed');
  await stalls(inner, running);
  await disk(rig, 1).repair();
  await h2.control('attach', resourceName);
  await running.more(20, 20_000);
  await soundEnd(inner, lab, rig, running);
  await disk(rig, 0).repair();
  await attach(inner, lab, h1);
}

/** `on-no-data fail`: the application is told at once. */
async function failsAtOnce(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const rig = await bringUp(lab, [h1]);
  await disk(rig, 0).fail({ op: 'write', does: 'error' });
  const running = rig.load.start(h1, loadMs);
  await h1.untilStatus('diskless', ({ status }) => status === 'diskless');
  await running.more(20);
  await killPart(h2, 'node', (await h2.status()).worker);
  const { error } = await running.ended();
  inner.match(error, /^(write|flush) EIO$/, 'the application gets EIO');
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await h1.untilStatus('diskless', ({ status }) => status === 'diskless');
  inner.match(await rig.load.check(h1), { lost: 0 }, 'what was acknowledged is there');
  await disk(rig, 0).repair();
  await attach(inner, lab, h1);
  const again = rig.load.start(h1, loadMs);
  await again.more(20);
  await soundEnd(inner, lab, rig, again);
}

t.setTimeout(400_000);
const options = {
  timeout, sizes: [size, size] as const, resource: [`disk-timeout ${diskTimeout}`],
};
const faults: [title: string, fault: DiskFault][] = [
  ['write error', { op: 'write', does: 'error' }],
  ['flush error', { op: 'flush', does: 'error' }],
  ['hang', { op: 'any', does: 'hang' }],
];
for (const [title, fault] of faults) {
  await pairTest(t, `diskless: the primary's disk, ${title}`, options, (inner, lab) =>
    primaryLoses(inner, lab, fault));
}
for (const [title, fault] of faults) {
  await pairTest(t, `diskless: the secondary's disk, ${title}`, options, (inner, lab) =>
    secondaryLoses(inner, lab, fault));
}
await pairTest(t, 'diskless: detach and attach', options, detach);
await pairTest(t, 'diskless: a bad range is read from the peer and rewritten', options, badRange);
await pairTest(t, 'diskless: the peer dies, writes wait', options, peerDies);
await pairTest(t, 'diskless: both disks, writes wait', options, bothDisks);
await pairTest(t, 'diskless: on-no-data fail',
  { ...options, resource: [...options.resource, 'on-no-data fail'] }, failsAtOnce);
