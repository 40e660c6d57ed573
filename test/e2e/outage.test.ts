/**
 * Goal: the link is cut while programs write. Nobody gets an error, the status says what
 * happens, only what differs is copied afterwards, and the copies are equal.
 * Method: fio writes and verifies over ext4 across a cut of more than 5 s with a timeout of 3 s;
 * the link is slowed down so that the resync can be seen; bytes on the link are counted.
 */
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import { sleep, until } from '../../cli/lab-run.ts';
import {
  Hook, makeFilesystem, pairTest, sentBytes, writeFile, type PairOptions,
} from '../fixtures/e2e-lab.ts';

const cutMs = 5000;
const timeout = 3;

function fio(directory: string, ...more: string[]): string[] {
  return [
    'fio', '--name=verify', `--directory=${directory}`, '--size=44M', '--bsrange=4k-64k',
    '--rw=randwrite', '--ioengine=libaio', '--direct=1', '--iodepth=16', '--fsync=64',
    '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--randseed=7',
    '--output-format=terse', ...more,
  ];
}

/** Collects each change of the status word until `stop`. */
function watch(lab: Lab): { words: string[]; stop: () => Promise<void> } {
  const words: string[] = [];
  let running = true;
  const look = async (): Promise<void> => {
    const seen = await lab.h1.status().catch(() => null);
    // The parent's word for a worker that has no time to answer: that knows its local disk.
    if (seen === null || seen.localDisk === 'unknown') return;
    if (words.at(-1) !== seen.status) words.push(seen.status);
  };
  const ended = (async () => {
    while (running && !lab.closed) {
      await look();
      await sleep(20);
    }
    await look();
  })();
  return { words, stop: () => {
    running = false;
    return ended;
  } };
}

async function outage(inner: Test, lab: Lab, how: 'link' | 'drop'): Promise<void> {
  const { h1, h2 } = lab;
  const hook = new Hook(lab);
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();
  // fio stays below, and a resync takes long enough to be seen.
  await lab.slowDown(60);
  const watched = watch(lab);
  const writing = h1.succeed(fio(h1.mountPoint, '--rate=,4m', '--do_verify=1'), 60_000);
  // A rejection is met below, when it is awaited.
  writing.catch(() => undefined);
  await sleep(3000);
  await lab.cut(how);
  await sleep(cutMs);
  const { dirtyBytes, mediaSize, disconnectedSince } =
    await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  inner.type(disconnectedSince, 'number');
  inner.ok(dirtyBytes > 0, 'what the peer lacks is known');
  inner.ok(dirtyBytes < mediaSize / 3, `and is little: ${dirtyBytes} of ${mediaSize} bytes`);
  await lab.heal();
  await inner.resolves(writing, 'fio saw no error, and read what it wrote');
  await lab.settle();
  await watched.stop();
  const events = (): (string | undefined)[] => hook.calls()
    .filter((line) => line.startsWith('h1 ') && !line.includes('role'))
    .map((line) => line.split(' ')[1]);
  await until('the hooks', 10_000, () => events().length >= 5 || undefined);
  inner.same(events(), ['connect', 'disconnect', 'connect', 'syncstart', 'syncdone'], 'the hooks');
  inner.same(watched.words, ['complete', 'degraded', 'syncing', 'complete'], 'the status words');

  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  await h1.control('role', 'secondary', resourceName);
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  const verify = h2.succeed(fio(h2.mountPoint, '--verify_only=1'), 60_000);
  await inner.resolves(verify, 'fio finds everything on the other node');
}

async function copiesLittle(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'before', '40M');
  await lab.settle();
  await lab.unmark();
  await lab.cut('drop');
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  await writeFile(h1, 'meanwhile', '8M');
  const { dirtyBytes } = await h1.status();
  inner.ok(dirtyBytes >= 8 * MiB && dirtyBytes < 10 * MiB, `${dirtyBytes} bytes differ`);
  const before = await sentBytes(lab, h1);
  await lab.heal();
  await lab.settle();
  const sent = await sentBytes(lab, h1) - before;
  inner.ok(sent >= 8 * MiB, `${sent} bytes went over the link`);
  inner.ok(sent < dirtyBytes * 1.1 + 1024 * 1024, 'and not much more than what differed');
  await copiesNothingTwice(inner, lab);
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

/**
 * Writes, and cuts the link: the bytes marked then. A checkpoint clears what both copies hold, and
 * comes at most 2 s after a write: a busy machine may meet it before the cut.
 */
async function breakWhileMarked(lab: Lab): Promise<number> {
  const { h1 } = lab;
  await lab.unmark();
  await writeFile(h1, 'just before', '30M');
  await lab.cut('drop');
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  return (await h1.status()).dirtyBytes;
}

/** Marked still when contact breaks, and there already: the same process of the peer has it. */
async function copiesNothingTwice(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const attempts = 6;
  // A checkpoint may have come in between, for the first of it.
  const least = 12 * MiB;
  let marked = await breakWhileMarked(lab);
  for (let attempt = 1; attempt < attempts && marked < least; attempt += 1) {
    await lab.heal();
    marked = await breakWhileMarked(lab);
  }
  inner.ok(marked >= least, `${marked} bytes are marked`);
  await writeFile(h1, 'meanwhile', '2M');
  const before = await sentBytes(lab, h1);
  await lab.heal();
  await lab.settle();
  const sent = await sentBytes(lab, h1) - before;
  inner.ok(sent >= 2 * MiB && sent < 6 * MiB, `${sent} bytes went over the link`);
}

t.setTimeout(500_000);
const modes = [
  { mode: 'fullsync', how: 'link' }, { mode: 'memsync', how: 'drop' },
  { mode: 'async', how: 'link' },
] as const;
for (const { mode, how } of modes) {
  const options: PairOptions = {
    needs: ['fio', 'nft', 'tc'], timeout, resource: [`replication ${mode}`],
  };
  await pairTest(t, `outage: a cut of 5 s under fio (${mode}, ${how})`, options, (inner, lab) =>
    outage(inner, lab, how));
}
await pairTest(t, 'outage: only what differs is copied', {
  needs: ['nft'], timeout, resource: ['compression none'], boundMs: 240_000,
}, copiesLittle);
