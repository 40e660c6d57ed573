/**
 * The simulator from the command line.
 *
 *   npm run sim -- --seed 17 [--verbose]       replays one seed with a readable log
 *   npm run sim -- --seeds 1000 --from 5000    many seeds, a summary at the end
 *   npm run sim -- --seconds 600 --jobs 2      as many as fit
 *   --faults kill,power   only these kinds     --keep-going   do not stop at the first failure
 *   --twice               each seed twice, the traces must be the same
 *   --set app.read=20,linkMs=5-20   these options, whatever the seed draws
 *
 * Exit code 1 where a seed failed.
 */
import { fork, execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { addCounts, countNames, noCounts, type Counts } from './counts.ts';
import { defaultKinds, faultKinds, type FaultKind } from './fault-kinds.ts';
import { simulate, type SeedResult } from './simulate.ts';

interface Plan {
  from: number;
  /** Every `stride`-th seed, below `end`. */
  stride: number;
  end: number;
  seconds: number;
  kinds: readonly FaultKind[];
  set: string;
  keepGoing: boolean;
  twice: boolean;
}

interface Sum {
  seeds: number;
  counts: Counts;
  failures: string[];
}

function runPlan(plan: Plan, onFailure: (text: string) => void): Sum {
  const sum: Sum = { seeds: 0, counts: noCounts(), failures: [] };
  const end = performance.now() + plan.seconds * 1000;
  for (let seed = plan.from; seed < plan.end; seed += plan.stride) {
    const once = (): SeedResult => simulate(seed, plan.kinds, undefined, plan.set);
    const result = once();
    let { failure } = result;
    if (failure === null && plan.twice && once().hash !== result.hash) {
      failure = `seed ${seed}: two runs of it differ`;
    }
    sum.seeds++;
    addCounts(sum.counts, result.counts);
    if (failure !== null) {
      sum.failures.push(failure);
      onFailure(failure);
      if (!plan.keepGoing) break;
    }
    if (performance.now() > end) break;
  }
  return sum;
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], cwd: import.meta.dirname,
    }).trim();
  } catch {
    return 'unknown';
  }
}

function replay(
  seed: number, kinds: readonly FaultKind[], set: string, verbose: boolean,
): void {
  const result = simulate(seed, kinds, { print: (line) => console.log(line), verbose }, set);
  console.log(`trace ${result.hash}, commit ${commit()}`);
  if (result.failure === null) {
    console.log(`seed ${seed}: nothing wrong`);
    return;
  }
  console.log(result.failure);
  process.exitCode = 1;
}

async function spread(plan: Plan, jobs: number): Promise<Sum> {
  const total: Sum = { seeds: 0, counts: noCounts(), failures: [] };
  const children = Array.from({ length: jobs }, (_, job) => {
    const child = fork(import.meta.filename, ['--worker'], { serialization: 'json' });
    child.send({ ...plan, from: plan.from + job, stride: jobs, end: String(plan.end) });
    return child;
  });
  await Promise.all(children.map((child) => new Promise<void>((resolve) => {
    child.on('message', (message: Sum | string) => {
      if (typeof message === 'string') {
        console.log(`FAILED ${message}\n`);
        if (!plan.keepGoing) for (const other of children) if (other !== child) other.kill();
        return;
      }
      total.seeds += message.seeds;
      addCounts(total.counts, message.counts);
      total.failures.push(...message.failures);
    });
    child.on('exit', (code) => {
      if (code !== 0 && code !== null) total.failures.push(`a worker ended with code ${code}`);
      resolve();
    });
  })));
  return total;
}

function report(sum: Sum, wallSeconds: number, jobs: number): void {
  const { counts, seeds, failures } = sum;
  const numbers = countNames.filter((name) => name !== 'simulatedMs')
    .map((name) => `${name} ${counts[name]}`).join(', ');
  console.log(numbers);
  const hours = (counts.simulatedMs / 3_600_000).toFixed(1);
  const rate = (seeds / wallSeconds / jobs).toFixed(1);
  console.log(`${seeds} seeds, ${failures.length} failed, ${hours} simulated hours in ` +
    `${wallSeconds.toFixed(1)} s (${rate} seeds/s per job), commit ${commit()}`);
  for (const failure of failures) {
    const seed = /^seed (\d+)/.exec(failure)?.[1];
    if (seed !== undefined) console.log(`replay: npm run sim -- --seed ${seed}`);
  }
}

function takePlan(): void {
  process.once('message', (message: Plan & { end: number | string }) => {
    const plan = { ...message, end: Number(message.end) };
    const sum = runPlan(plan, (failure) => void process.send?.(failure));
    process.send?.(sum, () => process.disconnect());
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: {
    seed: { type: 'string' }, seeds: { type: 'string' }, from: { type: 'string', default: '1' },
    seconds: { type: 'string' }, jobs: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false }, faults: { type: 'string' },
    'keep-going': { type: 'boolean', default: false }, twice: { type: 'boolean', default: false },
    worker: { type: 'boolean', default: false }, set: { type: 'string', default: '' },
  } });
  if (values.worker) {
    takePlan();
    return;
  }
  const names = values.faults?.split(',');
  const kinds = names === undefined
    ? defaultKinds : faultKinds.filter((kind) => names.includes(kind));
  if (values.seed !== undefined) {
    replay(Number(values.seed), kinds, values.set, values.verbose);
    return;
  }
  const from = Number(values.from);
  const seconds = values.seconds === undefined ? Infinity : Number(values.seconds);
  const seeds = values.seeds === undefined ? (seconds < Infinity ? Infinity : 200)
    : Number(values.seeds);
  const jobs = Number(values.jobs);
  const plan: Plan = {
    from, stride: 1, end: from + seeds, seconds: Math.min(seconds, 1e7), kinds,
    set: values.set, keepGoing: values['keep-going'], twice: values.twice,
  };
  const start = performance.now();
  const sum = jobs === 1
    ? runPlan(plan, (failure) => console.log(`FAILED ${failure}\n`))
    : await spread(plan, jobs);
  report(sum, (performance.now() - start) / 1000, jobs);
  if (sum.failures.length > 0 || sum.seeds === 0) process.exitCode = 1;
}

await main();
