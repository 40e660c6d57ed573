/**
 * Goal: what the manual promises, in every replication mode: a file system on the device, the
 * roles exchanged in order, the primary lost and found; every file there each time.
 * Method: a tree of files, its checksums, both failovers, the two copies compared byte for byte.
 */
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import {
  checksums, makeFilesystem, pairTest, writeTree, type PairOptions,
} from '../fixtures/e2e-lab.ts';

interface Variant extends PairOptions {
  title: string;
  filesystem?: 'xfs';
}

const variants: Variant[] = [
  { title: 'fullsync, ext4', resource: ['replication fullsync'] },
  {
    title: 'memsync, ext4, checksum sha256, compression lzf',
    resource: ['replication memsync', 'checksum sha256', 'compression lzf'],
  },
  {
    title: 'async, ext4, checksum none, compression none, block devices', local: 'block',
    resource: ['replication async', 'checksum none', 'compression none'],
  },
  {
    title: 'memsync, xfs, checksum sha256, compression none', filesystem: 'xfs',
    needs: ['mkfs.xfs'], sizes: [340 * MiB, 340 * MiB],
    resource: ['replication memsync', 'checksum sha256', 'compression none'],
  },
  {
    title: 'fullsync, ext4, fuse-native, checksum none, compression lzf', needs: ['libfuse2'],
    resource: ['frontend fuse-native', 'checksum none', 'compression lzf'],
  },
];

async function exchangeRoles(lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await h1.unmount();
  await h1.control('role', 'secondary', resourceName);
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
}

async function losePrimary(lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  // What async has not sent yet is not promised.
  await lab.settle();
  await h2.kill();
  await h2.clearRemains();
  await h1.untilStatus('the loss', ({ status }) => status === 'waiting');
  await h1.control('role', 'primary', resourceName);
  await h1.mount('-o', 'noatime');
}

async function walk(inner: Test, lab: Lab, filesystem: 'ext4' | 'xfs'): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1, filesystem);
  await h1.mount('-o', 'noatime');
  await writeTree(h1, 'first');
  const first = await checksums(h1);
  inner.equal(first.trim().split('\n').length, 25, 'the tree was written');

  await exchangeRoles(lab);
  inner.equal(await checksums(h2), first, 'every file is there after the roles were exchanged');
  await lab.settle();
  await writeTree(h2, 'second');
  const second = await checksums(h2);

  await losePrimary(lab);
  inner.equal(await checksums(h1), second, 'every file is there after the primary was killed');
  inner.equal((await h1.status()).status, 'degraded');
  await writeTree(h1, 'third');
  const third = await checksums(h1);

  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  await h1.control('role', 'secondary', resourceName);
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  inner.equal(await checksums(h2), third, 'and every file is there on the other node again');
  await h2.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal at the end');
}

t.setTimeout(290_000);
for (const { title, filesystem, ...options } of variants) {
  await pairTest(t, `walk-through: ${title}`, options, (inner, lab) =>
    walk(inner, lab, filesystem ?? 'ext4'));
}
