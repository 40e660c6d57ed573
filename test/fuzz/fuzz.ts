/** Runs one parser on many inputs, with the bounds of time and memory of docs/security.md. */
import { outcomes, type FuzzTarget } from './property.ts';
import { Random } from './random.ts';

/** No input may take longer: a machine that is busy, and a collector, are allowed for. */
const inputMsMax = 2000;
const memoryBytesMax = 256 * 1024 * 1024;
const memoryEvery = 4096;

export interface FuzzResult {
  runs: number;
  seconds: number;
  /** Of one input, milliseconds. */
  longest: number;
  /** Inputs that the parser took, and refused, where the target counts them. */
  taken: number;
  refused: number;
}

/** Seeds from `seed` on. Throws with the seed and the input that broke the property. */
export async function fuzz(target: FuzzTarget, runs: number, seed: number): Promise<FuzzResult> {
  const startedAt = performance.now();
  const before = process.memoryUsage().rss;
  const counted = { ...outcomes };
  let longest = 0;
  for (let run = 0; run < runs; run++) {
    const from = performance.now();
    try {
      const later = target.run(new Random(seed + run));
      if (later !== undefined) await later;
    } catch (error) {
      const { message } = error as Error;
      throw new Error(`${target.name}, seed ${seed + run}: ${message}`, { cause: error });
    }
    longest = Math.max(longest, performance.now() - from);
    if (longest > inputMsMax) throw new Error(`${target.name}, seed ${seed + run}: too slow`);
    if (run % memoryEvery === memoryEvery - 1) {
      await new Promise((resolve) => setImmediate(resolve));
      const grown = process.memoryUsage().rss - before;
      if (grown > memoryBytesMax) throw new Error(`${target.name}: memory grew by ${grown}`);
    }
  }
  return {
    runs, seconds: (performance.now() - startedAt) / 1000, longest,
    taken: outcomes.taken - counted.taken, refused: outcomes.refused - counted.refused,
  };
}
