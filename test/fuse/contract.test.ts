/**
 * What every front end owes its volume and its users: one list of checks, run for each front
 * end on a real mount, over a volume that completes late and out of order.
 */
import { spawnSync } from 'node:child_process';
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import t, { type Test } from 'tap';
import { Lab, bounded, command, nativeMissing } from '../fixtures/fuse-lab.ts';
import { testEachKind } from '../fixtures/fuse-kinds.ts';
import type { ServerOptions } from '../fixtures/fuse-server.ts';

type Kind = ServerOptions['kind'];
type Check = (t: Test, lab: Lab, file: fs.promises.FileHandle) => Promise<void>;

const MIB = 1024 * 1024;
const SIZE = 32 * MIB + 512;
const EIO = 5;
const ENOSPC = 28;
const ENOSYS = 38;

async function rejects(t: Test, code: string, what: string, promise: Promise<unknown>) {
  await t.rejects(bounded(what, promise), { code }, what);
}

async function readAt(file: fs.promises.FileHandle, offset: number, length: number) {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

const checks: Record<string, Check> = {
  async 'size, names and attributes'(t, lab) {
    const stat = await fs.promises.stat(lab.file);
    t.equal(stat.size, SIZE);
    t.equal(stat.mode, 0o100600);
    t.strictSame(await fs.promises.readdir(lab.mountPoint), ['volume']);
    t.equal((await fs.promises.stat(lab.mountPoint)).isDirectory(), true);
    t.equal((await fs.promises.statfs(lab.mountPoint)).bsize, 4096);
    await rejects(t, 'ENOENT', 'another name', fs.promises.stat(`${lab.mountPoint}/other`));
    await rejects(t, 'ENOTDIR', 'below the file', fs.promises.stat(`${lab.file}/x`));
    await t.rejects(fs.promises.writeFile(`${lab.mountPoint}/other`, 'x'), 'a new file');
    await rejects(t, 'EPERM', 'another size', fs.promises.truncate(lab.file, SIZE - 512));
    await fs.promises.truncate(lab.file, SIZE);
  },

  async 'nobody but its owner reads or writes it'(t, lab) {
    const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', '--'];
    const write = ['dd', 'if=/dev/zero', 'of=volume', 'count=1'];
    for (const argv of [['head', '-c1', 'volume'], write]) {
      // From inside the mount: what lies above it must not be what protects it.
      const { status, stderr } = spawnSync('setpriv', [...nobody, ...argv], {
        cwd: lab.mountPoint, encoding: 'utf8', timeout: 10_000,
      });
      t.equal(status, 1);
      t.match(stderr, /Permission denied/);
    }
  },

  async 'transfers of all sizes at all alignments'(t, lab, file) {
    const sizes = [1, 511, 512, 513, 4096, 4097, 65536, MIB - 1, MIB, MIB + 512, 3 * MIB + 1];
    for (const size of sizes) {
      for (const offset of [0, 512, 4096, 12345]) {
        const data = crypto.randomBytes(size);
        const { bytesWritten } = await file.write(data, 0, size, offset);
        const back = await readAt(file, offset, size);
        if (bytesWritten !== size || !back.equals(data)) t.fail(`${size} bytes at ${offset}`);
      }
    }
    const backing = await fs.promises.readFile(lab.backing);
    t.ok((await fs.promises.readFile(lab.file)).equals(backing), 'file and volume are the same');
  },

  async 'the end of the volume'(t, _lab, file) {
    const data = crypto.randomBytes(4096);
    await file.write(data, 0, 512, SIZE - 512);
    t.ok((await readAt(file, SIZE - 512, 4096)).equals(data.subarray(0, 512)), 'clipped');
    t.equal((await readAt(file, SIZE, 4096)).length, 0);
    t.equal((await readAt(file, SIZE + MIB, 4096)).length, 0);
    await rejects(t, 'ENOSPC', 'across the end', file.write(data, 0, 1024, SIZE - 512));
    await rejects(t, 'ENOSPC', 'behind the end', file.write(data, 0, 512, SIZE));
  },

  async 'fsync reaches the volume each time'(t, lab, file) {
    const before = (await lab.counters()).counters.flushes;
    await file.sync();
    await file.datasync();
    await file.sync();
    t.equal((await lab.counters()).counters.flushes, before + 3);
  },

  async 'errors of the volume come through, once'(t, lab, file) {
    const data = Buffer.alloc(4096, 1);
    await lab.fault('write', EIO, 1);
    await rejects(t, 'EIO', 'write', file.write(data, 0, 4096, 0));
    await lab.fault('write', ENOSPC, 1);
    await rejects(t, 'ENOSPC', 'write', file.write(data, 0, 4096, 0));
    await lab.fault('read', EIO, 1);
    await rejects(t, 'EIO', 'read', readAt(file, 0, 4096));
    await lab.fault('flush', EIO, 1);
    await rejects(t, 'EIO', 'fsync', file.sync());
    await file.write(data, 0, 4096, 0);
    t.ok((await readAt(file, 0, 4096)).equals(data));
  },

  // The kernel would take ENOSYS as "there is no fsync here" for the life of the mount.
  async 'fsync is not switched off by a volume that says ENOSYS'(t, lab, file) {
    await lab.fault('flush', ENOSYS, 1);
    await t.rejects(file.sync());
    const before = (await lab.counters()).counters.flushes;
    await file.sync();
    t.equal((await lab.counters()).counters.flushes, before + 1);
  },

  // Every block holds its own content: a buffer used again too early shows as a wrong one.
  async 'many writes at once keep their contents apart'(t, lab, file) {
    const block = 16 * 1024;
    const count = 512;
    const contents = crypto.randomBytes(block + count);
    const content = (index: number): Buffer => contents.subarray(index, index + block);
    for (let round = 0; round < 3; round++) {
      await Promise.all(Array.from({ length: count }, (_, index) =>
        file.write(content((index + round) % count), 0, block, index * block)));
      const backs = await Promise.all(Array.from({ length: count }, (_, index) =>
        readAt(file, index * block, block)));
      t.ok(backs.every((back, index) => back.equals(content((index + round) % count))));
    }
    t.ok((await lab.counters()).counters.inFlightMax > 1, 'they were in flight together');
  },

  async 'overlapping writes at once end as one of them'(t, _lab, file) {
    const size = 64 * 1024;
    for (let round = 0; round < 20; round++) {
      const fills = Array.from({ length: 8 }, (_, index) => Buffer.alloc(size, 1 + index));
      await Promise.all(fills.map((fill) => file.write(fill, 0, size, MIB)));
      const back = await readAt(file, MIB, size);
      t.ok(fills.some((fill) => fill.equals(back)), `round ${round}`);
    }
  },

  async 'attributes are answered while the volume stalls'(t, lab, file) {
    await lab.stall(true);
    const write = file.write(Buffer.alloc(512), 0, 512, 0);
    const stat = await bounded('stat', fs.promises.stat(lab.file));
    t.equal(stat.size, SIZE);
    t.strictSame(await bounded('ls', fs.promises.readdir(lab.mountPoint)), ['volume']);
    await lab.stall(false);
    await bounded('write', write);
  },

  // More of them than there are slots: a disk that hangs must not take them all for itself.
  async 'answered while a disk still has the buffers'(t, lab, file) {
    const block = 16 * 1024;
    const count = 100;
    const contents = crypto.randomBytes(block + count);
    const content = (index: number): Buffer => contents.subarray(index, index + block);
    const idle = (await lab.counters()).idle;
    await lab.hold(true);
    for (let first = 0; first < count; first += 10) {
      await Promise.all(Array.from({ length: 10 }, (_, index) =>
        file.write(content(first + index), 0, block, (first + index) * block)));
    }
    const held = await lab.counters();
    t.equal(held.inFlight, count, 'they are still lent to the volume');
    t.equal(held.idle, idle - (count - 64), 'the reserve took their place');
    t.ok((await readAt(file, 0, block)).equals(content(0)));
    t.ok((await readAt(file, block + 1, 4097)).equals(content(1).subarray(1, 4098)));
    await file.sync();
    await lab.fault('read', EIO, 1);
    await rejects(t, 'EIO', 'read', readAt(file, 0, 4096));
    await lab.hold(false);
    const after = await lab.counters();
    t.strictSame([after.inFlight, after.idle], [0, idle]);
    for (let index = 0; index < count; index++) {
      const back = await readAt(file, index * block, block);
      if (!back.equals(content(index))) t.fail(`block ${index}`);
    }
  },

  async 'a user killed while its write is pending does no harm'(t, lab, file) {
    await lab.stall(true);
    const dd = ['if=/dev/zero', `of=${lab.file}`, 'conv=notrunc', 'bs=4k', 'count=1'];
    const killed = command('timeout', ['-s', 'INT', '0.3', 'dd', ...dd]);
    await new Promise((resolve) => setTimeout(resolve, 600));
    await lab.stall(false);
    await killed;
    await file.write(Buffer.alloc(512, 3), 0, 512, 512);
    t.equal((await readAt(file, 512, 1))[0], 3);
  },
};

/** One mount for all checks: they do not depend on what the ones before wrote. */
async function contract(t: Test, kind: Kind, readers: number): Promise<void> {
  const lab = new Lab();
  try {
    await lab.serve(SIZE, { kind, readers, delayMsMax: 3 });
    for (const [name, check] of Object.entries(checks)) {
      await t.test(`${kind}, ${readers} readers: ${name}`, (t) => run(t, lab, name, check));
    }
  } finally {
    await lab.close();
  }
  t.equal(await lab.serverExit(), 0, 'the server saw the unmount');
}

async function run(t: Test, lab: Lab, name: string, check: Check): Promise<void> {
  const file = await fs.promises.open(lab.file, 'r+');
  try {
    await bounded(name, check(t, lab, file), 60_000);
  } finally {
    await lab.stall(false);
    await file.close();
  }
  t.equal((await lab.counters()).inFlight, 0, 'nothing is left over');
}

testEachKind('contract', async (t, kind) => {
  await contract(t, kind, 1);
  if (kind === 'direct') await contract(t, kind, 2);
});
const native = await nativeMissing();
t.test('contract: fuse-native', native === null ? {} : { skip: native }, async (t) => {
  await contract(t, 'native', 1);
});
