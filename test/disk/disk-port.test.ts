/**
 * What each way to a real disk owes the core: one list of checks, run for the one that uses
 * threads and the one that uses a ring.
 */
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { closeLocal, type LocalFile, openLocal } from '../../lib/disk/local.ts';
import { LocalDisk } from '../../lib/disk/local-disk.ts';
import type { OpenDisk } from '../../lib/disk/open-disk.ts';
import { RingDisk } from '../../lib/disk/ring-disk.ts';
import { MiB } from '../../lib/format/limits.ts';
import { bounded, command, succeed } from '../fixtures/fuse-lab.ts';
import { ringMissing, turningReactor } from '../fixtures/ring.ts';

const GiB = 1024 * MiB;
const { EIO, ENOSPC } = os.constants.errno;

interface Opened {
  file: string;
  local: LocalFile;
  disk: OpenDisk;
}

type Open = (t: Test, size: number, folder?: string) => Opened;
type Run = (done: (errno: number) => void) => void;

/** The errno of one operation; it must not call back before the call returned. */
function call(run: Run): Promise<number> {
  return bounded('a disk operation', new Promise((resolve, reject) => {
    let returned = false;
    run((errno) => {
      if (returned) resolve(errno);
      else reject(new Error('called back before the call returned'));
    });
    returned = true;
  }));
}

function read(disk: OpenDisk, offset: number, buffer: Buffer): Promise<number> {
  return call((done) => disk.read(offset, buffer, 0, buffer.length, done));
}

function write(disk: OpenDisk, offset: number, buffer: Buffer): Promise<number> {
  return call((done) => disk.write(offset, buffer, 0, buffer.length, done));
}

function closed(disk: OpenDisk): Promise<void> {
  return bounded('close', new Promise((resolve) => disk.close(resolve)));
}

/** With a file system of its own. */
async function withMount(
  type: string, options: string, run: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-disk-'));
  try {
    await succeed('mount', ['-t', type, '-o', options, 'hast-test', folder]);
    await run(folder);
  } finally {
    await command('umount', ['-l', folder]);
    fs.rmdirSync(folder);
  }
}

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'SKIPPED: needs root' };

async function closedWhileBusy(t: Test, open: Open): Promise<void> {
  const { file, local, disk } = open(t, 64 * MiB);
  const order: string[] = [];
  const data = Buffer.alloc(16 * MiB, 7);
  for (let index = 0; index < 3; index++) {
    disk.write(index * data.length, data, 0, data.length, (errno) => order.push(`write ${errno}`));
  }
  const end = bounded('close', new Promise<void>((resolve) => disk.close(() => {
    order.push('closed');
    resolve();
  })));
  t.throws(() => openLocal(file), { code: 'HAST_E_BUSY' }, 'the lock is kept meanwhile');
  t.equal(await call((done) => disk.flush(done)), EIO, 'nothing more is begun');
  await end;
  t.same(order, ['write 0', 'write 0', 'write 0', 'closed']);
  t.throws(() => fs.fstatSync(local.fd), { code: 'EBADF' });
  t.throws(() => fs.fstatSync(local.durableFd), { code: 'EBADF' });
  closeLocal(openLocal(file));
  // The numbers belong to others now: every operation must leave them alone.
  const others = Array.from({ length: 4 }, () => fs.openSync(file, 'r+'));
  t.ok(others.includes(local.fd));
  const buffer = Buffer.alloc(4096, 9);
  const errnos = await Promise.all([
    write(disk, 0, buffer), read(disk, 0, buffer),
    call((done) => disk.zero(0, 4096, true, done)),
    call((done) => disk.writeDurable(0, buffer, done)),
    call((done) => disk.writeAllDurable([{ offset: 0, raw: buffer }], done)),
    call((done) => disk.writeAllDurable([0, 4096].map((offset) =>
      ({ offset, raw: buffer })), done)),
  ]);
  t.same(errnos, [EIO, EIO, EIO, EIO, EIO, EIO]);
  t.ok(fs.readFileSync(file).subarray(0, 4096).every((byte) => byte === 7));
  for (const fd of others) fs.closeSync(fd);
}

