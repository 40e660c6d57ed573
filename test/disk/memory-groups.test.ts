/** Goal: no write at once where a limit of a control group could make it wait for a disk. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { DirtyMemory } from '../../lib/disk/dirty-memory.ts';
import { MemoryGroups } from '../../lib/disk/memory-groups.ts';
import { MiB } from '../../lib/format/limits.ts';

const statistics2 = (dirtyMiB: number): string =>
  `anon ${100 * MiB}\nfile ${7 * MiB}\nfile_mapped 1\nfile_dirty ${dirtyMiB * MiB}\n` +
  `file_writeback ${MiB}\n`;

interface Tree {
  [name: string]: string | Tree;
}

function groups(t: Test, own: string, root: Tree): MemoryGroups {
  const folder = t.testdir({ own, root });
  return new MemoryGroups(path.join(folder, 'own'), path.join(folder, 'root'));
}

t.test('memory groups: version 2, a limit of a group above', async (t) => {
  const one = groups(t, '0::/a.slice/b.service\n', {
    'a.slice': {
      'memory.max': 'max\n', 'memory.high': `${300 * MiB}\n`, 'memory.stat': statistics2(4),
      'b.service': { 'memory.max': 'max\n', 'memory.high': 'max\n' },
    },
  });
  t.equal(one.left(0), 5 * MiB, 'a twentieth of what the limit leaves, less what is dirty');
  t.equal(groups(t, '0::/\n', {}).left(0), Infinity, 'the root has no limit');
  t.equal(groups(t, '0::/../outside\n', {}).left(0), Infinity);
});

t.test('memory groups: in a container the group is the root', async (t) => {
  const limits = { 'memory.max': `${500 * MiB}`, 'memory.high': 'max' };
  const root = { ...limits, 'memory.stat': statistics2(0) };
  t.equal(groups(t, '0::/\n', root).left(0), 19 * MiB);
  t.equal(groups(t, '0::/docker/0123\n', root).left(0), 19 * MiB, 'under the name it has outside');
  t.equal(groups(t, '0::/\n', { ...root, 'memory.stat': statistics2(19) }).left(0), 0);
  t.equal(groups(t, '0::/\n', { ...root, 'memory.stat': 'anon 7\n' }).left(0), 0, 'not told');
});

t.test('memory groups: version 1', async (t) => {
  const tree = (limit: string) => ({
    memory: {
      'memory.limit_in_bytes': '9223372036854771712\n',
      'x': {
        'memory.limit_in_bytes': limit,
        'memory.stat': `dirty 5\ntotal_rss ${20 * MiB}\ntotal_dirty ${MiB}\ntotal_writeback 0\n`,
      },
    },
  });
  const own = '3:cpu,cpuacct:/y\n2:memory:/x\n0::/\n';
  t.equal(groups(t, own, tree(`${120 * MiB}\n`)).left(0), 4 * MiB);
  t.equal(groups(t, own, tree('9223372036854771712\n')).left(0), Infinity);
});

t.test('memory groups: limits that come and go are seen', async (t) => {
  const folder = t.testdir({ own: '0::/a\n', root: { a: { 'memory.stat': statistics2(0) } } });
  const one = new MemoryGroups(path.join(folder, 'own'), path.join(folder, 'root'));
  const vmstat = path.join(folder, 'vmstat');
  fs.writeFileSync(vmstat,
    'nr_dirty 0\nnr_writeback 0\nnr_dirty_background_threshold 1000000\n');
  const dirty = new DirtyMemory(vmstat, one);
  t.ok(dirty.take(4096, 0));
  fs.writeFileSync(path.join(folder, 'root/a/memory.max'), `${101 * MiB}\n`);
  t.ok(dirty.take(4096, 4000), 'not looked for all the time');
  t.notOk(dirty.take(4096, 6000));
  fs.writeFileSync(path.join(folder, 'root/a/memory.max'), 'max\n');
  t.ok(dirty.take(4096, 12_000));
});

/** A group of version 1 or 2 below this process's own; null where none can be made here. */
function realGroup(): { directory: string; limit: string } | null {
  const lines = fs.readFileSync('/proc/self/cgroup', 'utf8').split('\n');
  const nameIn = (pattern: RegExp): string | undefined =>
    lines.map((line) => pattern.exec(line)?.[1]).find((name) => name !== undefined);
  const name1 = nameIn(/^\d+:(?:.*,)?memory(?:,.*)?:(.*)$/);
  const name2 = nameIn(/^0::(.*)$/);
  const [parent, limit] = name1 === undefined
    ? [path.join('/sys/fs/cgroup', name2 ?? ''), 'memory.max']
    : [path.join('/sys/fs/cgroup/memory', name1), 'memory.limit_in_bytes'];
  const directory = path.join(parent, `hast-test-${process.pid}`);
  try {
    fs.mkdirSync(directory);
  } catch {
    return null;
  }
  if (fs.existsSync(path.join(directory, limit))) return { directory, limit };
  fs.rmdirSync(directory);
  return null;
}

const group = realGroup();
const needsGroup = group === null
  ? { skip: 'SKIPPED: no control group with a memory limit can be made here' }
  : {};

t.test('memory groups: of this machine', needsGroup, async (t) => {
  const { directory, limit } = group as NonNullable<typeof group>;
  const sleeper = spawn('sleep', ['60']);
  try {
    fs.writeFileSync(path.join(directory, 'cgroup.procs'), `${sleeper.pid}`);
    const one = new MemoryGroups(`/proc/${sleeper.pid}/cgroup`);
    const above = one.left(0);
    fs.writeFileSync(path.join(directory, limit), `${200 * MiB}`);
    const left = new MemoryGroups(`/proc/${sleeper.pid}/cgroup`).left(0);
    t.ok(left <= 10 * MiB && left <= above, `${left} bytes`);
    t.ok(left > 5 * MiB || above < 10 * MiB, `${left} bytes`);
  } finally {
    const ended = new Promise((resolve) => sleeper.once('exit', resolve));
    sleeper.kill();
    await ended;
    fs.rmdirSync(directory);
  }
});
