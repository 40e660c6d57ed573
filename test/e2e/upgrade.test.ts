/**
 * Goal: `hastctl upgrade` brings what is installed now under a mounted file system, without an
 * error, with a pause of less than a second, and one node after the other.
 * Method: fio writes and verifies on ext4; the package is a copy of this build, of which a later
 * release is made by its version, and a broken one by a syntax error.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep } from '../../cli/lab-run.ts';
import { compareAtRest } from '../fixtures/e2e-kill.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';
import { VerifyingLoad } from '../fixtures/e2e-verify.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const root = path.resolve(import.meta.dirname, '../../..');

interface Upgrade {
  hastd: { before: string; after: string; pid: number };
  results: { name: string; worker: number; release: string; pauseMs: number | null }[];
}

/** What npm installs: the compiled code, and the modules that it uses. */
function install(directory: string): void {
  fs.mkdirSync(path.join(directory, 'dist'), { recursive: true });
  for (const part of ['lib', 'cli']) {
    fs.cpSync(path.join(root, 'dist', part), path.join(directory, 'dist', part), {
      recursive: true,
    });
  }
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(directory, 'node_modules'));
  release(directory, '1.0.0');
}

function release(directory: string, version: string): void {
  const file = path.join(directory, 'package.json');
  const text = fs.readFileSync(path.join(root, 'package.json'), 'utf8');
  fs.writeFileSync(file, JSON.stringify({ ...JSON.parse(text) as object, version }));
}

const argvOf = (directory: string, program: string, ...args: string[]): string[] =>
  ['env', ...plainNode, path.join(directory, 'dist/cli', program),
    ...args];

async function upgrade(node: LabNode, directory: string): Promise<Upgrade> {
  const text = await node.onNode(argvOf(directory, 'hastctl.js', 'upgrade', '--json'), 60_000);
  return JSON.parse(text) as Upgrade;
}

async function upgrades(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const installed = path.join(lab.directory, 'package');
  install(installed);
  await lab.bringUp();
  for (const node of lab.nodes) {
    // The pair of this build makes way for the one that is installed.
    await node.stop();
    await node.onNode(argvOf(installed, 'hastd.js'), 30_000);
  }
  await h2.control('role', 'secondary', resourceName);
  await h1.control('role', 'primary', resourceName);
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();
  inner.match(await h1.status(), { release: '1.0.0' });
  const load = await VerifyingLoad.start(lab, h1, 100_000);
  await sleep(1000);

  release(installed, '1.1.0');
  const pauses: number[] = [];
  for (const node of [h2, h1]) {
    const { pid } = node;
    const former = (await node.status()).worker;
    const { hastd, results: [worker] } = await upgrade(node, installed);
    inner.same(hastd, { before: '1.0.0', after: '1.1.0', pid }, `hastd of ${node.name}`);
    inner.match(worker, { name: resourceName, release: '1.1.0' });
    inner.not(worker?.worker, former, 'another worker');
    inner.match(await node.status(), { worker: worker?.worker, release: '1.1.0' });
    if (worker?.pauseMs != null) pauses.push(worker.pauseMs);
    await lab.settle();
  }
  inner.equal(pauses.length, 1, 'only the primary has users');
  inner.ok(pauses.every((ms) => ms < 20_000), `I/O paused for ${pauses.join()} ms`);

  inner.comment('a release that does not start changes nothing');
  const hastd = path.join(installed, 'dist/cli/hastd.js');
  const good = fs.readFileSync(hastd);
  fs.writeFileSync(hastd, 'this is not the program');
  const before = await h1.status();
  const { code, stderr } = await h1.run(argvOf(installed, 'hastctl.js', 'upgrade'), 60_000);
  inner.not(code, 0);
  inner.match(stderr, /the installed hastd does not start/);
  inner.equal((await h1.status()).worker, before.worker);
  fs.writeFileSync(hastd, good);

  inner.comment('a worker that does not start leaves the present one');
  const workerFile = path.join(installed, 'dist/lib/daemon/worker.js');
  const goodWorker = fs.readFileSync(workerFile);
  fs.writeFileSync(workerFile, 'process.exit(3)');
  const failed = await h1.run(argvOf(installed, 'hastctl.js', 'upgrade'), 60_000);
  inner.not(failed.code, 0);
  inner.match(failed.stderr, /the worker ended/);
  inner.equal((await h1.status()).worker, before.worker);
  fs.writeFileSync(workerFile, goodWorker);

  await load.check(inner);
  await lab.settle();
  await inner.resolves(compareAtRest(lab, h1), 'the copies are equal, the file system is sound');
}

t.setTimeout(200_000);
await pairTest(t, 'upgrade: one node after the other, under load', {
  needs: ['fio', 'e2fsck'], timeout: 3, boundMs: 150_000,
}, upgrades);