async function wholeTransfers(t: Test, open: Open): Promise<void> {
  const { disk } = open(t, 8 * MiB);
  const ones = Buffer.alloc(3 * MiB, 1);
  t.equal(await write(disk, 1 * MiB, ones), 0);
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
  t.ok(back.subarray(0, 100).every((byte) => byte === 0), 'nothing before it is touched');
  const pages = Array.from({ length: 24 }, (_, index) => Buffer.alloc(4096, index + 1));
  const at = (index: number): number => 4 * MiB + index * 3 * 4096;
  t.same(await Promise.all(pages.map((page, index) =>
    call((done) => disk.writeDurable(at(index), page, done)))), pages.map(() => 0), 'together');
  const same = pages.map((raw, index) => ({ offset: at(index) + 4096, raw }));
  t.equal(await call((done) => disk.writeAllDurable(same, done)), 0);
  for (const [index, page] of pages.entries()) {
    const found = Buffer.alloc(4096);
    await read(disk, at(index), found);
    if (!found.equals(page)) t.fail(`page ${index}`);
    await read(disk, at(index) + 4096, found);
    if (!found.equals(page)) t.fail(`page ${index}, the second time`);
  }
  await closed(disk);
}

async function shortFile(t: Test, open: Open): Promise<void> {
  const { file, disk } = open(t, 1 * MiB);
  fs.writeFileSync(file, Buffer.alloc(1 * MiB, 5));
  const buffer = Buffer.alloc(8192);
  t.equal(await read(disk, 1 * MiB - 4096, buffer), EIO, 'across the end');
  t.ok(buffer.subarray(0, 4096).every((byte) => byte === 5), 'what there was has been read');
  t.equal(await read(disk, 1 * MiB, buffer), EIO, 'at the end');
  t.equal(await read(disk, 9 * GiB, buffer), EIO, 'far behind it');
  t.equal(await read(disk, 1 * MiB - 8192, buffer), 0, 'up to the end');
  t.equal(await read(disk, 0, Buffer.alloc(0)), 0, 'nothing can be read anywhere');
  t.equal(await write(disk, 0, Buffer.alloc(0)), 0, 'and be written');
  await closed(disk);
}

async function unaligned(t: Test, open: Open): Promise<void> {
  const { file, disk } = open(t, 5 * MiB);
  const model = Buffer.alloc(5 * MiB);
  for (const length of [1, 511, 513, 4095, 4097, 65_537, MiB - 1, MiB, MiB + 1, 3 * MiB + 7]) {
    for (const offset of [0, 1, 511, 4097, MiB + 3]) {
      const data = crypto.randomBytes(length);
      data.copy(model, offset);
      const back = Buffer.alloc(length);
      const errnos = [await write(disk, offset, data), await read(disk, offset, back)];
      if (errnos[0] !== 0 || errnos[1] !== 0 || !back.equals(data)) {
        t.fail(`${length} bytes at ${offset}: ${errnos.join()}`);
      }
    }
  }
  t.ok(fs.readFileSync(file).equals(model));
  await closed(disk);
}

async function far(t: Test, open: Open): Promise<void> {
  const { file, disk } = open(t, 20 * GiB);
  const places = [0, 2 * GiB - 512, 4 * GiB - 512, 4 * GiB, 4 * GiB + 4096, 17 * GiB + 1];
  for (const [index, offset] of places.entries()) {
    t.equal(await write(disk, offset, Buffer.alloc(512, 1 + index)), 0);
  }
  const fd = fs.openSync(file, 'r');
  for (const [index, offset] of places.entries()) {
    const back = Buffer.alloc(512);
    t.equal(await read(disk, offset, back), 0);
    const direct = Buffer.alloc(512);
    fs.readSync(fd, direct, 0, 512, offset);
    t.ok(back.equals(Buffer.alloc(512, 1 + index)) && direct.equals(back), `at ${offset}`);
  }
  fs.closeSync(fd);
  const range: [number, number] = [4 * GiB + 4096, 13 * GiB];
  t.equal(await call((done) => disk.zero(...range, true, done)), 0, 'a range above 4 GiB');
  const back = Buffer.alloc(512);
  t.equal(await read(disk, 4 * GiB + 4096, back), 0);
  t.equal(back[0], 0);
  t.equal(await read(disk, 4 * GiB, back), 0);
  t.equal(back[0], 4, 'what is before it stays');
  t.equal(await read(disk, 17 * GiB + 4096, back), 0);
  t.equal(fs.statSync(file).size, 20 * GiB, 'the size stays');
  await closed(disk);
}

