/**
 * Goal: a primary that is short of memory neither hangs nor fails: writeback of the file system on
 * the device needs the worker, and the worker must not wait for that writeback to get memory.
 * Method: the writers, and the worker of the primary, share a memory cgroup that is much smaller
 * than what the writers leave in the page cache; everything ends within a bound, without an error
 * and without an OOM kill, and the copies are equal.
 *
 * With cgroup v1 a worker that may not set PR_SET_IO_FLUSHER can hang in such a group: see
 * docs/limits.md. There only the writers are put into it; HAST_TEST_MEMORY=all tries the rest, with
 * cache direct.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { run } from '../../cli/lab-run.ts';
import { setIoFlusher } from '../../lib/base/libc.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';
import { MemoryGroup } from '../fixtures/memory-group.ts';

const groupMib = Number(process.env['MEMORY_MIB'] ?? 192);
const writers = 4;
const writerMib = 160;
const rounds = 2;
/** Of a round. What hangs does so for ever: there is room for a machine with other work. */
const writeMsMax = 100_000;

/** The pid of the primary's worker, which is in the group, and nothing else is. */
async function primaryIn(group: MemoryGroup, lab: Lab): Promise<number> {
  const { h1, h2 } = lab;
  for (const node of lab.nodes) {
    await node.control('create', resourceName);
    await node.start();
  }
  const { pid } = h1;
  if (pid === undefined) throw new Error('no hastd');
  await h2.control('role', 'secondary', resourceName);
  group.add(pid);
  await h1.control('role', 'primary', resourceName);
  group.release(pid);
  const { worker } = await h1.status();
  if (worker === null) throw new Error('no worker');
  return worker;
}

/** Stacks of the kernel, of every thread of the worker and the writers: for one who looks. */
function stacks(group: MemoryGroup): string {
  return group.processes.flatMap((pid) => {
    const tasks = fs.readdirSync(`/proc/${pid}/task`);
    return tasks.map((task) => {
      const read = (name: string): string => {
        try {
          return fs.readFileSync(`/proc/${pid}/task/${task}/${name}`, 'utf8').trim();
        } catch {
          return '';
        }
      };
      return `${pid}/${task} ${read('comm')} ${read('wchan')}\n${read('stack')}`;
    });
  }).join('\n');
}

async function writeAll(group: MemoryGroup, node: LabNode, round: number): Promise<void> {
  const script = `
    for i in $(seq ${writers}); do
      dd if=/dev/urandom of="$1/file$i" bs=1M count=${writerMib} conv=notrunc status=none &
      pids="$pids $!"
    done
    for pid in $pids; do wait $pid || exit 1; done
    [ "$2" = 1 ] && exit 0
    sync -f "$1"`;
  await node.succeed(
    [...group.prefix, 'sh', '-c', script, 'sh', node.mountPoint, String(round)], writeMsMax,
  );
}

async function heavyWrites(
  inner: Test, lab: Lab, group: MemoryGroup, isIncluded: boolean,
): Promise<void> {
  const { h1 } = lab;
  const worker = await primaryIn(group, lab);
  if (!isIncluded) group.release(worker);
  await lab.settle();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  inner.equal(group.processes.includes(worker), isIncluded, 'the worker is in the group, or not');
  const begun = performance.now();
  try {
    for (let round = 1; round <= rounds; round++) await writeAll(group, h1, round);
  } catch (error) {
    inner.comment(`${String(error)}\n${stacks(group)}`);
    // Aborts the connection (and says busy): what hangs gets an error, and can be ended. Before
    // that nothing may ask for the memory of a process that hangs, not even for its environment.
    await run(['umount', '-f', path.join(h1.rundir, resourceName)]).catch(() => undefined);
    throw error;
  }
  const seconds = (performance.now() - begun) / 1000;
  const mib = writers * writerMib * rounds;
  const status = fs.readFileSync(`/proc/${worker}/status`, 'utf8');
  const resident = Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024);
  const peak = Math.round(group.peakBytes / MiB);
  inner.comment(`${mib} MiB in ${Math.round(seconds)} s; the group (v${group.version}) had up to ` +
    `${peak} of ${groupMib} MiB and ran full ${group.reclaims} times; the worker ${resident} MiB`);
  inner.ok(group.reclaims > 0, 'memory was short');
  inner.equal(group.oomKills, 0, 'nothing was killed');
  inner.equal((await h1.status()).worker, worker, 'the worker is the same');
  await h1.unmount();
  await lab.settle(120_000);
  await inner.resolves(lab.compare(), 'the copies are equal');
}

/** Why the worker cannot be put into the group here, or null. */
function notWithWorker(group: MemoryGroup): string | null {
  if (group.version === 2 || process.env['HAST_TEST_MEMORY'] === 'all') return null;
  const errno = setIoFlusher();
  return errno === 0 ? null
    : `NOT TESTED: cgroup v1, and PR_SET_IO_FLUSHER is refused (errno ${errno}): docs/limits.md`;
}

t.setTimeout(590_000);
const probe = MemoryGroup.open(`hast-probe-${process.pid}`, groupMib * MiB);
const reason = typeof probe === 'string' ? `NOT TESTED: ${probe}` : null;
const reasonWithWorker = typeof probe === 'string' ? reason : notWithWorker(probe);
if (typeof probe !== 'string') await probe.close();

for (const isIncluded of [false, true]) {
  const who = isIncluded ? 'the writers and the worker' : 'the writers';
  const title = `memory: heavy buffered writes, ${groupMib} MiB for ${who}`;
  const skip = isIncluded ? reasonWithWorker : reason;
  if (skip !== null) {
    await t.test(title, { skip }, () => undefined);
    continue;
  }
  const size = writers * writerMib * MiB + 160 * MiB;
  const resource = isIncluded ? ['cache direct'] : [];
  const options = { sizes: [size, size] as const, resource, boundMs: 280_000 };
  await pairTest(t, title, options, async (inner, lab) => {
    const group = MemoryGroup.open(path.basename(lab.directory), groupMib * MiB);
    if (typeof group === 'string') throw new Error(group);
    try {
      await heavyWrites(inner, lab, group, isIncluded);
    } finally {
      await group.close();
    }
  });
}
