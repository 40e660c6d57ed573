/**
 * Goal: a pair of cores keeps every promise under faults at any moment, and the simulator that
 * says so is deterministic and sees mistakes.
 * Method: a fixed set of seeds, a fresh one (printed), some seeds twice, and a few mutants; see
 * docs/simulator.md. SIM_SECONDS bounds the two sets; `npm run sim` searches longer.
 */
import t, { type Test } from 'tap';
import { editsOf, judge, occurrences } from './mutate.ts';
import { defaultKinds } from './fault-kinds.ts';
import { mutants } from './mutants.ts';
import { drawOptions, type SimOptions } from './options.ts';
import { override } from './overrides.ts';
import { simulate } from './simulate.ts';

const secondsMax = Number(process.env['SIM_SECONDS'] ?? 20);
/** A longer search is npm run sim. */
const freshSeeds = 100;

function search(t: Test, from: number, count: number): void {
  const end = performance.now() + secondsMax * 1000;
  let seeds = 0;
  let writes = 0;
  while (seeds < count && performance.now() < end) {
    const { failure, counts } = simulate(from + seeds);
    seeds++;
    writes += counts.writes;
    if (failure !== null) t.fail(`npm run sim -- --seed ${from + seeds - 1}\n${failure}`);
  }
  t.comment(`${seeds} seeds from ${from}, ${writes} writes`);
  t.ok(seeds > 0 && writes > 0);
}

t.test('sim: a fixed set of seeds', async (t) => search(t, 1, 300));

t.test('sim: a fresh set of seeds', async (t) => {
  search(t, 100_000 + Math.floor(Date.now() / 1000) % 1_000_000_000, freshSeeds);
});

t.test('sim: the same seed is the same run', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    t.equal(simulate(seed).hash, simulate(seed).hash, `seed ${seed}`);
  }
  const hashes = new Set(Array.from({ length: 20 }, (_, index) => simulate(index + 1).hash));
  t.equal(hashes.size, 20, 'different seeds are different runs');
});

t.test('sim: it sees mistakes', async (t) => {
  const names = ['clear-on-acknowledgement', 'fullsync-acknowledges-early',
    'record-without-a-generation', 'no-range-lock'];
  for (const mutant of mutants.filter((one) => names.includes(one.name))) {
    const verdict = await judge(mutant, 30);
    t.not(verdict.seeds, null, `${mutant.name}: ${verdict.what}`);
  }
});

t.test('sim: every mutant still has its lines and options', async (t) => {
  for (const mutant of mutants) {
    for (const edit of editsOf(mutant)) t.equal(occurrences(edit), 1, mutant.name);
    override(drawOptions(1, mutant.faults ?? defaultKinds), mutant.set ?? '');
  }
});

t.test('sim: options that are set', async (t) => {
  const set = (text: string): SimOptions => override(drawOptions(1, defaultKinds), text);
  const { mode, linkMs, diskMs, app, faults } =
    set('mode=async,linkMs=5-20,diskMs=0.5-2,app.read=7,faults.cut=9');
  t.same({ mode, linkMs, diskMs, read: app.read, cut: faults.cut }, {
    mode: 'async', linkMs: [5, 20], diskMs: [[0.5, 2], [0.5, 2]], read: 7, cut: 9,
  });
  for (const wrong of ['nothing=1', 'app.nothing=1', 'no.thing=1', 'linkMs=5', 'app.read=x']) {
    t.throws(() => set(wrong), /no such option/, wrong);
  }
});