async function hundredAtOnce(t: Test, open: Open): Promise<void> {
  const { file, disk } = open(t, 101 * MiB);
  const pieces = Array.from({ length: 100 }, (_, index) => ({
    offset: index * MiB + index, data: crypto.randomBytes(index % 5 === 0 ? MiB : 4096 + index),
  }));
  const every = (errnos: number[]): boolean => errnos.every((errno) => errno === 0);
  const writes = pieces.map(({ offset, data }) => write(disk, offset, data));
  const flushes = [1, 2, 3].map(() => call((done) => disk.flush(done)));
  t.ok(every(await Promise.all([...writes, ...flushes])));
  const backs = pieces.map(({ data }) => Buffer.alloc(data.length));
  t.ok(every(await Promise.all(pieces.map(({ offset }, index) =>
    read(disk, offset, backs[index] as Buffer)))));
  t.ok(pieces.every(({ data }, index) => data.equals(backs[index] as Buffer)));
  const all = fs.readFileSync(file);
  t.ok(pieces.every(({ offset, data }) => all.subarray(offset, offset + data.length).equals(data)));
  await closed(disk);
}

/** tmpfs has no zeroing of a range, ramfs knows neither. */
async function withoutFallocate(t: Test, open: Open, folder: string): Promise<void> {
  const { disk } = open(t, 8 * MiB, folder);
  for (const discard of [true, false]) {
    const data = Buffer.alloc(5 * MiB, 3);
    t.equal(await write(disk, 0, data), 0);
    t.equal(await call((done) => disk.zero(4097, 3 * MiB + 5, discard, done)), 0);
    data.fill(0, 4097, 4097 + 3 * MiB + 5);
    const back = Buffer.alloc(data.length);
    t.equal(await read(disk, 0, back), 0);
    t.ok(back.equals(data), discard ? 'discard' : 'zero');
  }
  const zeroing = call((done) => disk.zero(0, 4 * MiB, false, done));
  await closed(disk);
  t.equal(await zeroing, EIO, 'the pieces that follow are not begun on a closed disk');
}

async function noSpace(t: Test, open: Open, folder: string): Promise<void> {
  const { disk } = open(t, 8 * MiB, folder);
  t.equal(await write(disk, 0, Buffer.alloc(64 * 1024, 1)), 0);
  t.equal(await write(disk, 0, Buffer.alloc(4 * MiB, 1)), ENOSPC);
  t.equal(await call((done) => disk.writeDurable(4 * MiB, Buffer.alloc(2 * MiB), done)), ENOSPC);
  t.same(await Promise.all([0, 4 * MiB].map((offset) =>
    call((done) => disk.writeDurable(offset, Buffer.alloc(64 * 1024), done)))), [0, ENOSPC],
    'one of two');
  t.equal(await call((done) => disk.zero(0, 8 * MiB, false, done)), ENOSPC, 'by writing zeros');
  await closed(disk);
}

const kinds: Record<string, (t: Test, local: LocalFile) => OpenDisk> = {
  threads: (_t, local) => new LocalDisk(local),
  ring: (t, local) => new RingDisk(turningReactor(t), local),
};

const combinations = Object.entries(kinds).flatMap(([kind, create]) =>
  (['writeback', 'direct'] as const).map((cache) => ({ kind, create, cache })));

for (const { kind, create, cache } of combinations) {
  const missing = kind === 'ring' ? ringMissing() : null;
  const needs = missing === null ? {} : { skip: missing };
  const open: Open = (t, size, folder = t.testdir({})) => {
    const file = path.join(folder, 'disk');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, size);
    const local = openLocal(file, cache);
    return { file, local, disk: create(t, local) };
  };
  t.test(`disk on ${kind}, ${cache}`, needs, async (t) => {
    await t.test('past the page cache, or not', async (t) => {
      const { local, disk } = open(t, 8 * MiB);
      t.equal(local.directFd >= 0, cache === 'direct');
      await closed(disk);
    });
    await t.test('closed when the last operation has returned, never used again',
      (t) => closedWhileBusy(t, open));
    await t.test('whole transfers, zeroing reads as zeros', (t) => wholeTransfers(t, open));
    await t.test('a file that is too short', (t) => shortFile(t, open));
    await t.test('any offset and length', (t) => unaligned(t, open));
    await t.test('offsets and lengths above 4 GiB', (t) => far(t, open));
    await t.test('a hundred operations at once', (t) => hundredAtOnce(t, open));
    await t.test('zeroing that has to be written', needsRoot, async (t) => {
      for (const type of ['tmpfs', 'ramfs']) {
        await withMount(type, 'mode=700', (folder) => withoutFallocate(t, open, folder));
      }
    });
    await t.test('a full file system', needsRoot, (t) =>
      withMount('tmpfs', 'size=1m', (folder) => noSpace(t, open, folder)));
  });
}
