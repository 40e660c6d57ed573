/**
 * Goal: a component that fails, hangs or is slow costs nobody's data, and says what it is.
 * Method: the component of a node is a disk of ours that fails on command; what it does is
 * tested first, with plain programs, and then what the pair makes of it.
 */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep, until } from '../../cli/lab-run.ts';
import { FailingDisk } from '../fixtures/failing-disk.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';
import { Load } from '../fixtures/e2e-load.ts';

const size = 64 * MiB;
const timeout = 2;
const sector = 512;

/** `dd` with direct I/O; the exit code. */
async function dd(node: LabNode, ...operands: string[]): Promise<number> {
  return (await node.run(['dd', 'status=none', 'bs=4096', ...operands], 20_000)).code;
}

async function obeys(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const source = `${lab.directory}/source`;
  const data = Buffer.alloc(MiB, 'what is written is what is read');
  fs.writeFileSync(source, data);
  const disk = await FailingDisk.under(lab, h1);
  const write = (...more: string[]): Promise<number> =>
    dd(h1, `if=${source}`, `of=${disk.file}`, 'conv=notrunc', ...more);
  const read = (block: number, count: number): Promise<number> =>
    dd(h1, `if=${disk.file}`, 'of=/dev/null', 'iflag=direct', `skip=${block}`, `count=${count}`);
  const behind = (): Buffer => fs.readFileSync(h1.disk).subarray(0, MiB);

  inner.equal(fs.statSync(disk.file).size, size, 'it is as large as its file');
  await disk.fail({ op: 'write', does: 'error' });
  inner.not(await write(), 0, 'a write fails');
  inner.ok(behind().every((byte) => byte === 0), 'and leaves nothing');
  await disk.fail({ op: 'flush', does: 'error' });
  inner.equal(await write(), 0, 'writes work');
  inner.not(await write('conv=notrunc,fsync'), 0, 'a flush fails');
  inner.ok(behind().equals(data));
  await disk.repair();
  inner.equal(await write('conv=notrunc,fsync'), 0, 'repaired');

  await disk.fail({ op: 'read', does: 'bad', from: 8 * 4096, to: 10 * 4096 });
  inner.equal(await read(0, 8), 0, 'it can be read before the bad range');
  inner.not(await read(9, 1), 0, 'not in it');
  inner.equal(await read(10, 4), 0, 'and behind it');
  inner.equal(await write('seek=9', 'count=1'), 0);
  inner.equal(await read(9, 1), 0, 'what is written can be read again');
  inner.equal((await disk.counts()).badSectors, 4096 / sector, 'the rest cannot');

  await disk.fail({ op: 'read', does: 'slow', ms: 300 });
  const begun = performance.now();
  inner.equal(await read(0, 1), 0);
  inner.ok(performance.now() - begun > 300, 'slow');
  await disk.repair();
}

async function hangs(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const disk = await FailingDisk.under(lab, h1);
  await disk.fail({ op: 'write', does: 'hang', from: MiB });
  inner.equal(await dd(h1, 'if=/dev/zero', `of=${disk.file}`, 'conv=notrunc', 'count=1'), 0,
    'a write elsewhere does not hang');
  const operands = [`of=${disk.file}`, 'if=/dev/urandom', 'bs=4096', 'seek=256', 'count=1',
    'conv=notrunc', 'status=none'];
  const stuck = spawn('dd', operands, { env: h1.environment, stdio: 'ignore' });
  await until('the hang', 5000, async () =>
    (await disk.counts()).held === 1 ? true : undefined);
  await sleep(300);
  inner.equal(stuck.exitCode, null, 'a write hangs');
  await disk.repair();
  await until('the end of the write', 5000, () => stuck.exitCode ?? undefined);
  inner.equal(stuck.exitCode, 0, 'and is done when the disk is well again');
  inner.ok(fs.readFileSync(h1.disk).subarray(MiB, MiB + 4096).some((byte) => byte !== 0));
  await disk.fail({ op: 'any', does: 'hang' });
  const left = spawn('dd', operands, { env: h1.environment, stdio: 'ignore' });
  await until('the hang', 5000, async () =>
    (await disk.counts()).held === 1 ? true : undefined);
  await lab.close();
  await until('the end of who hung', 5000, () => left.exitCode ?? left.signalCode ?? undefined);
  inner.notOk(fs.existsSync(lab.directory), 'a lab with a hanging disk can be removed');
}

