/**
 * Creating, describing and opening copies on regular files.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { createCopy } from '../../lib/disk/create.ts';
import { describeCopy } from '../../lib/disk/inspect.ts';
import { closeLocal, localProblem, openLocal } from '../../lib/disk/local.ts';
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
