/**
 * Goal: a primary's worker that is killed is replaced under a mounted file system, and nobody above
 * notices more than a pause.
 * Method: fio writes and verifies on ext4, all the time; the worker is killed about once a second,
 * now and then its successor before it serves. HAST_KILLS=n kills in each mode (5 by default).
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep, until } from '../../cli/lab-run.ts';
import { holders } from '../../lib/loop/holders.ts';
import { decodeInflight } from '../../lib/format/inflight.ts';
import {
  checkFilesystem, killPart, linesOf, servedLines, untilServed,
} from '../fixtures/e2e-kill.ts';
import {
  checksums, makeFilesystem, pairTest, sentBytes, writeFile,
} from '../fixtures/e2e-lab.ts';
import { VerifyingLoad } from '../fixtures/e2e-verify.ts';

const kills = Number(process.env['HAST_KILLS'] ?? 5);
const killsBoundMs = 40_000 + kills * 6000;
const modes = ['fullsync', 'memsync', 'async'];
const timeout = 3;

/** Kills the worker that is there now, whatever it does; its successor serves at the end. */
async function killOnce(node: LabNode, twice: boolean): Promise<void> {
  const before = servedLines(node).length;
  let last: number | null = null;
  for (let round = 0; round < (twice ? 2 : 1); round++) {
    // hastd may not know yet that the last one is dead.
    const pid: number = await until('a worker', 20_000, async () => {
      const { worker } = await node.status();
      return worker === null || worker === last ? undefined : worker;
    });
    last = pid;
    await killPart(node, 'worker', pid);
  }
  await untilServed(node, before);
}

async function killed(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();
  const load = await VerifyingLoad.start(lab, h1, killsBoundMs);
  await sleep(1000);
  for (let kill = 1; kill <= kills; kill++) {
    await killOnce(h1, kill % 5 === 0);
    inner.match(await h1.status(), { role: 'primary' });
    await sleep(300 + (kill * 397) % 800);
  }
  const runs = await load.check(inner);
  const pauses = servedLines(h1).map((line) => Number(/"pauseMs":(\d+)/.exec(line)?.[1]));
  inner.comment(`${kills} kills, ${pauses.length} workers served, ${runs} runs of fio; pause ` +
    `${Math.min(...pauses)} to ${Math.max(...pauses)} ms`);
  await h1.unmount();
  await lab.settle();
  await checkFilesystem(h1);
  await inner.resolves(lab.compare(), 'the copies are equal');
  inner.equal((await h2.status()).role, 'secondary');
  await h1.control('role', 'secondary', resourceName);
  await lab.settle();
}

/** The peer is gone, then promoted, while the worker is dead: each ends in a known state. */
async function withoutPeer(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'file', '2M');
  const sums = await checksums(h1);

  inner.comment('the peer is dead too: it goes on alone, after some attempts');
  await lab.settle();
  await h2.kill();
  await killOnce(h1, false);
  await writeFile(h1, 'more', '1M');
  inner.match(await h1.status(), { role: 'primary', status: 'degraded' });

  inner.comment('the peer comes back');
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();

  inner.comment('the device is given up by force while the worker is dead');
  await h2.control('role', 'init', resourceName);
  await h1.untilStatus('the loss', ({ connection }) => connection !== 'connected');
  const { worker } = await h1.status();
  await killPart(h1, 'worker', worker);
  await h1.untilStatus('the wait', ({ role }) => role === 'primary');
  await h1.control('role', 'secondary', '--force', resourceName);
  inner.match(await h1.status(), { role: 'secondary' });
  await h1.unmount();
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  await h1.control('role', 'primary', resourceName);
  await h1.mount('-o', 'noatime');
  inner.match(await checksums(h1), sums.split('\n')[0] ?? '');

  inner.comment('unmounted by hand: the role is init');
  await h1.unmount();
  await h1.succeed(['losetup', '-d', fs.readlinkSync(h1.device)]);
  await h1.succeed(['umount', path.join(h1.rundir, resourceName)]);
  const { detail } = await h1.untilStatus('init', ({ role }) => role === 'init');
  inner.match(detail, /unmounted, or its connection aborted/);
}

/** A read that bypasses the caches, under way when this returns. */
async function reading(node: LabNode): Promise<{ code: Promise<number> }> {
  const result = node.run(['dd', `if=${node.device}`, 'of=/dev/null', 'bs=1M', 'count=4',
    'iflag=direct', 'status=none'], 60_000).then(({ code }) => code);
  result.catch(() => undefined);
  const device = fs.realpathSync(node.device);
  await until('dd', 10_000, async () => (await holders(device)).length > 0 || undefined);
  return { code: result };
}

