/**
 * Goal: `hastctl switchover` from either node changes the primary with its mount, and where the
 * other node cannot take over, the former state is there again; never are both primary.
 */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { checksums, pairTest, writeFile } from '../fixtures/e2e-lab.ts';

const refused = 77;
const name = resourceName;

async function begin(lab: Lab): Promise<void> {
  for (const node of lab.nodes) {
    await node.control('create', name);
    await node.start();
  }
  await lab.h2.control('role', 'secondary', name);
  await lab.h1.control('up', name);
  await lab.settle();
}

async function isMounted(node: LabNode): Promise<boolean> {
  return (await node.run(['mountpoint', '-q', node.mountPoint])).code === 0;
}

/** The one node that is primary has it mounted, the other one is secondary. */
async function stands(test: Test, primary: LabNode, other: LabNode, what: string): Promise<void> {
  test.equal((await primary.status()).role, 'primary', what);
  test.equal((await other.status()).role, 'secondary', what);
  test.same([await isMounted(primary), await isMounted(other)], [true, false], what);
}

async function bothWays(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await begin(lab);
  await writeFile(h1, 'file', '3M');
  const sums = await checksums(h1);
  const there = await h1.hastctl('switchover', name);
  test.equal(there.code, 0, there.stderr);
  test.match(there.stdout, /^shared: unmount [^]*\nshared: role secondary [^]*\npeer: shared: r/);
  test.match(there.stdout, /\npeer: shared: mount [^]*\nshared: pause +\d+\.\d\d s\n$/);
  test.comment(there.stdout);
  await stands(test, h2, h1, 'from the primary');
  test.equal(await checksums(h2), sums);
  await writeFile(h2, 'second', '1M');
  await lab.settle();

  const back = await h1.hastctl('switchover', name);
  test.equal(back.code, 0, `asked on the secondary: ${back.stderr}`);
  test.match(back.stdout, /peer: shared: unmount [^]*shared: peer hands over/);
  test.match(back.stdout, /peer: shared: pause /, 'the pause is told here too');
  await stands(test, h1, h2, 'from the secondary');
  await lab.settle();

  const json = await h1.hastctl('switchover', '--json', name);
  test.equal(json.code, 0, json.stderr);
  const told = JSON.parse(json.stdout) as { pauseSeconds: number; steps: { step: string }[] };
  test.match(told, { schema: 1, name, error: null });
  test.ok(told.pauseSeconds > 0);
  test.same(told.steps.map(({ step }) => step),
    ['unmount', 'role secondary', 'peer is primary', 'pause']);
  await stands(test, h2, h1, 'as JSON');
  await h2.control('down', name);
  const neither = await h2.hastctl('switchover', name);
  test.equal(neither.code, refused);
  test.match(neither.stderr, 'neither node is known to be primary; try: hastctl up shared');
  await lab.settle();
  await lab.compare();
}

async function inUse(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await begin(lab);
  const user = spawn('sleep', ['60'], { cwd: h1.mountPoint, stdio: 'ignore' });
  test.teardown(() => user.kill('SIGKILL'));
  for (const node of [h1, h2]) {
    const { code, stderr } = await node.hastctl('switchover', name);
    test.equal(code, refused, node.name);
    test.match(stderr, `sleep (pid ${user.pid}) works in it`, `told on ${node.name}`);
    await stands(test, h1, h2, 'nothing was changed');
  }
}

/** A file stands where the peer would mount: it becomes primary, cannot mount, and leaves again. */
async function peerFails(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await begin(lab);
  await writeFile(h1, 'file', '1M');
  const sums = await checksums(h1);
  fs.rmdirSync(h2.mountPoint);
  fs.writeFileSync(h2.mountPoint, 'in the way');
  const failed = await h1.hastctl('switchover', name);
  test.equal(failed.code, refused);
  test.match(failed.stderr, /the peer did not take over: .*cannot be used: ENOTDIR/);
  test.match(failed.stderr, 'this node is primary again');
  await stands(test, h1, h2, 'taken back');
  test.equal(await checksums(h1), sums);
  await lab.settle();
  const asked = await h2.hastctl('switchover', name);
  test.equal(asked.code, refused, 'and where the other node asked');
  test.match(asked.stderr, 'this node is primary again');
  await stands(test, h1, h2, 'taken back');

  await lab.settle();
  fs.rmSync(h2.mountPoint);
  test.equal((await h1.hastctl('switchover', name)).code, 0, 'mended');
  await stands(test, h2, h1, 'mended');
}

async function notPossible(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  for (const node of lab.nodes) await node.control('create', name);
  await h1.start();
  await h2.start({ HAST_FEATURES: 'remote,numbers' });
  await h2.control('role', 'secondary', name);
  await h1.control('up', name);
  await lab.settle();
  const old = await h1.hastctl('switchover', name);
  test.equal(old.code, refused, 'the peer does not know it');
  test.match(old.stderr, 'of a release without it; try: hastctl upgrade on both');
  await stands(test, h1, h2, 'nothing was changed');
  await lab.cut();
  await h1.untilStatus('degraded', ({ status }) => status === 'degraded', 30_000);
  const alone = await h1.hastctl('switchover', name);
  test.equal(alone.code, refused);
  test.match(alone.stderr, 'the pair is not complete (degraded');
  test.ok(await isMounted(h1));
  await lab.heal();
}

/**
 * The other node dies after the primary has left. Whether it was promoted before cannot be known
 * here: that it is off must be said.
 */
async function peerDies(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await begin(lab);
  const over = h1.hastctl('switchover', name);
  await h1.untilStatus('secondary', ({ role }) => role === 'secondary');
  await h2.kill();
  const { code, stderr } = await over;
  test.not(code, 0);
  const { role } = await h1.status();
  test.equal(role, 'secondary');
  test.match(stderr, /did not take over: .*; and here: .*hastctl peer-gone|no answer from/);
  await h1.control('peer-gone', name);
  const up = await h1.hastctl('up', name);
  test.equal(up.code, 0, up.stderr);
  test.ok(await isMounted(h1));
  await h2.clearRemains();
  await h2.start();
  await h2.control('role', 'secondary', name);
  await lab.settle();
  await stands(test, h1, h2, 'the pair is whole again');
}

const mount = ['filesystem ext4', 'options noatime', 'mkfs on'];
const options = { mount, boundMs: 150_000 };

void pairTest(t, 'switchover: from the primary and from the secondary', options, bothWays);
void pairTest(t, 'switchover: refused while the file system is in use', options, inUse);
void pairTest(t, 'switchover: the peer cannot mount', options, peerFails);
void pairTest(t, 'switchover: not possible now', options, notPossible);
void pairTest(t, 'switchover: the peer dies in the middle', options, peerDies);
