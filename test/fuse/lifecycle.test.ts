/** Beginning and ending: unmount, stop, death, and descriptors that are none. */
import * as fs from 'node:fs';
import t, { type Test } from 'tap';
import type { Volume } from '../../lib/core/ports.ts';
import {
  isMounted, mountFuse, mountsAt, openFuseDevice, parseMountinfo, requestTimeoutProblem,
  unmountFuse,
} from '../../lib/fuse/mount.ts';
import { createFrontend, type Kind, testEachKind } from '../fixtures/fuse-kinds.ts';
import { bounded, command, Lab, nativeMissing } from '../fixtures/fuse-lab.ts';

const SIZE = 4 * 1024 * 1024;
const noNative = await nativeMissing();
const needsNative = noNative === null ? {} : { skip: noNative };

const idleVolume: Volume = {
  size: SIZE,
  submit(request) {
    setImmediate(() => request.complete(0));
  },
};

async function withLab(run: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = new Lab();
  try {
    await run(lab);
  } finally {
    await lab.close();
  }
}

/** Starts as many writes as `count`, each to its own block; their outcomes in the end. */
async function pendingWrites(lab: Lab, count: number): Promise<() => Promise<string[]>> {
  const file = await fs.promises.open(lab.file, 'r+');
  const outcomes = Promise.all(Array.from({ length: count }, (_, index) =>
    file.write(Buffer.alloc(512), 0, 512, index * 512).then(() => 'written',
      (error: NodeJS.ErrnoException) => error.code ?? '?')));
  const closed = outcomes.finally(() => file.close().catch(() => undefined));
  while ((await lab.counters()).inFlight === 0) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return () => bounded('pending writes', closed);
}

testEachKind('lifecycle: unmounting ends the server, also lazily', async (t, kind) => {
  for (const lazy of [false, true]) {
    await withLab(async (lab) => {
      await lab.serve(SIZE, { kind, readers: 3 });
      t.equal(await isMounted(lab.mountPoint), true);
      const [mount] = await mountsAt(lab.mountPoint);
      t.match(mount, { mountPoint: lab.mountPoint, type: 'fuse', source: 'hast' });
      await unmountFuse(lab.mountPoint, { lazy });
      t.equal(await isMounted(lab.mountPoint), false);
      t.strictSame(await lab.reply('end'), { type: 'end', error: null });
      t.equal(await lab.serverExit(), 0);
      await unmountFuse(lab.mountPoint);
    });
  }
});

testEachKind('lifecycle: a mount in use is not unmounted, and goes on working', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind });
    const file = await fs.promises.open(lab.file, 'r+');
    await t.rejects(unmountFuse(lab.mountPoint), { code: 'HAST_E_DEVICE_IN_USE' });
    await unmountFuse(lab.mountPoint, { lazy: true });
    t.equal((await file.write(Buffer.alloc(512), 0, 512, 0)).bytesWritten, 512);
    await file.close();
    t.equal(await lab.serverExit(), 0);
  });
});

testEachKind('lifecycle: an abort fails what users wait for', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind });
    await lab.stall(true);
    const outcomes = await pendingWrites(lab, 2);
    await unmountFuse(lab.mountPoint, { lazy: true, abort: true });
    // The second may come when there is no connection any more.
    for (const outcome of await outcomes()) t.match(outcome, /^(ECONNABORTED|ENOTCONN)$/);
    t.equal(await isMounted(lab.mountPoint), false);
  });
});

testEachKind('lifecycle: stop while a disk still has the buffers', async (t, kind) => {
  for (const fail of [false, true]) {
    await withLab(async (lab) => {
      await lab.serve(SIZE, { kind, slots: 2, readers: 2 });
      await lab.hold(true);
      const file = await fs.promises.open(lab.file, 'r+');
      for (let index = 0; index < 3; index++) await file.write(Buffer.alloc(512), 0, 512, 0);
      t.equal((await lab.counters()).inFlight, 3);
      lab.send({ type: 'stop', fail });
      // A close asks the server, which may have ended by then.
      await file.close().catch(() => undefined);
      t.strictSame(await lab.reply('stopped'), { type: 'stopped', ended: true });
      t.equal(await lab.serverExit(), 0);
    });
  }
});

testEachKind('lifecycle: nothing is mounted over a mount', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind });
    const fd = openFuseDevice();
    await t.rejects(mountFuse(fd, lab.mountPoint), { code: 'HAST_E_BUSY' });
    fs.closeSync(fd);
  });
});

testEachKind('lifecycle: stop with nothing pending ends all readers', async (t, kind) => {
  for (const readers of [1, 3]) {
    await withLab(async (lab) => {
      await lab.serve(SIZE, { kind, readers });
      lab.send({ type: 'stop', fail: false });
      t.strictSame(await lab.reply('stopped'), { type: 'stopped', ended: true });
      t.equal(await lab.serverExit(), 0);
    });
  }
});

testEachKind('lifecycle: stop can fail what is pending, with all slots taken', async (t, kind) => {
  for (const [slots, count] of [[64, 3], [2, 4], [1, 4]] as const) {
    await withLab(async (lab) => {
      await lab.serve(SIZE, { kind, slots, readers: 2 });
      await lab.stall(true);
      const outcomes = await pendingWrites(lab, count);
      lab.send({ type: 'stop', fail: true });
      t.strictSame(await lab.reply('stopped'), { type: 'stopped', ended: true });
      const all = await outcomes();
      // With one slot any of them has it: they come from several threads.
      t.ok(all.includes('EIO'), `${slots} slots: ${all.join()}`);
      t.notOk(all.includes('written'));
      t.equal(await lab.serverExit(), 0);
    });
  }
});

