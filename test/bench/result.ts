/** What a run leaves: the JSON file. A field may be added; another meaning is another schema. */

/**
 * iops, mib (MiB a second), tps (transactions a second); microseconds: p50, p99, p999; cpu: CPU
 * seconds of the serving processes for each GiB; seconds, bytesDirtied and bytesResynced of a
 * resync, where mib is that of the time it showed as `syncing`.
 */
export type Metric =
  | 'iops' | 'mib' | 'tps' | 'p50' | 'p99' | 'p999' | 'cpu'
  | 'seconds' | 'bytesDirtied' | 'bytesResynced' | 'bytesMarked';

export interface Measurement {
  subject: string;
  job: string;
  /** From 1. */
  round: number;
  values: Partial<Record<Metric, number>>;
}

export interface SubjectResult {
  name: string;
  what: string;
  /** Why it was not measured, or not to the end; null if all is there. */
  problem: string | null;
  /** Peak of the resident memory of the serving processes, added up; null without any. */
  memoryPeakBytes: number | null;
}

export interface GoalResult {
  what: string;
  ratio: number | null;
  rounds: number;
  /** Null: shown for comparison only. */
  goal: string | null;
  verdict: 'met' | 'floor met' | 'missed' | 'not run' | '';
  /** Why not run. */
  problem: string | null;
}

export interface Machine {
  cores: number;
  processor: string;
  memoryBytes: number;
  kernel: string;
  node: string;
  release: string;
  fio: string | null;
  qemu: string | null;
  postgresql: string | null;
  filesystem: string;
  /** fio's engine. */
  engine: string;
}

export interface BenchResult {
  schema: 1;
  startedAt: string;
  seconds: number;
  options: { quick: boolean; rounds: number; secondsPerJob: number; sizeBytes: number };
  machine: Machine;
  subjects: SubjectResult[];
  /** Of single jobs: what was not measured, and why. */
  problems: string[];
  goals: GoalResult[];
  measurements: Measurement[];
}
