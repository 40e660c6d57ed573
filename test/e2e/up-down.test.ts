/**
 * Goal: `hastctl up` and `down` bring a resource from nothing to mounted and back, say each step,
 * may be repeated, and refuse with the reason where something stands against it.
 */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { until } from '../../cli/lab-run.ts';
import { checksums, pairTest, writeFile } from '../fixtures/e2e-lab.ts';

const refused = 77;
const name = resourceName;

async function createBoth(lab: Lab): Promise<void> {
  for (const node of lab.nodes) {
    await node.control('create', name);
    await node.start();
  }
  await lab.h2.control('role', 'secondary', name);
}

/** Words of the steps, in order, each with `already` where nothing was done. */
function stepsOf(stdout: string): string[] {
  return stdout.split('\n').filter((line) => line.startsWith(`${name}: `)).map((line) => {
    const [, step = '', time = ''] =
      /^[^:]+: (.+?) +(already|\d+\.\d\d s)(?:  .*)?$/.exec(line) ?? [];
    return time === 'already' ? `${step} already` : step;
  });
}

/** What is mounted there, as `SOURCE TYPE OPTIONS`; empty for nothing. */
async function mounted(node: LabNode): Promise<string> {
  const { stdout } = await node.run(['findmnt', '-rno', 'FSTYPE,OPTIONS', node.mountPoint]);
  return stdout.trim();
}

async function upAndDown(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await createBoth(lab);
  fs.rmdirSync(h1.mountPoint);
  const first = await h1.hastctl('up', name);
  test.equal(first.code, 0, first.stderr);
  test.same(stepsOf(first.stdout), [
    'role primary', 'device', 'file system', 'fsck', 'mountpoint', 'mount',
  ], first.stdout);
  test.match(first.stdout, /file system +\d+\.\d\d s  ext4, made: the volume was empty/);
  test.match(await mounted(h1), /^ext4 .*noatime/);
  test.match(fs.readFileSync('/run/mount/utab', 'utf8'), '_netdev', 'known to systemd');
  await writeFile(h1, 'file', '2M');
  const sums = await checksums(h1);

  const again = await h1.hastctl('up', name);
  test.same([again.code, again.stderr], [0, '']);
  test.same(stepsOf(again.stdout), ['role primary already', 'device', 'mount already']);

  const other = await h2.hastctl('up', name);
  test.equal(other.code, refused, 'the peer is primary');
  test.match(other.stderr, /^hastctl: error: shared: .*peer is primary/);
  test.equal(other.stdout, '');

  await inUse(test, h1);
  const down = await h1.hastctl('down', name);
  test.same([down.code, down.stderr], [0, '']);
  test.same(stepsOf(down.stdout), ['unmount', 'role secondary']);
  test.equal(await mounted(h1), '');
  const downAgain = await h1.hastctl('down', name);
  test.same(stepsOf(downAgain.stdout), ['unmount already', 'role secondary already']);

  await h2.untilStatus('complete', ({ status }) => status === 'complete');
  const over = await h2.hastctl('up', name, '--json');
  test.equal(over.code, 0, over.stderr);
  test.match(JSON.parse(over.stdout), [{
    schema: 1, name, error: null, steps: [
      { step: 'role primary', already: false }, { step: 'device' },
      { step: 'file system', already: true, note: 'ext4' },
      { step: 'fsck', note: 'clean' }, { step: 'mount', already: false },
    ],
  }]);
  test.equal(await checksums(h2), sums);
  await h2.control('down', name);
}

/** A process that works in the mount, and one that has a file open there. */
async function inUse(test: Test, node: LabNode): Promise<void> {
  const file = path.join(node.mountPoint, 'file');
  const fd = fs.openSync(file, 'r');
  const children = [
    spawn('sleep', ['60'], { cwd: node.mountPoint, stdio: 'ignore' }),
    spawn('sleep', ['60'], { stdio: [fd, 'ignore', 'ignore'] }),
  ];
  fs.closeSync(fd);
  test.teardown(() => { for (const child of children) child.kill('SIGKILL'); });
  const [works, has] = children;
  if (works === undefined || has === undefined) throw new Error('no children');
  const { code, stderr } = await node.hastctl('down', name);
  test.equal(code, refused);
  test.match(stderr, `${node.mountPoint} is in use`);
  test.match(stderr, `sleep (pid ${works.pid}) works in it`);
  test.match(stderr, `sleep (pid ${has.pid}) has ${file} open`);
  test.match(stderr, 'try: end what uses it, then: hastctl down shared');
  test.match(await mounted(node), 'ext4', 'nothing was changed');
  test.equal((await node.status()).role, 'primary');
  for (const child of children) {
    child.kill('SIGKILL');
    await until('the end of a process', 5000, () => child.signalCode ?? undefined);
  }
}

