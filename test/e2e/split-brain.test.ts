/**
 * Goal: after a split brain nobody's data are touched until a person decides; `hastctl resolve`
 * copies only what either side wrote since the fork, and what it overwrites can be put back.
 * Method: both nodes write alone behind a cut; checksums of all files, the blocks that differ and
 * the bytes on the link are held against what the commands say and do.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import { differingBlocks } from '../../cli/lab-compare.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep } from '../../cli/lab-run.ts';
import { killPart } from '../fixtures/e2e-kill.ts';
import {
  checksums, Hook, makeFilesystem, pairTest, sentBytes, writeFile,
} from '../fixtures/e2e-lab.ts';

const timeout = 2;
const refused = 77;
const blockSize = 4096;
const size = 112 * MiB;

interface DryRun {
  copyBytes: number;
  full: boolean;
  localGeneration: string;
  peerGeneration: string;
}

interface Fork {
  hook: Hook;
  /** Checksums of the files on h1 and h2. */
  first: string;
  second: string;
}

/** Both nodes have written alone; h1 is primary and mounted, h2 is secondary. */
async function fork(inner: Test, lab: Lab): Promise<Fork> {
  const { h1, h2, nodes } = lab;
  const hook = new Hook(lab);
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'common', '4M');
  await lab.settle();
  await lab.unmark();
  await lab.cut('drop');
  await h2.untilStatus('the loss', ({ connection }) => connection === 'connecting');
  await h2.control('role', 'primary', '--force', resourceName);
  await h2.mount('-o', 'noatime');
  await writeFile(h1, 'only on h1', '3M');
  await writeFile(h2, 'only on h2', '5M');
  const [first, second] = [await checksums(h1), await checksums(h2)];
  await h2.unmount();
  await lab.heal();
  await h2.control('role', 'secondary', resourceName);
  await untilSplit(lab);
  for (const node of nodes) {
    inner.match(await node.status(), { status: 'split-brain', connection: 'refused' });
  }
  return { hook, first, second };
}

async function untilSplit(lab: Lab): Promise<void> {
  for (const node of lab.nodes) {
    await node.untilStatus('split brain', ({ status }) => status === 'split-brain', 30_000);
  }
}

async function dryRun(node: LabNode, side: string): Promise<DryRun> {
  const text = await node.control('--json', 'resolve', resourceName, side, '--dry-run');
  const parsed = JSON.parse(text) as DryRun | DryRun[];
  const one = Array.isArray(parsed) ? parsed[0] : parsed;
  if (one === undefined) throw new Error(`no answer: ${text}`);
  return one;
}

/** What is to be copied covers what differs, and is not much more. */
async function judgeDryRun(inner: Test, lab: Lab, said: DryRun): Promise<void> {
  const different = await differingBlocks(lab.h1.local, lab.h2.local);
  const differ = different.length * blockSize;
  inner.ok(differ > 4 * MiB, `${differ} bytes differ`);
  inner.ok(said.copyBytes >= differ, `${said.copyBytes} bytes would be copied`);
  inner.ok(said.copyBytes < differ + 16 * MiB, 'not much more');
  inner.notOk(said.full);
  inner.not(said.localGeneration, said.peerGeneration);
  await untilSplit(lab);
  inner.same(await differingBlocks(lab.h1.local, lab.h2.local), different, 'nothing was copied');
}

async function discardPeer(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const { hook, first } = await fork(inner, lab);
  const bare = await h1.hastctl('resolve', resourceName);
  inner.not(bare.code, 0, `whose data to give up must be said: ${bare.stderr.trim()}`);
  const said = await dryRun(h1, '--discard-peer');
  await judgeDryRun(inner, lab, said);
  const before = await sentBytes(lab, h1);
  await h1.control('resolve', resourceName, '--discard-peer');
  await lab.settle();
  const sent = await sentBytes(lab, h1) - before;
  inner.ok(sent < said.copyBytes * 1.1 + MiB, `${sent} bytes went over the link`);
  inner.equal(await checksums(h1), first, 'the data of h1 are what they were');
  await writeFile(h1, 'goes on', '1M');
  const now = await checksums(h1);
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  await h1.control('role', 'secondary', resourceName);
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  inner.equal(await checksums(h2), now, 'h2 shows the data of h1');
  const told = hook.calls().filter((line) => line.includes('split-brain'));
  inner.same(told.sort(), ['h1', 'h2'].map((name) => `${name} split-brain ${resourceName}`),
    'the hook ran once on each node');
}

/** The resolution and its undo are asked for on h1 or on h2; h2 loses. */
async function undo(inner: Test, lab: Lab, runner: 'h1' | 'h2'): Promise<void> {
  const { h1, h2 } = lab;
  const { first, second } = await fork(inner, lab);
  await h1.unmount();
  await h1.control('role', 'secondary', resourceName);
  await untilSplit(lab);
  const file = path.join(lab.directory, 'undo');
  const [node, side] = runner === 'h1' ? [h1, '--discard-peer'] : [h2, '--discard-local'];
  fs.writeFileSync(file, 'theirs');
  const exists = await node.hastctl('resolve', resourceName, side, '--undo', file);
  inner.not(exists.code, 0, `a file is not replaced: ${exists.stderr.trim()}`);
  inner.equal(fs.readFileSync(file, 'utf8'), 'theirs');
  await untilSplit(lab);
  fs.rmSync(file);
  await node.control('resolve', resourceName, side, '--undo', file);
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  inner.ok(fs.statSync(file).size > 5 * MiB, 'what was overwritten is kept');
  inner.equal(fs.statSync(file).mode & 0o077, 0, 'for root alone');
  await h1.control('role', 'primary', resourceName);
  // Nothing may be written between the resolution and its undo.
  await h1.mount('-o', 'ro,noload');
  inner.equal(await checksums(h1), first, 'the data are those of h1');
  const inUse = await node.hastctl('undo', resourceName, file);
  inner.not(inUse.code, 0, `not while a node is primary: ${inUse.stderr.trim()}`);
  inner.equal(await checksums(h1), first);
  await h1.unmount();
  await lab.settle();
  await h1.control('role', 'secondary', resourceName);
  await node.control('undo', resourceName, file);
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  inner.equal(await checksums(h2), second, 'the data of h2 are back');
}

/** The target dies in the middle of a resolution: the winner's data stay, and it ends well. */
async function killed(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const { first } = await fork(inner, lab);
  await lab.slowDown(40);
  await h1.control('resolve', resourceName, '--discard-peer');
  await sleep(300 + Math.random() * 500);
  await killPart(h2, 'node', (await h2.status()).worker);
  await lab.slowDown(null);
  await lab.cut('drop');
  await h2.start();
  const { code, stderr } = await h2.hastctl('role', 'primary', resourceName);
  inner.equal(code, refused, `half a copy is not promoted: ${stderr.trim()}`);
  await h2.control('role', 'secondary', resourceName);
  await lab.heal();
  // The decision stands: nobody asks again.
  await lab.settle();
  inner.equal(await checksums(h1), first);
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

t.setTimeout(290_000);
const options = {
  timeout, sizes: [size, size] as const, needs: ['nft', 'tc'], resource: ['compression none'],
};
await pairTest(t, 'split brain: the peer gives its data up', options, discardPeer);
for (const runner of ['h1', 'h2'] as const) {
  await pairTest(t, `split brain: what was overwritten is put back (asked for on ${runner})`,
    options, (inner, lab) => undo(inner, lab, runner));
}
await pairTest(t, 'split brain: a kill in the resolution', options, killed);
