/** Loop devices over plain files: attaching, finding, detaching, and naming who is in the way. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { holders, mountPointsOf } from '../../lib/loop/holders.ts';
import { attachLoop, detachLoop, findLoops, isAttached, loopName } from '../../lib/loop/loop.ts';
import { command, succeed, toolMissing } from '../fixtures/fuse-lab.ts';

const SIZE = 64 * 1024 * 1024;

async function loopsMissing(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'SKIPPED: needs root';
  if (!fs.existsSync('/dev/loop-control')) return 'SKIPPED: no /dev/loop-control';
  return toolMissing('losetup', 'mkfs.ext4', 'unshare');
}

/** The program alone is no use: the kernel has to have it too. */
async function mapperMissing(): Promise<string | null> {
  const { code } = await command('dmsetup', ['version']);
  return code === 0 ? null : 'SKIPPED: no device mapper, or no dmsetup';
}

const missing = await loopsMissing();
const needsLoops = missing === null ? {} : { skip: missing };
const noMapper = missing ?? (await mapperMissing());
const needsMapper = noMapper === null ? {} : { skip: noMapper };

interface Disk {
  file: string;
  device: string;
  directory: string;
}

/** Only what is on that file now: its old device may have become somebody else's. */
async function release(file: string): Promise<void> {
  for (const device of await findLoops(file)) {
    await command('swapoff', [device]);
    await command('umount', ['-q', '-A', device]);
    await detachLoop(device, { file }).catch(() => undefined);
  }
}

/** A loop device on a sparse file, taken down after the test whatever happens. */
async function disk(t: Test, size = SIZE): Promise<Disk> {
  const directory = fs.realpathSync(t.testdir({ mnt: {}, image: '' }));
  const file = path.join(directory, 'image');
  fs.truncateSync(file, size);
  const device = await attachLoop(file);
  t.teardown(() => release(file));
  return { file, device, directory };
}

