/**
 * Goal: hastd may die, be restarted and be stopped while its workers serve mounted volumes: the
 * workers go on, and the next hastd takes them over.
 * Method: fio writes and verifies on ext4 while the parent is killed, on either node, and now and
 * then a worker after it. HAST_KILLS=n kills the parent n times (4 by default).
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { isAlive } from '../../lib/daemon/process-state.ts';
import { sleep, until } from '../../cli/lab-run.ts';
import {
  checkFilesystem, compareAtRest, killPart, reload, servedLines, untilServed,
} from '../fixtures/e2e-kill.ts';
import { makeFilesystem, pairTest, writeFile } from '../fixtures/e2e-lab.ts';
import { VerifyingLoad } from '../fixtures/e2e-verify.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const kills = Number(process.env['HAST_KILLS'] ?? 4);
const timeout = 3;
const bothKills = Math.max(3, Math.round(kills / 2));
const root = path.resolve(import.meta.dirname, '../../..');
/** The load of the longest test. */
const loadBoundMs = 60_000 + kills * 8000;


/** Kills the parent; its worker serves without it, and the next parent takes it over. */
async function killParent(inner: Test, node: LabNode, alone: number): Promise<void> {
  const { worker, role } = await node.status();
  await killPart(node, 'parent', worker);
  await sleep(alone);
  inner.ok(worker !== null && isAlive(worker), 'the worker goes on');
  await node.start();
  inner.match(await node.status(), { worker, role }, 'and is taken over');
}

async function killWorker(node: LabNode): Promise<void> {
  const before = servedLines(node).length;
  await killPart(node, 'worker', (await node.status()).worker);
  await untilServed(node, before);
}

async function parentsDie(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();
  const load = await VerifyingLoad.start(lab, h1, loadBoundMs);
  for (let kill = 1; kill <= kills; kill++) {
    await killParent(inner, h1, (kill * 397) % 900);
    await killParent(inner, h2, (kill * 593) % 900);
    if (kill % 2 === 1) await killWorker(h1);
  }
  // The connection is lost while an adopted worker serves: it takes the next one.
  await killPart(h2, 'worker', (await h2.status()).worker);
  await lab.settle();
  await load.check(inner);
  await lab.settle();
  await inner.resolves(compareAtRest(lab, h1), 'the copies are equal, the file system is sound');
  await h1.control('role', 'secondary', resourceName);
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  await h2.unmount();
}

async function stops(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();

  inner.comment('keep: hastd ends, the worker goes on');
  const load = await VerifyingLoad.start(lab, h1, loadBoundMs);
  await sleep(500);
  const { worker } = await h1.status();
  await h1.stop();
  inner.match(h1.log(), /its worker goes on serving: start hastd to take it over/);
  await sleep(1000);
  inner.not((await h1.hastctl('status')).code, 0, 'nobody answers');
  await h1.start();
  inner.match(await h1.status(), { role: 'primary', worker });
  await load.check(inner);

  inner.comment('refuse: hastd goes on');
  await reload(lab, ['on-stop refuse']);
  process.kill(h1.pid ?? 0, 'SIGTERM');
  await until('the refusal', 10_000, () =>
    h1.log().includes('hastd does not stop: the device is in use') || undefined);
  inner.match(await h1.status(), { role: 'primary', status: 'complete' });

  inner.comment('unmounted while no hastd was there');
  await reload(lab, ['on-stop keep']);
  await h1.stop();
  await h1.unmount();
  await h1.start();
  await h1.control('role', 'secondary', resourceName);
  await h1.control('role', 'primary', resourceName);
  await h1.mount('-o', 'noatime');

  inner.comment('force: the device is taken away');
  await reload(lab, ['on-stop force']);
  await h1.stop();
  inner.notOk(fs.existsSync(h1.device), 'the device is gone');
  await h1.unmount();
}

