/** Which writes to a block device the thread of the ring does itself, and that they are right. */
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { DirtyMemory } from '../../lib/disk/dirty-memory.ts';
import { openLocal } from '../../lib/disk/local.ts';
import { RingDisk } from '../../lib/disk/ring-disk.ts';
import { MiB } from '../../lib/format/limits.ts';
import { bounded, command, succeed } from '../fixtures/fuse-lab.ts';
import { needsRing, turningReactor } from '../fixtures/ring.ts';

const { ENOSPC } = os.constants.errno;
const needs = process.getuid?.() === 0 ? needsRing() : { skip: 'SKIPPED: needs root' };

/** Says yes, and counts. */
class Counted extends DirtyMemory {
  taken: number[] = [];

  override take(bytes: number): boolean {
    this.taken.push(bytes);
    return true;
  }

  /** What was written at once since the last look. */
  look(): number[] {
    const { taken } = this;
    this.taken = [];
    return taken;
  }
}

async function withDevice(
  t: Test, run: (disk: RingDisk, memory: Counted, file: string) => Promise<void>,
): Promise<void> {
  const file = path.join(t.testdir({ image: '' }), 'image');
  fs.truncateSync(file, 8 * MiB);
  const loop = (await succeed('losetup', ['--find', '--show', file])).trim();
  try {
    const memory = new Counted();
    const disk = new RingDisk(turningReactor(t), openLocal(loop), memory);
    await run(disk, memory, file);
    await bounded('close', new Promise<void>((resolve) => disk.close(resolve)));
  } finally {
    await command('losetup', ['-d', loop]);
  }
}

type Begin = (done: (errno: number) => void) => void;

/** All of them begun in one turn; their errnos. */
function together(...begins: readonly Begin[]): Promise<number[]> {
  return bounded('operations', Promise.all(begins.map((begin) => new Promise<number>(begin))));
}

t.test('ring disk: small whole blocks are written at once', needs, (t) =>
  withDevice(t, async (disk, memory, file) => {
    const data = crypto.randomBytes(MiB);
    const write = (at: number, length: number): Begin => (done) =>
      disk.write(at, data, at, length, done);
    t.same(await together(write(0, 4096)), [0]);
    t.same(memory.look(), [4096]);
    t.same(await together(write(4096, 8192), write(16_384, 32_768)), [0, 0]);
    t.same(memory.look(), [40_960], 'of one turn together');
    const back = Buffer.alloc(4096);
    t.same(await together((done) => disk.read(0, back, 0, 4096, done), write(65_536, 4096)),
      [0, 0]);
    t.same(memory.look(), [4096], 'beside a read');
    t.ok(back.equals(data.subarray(0, 4096)));
    t.same(await together((done) => disk.flush(done)), [0]);
    for (const [from, to] of [[0, 12_288], [16_384, 49_152], [65_536, 69_632]] as const) {
      t.ok(fs.readFileSync(file).subarray(from, to).equals(data.subarray(from, to)), `at ${from}`);
    }
  }));

t.test('ring disk: writes that are durable together are', needs, (t) =>
  withDevice(t, async (disk, _memory, file) => {
    const data = crypto.randomBytes(4 * MiB);
    const offsets = [5 * MiB, 0, 2 * MiB + 4096, 5 * MiB + 4096];
    const writes = offsets.map((offset, index) =>
      ({ offset, raw: data.subarray(index * 4096, (index + 1) * 4096) }));
    t.same(await together((done) => disk.writeAllDurable(writes, done)), [0]);
    // Of the file below: what lies in the page cache of the device alone is not in it.
    const below = fs.readFileSync(file);
    for (const { offset, raw } of writes) {
      t.ok(below.subarray(offset, offset + 4096).equals(raw), `at ${offset}`);
    }
    const late = [...writes, { offset: 8 * MiB, raw: data.subarray(0, 4096) }];
    t.same(await together((done) => disk.writeAllDurable(late, done)), [ENOSPC], 'one of them');
  }));

t.test('ring disk: durable writes too far apart for one flush', needs, async (t) => {
  const file = path.join(t.testdir({ image: '' }), 'image');
  fs.truncateSync(file, 5 * 1024 * MiB);
  const disk = new RingDisk(turningReactor(t), openLocal(file));
  const raw = crypto.randomBytes(4096);
  const writes = [0, 4 * 1024 * MiB].map((offset) => ({ offset, raw }));
  t.same(await together((done) => disk.writeAllDurable(writes, done)), [0]);
  const back = Buffer.alloc(4096);
  t.same(await together((done) => disk.read(4 * 1024 * MiB, back, 0, 4096, done)), [0]);
  t.ok(back.equals(raw));
  await bounded('close', new Promise<void>((resolve) => disk.close(resolve)));
});

t.test('ring disk: what could wait for the disk is not', needs, (t) =>
  withDevice(t, async (disk, memory) => {
    const data = crypto.randomBytes(MiB);
    const write = (at: number, length: number): Begin => (done) =>
      disk.write(at, data, at, length, done);
    const others: Record<string, Begin> = {
      'a flush': (done) => disk.flush(done),
      'a discard': (done) => disk.zero(4 * MiB, MiB, true, done),
      'a durable write': (done) => disk.writeDurable(6 * MiB, data.subarray(0, 4096), done),
      'durable writes': (done) => disk.writeAllDurable([7 * MiB, 5 * MiB].map((offset) =>
        ({ offset, raw: data.subarray(0, 4096) })), done),
      'a large write': write(0, MiB),
      'a write of no whole blocks': write(512, 512),
    };
    for (const [what, other] of Object.entries(others)) {
      t.same(await together(other, write(8192, 4096)), [0, 0]);
      t.same(memory.look().filter((bytes) => bytes <= 4096), [], `beside ${what}`);
      t.same(await together(write(8192, 4096)), [0]);
      t.same(memory.look(), [4096], 'after it');
    }
    t.same(await together((done) => disk.write(8 * MiB, data, 0, 4096, done)), [ENOSPC],
      'an error is one');
  }));
