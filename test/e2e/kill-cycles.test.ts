/**
 * Goal: whichever process is killed in the middle of the work, nothing acknowledged is lost and
 * the copies are equal afterwards.
 * Method: cycles under load over ext4. In each, SIGKILL of a part of the pair at a random moment;
 * the pair is brought back, the ledger of acknowledged blocks is held against the volume, the
 * copies are compared byte for byte. KILL_CYCLES=n cycles (six by default), KILL_SEED=n as
 * printed, KILL_MODE one mode alone.
 */
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep } from '../../cli/lab-run.ts';
import { BlockLedger, type LedgerVerdict } from '../fixtures/block-ledger.ts';
import {
  compareAtRest, killPart, reload, takeOver, type Part,
} from '../fixtures/e2e-kill.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';
import { Load } from '../fixtures/e2e-load.ts';
import { SimRandom } from '../fixtures/sim-world.ts';

const modes = ['fullsync', 'memsync', 'async'] as const;
type Mode = (typeof modes)[number];
const victims = [
  'primary worker', 'primary parent', 'primary node', 'secondary worker', 'secondary parent',
  'both nodes',
] as const;
type Victim = (typeof victims)[number];

const cycles = Number(process.env['KILL_CYCLES'] ?? 6);
const seed = Number(process.env['KILL_SEED'] ?? Date.now() % 1_000_000);
const onlyMode = process.env['KILL_MODE'] as Mode | undefined;
const timeout = 2;
const loadMs = 2500;
const killMs = { least: 100, most: 1800 };
const cycleBoundMs = 40_000;
/** A failed-over asynchronous pair may lose this much of the newest. */
const lagMsMax = 10_000;

interface Tally {
  cycles: number;
  acknowledged: number;
  rolledBack: number;
  ms: number;
}

class KillRun {
  readonly tallies = new Map<string, Tally>();
  readonly #t: Test;
  readonly #lab: Lab;
  readonly #load: Load;
  readonly #random = new SimRandom(seed);
  #primary: LabNode;
  #secondary: LabNode;

