/** From fio's JSON (fio 3) to measured values. */
import type { Metric } from './result.ts';

export type FioSide = 'read' | 'write' | 'sync';

interface FioLatency {
  percentile?: Record<string, number>;
}

interface FioSideOutput {
  iops: number;
  bw_bytes: number;
  clat_ns?: FioLatency;
  lat_ns?: FioLatency;
}

interface FioJobOutput {
  error: number;
  read: FioSideOutput;
  write: FioSideOutput;
  sync: { lat_ns?: FioLatency };
}

const MiB = 1024 * 1024;
const percentiles: readonly (readonly [Metric, string])[] = [
  ['p50', '50.000000'], ['p99', '99.000000'], ['p999', '99.900000'],
];

/** fio prints its warnings before the JSON. Rates are of reads and writes together. */
export function parseFio(text: string, latencyOf: FioSide): Partial<Record<Metric, number>> {
  const start = text.indexOf('{');
  if (start < 0) throw new Error(`fio printed no JSON: ${text.slice(0, 200)}`);
  const { jobs } = JSON.parse(text.slice(start)) as { jobs?: FioJobOutput[] };
  const [job] = jobs ?? [];
  if (job === undefined) throw new Error('fio reported no job');
  if (job.error !== 0) throw new Error(`fio: error ${job.error}`);
  const values: Partial<Record<Metric, number>> = {
    iops: job.read.iops + job.write.iops,
    mib: (job.read.bw_bytes + job.write.bw_bytes) / MiB,
  };
  const latency = latencyOf === 'sync' ? job.sync.lat_ns : job[latencyOf].clat_ns;
  for (const [metric, key] of percentiles) {
    const nanoseconds = latency?.percentile?.[key];
    if (nanoseconds !== undefined) values[metric] = nanoseconds / 1000;
  }
  return values;
}