async function start(t: Test, args: string[]): Promise<ChildProcess> {
  const [file = '', ...rest] = args;
  const child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  // Each says `ready` when it is.
  await once(child.stdout ?? child, 'data');
  // And becomes `sleep` then.
  const name = (): string => fs.readFileSync(`/proc/${child.pid}/comm`, 'utf8').trim();
  for (let round = 0; round < 2000 && name() !== 'sleep'; round++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return child;
}

t.test('loop: attached with direct I/O, found by its file, detached', needsLoops, async (t) => {
  const { file, device } = await disk(t);
  const sys = `/sys/block/${loopName(device)}`;
  t.match(device, /^\/dev\/loop\d+$/);
  t.equal(fs.readFileSync(`${sys}/loop/dio`, 'utf8').trim(), '1');
  t.equal(fs.readFileSync(`${sys}/queue/max_sectors_kb`, 'utf8').trim(), '1024');
  t.equal(fs.readFileSync(`${sys}/size`, 'utf8').trim(), String(SIZE / 512));
  t.equal(await isAttached(device), true);
  t.strictSame(await findLoops(file), [device]);
  t.strictSame(await findLoops(`${file}2`), []);
  t.strictSame(await holders(device), []);
  await detachLoop(device);
  t.equal(await isAttached(device), false);
  t.strictSame(await findLoops(file), []);
});

t.test('loop: detaching what is gone or on another file', needsLoops, async (t) => {
  const { file, device } = await disk(t);
  await detachLoop(device, { file: `${file}2` });
  t.strictSame(await findLoops(file), [device]);
  await detachLoop(device, { file });
  await detachLoop(device, { file });
  t.strictSame(await findLoops(file), []);
});

t.test('loop: read-only, and other sector sizes', needsLoops, async (t) => {
  const { file } = await disk(t);
  const device = await attachLoop(file, { readonly: true, sectorSize: 4096 });
  const queue = `/sys/block/${loopName(device)}`;
  t.equal(fs.readFileSync(`${queue}/ro`, 'utf8').trim(), '1');
  t.equal(fs.readFileSync(`${queue}/queue/logical_block_size`, 'utf8').trim(), '4096');
  t.equal((await findLoops(file)).length, 2);
  await detachLoop(device);
});

t.test('loop: found through links, and after its file was removed', needsLoops, async (t) => {
  const { file, device, directory } = await disk(t);
  const link = `${directory}-link`;
  fs.symlinkSync(path.dirname(directory), link);
  t.teardown(() => fs.unlinkSync(link));
  t.strictSame(await findLoops(path.join(link, path.basename(directory), 'image')), [device]);
  fs.unlinkSync(file);
  t.strictSame(await findLoops(file), [device]);
});

t.test('loop: failures name the file and what losetup said', needsLoops, async (t) => {
  await t.rejects(attachLoop('/nonexistent/file'), {
    code: 'HAST_E_DEVICE',
    message: /cannot attach \/nonexistent\/file: .*No such file/,
  });
  await t.rejects(detachLoop('/dev/sda'), { message: /not a loop device/ });
  t.throws(() => loopName('/tmp/loop1'), { message: /not a loop device/ });
});

t.test('loop: a mount keeps it, here and in another namespace', needsLoops, async (t) => {
  const { device, directory } = await disk(t);
  const mountPoint = path.join(directory, 'mnt');
  await succeed('mkfs.ext4', ['-q', device]);
  await succeed('mount', [device, mountPoint]);
  t.strictSame(await holders(device), [`mounted on ${mountPoint}`]);
  await t.rejects(detachLoop(device, { waitMs: 100 }), {
    code: 'HAST_E_DEVICE_IN_USE',
    message: `${device} is still in use: mounted on ${mountPoint}`,
  });
  const other = await start(t, ['unshare', '-m', 'sh', '-c', 'echo ready; exec sleep 60']);
  await succeed('umount', [mountPoint]);
  t.strictSame(await holders(device), [
    `mounted on ${mountPoint} in the mount namespace of sleep (pid ${other.pid})`,
  ]);
  other.kill('SIGKILL');
  await once(other, 'exit');
  await detachLoop(device);
  t.equal(await isAttached(device), false, 'it went by itself');
});

t.test('loop: processes, other loops and swap are named', needsLoops, async (t) => {
  const { device } = await disk(t);
  const reader = await start(t, ['sh', '-c', `exec 5< ${device}; echo ready; exec sleep 60`]);
  t.strictSame(await holders(device), [`sleep (pid ${reader.pid}) has it open`]);
  reader.kill('SIGKILL');
  await once(reader, 'exit');
  const above = await attachLoop(device);
  t.strictSame(await holders(device), [`${above} is attached on top of it`]);
  await detachLoop(above);
  await succeed('mkswap', [device]);
  if ((await command('swapon', [device])).code !== 0) return;
  const users = await holders(device);
  await succeed('swapoff', [device]);
  t.ok(users.includes(`swap on ${device}`), users.join());
});

t.test('loop: device mapper on top of it is named', needsMapper, async (t) => {
  const { device } = await disk(t);
  const name = `hast-test-${process.pid}`;
  const table = `0 2048 linear ${device} 0`;
  await succeed('dmsetup', ['create', name, '--table', table]);
  const users = await holders(device);
  await succeed('dmsetup', ['remove', name]);
  t.match(users, [new RegExp(`^used by dm-\\d+ \\(${name}\\)$`)]);
});

/** Attaches in a /dev of its own, as a container has it, holding only what `nodes` makes. */
async function attachInside(file: string, nodes: string): Promise<string> {
  const script = `
    const { attachLoop, detachLoop } = await import(process.argv[1]);
    try {
      const device = await attachLoop(process.argv[2]);
      await detachLoop(device);
      console.log('attached', device);
    } catch (error) {
      console.log(error.code, error.message, '|', error.hint);
    }`;
  const module = new URL('../../lib/loop/loop.js', import.meta.url).href;
  return succeed('unshare', ['-m', 'env', '-u', 'NODE_OPTIONS', 'sh', '-c',
    `mount -t tmpfs none /dev && mknod /dev/null c 1 3 && ${nodes} && ` +
    'exec "$0" --input-type=module -e "$1" "$2" "$3"',
    process.execPath, script, module, file]);
}

t.test('loop: in a /dev of its own', needsLoops, async (t) => {
  const file = path.join(fs.realpathSync(t.testdir({ image: '' })), 'image');
  fs.truncateSync(file, SIZE);
  t.teardown(() => release(file));
  const control = 'mknod /dev/loop-control c 10 237';
  t.match(await attachInside(file, control), /^attached \/dev\/loop\d+$/m, 'the node is made');
  t.match(await attachInside(file, 'true'), /^attached/m, 'losetup then tries all nodes');
  const absent = await attachInside(`${file}2`, control);
  t.match(absent, /^HAST_E_DEVICE cannot attach .* \| losetup -a and dmesg/m);
  const noRight = `${control} && mount -o remount,ro /dev`;
  t.match(await attachInside(file, noRight), /cannot make \/dev\/loop.* \| .*CAP_MKNOD/m);
});

t.test('loop: mountinfo is matched by number and by source', async (t) => {
  const text = [
    '21 1 7:5 / /a\\040b rw shared:1 - ext4 /dev/loop5 rw',
    '22 1 259:1 / /part rw - ext4 /dev/loop5p1 rw',
    '23 1 0:44 / /btrfs rw - btrfs /dev/loop5 rw',
    '24 1 7:55 / /other rw - ext4 /dev/loop55 rw',
    '',
  ].join('\n');
  const nodes = [{ name: 'loop5', number: '7:5' }, { name: 'loop5p1', number: '259:1' }];
  t.strictSame(mountPointsOf(text, nodes), ['/a b', '/part', '/btrfs']);
});
