/**
 * Goal: what could cost data is refused on both nodes, says so clearly, and overwrites nothing:
 * an unreachable peer, copies that do not fit each other, promotion of a half-synced or outdated
 * copy, two primaries.
 */
import * as fs from 'node:fs';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import { differingBlocks } from '../../cli/lab-compare.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { checksums, Hook, makeFilesystem, pairTest, writeFile } from '../fixtures/e2e-lab.ts';

const refused = 77;
const timeout = 2;

async function promotionRefused(
  inner: Test, node: LabNode, text: RegExp | string, ...more: string[]
): Promise<void> {
  const { code, stderr } = await node.hastctl('role', 'primary', ...more, resourceName);
  inner.equal(code, refused, `the promotion of ${node.name} is refused: ${stderr.trim()}`);
  inner.match(stderr, text);
  inner.match(stderr, '; try: ', 'and the refusal says what to do');
}

async function useAlone({ h1, nodes }: Lab): Promise<void> {
  for (const node of nodes) await node.control('create', resourceName);
  await h1.start();
  await h1.control('role', 'primary', resourceName);
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
}

async function unreachable(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await useAlone(lab);
  await writeFile(h1, 'alone', '4M');
  const status = await h1.status();
  inner.equal(status.status, 'degraded', 'a fresh node goes on without its peer');
  inner.equal(status.connection, 'connecting');
  inner.match(status.detail, /10\.77\.0\.2|refused/, `the status says why: ${status.detail}`);
  inner.ok(status.singleCopyWrites > 0 && status.dirtyBytes > 4 * MiB, 'and what is at risk');
  await lab.cut('drop');
  await writeFile(h1, 'cut off', '1M');
  await lab.heal();
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the peer got everything when it came');
}

/** The volume's bytes, past the daemon. */
function dataOf(node: LabNode): Buffer {
  const { dataOffset, mediaSize } = node.dump().superblock;
  return fs.readFileSync(node.disk).subarray(dataOffset, dataOffset + mediaSize);
}

async function sizes(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2, nodes } = lab;
  await useAlone(lab);
  await writeFile(h1, 'file', '1M');
  const before = dataOf(h2);
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  for (const node of nodes) {
    const { status } = await node.untilStatus('refused', ({ connection, detail }) =>
      connection === 'refused' && detail.includes('different sizes'));
    inner.equal(status, node === h1 ? 'degraded' : 'waiting');
  }
  inner.ok(before.equals(dataOf(h2)), 'nothing was written on h2');
  await writeFile(h1, 'goes on', '1M');
}

async function halfSynced(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await useAlone(lab);
  await writeFile(h1, 'file', '48M');
  const sums = await checksums(h1);
  await lab.slowDown(40);
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await h2.untilStatus('the sync', ({ status }) => status === 'syncing');
  await promotionRefused(inner, h2, 'the peer is primary');
  await promotionRefused(inner, h2, 'the peer is primary', '--force');
  await lab.cut('drop');
  await h2.untilStatus('the loss', ({ connection }) => connection === 'connecting');
  inner.equal((await h2.status()).localDisk, 'inconsistent');
  await promotionRefused(inner, h2, 'half-finished copy');
  await h2.stop();
  await h2.start();
  await promotionRefused(inner, h2, 'half-finished copy');
  await h2.control('role', 'secondary', resourceName);

  // Even forced, such a copy never overwrites the good one.
  await h2.control('role', 'primary', '--force', resourceName);
  await lab.heal();
  for (const node of lab.nodes) {
    await node.untilStatus('refused', ({ connection }) => connection === 'refused');
  }
  inner.equal(await checksums(h1), sums, 'the good copy is untouched');
  await lab.slowDown(null);
  await h2.control('role', 'init', resourceName);
  await h2.control('create', '--force', resourceName);
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'created anew, it gets everything');
}

async function outdated(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();
  await h2.stop();
  await writeFile(h1, 'h2 lacks this', '1M');
  await h1.kill();
  await h1.clearRemains();
  await h2.start();
  await promotionRefused(inner, h2, 'may have newer data');
  await h2.control('role', 'secondary', resourceName);
  await promotionRefused(inner, h2, 'may have newer data');
  inner.equal((await h2.status()).role, 'secondary', 'a refusal leaves the role');
  // The one that was alone may start alone again.
  await h1.start();
  await h1.control('role', 'primary', resourceName);
  await h1.mount('-o', 'noatime');
  inner.match(await checksums(h1), 'h2 lacks this');
  await lab.settle();
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare());
}

async function splitBrain(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2, nodes } = lab;
  const hook = new Hook(lab);
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'common', '2M');
  await lab.settle();
  await lab.cut('drop');
  await h2.untilStatus('the loss', ({ connection }) => connection === 'connecting');
  await h2.control('role', 'primary', '--force', resourceName);
  await h2.mount('-o', 'noatime');
  await writeFile(h1, 'only on h1', '3M');
  await writeFile(h2, 'only on h2', '3M');
  const [first, second] = [await checksums(h1), await checksums(h2)];
  await lab.heal();
  for (const node of nodes) {
    const { detail, connection } = await node.untilStatus('split brain',
      ({ status }) => status === 'split-brain', 30_000);
    inner.match(detail, 'written independently');
    inner.equal(connection, 'refused');
  }
  inner.equal(await checksums(h1), first, 'nothing of h1 was overwritten');
  inner.equal(await checksums(h2), second, 'nothing of h2 was overwritten');
  await writeFile(h1, 'goes on', '1M');
  await h2.unmount();
  await h2.control('role', 'secondary', resourceName);
  await h2.untilStatus('split brain', ({ status }) => status === 'split-brain', 30_000);
  await promotionRefused(inner, h2, 'split brain');
  await h2.stop();
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await h2.untilStatus('split brain still', ({ status }) => status === 'split-brain', 30_000);
  inner.ok((await differingBlocks(h1.local, h2.local)).length > 0, 'it is not overwritten later');
  const told = hook.calls().filter((line) => line.startsWith('h1 split-brain'));
  inner.same(told, [`h1 split-brain ${resourceName}`], 'the hook ran once on h1');
  // The operator gives the data of h2 up.
  await h2.control('role', 'init', resourceName);
  await h2.control('create', '--force', resourceName);
  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  inner.match(await checksums(h1), 'only on h1');
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'and the pair is one again');
}

t.setTimeout(290_000);
await pairTest(t, 'safety: an unreachable peer', { timeout, needs: ['nft'] }, unreachable);
await pairTest(t, 'safety: copies of different sizes',
  { timeout, sizes: [160 * MiB, 128 * MiB] }, sizes);
await pairTest(t, 'safety: a half-synced copy is not promoted',
  { timeout, needs: ['nft', 'tc'], resource: ['compression none'] }, halfSynced);
await pairTest(t, 'safety: an outdated copy is not promoted', { timeout }, outdated);
await pairTest(t, 'safety: two primaries (split brain)', { timeout, needs: ['nft'] }, splitBrain);
