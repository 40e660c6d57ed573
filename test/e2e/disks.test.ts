/**
 * Goal: what happens to the components: discards and zeroing reach both, a fresh pair copies
 * nothing, a replacement disk gets everything, files and block devices behave alike.
 * Method: space taken by the files behind the components, bytes on the link, byte comparison.
 */
import * as fs from 'node:fs';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { checksums, makeFilesystem, pairTest, sentBytes, writeFile, writeTree } from
  '../fixtures/e2e-lab.ts';

/** Bytes that the file behind the component takes. */
async function taken(node: LabNode): Promise<number> {
  await node.succeed(['sync', '-f', node.disk]);
  return fs.statSync(node.disk).blocks * 512;
}

async function discard(inner: Test, lab: Lab): Promise<void> {
  const { h1, nodes } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'large', '48M');
  await lab.settle();
  const full = await Promise.all(nodes.map(taken));
  fs.rmSync(`${h1.mountPoint}/large`);
  await h1.succeed(['sync', '-f', h1.mountPoint]);
  const trimmed = await h1.succeed(['fstrim', '-v', h1.mountPoint]);
  inner.match(trimmed, /\d+ bytes\) trimmed/, 'fstrim works');
  await h1.unmount();
  await lab.settle();
  for (const [index, node] of nodes.entries()) {
    const freed = (full[index] ?? 0) - await taken(node);
    inner.ok(freed > 40 * MiB, `fstrim freed ${freed} bytes of the disk of ${node.name}`);
  }
  await inner.resolves(lab.compare(), 'the copies are equal after fstrim');
  inner.ok((await h1.status()).statistics.deletes > 0, 'discards are counted');
  await zeroing(inner, lab);
}

/** Random bytes over the start of the device, and then ranges of it zeroed and discarded. */
async function zeroing(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const size = 24 * MiB;
  await h1.succeed(['dd', 'if=/dev/urandom', `of=${h1.device}`, 'bs=1M', 'count=24',
    'oflag=direct', 'status=none']);
  // Odd borders: only 512 bytes can be relied on.
  await h1.succeed(['blkdiscard', '-f', '--zeroout', '-o', '1049088', '-l', '7340544', h1.device]);
  await h1.succeed(['blkdiscard', '-f', '-o', `${12 * MiB}`, '-l', `${8 * MiB}`, h1.device]);
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal after zeroing and discard');
  const read = await fs.promises.open(h1.device, 'r');
  const data = Buffer.alloc(size);
  await read.read(data, 0, size, 0).finally(() => read.close());
  const zero = (from: number, to: number): boolean =>
    data.subarray(from, to).every((one) => one === 0);
  inner.ok(zero(1049088, 1049088 + 7340544), 'what was zeroed reads as zeros');
  inner.ok(zero(12 * MiB, 20 * MiB), 'what was discarded reads as zeros');
  inner.notOk(zero(1048576, 1049088), 'the sector before it stayed');
  inner.notOk(zero(1049088 + 7340544, 1049088 + 7340544 + 512), 'the sector behind it stayed');
}

async function freshPair(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const before = await sentBytes(lab, h1) + await sentBytes(lab, h2);
  await lab.bringUp();
  const sent = await sentBytes(lab, h1) + await sentBytes(lab, h2) - before;
  inner.ok(sent < MiB, `a fresh pair needs ${sent} bytes to be complete`);
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeTree(h1, 'tree');
  const sums = await checksums(h1);
  await lab.settle();

  // The disk of h2 is replaced by an empty one, while h1 goes on.
  await h2.stop();
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  const oldId = h2.dump().copyId;
  if (h2.local === h2.disk) h2.makeDisk(fs.statSync(h2.disk).size);
  else await h2.succeed(['blkdiscard', '-f', h2.local]);
  await h2.control('create', resourceName);
  inner.not(h2.dump().copyId, oldId, 'it is a new copy');
  await writeFile(h1, 'meanwhile', '1M');
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  const complete = await checksums(h1);
  inner.ok(complete.length > sums.length);
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the replacement disk got everything');
  await h1.control('role', 'secondary', resourceName);
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  inner.equal(await checksums(h2), complete, 'and every file is there');
}

t.setTimeout(290_000);
await pairTest(t, 'disks: discard and zeroing reach both copies (files)',
  { needs: ['fstrim', 'blkdiscard'] }, discard);
await pairTest(t, 'disks: discard and zeroing reach both copies (block devices, async)',
  { needs: ['fstrim', 'blkdiscard'], local: 'block', resource: ['replication async'] }, discard);
await pairTest(t, 'disks: a fresh pair copies nothing, a replacement gets everything (files)',
  {}, freshPair);
await pairTest(t, 'disks: the same with block devices, memsync',
  { needs: ['blkdiscard'], local: 'block', resource: ['replication memsync'] }, freshPair);