/** Nobody can know yet whether it may go on: requests wait, and every way out of it works. */
async function waits(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  const kill = async (): Promise<void> => {
    await h2.control('role', 'init', resourceName);
    await h1.untilStatus('the loss', ({ connection }) => connection !== 'connected');
    await killPart(h1, 'worker', (await h1.status()).worker);
    const { role, detail } = await h1.untilStatus('the wait', (now) => /alive/.test(now.detail));
    inner.equal(role, 'primary');
    inner.match(detail, /requests wait: .*hastctl role secondary --force/);
  };
  inner.comment('the peer comes back');
  await kill();
  const first = await reading(h1);
  inner.not((await h1.hastctl('role', 'init', resourceName)).code, 0, 'the device is in use');
  await h2.control('role', 'secondary', resourceName);
  inner.equal(await first.code, 0, 'what waited is answered');
  await lab.settle();

  inner.comment('the connection of the mount is aborted');
  await kill();
  const second = await reading(h1);
  const volume = path.join(h1.rundir, resourceName);
  await h1.run(['umount', '-i', '-f', volume]);
  inner.not(await second.code, 0, 'its user gets an error');
  await h2.control('role', 'secondary', resourceName);
  await h1.untilStatus('init', ({ role }) => role === 'init');

  inner.comment('aborted while a worker serves');
  await h1.control('role', 'primary', resourceName);
  await lab.settle();
  await h1.run(['umount', '-i', '-f', volume]);
  const { detail } = await h1.untilStatus('init', ({ role }) => role === 'init');
  inner.match(detail, /unmounted, or its connection aborted/);
  await h1.control('role', 'primary', resourceName);
  await lab.settle();
  await kill();
  await h1.control('role', 'init', resourceName);
  inner.match(await h1.status(), { role: 'init', worker: null }, 'unused, it needs no force');
}

/** Much is marked when the worker dies: only what was under way is copied. */
function copiesLittle(mode: string): (inner: Test, lab: Lab) => Promise<void> {
  return async (inner, lab) => {
    const { h1 } = lab;
    await lab.bringUp();
    const fill = ['fio', '--name=fill', `--filename=${h1.device}`, '--rw=write', '--bs=256k',
      '--size=100M', '--direct=1', '--ioengine=libaio', '--iodepth=8', '--minimal'];
    await h1.succeed(fill, 60_000);
    // In async the tail is under way, and would be copied.
    const { worker } = await h1.untilStatus('what was sent is executed', ({ statistics }) =>
      statistics.queueSend === 0);
    const before = await sentBytes(lab, h1);
    const from = performance.now();
    await killPart(h1, 'worker', worker);
    await h1.untilStatus('a successor', (now) => now.worker !== null && now.worker !== worker);
    await h1.untilStatus('complete', ({ status }) => status === 'complete', 20_000);
    const seconds = (performance.now() - from) / 1000;
    const sent = (await sentBytes(lab, h1) - before) / MiB;
    inner.comment(`${mode}: complete again after ${seconds.toFixed(1)} s, ` +
      `${sent.toFixed(2)} MiB sent`);
    inner.ok(sent < 5, `${sent.toFixed(2)} MiB are sent`);
    inner.ok(seconds < 15, `${seconds.toFixed(1)} s`);
    inner.match(linesOf(h1, /left a table of what was under way/), [/"blocks":\d+/]);

    inner.comment('under load, twice in a row');
    const load = h1.run([...fill.slice(0, 3), '--rw=randwrite', '--bs=64k', '--size=100M',
      '--direct=1', '--ioengine=libaio', '--iodepth=16', '--time_based', '--runtime=6',
      '--minimal'], 60_000);
    await sleep(2500);
    await killOnce(h1, true);
    await h1.untilStatus('complete', ({ status }) => status === 'complete', 20_000);
    inner.equal((await load).code, 0, 'fio saw no error');
    const tables = linesOf(h1, /left a table|left no table/).map((line) =>
      JSON.parse(line) as { blocks: number | null; marked: number });
    inner.comment(tables.map(({ blocks, marked }) => `${blocks} of ${marked}`).join(', '),
      'marked blocks were under way');
    const most = Math.max(...tables.map(({ marked }) => marked)) * 4096 / MiB;
    inner.ok(most > 16, `${most} MiB were marked`);
    await lab.settle();
    await inner.resolves(lab.compare(), 'the copies are equal');
    await h1.control('role', 'secondary', resourceName);
    await lab.settle();
    const table = fs.readFileSync(path.join(h1.rundir, '.workers', `${resourceName}.inflight`));
    inner.equal(decodeInflight(table), null, 'a secondary has an empty one');
  };
}

t.setTimeout(400_000 + modes.length * (killsBoundMs + 60_000));
for (const mode of modes) {
  await pairTest(t, `lifecycle: ${mode}: the primary's worker is killed ${kills} times`, {
    needs: ['fio', 'e2fsck'], timeout, sizes: [96 * MiB, 96 * MiB],
    resource: [`replication ${mode}`], boundMs: killsBoundMs + 60_000,
  }, killed);
}
await pairTest(t, 'lifecycle: the worker is killed while the peer is not there', { timeout },
  withoutPeer);
await pairTest(t, 'lifecycle: nobody can know whether it may go on', { timeout }, waits);
for (const mode of modes) {
  await pairTest(t, `lifecycle: ${mode}: a successor copies what was under way`, {
    needs: ['fio'], timeout, resource: [`replication ${mode}`],
  }, copiesLittle(mode));
}
