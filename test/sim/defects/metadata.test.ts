/**
 * Goal: metadata survive a torn write and a `local` of another size, and marks come first.
 * Method: power cuts while the superblock is written; disks larger than what was created on them.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { blockDeviceSize } from '../../../lib/base/libc.ts';
import { HastError } from '../../../lib/base/errors.ts';
import { createCopy } from '../../../lib/disk/create.ts';
import { closeLocal, openLocal } from '../../../lib/disk/local.ts';
import { LocalDisk } from '../../../lib/disk/local-disk.ts';
import { GiB, limits, MiB } from '../../../lib/format/limits.ts';
import { decodeSuperblock, encodeSuperblock } from '../../../lib/format/superblock.ts';
import {
  compared, fill, imageMap, imageSuperblock, scenario, settled, SimDisk, study, type DiskOp,
  type SimNode, type SimPair,
} from './scenario.ts';

/*
 * One copy of the metadata, rewritten in place, without checksum and flush (metadata.c
 * metadata_write): a torn write makes the resource unusable. Ours has two copies with sequence
 * and checksum, written durably one after the other. The same block written in the original's way
 * to the same simulated disk is torn by some of the power cuts.
 */
compared('S4-torn-metadata', { seeds: 4 }, (pair, t) => {
  const { a, world } = pair;
  a.options.alone = true;
  let bites = 0;
  for (let round = 0; round < 30; round++) {
    a.boot();
    t.equal(a.openError, null, `round ${round}`);
    const before = a.running.context.store.value.generation;
    const answer = a.promote();
    pair.pass(world.random.unit() * 3);
    const asked = a.running.context.store.value.generation;
    const isPromised = answer.done && answer.refusal === null;
    a.crash(true);
    const { generation } = imageSuperblock(a.disk.durable);
    t.ok(isPromised ? generation === asked : generation === asked || generation === before);
    bites += isTorn(pair) ? 1 : 0;
  }
  return bites;
});

/** Writes a superblock over another as the original would, with a power cut; true where torn. */
function isTorn(pair: SimPair): boolean {
  const { world } = pair;
  const old = imageSuperblock(pair.a.disk.durable);
  const disk = new SimDisk(world, limits.superblockSize);
  disk.place(0, encodeSuperblock(old));
  const next = encodeSuperblock({ ...old, generation: 77n, resource: 'x'.repeat(100) });
  // The fields of an nv list lie all over the block: every sector of it changes.
  for (let at = 768; at < next.length; at += 8) next.writeDoubleLE(world.random.unit(), at);
  disk.port().write(0, next, 0, next.length, () => undefined);
  pair.pass(world.random.unit() * 0.6);
  disk.crash(true);
  if (disk.durable.equals(next)) return false;
  try {
    decodeSuperblock(disk.durable);
    return false;
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    return true;
  }
}

/*
 * Errors of the write that marks an extent are counted and otherwise ignored (primary.c,
 * hast_activemap_flush): the data go out unmarked. Ours takes it as a failed local copy: no write
 * of the data is issued here before its mark is durable.
 */
compared('S4-mark-write-error-ignored', { mediaSize: 4 * MiB }, (pair, t) => {
  pair.primary();
  pair.pass(9000);
  const { dataOffset } = pair.a.geometry;
  let unmarked = 0;
  pair.a.disk.watch = (op) => {
    if (op.kind !== 'write' || op.offset < dataOffset) return;
    const first = Math.floor((op.offset - dataOffset) / limits.blockSize);
    if (!imageMap(pair.a.disk.durable).peerStale.has(first)) unmarked++;
  };
  pair.load(pair.a, 5);
  pair.answered(pair.a);
  t.equal(unmarked, 0, 'a mark is durable before the data move');
  pair.pass(9000);
  let attempts = 0;
  pair.a.disk.fault = (op) => {
    if (op.kind !== 'durable') return 0;
    attempts++;
    return 5;
  };
  pair.load(pair.a, 5);
  pair.pass(3000);
  t.not(attempts, 0);
  t.equal(unmarked, 0, 'nor where it cannot be');
  // The original counts the error and writes: as many unmarked writes as attempts.
  return attempts;
});

/** The same copy on a larger disk. */
function enlarge(pair: SimPair, node: SimNode, more: number): void {
  const old = node.disk;
  const disk = new SimDisk(pair.world, old.size + more);
  disk.place(0, old.durable);
  disk.place(old.size, Buffer.alloc(more, 0xab));
  node.disk = disk;
}

