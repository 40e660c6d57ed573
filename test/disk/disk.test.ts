/**
 * Creating, describing and opening copies on regular files, and the disk port on them.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { createCopy } from '../../lib/disk/create.ts';
import { describeCopy } from '../../lib/disk/inspect.ts';
import { closeLocal, localProblem, openLocal } from '../../lib/disk/local.ts';
import { LocalDisk } from '../../lib/disk/local-disk.ts';
import { limits, MiB, TiB } from '../../lib/format/limits.ts';
import { layoutFor, mediaSizeMax, tailOffset } from '../../lib/format/superblock.ts';
import { imageMap, imageSuperblock } from '../fixtures/sim-image.ts';

function sparseFile(folder: string, size: number, name = 'disk'): string {
  const file = path.join(folder, name);
  fs.writeFileSync(file, '');
  fs.truncateSync(file, size);
  return file;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'done';
  } catch (error) {
    return error instanceof HastError ? error.code : String(error);
  }
}

t.test('create: a copy can be described, and both superblocks agree', async (t) => {
  const local = sparseFile(t.testdir(), 64 * MiB);
  fs.writeSync(fs.openSync(local, 'r+'), 'old data', 20 * MiB);
  const made = await createCopy({ resource: 'shared', local });
  t.equal(made.zeroed, true, 'a regular file reads as zeros');
  t.equal(made.mediaSize, mediaSizeMax(64 * MiB, limits.keepDirtyDefault));
  const found = describeCopy(local);
  t.equal(found.copiesAgree, true);
  t.equal(found.superblock.resource, 'shared');
  t.equal(found.superblock.generation, 0n);
  t.same(found.flags, ['createdZeroed']);
  t.match(found.losetup, `--read-only -o ${made.dataOffset} --sizelimit ${made.mediaSize}`);
  const data = Buffer.alloc(64);
  fs.readSync(fs.openSync(local, 'r'), data, 0, 64, 20 * MiB);
  t.ok(data.equals(Buffer.alloc(64)), 'nothing of the old data shows');
});

t.test('create: what a start reads is there twice', async (t) => {
  const local = sparseFile(t.testdir(), 8 * MiB);
  await createCopy({ resource: 'shared', local });
  const image = fs.readFileSync(local);
  const { hotOffset, hotSlotSize, indexOffset } = imageSuperblock(image);
  const lost = (...offsets: number[]): string[] => {
    const damaged = Buffer.from(image);
    for (const offset of offsets) damaged[offset] = 0xaa;
    return imageMap(damaged).damage;
  };
  const slots = [hotOffset + 20, hotOffset + hotSlotSize + 20] as const;
  const copies = [indexOffset + 20, indexOffset + limits.mapPageSize + 20] as const;
  for (const one of [...slots, ...copies]) t.same(lost(one), []);
  t.equal(lost(...slots).length, 1);
  t.equal(lost(...copies).length, 1);
});

t.test('create: every refusal leaves the disk as it was', async (t) => {
  const folder = t.testdir();
  const local = sparseFile(folder, 64 * MiB);
  await createCopy({ resource: 'shared', local });
  const before = fs.readFileSync(local);
  const refused = async (code: string, options: object): Promise<void> => {
    t.equal(await codeOf(createCopy({ resource: 'shared', local, ...options })), code);
    t.ok(fs.readFileSync(local).equals(before), `${code}: unchanged`);
  };
  await refused('HAST_E_METADATA_EXISTS', {});
  await refused('HAST_E_USAGE', { force: true, extentSize: 3 * MiB });
  await refused('HAST_E_USAGE', { force: true, extentSize: 4096 });
  await refused('HAST_E_USAGE', { force: true, keepDirty: 1 });
  await refused('HAST_E_USAGE', { force: true, mediaSize: 10 * MiB + 1 });
  await refused('HAST_E_TOO_SMALL', { force: true, mediaSize: 64 * MiB });
  await refused('HAST_E_TOO_SMALL', { force: true, mediaSize: 4096 });
  await refused('HAST_E_USAGE', { force: true, resource: 'x'.repeat(128) });
  const held = openLocal(local);
  await refused('HAST_E_BUSY', { force: true });
  closeLocal(held);
  const tiny = sparseFile(folder, 1 * MiB, 'tiny');
  t.equal(await codeOf(createCopy({ resource: 'shared', local: tiny })), 'HAST_E_TOO_SMALL');
  const missing = path.join(folder, 'missing');
  t.equal(await codeOf(createCopy({ resource: 'shared', local: missing })), 'HAST_E_DEVICE');
  t.equal(await codeOf(createCopy({ resource: 'shared', local: folder })), 'HAST_E_DEVICE');
});

t.test('create: foreign data are named and kept', async (t) => {
  const local = sparseFile(t.testdir(), 16 * MiB);
  const fd = fs.openSync(local, 'r+');
  // The magic of ext2/3/4 in its superblock, with what else blkid looks at.
  const ext = Buffer.alloc(1024);
  ext.writeUInt32LE(16, 0);
  ext.writeUInt32LE(16 * 1024, 4);
  ext.writeUInt32LE(1, 20);
  ext.writeUInt32LE(8192, 32);
  ext.writeUInt16LE(0xef53, 56);
  ext.writeUInt32LE(1, 76);
  fs.writeSync(fd, ext, 0, 1024, 1024);
  fs.closeSync(fd);
  try {
    await createCopy({ resource: 'shared', local });
    t.fail('created over a file system');
  } catch (error) {
    t.match(error, { code: 'HAST_E_FOREIGN_DATA', message: /ext2 signature/, hint: /--force/ });
  }
  t.equal(await codeOf(createCopy({ resource: 'shared', local, force: true })), 'done');
});

t.test('layout: areas follow each other and the data fit, for every size', async (t) => {
  for (const size of [4 * MiB, 5 * MiB + 512, 64 * MiB, 1 * TiB + 4096, 16 * TiB, 200 * TiB]) {
    for (const keepDirty of [limits.keepDirtyMin, 512, limits.keepDirtyMax]) {
      const media = mediaSizeMax(size, keepDirty);
      t.ok(media > 0 && media % limits.blockSize === 0, `${size}/${keepDirty}: ${media}`);
      const layout = layoutFor(media, keepDirty);
      t.ok(layout.mapOffset + layout.regionCount * limits.mapPageSize <= layout.dataOffset);
      t.ok(layout.dataOffset + media <= tailOffset(size), 'the tail is behind the data');
      t.ok(tailOffset(size) - layout.dataOffset - media < 3 * MiB, 'little is wasted');
    }
  }
});

t.test('local: what cannot be one is explained', async (t) => {
  t.match(localProblem('/nonexistent/disk'), /does not exist/);
  t.match(localProblem('/dev/null'), /neither a block device nor a regular file/);
  t.equal(localProblem(sparseFile(t.testdir(), 4096)), null);
});

t.test('local disk: closed when the last operation has returned, never used again', async (t) => {
  const file = sparseFile(t.testdir(), 64 * MiB);
  const local = openLocal(file);
  const disk = new LocalDisk(local);
  const order: string[] = [];
  const data = Buffer.alloc(16 * MiB, 7);
  for (let index = 0; index < 3; index++) {
    disk.write(index * data.length, data, 0, data.length, (errno) => order.push(`write ${errno}`));
  }
  const closed = new Promise<void>((resolve) => disk.close(() => {
    order.push('closed');
    resolve();
  }));
  t.throws(() => openLocal(file), { code: 'HAST_E_BUSY' }, 'the lock is kept meanwhile');
  const late = await new Promise<number>((resolve) => disk.flush(resolve));
  t.equal(late, 5, 'nothing more is begun');
  await closed;
  t.same(order, ['write 0', 'write 0', 'write 0', 'closed']);
  t.throws(() => fs.fstatSync(local.fd), { code: 'EBADF' });
  t.throws(() => fs.fstatSync(local.durableFd), { code: 'EBADF' });
  closeLocal(openLocal(file));
  // The numbers belong to others now: every operation must leave them alone.
  const others = Array.from({ length: 4 }, () => fs.openSync(file, 'r+'));
  t.ok(others.includes(local.fd));
  const buffer = Buffer.alloc(4096, 9);
  const errnos = await Promise.all([
    new Promise<number>((done) => disk.write(0, buffer, 0, 4096, done)),
    new Promise<number>((done) => disk.read(0, buffer, 0, 4096, done)),
    new Promise<number>((done) => disk.zero(0, 4096, true, done)),
    new Promise<number>((done) => disk.writeDurable(0, buffer, done)),
  ]);
  t.same(errnos, [5, 5, 5, 5]);
  t.ok(fs.readFileSync(file).subarray(0, 4096).every((byte) => byte === 7));
  for (const fd of others) fs.closeSync(fd);
});

t.test('local disk: whole transfers, zeroing reads as zeros, errors have an errno', async (t) => {
  const local = openLocal(sparseFile(t.testdir(), 8 * MiB));
  const disk = new LocalDisk(local);
  const call = (run: (done: (errno: number) => void) => void): Promise<number> =>
    new Promise((resolve) => {
      let returned = false;
      run((errno) => {
        t.ok(returned, 'never called back before the call returned');
        resolve(errno);
      });
      returned = true;
    });
  const ones = Buffer.alloc(3 * MiB, 1);
  t.equal(await call((done) => disk.write(1 * MiB, ones, 0, ones.length, done)), 0);
  t.equal(await call((done) => disk.zero(2 * MiB + 512, 512, true, done)), 0);
  t.equal(await call((done) => disk.zero(2 * MiB + 4096, 1 * MiB, false, done)), 0);
  t.equal(await call((done) => disk.writeDurable(0, Buffer.alloc(4096, 2), done)), 0);
  t.equal(await call((done) => disk.flush(done)), 0);
  const expected = Buffer.from(ones);
  expected.fill(0, 1 * MiB + 512, 1 * MiB + 1024);
  expected.fill(0, 1 * MiB + 4096, 2 * MiB + 4096);
  const back = Buffer.alloc(3 * MiB + 100);
  t.equal(await call((done) => disk.read(1 * MiB, back, 100, 3 * MiB, done)), 0);
  t.ok(back.subarray(100).equals(expected));
  t.not(await call((done) => disk.read(7 * MiB, back, 0, 2 * MiB, done)), 0, 'past the end');
  closeLocal(local);
});
