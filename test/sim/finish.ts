/** The second phase: everything is repaired, and the pair must converge within a bound. */
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';

/** Simulated milliseconds: detection, back-off after a refusal, a full copy on slow links. */
const boundMs = 240_000;

export function finish(run: SimRun): void {
  const { pair, cluster, machines, trace, taps: { links } } = run;
  trace.line('', 'heal');
  cluster.isHealing = true;
  pair.heal();
  for (const link of links) {
    link.resume();
    for (const end of link.ends) end.flipNext = false;
  }
  for (const machine of machines) machine.heal();
  // A little more load while it recovers.
  run.requestsLeft = Math.min(run.requestsLeft, 30);
  if (!run.until(() => isSettled(run), boundMs)) run.fail('the pair does not converge');
  trace.line('', 'settled');
  if (run.resolver.kept !== null && run.world.random.chance(0.5)) undo(run);
  const primary = machines.find((one) => one.isWorking) as Machine;
  cluster.isIdle = true;
  checkCopies(run, 'after convergence');
  const flush = run.ledger.flush(primary.node);
  if (!run.until(() => flush.isDone, 30_000)) run.fail('the last flush is not answered');
  checkIdle(run, primary);
}

/** What the latest decision overwrote comes back, and the pair follows. */
function undo(run: SimRun): void {
  const { machines, cluster, resolver } = run;
  cluster.isIdle = true;
  for (const machine of machines) if (machine.isWorking) cluster.demote(machine, false);
  const isIdle = (): boolean => machines.every((one) =>
    one.node.phase === 'complete' && one.role === 'secondary' && !one.isStopping);
  if (!run.until(isIdle, 60_000)) run.fail('the pair is not complete after a demotion');
  let answer: string | null | undefined;
  resolver.undo(run.world.random.pick(machines), (refusal) => {
    answer = refusal;
  });
  if (!run.until(() => answer !== undefined, 60_000)) run.fail('an undo is not answered');
  if (answer !== null) run.fail(`an undo is refused: ${answer}`);
  cluster.isIdle = false;
  if (!run.until(() => isSettled(run), boundMs)) run.fail('no convergence after an undo');
  run.trace.line('', 'settled after the undo');
}

/** One primary, both complete, every request answered. */
function isSettled(run: SimRun): boolean {
  const { machines } = run;
  const working = machines.filter((one) => one.isWorking);
  if (working.length !== 1) return false;
  for (const { node, isStopping, isPromoting } of machines) {
    if (node.phase !== 'complete' || node.open.size > 0 || isStopping || isPromoting) return false;
  }
  const [primary] = working as [Machine];
  const stream = primary.node.resource?.session?.stream;
  return run.requestsLeft === 0 && primary.app.depth === 0 && stream?.unansweredFrames === 0;
}

function checkCopies(run: SimRun, when: string): void {
  const difference = run.pair.difference();
  if (difference !== -1) run.fail(`${when} block ${difference} differs`);
  for (const machine of run.machines) {
    const { node, dataOffset } = machine;
    const problem = run.ledger.problem(node, node.disk.cache, dataOffset, false);
    if (problem !== null) run.fail(`${when}: ${problem}`);
  }
}

/** Nothing is marked, and a power cut of both changes nothing. */
function checkIdle(run: SimRun, primary: Machine): void {
  run.pass(6500);
  if (!run.pair.isUnmarked(primary.node)) run.fail('an idle volume is marked');
  for (const { node } of run.machines) node.crash(true);
  checkCopies(run, 'after a power cut of an idle pair');
}