/** Metadata writes of a node that touch its data. */
function strayMetadata(node: SimNode): { count: number } {
  const stray = { count: 0 };
  const { dataOffset, mediaSize } = node.geometry;
  node.disk.watch = (op: DiskOp) => {
    const overlaps = op.offset + op.length > dataOffset && op.offset < dataOffset + mediaSize;
    if (op.kind === 'durable' && overlaps) stray.count++;
  };
  return stray;
}

/** Bytes of the original's bitmap, rounded to a sector. */
function originalBitmapBytes(dataSize: number): number {
  const bits = Math.ceil(dataSize / (2 * MiB));
  return Math.ceil(bits / 8 / 512) * 512;
}

/*
 * `create -m` computes the bitmap from the size it is given, the secondary computes it from the
 * provider's size today, and clears that many bytes at the first request of each connection
 * (secondary.c init_local): on a larger provider the first sectors of the data become zeros. Ours
 * reads the whole layout from the superblock.
 */
compared('S6-map-size-bug-with-larger-provider', { mediaSize: 2 * MiB, seeds: 2 }, (pair, t) => {
  enlarge(pair, pair.b, 70 * MiB);
  const stray = strayMetadata(pair.b);
  pair.primary();
  fill(pair, pair.a, 0x3c);
  for (let round = 0; round < 3; round++) {
    pair.link?.cut();
    pair.pass(1000);
    pair.load(pair.a, 5);
    settled(pair);
  }
  t.equal(stray.count, 0);
  t.equal(pair.b.data()[0], pair.a.data()[0]);
  // 4 GiB created on 20 GiB: the data begin behind the bitmap of 4 GiB.
  const dataStart = 4096 + originalBitmapBytes(4 * GiB);
  return Math.max(0, 4096 + originalBitmapBytes(20 * GiB) - dataStart);
});

/*
 * No resize in the original: what a grown provider does to it is the defect above, on both nodes
 * (g_gate.c g_gate_modify refuses a new size). Ours keeps working with the size it was created
 * with, on either node, and uses not a byte of what was added.
 */
scenario('S8-local-grown-later', { mediaSize: 2 * MiB, seeds: 2 }, (pair, t) => {
  pair.primary();
  fill(pair, pair.a, 0x3d);
  pair.stop(pair.a);
  pair.stop(pair.b);
  const more = 3 * MiB + 512;
  const sizes = [pair.a, pair.b].map((node) => node.disk.size);
  for (const node of [pair.a, pair.b]) enlarge(pair, node, more);
  const stray = [pair.a, pair.b].map((node) => strayMetadata(node));
  pair.boot().complete();
  pair.mustPromote(pair.b);
  t.equal(pair.b.running.volume.size, 2 * MiB);
  pair.load(pair.b, 20);
  settled(pair);
  t.same(stray.map((one) => one.count), [0, 0]);
  for (const [index, node] of [pair.a, pair.b].entries()) {
    t.ok(node.disk.cache.subarray(sizes[index]).every((byte) => byte === 0xab));
    t.equal(node.running.context.store.value.localSize, sizes[index]);
  }
});

/*
 * On a regular file the original's flush is a disk ioctl and fails with ENOTTY; there is no fsync
 * at all (geom_util.c g_flush, g_delete): nothing is ever durable but by luck. Ours calls
 * fdatasync. A disk ioctl on the same file shows the original's way.
 */
study('S6-flush-of-a-regular-file-fails', async (t) => {
  const file = path.join(t.testdir(), 'disk');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, 16 * MiB);
  await createCopy({ resource: 'shared', local: file });
  const local = openLocal(file);
  const disk = new LocalDisk(local);
  const call = (run: (done: (errno: number) => void) => void): Promise<number> =>
    new Promise((resolve) => run(resolve));
  t.equal(await call((done) => disk.write(8 * MiB, Buffer.alloc(4096, 1), 0, 4096, done)), 0);
  t.equal(await call((done) => disk.flush(done)), 0);
  t.equal(await call((done) => disk.zero(8 * MiB, 4096, true, done)), 0);
  const { errno } = blockDeviceSize(local.fd);
  closeLocal(local);
  t.equal(await call((done) => disk.flush(done)), 9, 'it reaches the kernel: EBADF when closed');
  const ENOTTY = 25;
  return errno === ENOTTY ? 1 : 0;
});