async function whatIsThere(test: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  await createBoth(lab);
  const none = await h1.hastctl('up', name);
  test.equal(none.code, refused, 'mkfs is off');
  test.match(none.stderr, `there is no file system on ${h1.device} (the role is primary, nothing`);
  test.match(none.stderr, `try: mkfs.ext4 ${h1.device}, if nothing on it is needed`);

  lab.configure({ mount: ['filesystem ext4', 'mkfs on'] });
  const volume = fs.openSync(h1.device, 'r+');
  fs.writeSync(volume, Buffer.from('nobody knows what this is'), 0, 25, 4096);
  fs.fsyncSync(volume);
  fs.closeSync(volume);
  const unknown = await h1.hastctl('up', name);
  test.equal(unknown.code, refused);
  test.match(unknown.stderr, 'but it is not empty');

  await h1.succeed(['mkswap', h1.device]);
  const swap = await h1.hastctl('up', name);
  test.equal(swap.code, refused);
  test.match(swap.stderr, `${h1.device} holds swap, the configuration says ext4`);

  await h1.succeed(['wipefs', '--all', h1.device]);
  await h1.succeed(['mkfs.ext4', '-q', '-F', h1.device]);
  // As a crash leaves it: to be checked before it is mounted.
  await h1.succeed(['debugfs', '-w', '-R', 'ssv state 2', h1.device]);
  const checked = await h1.hastctl('up', name);
  test.equal(checked.code, 0, checked.stderr);
  test.match(checked.stdout, /fsck +\d+\.\d\d s  repaired/);

  await h1.unmount();
  const elsewhere = path.join(lab.directory, 'h1', 'elsewhere');
  fs.mkdirSync(elsewhere);
  await h1.succeed(['mount', h1.device, elsewhere]);
  const twice = await h1.hastctl('up', name);
  test.match(twice.stderr, `${h1.device} is mounted on ${elsewhere}`);
  await h1.succeed(['umount', elsewhere]);
  await h1.succeed(['mount', '-t', 'tmpfs', 'tmpfs', h1.mountPoint]);
  const taken = await h1.hastctl('up', name);
  test.match(taken.stderr, `tmpfs (tmpfs) is mounted on ${h1.mountPoint} already`);
  await h1.succeed(['umount', h1.mountPoint]);
  fs.writeFileSync(path.join(h1.mountPoint, 'hidden'), '');
  const hides = await h1.hastctl('up', name);
  test.match(hides.stdout, `${h1.mountPoint} holds files, which are hidden`);
  await h1.control('down', name);
}

/** A mount whose device is gone is not taken for the new one. */
async function lostDevice(test: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  await createBoth(lab);
  await h1.control('up', name);
  await h1.control('role', 'init', '--force', name);
  const up = await h1.hastctl('up', name);
  test.equal(up.code, refused);
  test.match(up.stderr, `what is mounted on ${h1.mountPoint} lost its device`);
  test.equal((await h1.hastctl('down', name)).code, 0, 'down clears it away');
  test.equal(await mounted(h1), '');
  test.equal((await h1.hastctl('up', name)).code, 0);
  await h1.control('down', name);
}

async function several(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const local = (one: string): string => path.join(lab.directory, one);
  for (const one of ['bad', 'plain']) {
    fs.writeFileSync(local(one), '');
    fs.truncateSync(local(one), 40 * MiB);
  }
  const extra = (one: string, more = ''): string => `resource ${one} { local ${local(one)} ${more}
    on h1 { remote none } on h2 { remote none local ${local(one)}-2 } }`;
  lab.configure({ global: [extra('bad', 'mount { filesystem xfs mountpoint /x-none }'),
    extra('plain')] });
  await createBoth(lab);
  await h1.control('create', 'bad', 'plain');
  const up = await h1.hastctl('up', 'all');
  test.equal(up.code, refused);
  test.match(up.stderr, 'bad: there is no file system');
  test.match(up.stdout, /^bad: role primary.*\nbad: device.*\nplain: role primary.*\nplain: dev/);
  test.match(up.stdout, '2 of 3 up; failed: bad');
  test.notOk(fs.existsSync('/x-none'));
  const down = await h1.hastctl('down', 'all');
  test.equal(down.code, 0, down.stderr);
  test.match(down.stdout,
    /^shared: unmount .*\nshared: role s.*\nplain: role s.*\nbad: unmount +already/);
  test.equal((await h1.hastctl('up', 'none')).code, 65);
  await h2.stop();
  const dead = await h2.hastctl('down', name);
  test.equal(dead.code, 71, 'no daemon');
  test.match(dead.stderr, 'no hastd answers');
}

const mount = ['filesystem ext4', 'options noatime', 'mkfs on'];

void pairTest(t, 'up, down: from nothing to mounted and back', { mount }, upAndDown);
void pairTest(t, 'up: what is on the volume, and in the place', {
  mount: ['filesystem ext4'], needs: ['debugfs', 'mkswap'],
}, whatIsThere);
void pairTest(t, 'up, down: after the device was taken away', { mount }, lostDevice);
void pairTest(t, 'up, down: all', { mount }, several);
void pairTest(t, 'up, down: xfs', {
  mount: ['filesystem xfs', 'mkfs on'], needs: ['mkfs.xfs'], sizes: [400 * MiB, 400 * MiB],
}, async (test, lab) => {
  await createBoth(lab);
  const up = await lab.h1.hastctl('up', name);
  test.same(stepsOf(up.stdout), ['role primary', 'device', 'file system', 'mount'], up.stderr);
  await lab.h1.control('down', name);
});
