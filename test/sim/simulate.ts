/** One seed: its options, its run, and what a failure says. */
import type { Counts } from './counts.ts';
import { defaultKinds, type FaultKind } from './fault-kinds.ts';
import { describeOptions, drawOptions } from './options.ts';
import { override } from './overrides.ts';
import { reuseDisks } from '../fixtures/sim-disk.ts';
import { SimRun, type RunSettings } from './run.ts';

export interface SeedResult {
  seed: number;
  counts: Counts;
  hash: string;
  /** null: nothing is wrong. */
  failure: string | null;
}

export function simulate(
  seed: number, kinds: readonly FaultKind[] = defaultKinds,
  settings: RunSettings = { print: null, verbose: false }, set = '',
): SeedResult {
  reuseDisks();
  const options = override(drawOptions(seed, kinds), set);
  const run = new SimRun(options, settings);
  try {
    const { counts, hash } = run.run();
    return { seed, counts, hash, failure: null };
  } catch (cause) {
    const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    const failure = `seed ${seed}: ${text}\n${describeOptions(options)}\n${run.describe()}`;
    return { seed, counts: run.counts, hash: run.trace.hash, failure };
  }
}