  constructor(inner: Test, lab: Lab) {
    this.#t = inner;
    this.#lab = lab;
    this.#load = new Load(lab, { size: 32 * MiB });
    [this.#primary, this.#secondary] = lab.nodes;
  }

  async run(): Promise<void> {
    const lab = this.#lab;
    await lab.bringUp();
    await makeFilesystem(this.#primary);
    await this.#primary.mount('-o', 'noatime');
    await this.#load.fill(this.#primary);
    await lab.settle();
    let left: Victim[] = [];
    for (let cycle = 1; cycle <= cycles; cycle++) {
      // Every victim before one comes again; a seed gives the same plan.
      if (left.length === 0) left = this.#shuffled(victims);
      const victim = left.pop() as Victim;
      const mode = onlyMode ?? modes[(cycle + seed) % modes.length] as Mode;
      await this.#cycle(cycle, mode, victim);
    }
  }

  #shuffled<T>(list: readonly T[]): T[] {
    const rest = [...list];
    return list.map(() => rest.splice(this.#random.int(rest.length), 1)[0] as T);
  }

  async #cycle(number: number, mode: Mode, victim: Victim): Promise<void> {
    const begun = performance.now();
    const at = killMs.least + this.#random.int(killMs.most - killMs.least);
    const failsOver = victim === 'primary node' && this.#random.chance(0.5);
    const title = `cycle ${number}, ${mode}, ${victim}${failsOver ? ' (fail-over)' : ''}, ${at} ms`;
    try {
      await reload(this.#lab, [`replication ${mode}`]);
      const verdict = await this.#killAndReturn(mode, victim, at, failsOver);
      await this.#lab.settle();
      await compareAtRest(this.#lab, this.#primary);
      await this.#primary.mount('-o', 'noatime');
      const ms = Math.round(performance.now() - begun);
      this.#t.pass(`${title}: ${verdict.acknowledged} acknowledged, none lost, ` +
        `${verdict.rolledBack} rolled back, copies equal; ${ms} ms`);
      this.#count(mode, victim, {
        cycles: 1, ms, acknowledged: verdict.acknowledged, rolledBack: verdict.rolledBack,
      });
    } catch (error) {
      throw new Error(`${title}, seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }

  async #killAndReturn(
    mode: Mode, victim: Victim, at: number, failsOver: boolean,
  ): Promise<LedgerVerdict> {
    const [primary, secondary] = [this.#primary, this.#secondary];
    const workers = { primary: (await primary.status()).worker,
      secondary: (await secondary.status()).worker };
    const load = this.#load.start(primary, loadMs);
    await load.more(1);
    await sleep(at);
    const [side, part] = victim.split(' ') as ['primary' | 'secondary' | 'both', Part | 'nodes'];
    if (side === 'both') {
      await Promise.all([killPart(primary, 'node', workers.primary),
        killPart(secondary, 'node', workers.secondary)]);
    } else {
      await killPart(side === 'primary' ? primary : secondary, part as Part, workers[side]);
    }
    const goesOn = side === 'secondary' || victim === 'primary worker' ||
      victim === 'primary parent';
    if (goesOn) {
      if (victim === 'primary parent') await primary.start();
      if (side === 'secondary') await this.#secondaryReturns(part as Part);
      const { error } = await load.ended();
      if (error !== null) throw new Error(`the application saw an error: ${error}`);
      return await this.#load.check(primary);
    }
    await load.ended();
    if (failsOver) return await this.#failOver(mode);
    await this.#primaryReturns(victim);
    return await this.#load.check(primary);
  }

  async #secondaryReturns(part: Part): Promise<void> {
    const node = this.#secondary;
    if (part !== 'worker') await node.start();
    // A worker is started again without this, but after a longer pause each time.
    await node.control('role', 'secondary', resourceName);
  }

  async #primaryReturns(victim: Victim): Promise<void> {
    const [primary, secondary] = [this.#primary, this.#secondary];
    await primary.clearRemains();
    await primary.start();
    if (victim === 'both nodes') {
      await secondary.start();
      await secondary.control('role', 'secondary', resourceName);
    }
    await takeOver(primary);
  }

  /** The other node takes over, and the killed one returns as its secondary. */
  async #failOver(mode: Mode): Promise<LedgerVerdict> {
    const [old, next] = [this.#primary, this.#secondary];
    await old.clearRemains();
    await takeOver(next);
    const verdict = await this.#load.check(next, mode === 'async' ? 'prefix' : 'all');
    await old.start();
    await old.control('role', 'secondary', resourceName);
    [this.#primary, this.#secondary] = [next, old];
    return verdict;
  }

  #count(mode: Mode, victim: Victim, more: Tally): void {
    for (const key of [mode, victim, 'all']) {
      const sum = this.tallies.get(key) ??
        { cycles: 0, acknowledged: 0, rolledBack: 0, ms: 0 };
      for (const field of Object.keys(sum) as (keyof Tally)[]) sum[field] += more[field];
      this.tallies.set(key, sum);
    }
  }
}

t.test('kill cycles: the ledger notices what is lost', async (t) => {
  const text = '+ 2 0 1\n= 2\nf\n+ 3 0 2\n+ 4 5 1\n= 4\nf\n+ 5 0 1\n';
  const known = new Uint32Array(64).fill(1);
  const build = (...spans: [version: number, block: number, count: number][]): Uint32Array => {
    const found = known.slice();
    for (const [version, block, count] of spans) {
      found.fill(version, block * 8, (block + count) * 8);
    }
    return found;
  };
  const judge = (found: Uint32Array, contract: 'all' | 'prefix') =>
    new BlockLedger(text).judge(known, found, contract);
  t.match(judge(build([2, 0, 1], [4, 5, 1]), 'all'), { lost: 0, acknowledged: 2, flushes: 2 });
  t.equal(judge(build([5, 0, 1], [3, 1, 1], [4, 5, 1]), 'all').lost, 0, 'what was under way');
  t.equal(judge(build([4, 5, 1]), 'all').lost, 8, 'an acknowledged write is missing');
  t.equal(judge(build([2, 0, 1], [4, 5, 1], [3, 2, 1]), 'all').lost, 8, 'a write elsewhere');
  t.equal(judge(build([0, 0, 1], [4, 5, 1]), 'all').lost, 8, 'nothing sound');
  t.match(judge(known, 'prefix'), { lost: 0, rolledBack: 2 }, 'the start is a past moment');
  t.match(judge(build([2, 0, 1]), 'prefix'), { lost: 0, rolledBack: 1 });
  t.equal(judge(build([2, 0, 1], [4, 5, 1]), 'prefix').lost, 0);
  t.equal(judge(build([4, 5, 1]), 'prefix').lost, 8, 'the later without the earlier');
});

const boundMs = 60_000 + cycles * cycleBoundMs;
t.setTimeout(boundMs + 120_000);
t.comment(`KILL_SEED=${seed} KILL_CYCLES=${cycles}`);
await pairTest(t, `kill cycles: ${cycles} under load, nothing acknowledged is lost`, {
  needs: ['e2fsck'], timeout, boundMs, sizes: [112 * MiB, 112 * MiB],
  resource: ['replication fullsync', `async-lag-time ${lagMsMax / 1000}`],
}, async (inner, lab) => {
  const run = new KillRun(inner, lab);
  await run.run();
  for (const [key, sum] of run.tallies) {
    inner.comment(`${key}: ${sum.cycles} cycles, ${sum.acknowledged} writes acknowledged, ` +
      `0 lost, 0 differences, ${sum.rolledBack} rolled back by asynchronous fail-overs, ` +
      `${Math.round(sum.ms / sum.cycles)} ms a cycle`);
  }
  inner.ok((run.tallies.get('all')?.acknowledged ?? 0) > cycles * 10, 'the load did something');
});