testEachKind('lifecycle: stop without failing leaves the answer to the volume', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind, slots: 1 });
    await lab.stall(true);
    const outcomes = await pendingWrites(lab, 2);
    lab.send({ type: 'stop', fail: false });
    t.strictSame(await lab.reply('stopped'), { type: 'stopped', ended: true });
    t.equal(await lab.serverExit(), 0);
    const all = await outcomes();
    t.notOk(all.includes('written'), 'the connection ended with the process');
  });
});

testEachKind('lifecycle: the mount of a killed server is seen and removed', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind });
    lab.kill('SIGKILL');
    await lab.serverExit();
    t.equal((await mountsAt(lab.mountPoint))[0]?.type, 'fuse');
    // What a ring had under way keeps the connection for a moment after the process.
    const gone = { code: kind === 'direct' ? 'ENOTCONN' : /^(ENOTCONN|ECONNABORTED)$/ };
    await t.rejects(fs.promises.stat(lab.file), gone);
    await unmountFuse(lab.mountPoint, { lazy: true });
    t.equal(await isMounted(lab.mountPoint), false);
  });
});

t.test('lifecycle: fuse-native stops, failing what is pending', needsNative, async (t) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind: 'native' });
    await lab.stall(true);
    const outcomes = await pendingWrites(lab, 2);
    lab.send({ type: 'stop', fail: true });
    t.strictSame(await lab.reply('stopped'), { type: 'stopped', ended: true });
    // The kernel sends the writes of a file one by one: the second may come when all has ended.
    const ends = await outcomes();
    t.ok(ends.includes('EIO'), ends.join());
    for (const end of ends) t.match(end, /^(EIO|ECONNABORTED)$/);
    t.equal(await isMounted(lab.mountPoint), false);
  });
});

t.test('lifecycle: fuse-native refuses what it cannot mount on', needsNative, async (t) => {
  await withLab(async (lab) => {
    const mountPoint = `${lab.directory}/absent`;
    await t.rejects(lab.serve(SIZE, { kind: 'native', mountPoint }), /fuse-native cannot mount/);
    lab.kill('SIGKILL');
  });
});

async function startFailure(t: Test, kind: Kind, fd: number): Promise<Error | null> {
  const frontend = createFrontend(t, kind, { fuseFd: fd, mountPoint: t.testdir({}) });
  const ended = new Promise<Error | null>((resolve) => frontend.onEnd(resolve));
  const ready = new Promise<Error | null>((resolve) => frontend.start(idleVolume, resolve));
  const error = await bounded('ready', ready);
  // What is found before anything was read ends nothing: it never began.
  const began = kind === 'direct' || !/set up/.test(String(error));
  if (began) t.equal(await bounded('end', ended), error);
  return error;
}

testEachKind('lifecycle: a descriptor that is no FUSE connection ends in an error',
  async (t, kind) => {
  const directory = fs.openSync(t.testdir({}), 'r');
  t.match(await startFailure(t, kind, directory), { code: 'HAST_E_DEVICE', errno: 'EISDIR' });
  fs.closeSync(directory);
  const empty = fs.openSync('/dev/null', 'r+');
  t.match(await startFailure(t, kind, empty), { message: /not \/dev\/fuse/ });
  fs.closeSync(empty);
  t.match(await startFailure(t, kind, 9999), { errno: 'EBADF' });
}, false);

testEachKind('lifecycle: waiting for the mount can be stopped', async (t, kind) => {
  const fd = openFuseDevice();
  const frontend = createFrontend(t, kind, { fuseFd: fd, mountPoint: t.testdir({}) });
  frontend.start(idleVolume, () => t.fail('never ready'));
  t.strictSame(frontend.stats, { inFlight: 0, idle: kind === 'ring' ? 40 : 64 });
  await new Promise((resolve) => setTimeout(resolve, 200));
  const ended = await bounded('stop', new Promise((resolve) => frontend.stop(resolve)));
  t.equal(ended, true);
  fs.closeSync(fd);
});

testEachKind('lifecycle: the process of a front end that is mounted later', async (t, kind) => {
  const mountPoint = t.testdir({});
  const fd = openFuseDevice();
  const frontend = createFrontend(t, kind, { fuseFd: fd, mountPoint });
  const end = new Promise((resolve) => frontend.onEnd(resolve));
  const ready = new Promise((resolve) => frontend.start(idleVolume, resolve));
  await new Promise((resolve) => setTimeout(resolve, 100));
  try {
    await mountFuse(fd, mountPoint);
    t.equal(await bounded('ready', ready), null);
  } finally {
    await command('umount', ['-l', mountPoint]);
  }
  t.equal(await bounded('end', end), null);
  fs.closeSync(fd);
});

t.test('lifecycle: the text of mountinfo', async (t) => {
  const text = [
    '21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
    '77 21 0:55 / /run/hast/a\\040b rw - fuse hast rw,user_id=0',
    'nonsense',
    '',
  ].join('\n');
  t.strictSame(parseMountinfo(text), [
    { device: '8:1', mountPoint: '/', type: 'ext4', source: '/dev/sda1' },
    { device: '0:55', mountPoint: '/run/hast/a b', type: 'fuse', source: 'hast' },
  ]);
});

t.test('lifecycle: request timeouts of the kernel are told', async (t) => {
  const problem = await requestTimeoutProblem();
  t.ok(problem === null || /set it to 0/.test(problem));
});