/** The secondary's disk takes nothing: the primary goes on alone and says so. */
async function secondaryFails(inner: Test, lab: Lab, op: 'write' | 'flush'): Promise<void> {
  const { h1, h2 } = lab;
  const disk = await FailingDisk.under(lab, h2);
  const load = new Load(lab, { size: 16 * MiB, raw: true });
  await lab.bringUp();
  await load.fill(h1);
  await lab.settle();
  const running = load.start(h1, 60_000);
  await running.more(20);
  await disk.fail({ op, does: 'error' });
  const { dirtyBytes } = await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  inner.ok(dirtyBytes > 0, 'what the peer lacks is known');
  await running.more(20);
  const { error } = await running.finish();
  inner.equal(error, null, 'the application saw no error');
  inner.match(await load.check(h1), { lost: 0 });
  const { statistics } = await h2.untilStatus('failed', ({ status, localDisk }) =>
    status === 'failed' && localDisk === 'failed');
  // Whichever of its operations met the fault first: some are of the metadata.
  const { localWriteErrors, localFlushErrors } = statistics;
  inner.ok(localWriteErrors + localFlushErrors > 0, 'and counts it');
}

/** Without a peer a sector that cannot be read is an error there and nowhere else. */
async function readErrorAlone(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const disk = await FailingDisk.under(lab, h1);
  const load = new Load(lab, { size: 16 * MiB, raw: true });
  await lab.bringUp();
  await load.fill(h1);
  await lab.settle();
  await h2.stop();
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  const { dataOffset } = h1.dump().superblock;
  await disk.fail({
    op: 'read', does: 'bad', from: dataOffset + 4 * MiB, to: dataOffset + 4 * MiB + 4096,
  });
  const read = (block: number): Promise<number> =>
    dd(h1, `if=${h1.device}`, 'of=/dev/null', 'iflag=direct', `skip=${block}`, 'count=1');
  inner.not(await read(1024), 0, 'the application gets the error');
  inner.equal(await read(1025), 0, 'the rest can be read');
  inner.equal((await h1.status()).status, 'degraded', 'the copy is kept');
  inner.equal((await h1.status()).statistics.localReadErrors, 1);
  await disk.repair();
  inner.match(await load.check(h1), { lost: 0 });
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

/**
 * The thread of a worker does small writes to a block device itself, and must wait for no disk:
 * the peer would miss it after `timeout`.
 */
async function goesOnTalking(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const load = new Load(lab, { size: 16 * MiB, raw: true });
  const disks = [
    await FailingDisk.under(lab, h1, 'block device'),
    await FailingDisk.under(lab, h2, 'block device'),
  ];
  await lab.bringUp();
  await load.fill(h1);
  await lab.settle();
  const connected = async (): Promise<unknown> =>
    (await Promise.all([h1.status(), h2.status()])).map(({ status }) => status);
  for (const [index, disk] of disks.entries()) {
    const running = load.start(h1, 60_000);
    await running.more(100);
    await disk.fail({ op: 'any', does: 'hang' });
    const seen: unknown[] = [];
    for (let wait = 0; wait < 4 * timeout; wait++) {
      await sleep(1000);
      seen.push(await connected());
    }
    inner.ok((await disk.counts()).held > 0, 'it hangs');
    inner.same(seen, seen.map(() => ['complete', 'complete']), `the disk of h${index + 1} hangs`);
    await disk.repair();
    await running.more(100);
    inner.equal((await running.finish()).error, null, 'the application saw no error');
  }
  inner.match(await load.check(h1), { lost: 0 });
}

t.setTimeout(290_000);
const sizes = [size, size] as const;
await pairTest(t, 'failing disk: the fixture does what it says', { sizes }, obeys);
await pairTest(t, 'failing disk: the fixture hangs, and goes on', { sizes }, hangs);
for (const op of ['write', 'flush'] as const) {
  await pairTest(t, `failing disk: a secondary whose disk fails (${op})`, { sizes, timeout },
    (inner, lab) => secondaryFails(inner, lab, op));
}
await pairTest(t, 'failing disk: a bad sector without a peer', { sizes, timeout },
  readErrorAlone);
await pairTest(t, 'failing disk: a block device hangs, the nodes go on talking', {
  sizes, timeout,
}, goesOnTalking);
