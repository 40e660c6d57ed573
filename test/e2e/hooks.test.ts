/**
 * Goal: all seven events of the original call the hook, on the nodes, in the order and with the
 * arguments of the original; and what a hook ends with is in the log.
 * Method: a cut and a whole sync, a cut in the middle of a sync, and both nodes primary apart.
 */
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { until } from '../../cli/lab-run.ts';
import { Hook, makeFilesystem, pairTest, writeFile } from '../fixtures/e2e-lab.ts';

/** Sent slowly enough for a cut in the middle. */
const slowMbit = 40;

async function cutWhileDegraded(lab: Lab, work: () => Promise<void>): Promise<void> {
  await lab.cut('link');
  await lab.h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  await work();
}

async function allSeven(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const hook = new Hook(lab, { 'split-brain': 3 });
  const since = (from: number, node: LabNode): string[] => hook.calls().slice(from)
    .filter((line) => line.startsWith(`${node.name} `)).map((line) => line.slice(3));
  const expect = async (
    title: string, from: number, first: string[], second: string[],
  ): Promise<number> => {
    const wanted = first.length + second.length;
    await until(title, 20_000, () => hook.calls().length >= from + wanted || undefined)
      .catch(() => undefined);
    test.same(since(from, h1), first, `${title}: h1`);
    test.same(since(from, h2), second, `${title}: h2`);
    return hook.calls().length;
  };
  await lab.bringUp();
  // A promotion ends with the handshake behind it, so the role comes second.
  let seen = await expect('start', 0,
    ['connect shared', 'role shared init primary'],
    ['role shared init secondary', 'connect shared']);
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await lab.settle();

  await cutWhileDegraded(lab, () => writeFile(h1, 'one', '2M'));
  await lab.heal();
  await lab.settle();
  seen = await expect('a cut', seen,
    ['disconnect shared', 'connect shared', 'syncstart shared', 'syncdone shared'],
    ['disconnect shared', 'connect shared']);

  await cutWhileDegraded(lab, () => writeFile(h1, 'two', '30M'));
  await lab.slowDown(slowMbit);
  await lab.heal();
  await h1.untilStatus('the sync', ({ status, syncPercent }) =>
    status === 'syncing' && syncPercent > 0);
  await lab.cut('link');
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  await lab.slowDown(null);
  seen = await expect('a cut while syncing', seen, [
    'disconnect shared', 'connect shared', 'syncstart shared', 'syncintr shared',
    'disconnect shared',
  ], ['disconnect shared', 'connect shared', 'disconnect shared']);
  await lab.heal();
  await lab.settle();
  seen = await expect('and on', seen, ['connect shared', 'syncstart shared', 'syncdone shared'],
    ['connect shared']);

  await cutWhileDegraded(lab, () => writeFile(h1, 'three', '1M'));
  await h2.untilStatus('the loss', ({ status }) => status === 'waiting');
  await h2.control('role', 'primary', '--force', resourceName);
  await h2.mount('-o', 'noatime');
  await writeFile(h2, 'four', '1M');
  await lab.heal();
  for (const node of lab.nodes) {
    await node.untilStatus('the split brain', ({ status }) => status === 'split-brain');
  }
  await expect('both primary', seen, ['disconnect shared', 'split-brain shared'],
    ['disconnect shared', 'role shared secondary primary', 'split-brain shared']);
  for (const node of lab.nodes) {
    const told = (): string[] =>
      node.log().split('\n').filter((line) => line.includes('the hook'));
    // The hook's last act is its line in the file of calls: it ends a little later.
    await until('the end of the hook', 10_000, () => told().length > 0 || undefined);
    const results = told();
    test.equal(results.length, 1, 'what failed is in the log, once');
    test.match(results[0], /"event":"split-brain".*"code":3.*the hook failed/);
  }
}

t.setTimeout(290_000);
await pairTest(t, 'hooks: all seven events', { needs: ['tc'], timeout: 4 }, allSeven);