/** The parent is dead, and then something else happens. */
async function meanwhile(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'file', '1M');

  inner.comment('another hastd by mistake takes no worker from the one that lives');
  const other = await h1.run(['hastd', '-P', path.join(lab.directory, 'other.pid')], 30_000);
  inner.not(other.code, 0);
  inner.match(other.stderr, /another hastd answers/);
  inner.match(await h1.status(), { role: 'primary', status: 'complete' });

  inner.comment('the worker dies as well: the device is lost, and status says so');
  const { worker } = await h1.status();
  await killPart(h1, 'node', worker);
  await h1.run(['umount', '-l', h1.mountPoint]);
  await h1.start();
  inner.match(await h1.status(), { role: 'init', detail: /ended together with hastd/ });
  await h1.control('role', 'primary', resourceName);
  await h1.mount('-o', 'noatime');

  inner.comment('unmounted by hand meanwhile');
  await h1.unmount();
  await killPart(h1, 'parent', (await h1.status()).worker);
  await h1.succeed(['losetup', '-d', fs.readlinkSync(h1.device)]);
  await h1.start();
  const lost = await h1.untilStatus('secondary', ({ role }) => role === 'secondary');
  inner.equal(lost.role, 'secondary');

  inner.comment('both parents are dead, and the secondary is asked to serve afterwards');
  for (const node of lab.nodes) await killPart(node, 'parent', (await node.status()).worker);
  await h2.start();
  inner.match(await h2.status(), { role: 'secondary' });
  await h2.control('role', 'primary', resourceName);
  await h1.start();
  await lab.settle();
  inner.match(await h2.status(), { role: 'primary', status: 'complete' });
  await h2.mount('-o', 'noatime');
  await checkFilesystem(h2).catch(() => undefined);
  await h2.unmount();
}

/** Under a service manager: hastd and the worker die together, and the device is not lost. */
async function bothDie(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  await lab.bringUp();
  await h1.stop();
  const file = (name: string): string => path.join(lab.directory, name);
  const events = (): string[] => fs.existsSync(file('events'))
    ? fs.readFileSync(file('events'), 'utf8').trimEnd().split('\n') : [];
  const manager = h1.onNode([
    'python3', path.join(root, 'test/fixtures/service-manager.py'), file('notify'),
    file('events'), path.join(h1.rundir, 'hastd.log'), file('ended'),
    'env', ...plainNode, path.join(root, 'dist/cli/hastd.js'), '-F',
  ], 150_000);
  manager.catch(() => undefined);
  await until('hastd', 20_000, () => events().includes('ready') || undefined);
  await h1.control('role', 'primary', resourceName);
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();
  const [kept] = events().filter((line) => line.startsWith('keep'));
  inner.match(kept, /^keep fuse-[0-9a-f]{16} FDPOLL=0$/);
  const load = await VerifyingLoad.start(lab, h1, loadBoundMs);
  for (let kill = 1; kill <= bothKills; kill++) {
    await sleep(400 + (kill * 397) % 700);
    const served = servedLines(h1).length;
    await killPart(h1, 'node', (await h1.status()).worker);
    await untilServed(h1, served);
  }
  inner.comment('hastd is stopped, and the device is kept');
  const { worker } = await h1.status();
  const count = (event: string): number => events().filter((line) => line === event).length;
  const lives = (): number => count('ready');
  let before = lives();
  process.kill(h1.pid ?? 0, 'SIGTERM');
  await until('the next hastd', 30_000, () => lives() > before || undefined);
  inner.match(await h1.status(), { role: 'primary', worker });
  inner.comment('hastd hangs: the watchdog ends it, and the next one has the device');
  await until('a sign of life', 20_000, () => count('watchdog') > 0 || undefined);
  inner.equal(count('too late'), 0, 'in time');
  before = lives();
  process.kill(h1.pid ?? 0, 'SIGSTOP');
  await until('the next hastd', 60_000, () => lives() > before || undefined);
  inner.equal(count('too late'), 1);
  inner.match(await h1.status(), { role: 'primary', worker });
  await load.check(inner);
  await lab.settle();
  await inner.resolves(compareAtRest(lab, h1), 'the copies are equal, the file system is sound');
  await h1.control('role', 'secondary', resourceName);
  inner.match(events().filter((line) => line.startsWith('remove')), [/^remove fuse-/]);
  fs.writeFileSync(file('ended'), '');
  await h1.stop();
  await manager;
}

t.setTimeout(400_000);
await pairTest(t, `parent: killed ${kills} times on each node under load`, {
  needs: ['fio', 'e2fsck'], timeout, boundMs: 60_000 + loadBoundMs,
}, parentsDie);
await pairTest(t, 'parent: SIGTERM with the volume mounted', {
  needs: ['fio', 'e2fsck'], timeout,
}, stops);
await pairTest(t, 'parent: dead, and something else happens', { timeout }, meanwhile);
await pairTest(t, 'parent: dies together with the worker, under a service manager', {
  needs: ['fio', 'e2fsck', 'python3'], timeout,
}, bothDie);
