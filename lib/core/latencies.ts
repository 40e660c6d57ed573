/**
 * How long things took, counted in buckets of fixed bounds: two for each doubling, from 8 us to
 * 67 s. Nothing is allocated after the start.
 *
 * Hot path: record() runs a few times per request; about 10 ns each. `npm run bench`, write-32: a
 * part of what measures.ts names.
 */
import {
  latencyStages, requestKinds, type LatencyHistogram, type LatencyStage, type RequestKind,
} from '../format/statistics.ts';

/** Index of a stage or a kind: the hot path takes numbers. */
export const Stage = { total: 0, local: 1, peer: 2, network: 3, peerDisk: 4 } as const;
export type Stage = (typeof Stage)[keyof typeof Stage];
export const Kind = { read: 0, write: 1, discard: 2, flush: 3 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

const firstOctave = 3;
const lastOctave = 25;
const bucketCount = 2 * (lastOctave - firstOctave + 1) + 2;
/** Microseconds: what is longer is in the last bucket. */
const microsMax = 2 ** (lastOctave + 1);

/** Bucket of a duration in whole microseconds. */
function bucketOf(micros: number): number {
  if (micros < 2 ** firstOctave) return 0;
  if (micros >= microsMax) return bucketCount - 1;
  const octave = 31 - Math.clz32(micros);
  return 1 + 2 * (octave - firstOctave) + ((micros >> (octave - 1)) & 1);
}

/** Upper bound of each bucket but the last, in seconds; what equals it is in the next one. */
export const latencyBounds: readonly number[] = Array.from({ length: bucketCount - 1 }, (_, at) =>
  2 ** (firstOctave + Math.floor(at / 2)) * (at % 2 === 0 ? 1 : 1.5) / 1e6);

export class Latencies {
  readonly #counts = new Float64Array(latencyStages.length * requestKinds.length * bucketCount);
  readonly #sumsMs = new Float64Array(latencyStages.length * requestKinds.length);

  /** `ms` below 0 counts as 0. */
  record(stage: Stage, kind: Kind, ms: number): void {
    const which = stage * requestKinds.length + kind;
    const micros = Math.min(microsMax, Math.max(0, ms * 1000));
    const at = which * bucketCount + bucketOf(Math.trunc(micros));
    this.#counts[at] = (this.#counts[at] as number) + 1;
    this.#sumsMs[which] = (this.#sumsMs[which] as number) + Math.max(0, ms);
  }

  count(stage: Stage, kind: Kind): number {
    return this.#histogram(stage, kind).count;
  }

  /** Those in which something was counted. */
  histograms(): LatencyHistogram[] {
    const all = Object.values(Stage).flatMap((stage) =>
      Object.values(Kind).map((kind) => this.#histogram(stage, kind)));
    return all.filter(({ count }) => count > 0);
  }

  #histogram(stage: Stage, kind: Kind): LatencyHistogram {
    const which = stage * requestKinds.length + kind;
    const buckets = [...this.#counts.subarray(which * bucketCount, (which + 1) * bucketCount)];
    return {
      stage: latencyStages[stage] as LatencyStage, kind: requestKinds[kind] as RequestKind,
      count: buckets.reduce((sum, one) => sum + one, 0),
      sum: (this.#sumsMs[which] as number) / 1000, buckets,
    };
  }
}
