/** When the thread of the ring writes by itself: never where it could wait for the disk. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { DirtyMemory } from '../../lib/disk/dirty-memory.ts';
import { InlineWrites } from '../../lib/disk/inline-writes.ts';
import { closeLocal, type LocalFile, openLocal } from '../../lib/disk/local.ts';
import { MemoryGroups } from '../../lib/disk/memory-groups.ts';
import { onlyCopies } from '../../lib/disk/page-cache.ts';
import { MiB } from '../../lib/format/limits.ts';
import { command, succeed } from '../fixtures/fuse-lab.ts';

const KiB = 1024;
const plenty = 1_000_000;

function statistics(dirty: number, writeback: number, bound: number): string {
  return `nr_free_pages 12\nnr_dirty ${dirty}\nnr_writeback ${writeback}\nnr_writeback_temp 9\n` +
    `nr_dirty_threshold ${2 * bound}\nnr_dirty_background_threshold ${bound}\nworkingset 1\n`;
}

function memory(t: Test, text: string): { file: string; memory: DirtyMemory } {
  const folder = t.testdir({ vmstat: text });
  const file = path.join(folder, 'vmstat');
  const none = new MemoryGroups(path.join(folder, 'cgroup'), folder);
  return { file, memory: new DirtyMemory(file, none) };
}

t.test('dirty memory: half of what is left below the bound, for 100 ms', async (t) => {
  const { file, memory: dirty } = memory(t, statistics(50, 30, 100));
  t.ok(dirty.take(40 * KiB, 0), '10 pages of the 20 that are left');
  t.notOk(dirty.take(1, 99), 'that was all');
  t.ok(dirty.take(4 * KiB, 100), 'it is looked at again');
  fs.writeFileSync(file, statistics(90, 30, 100));
  t.ok(dirty.take(4 * KiB, 150), 'not at every write');
  t.notOk(dirty.take(1, 200), 'more than the bound');
  fs.rmSync(file);
  t.notOk(dirty.take(1, 300), 'no file');
  fs.writeFileSync(file, 'nr_dirty 1\n');
  t.notOk(dirty.take(1, 400), 'not told');
  fs.writeFileSync(file, statistics(0, 0, 100));
  t.ok(dirty.take(4 * KiB, 500), 'told again');
});

t.test('dirty memory: of this machine', async (t) => {
  const text = fs.readFileSync('/proc/vmstat', 'latin1');
  t.match(text, /^nr_dirty \d+$/m);
  t.match(text, /^nr_writeback \d+$/m);
  t.match(text, /^nr_dirty_background_threshold \d+$/m);
});

t.test('inline writes: nothing that could hold them up is under way', async (t) => {
  const inline = new InlineWrites(memory(t, statistics(0, 0, plenty)).memory);
  t.ok(inline.allow(4 * KiB, 0));
  t.ok(inline.allow(128 * KiB, 0));
  t.notOk(inline.allow(132 * KiB, 0), 'more is faster elsewhere');
  inline.began();
  inline.began();
  t.notOk(inline.allow(4 * KiB, 1));
  inline.ended();
  t.notOk(inline.allow(4 * KiB, 1), 'the other one');
  inline.ended();
  t.ok(inline.allow(4 * KiB, 1));
});

t.test('inline writes: one that took long keeps the next away for a second', async (t) => {
  const inline = new InlineWrites(memory(t, statistics(0, 0, plenty)).memory);
  t.ok(inline.allow(4 * KiB, 1000));
  inline.done(1000, 1000.1);
  t.ok(inline.allow(4 * KiB, 1001));
  inline.done(1001, 1004);
  t.notOk(inline.allow(4 * KiB, 1005));
  t.notOk(inline.allow(4 * KiB, 2003));
  t.ok(inline.allow(4 * KiB, 2004));
});

t.test('inline writes: not while much memory is dirty', async (t) => {
  const inline = new InlineWrites(memory(t, statistics(90, 20, 100)).memory);
  t.notOk(inline.allow(4 * KiB, 0));
});

const needsRoot = process.getuid?.() === 0 ? {} : { skip: 'SKIPPED: needs root' };

/** `use` of a file on a file system that `mkfs` made. */
async function onFileSystem(
  mkfs: readonly string[], use: (local: LocalFile) => void,
): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-cache-'));
  const image = path.join(folder, 'image');
  const mount = path.join(folder, 'mount');
  fs.mkdirSync(mount);
  fs.writeFileSync(image, '');
  fs.truncateSync(image, 320 * MiB);
  try {
    await succeed(mkfs[0] as string, [...mkfs.slice(1), image]);
    await succeed('mount', ['-o', 'loop', image, mount]);
    const file = path.join(mount, 'local');
    fs.writeFileSync(file, Buffer.alloc(MiB));
    const local = openLocal(file);
    use(local);
    closeLocal(local);
  } finally {
    await command('umount', ['-l', mount]);
    fs.rmSync(folder, { recursive: true });
  }
}

t.test('page cache: which file systems only copy', needsRoot, async (t) => {
  await onFileSystem(['mkfs.ext4', '-q', '-O', '^has_journal'], (local) => {
    t.ok(onlyCopies(local), 'ext4 without a journal');
  });
  await onFileSystem(['mkfs.ext4', '-q'], (local) => {
    t.notOk(onlyCopies(local), 'ext4 with a journal');
  });
  const xfs = await command('mkfs.xfs', ['-V']).catch(() => ({ code: 127 }));
  if (xfs.code !== 0) return;
  await onFileSystem(['mkfs.xfs', '-q'], (local) => t.notOk(onlyCopies(local), 'XFS says it'));
});

t.test('page cache: a block device only copies, unless it wants stable pages', needsRoot,
  async (t) => {
    const folder = t.testdir({ image: '' });
    const image = path.join(folder, 'image');
    fs.truncateSync(image, MiB);
    const loop = (await succeed('losetup', ['--find', '--show', image])).trim();
    try {
      const local = openLocal(loop);
      t.ok(onlyCopies(local));
      // The same device as sysfs would show it.
      const [device] = fs.readFileSync(`/sys/block/${path.basename(loop)}/dev`, 'utf8').split('\n');
      const root = path.join(folder, 'root');
      const queue = path.join(root, `sys/dev/block/${device}/queue`);
      t.notOk(onlyCopies(local, root), 'no sysfs');
      fs.mkdirSync(queue, { recursive: true });
      fs.writeFileSync(path.join(queue, 'stable_writes'), '0\n');
      t.ok(onlyCopies(local, root));
      fs.writeFileSync(path.join(queue, 'stable_writes'), '1\n');
      t.notOk(onlyCopies(local, root));
      closeLocal(local);
    } finally {
      await command('losetup', ['-d', loop]);
    }
  });
