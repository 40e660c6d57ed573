/** What fio is told, one line for each job. */
import type { FioSide } from './fio-output.ts';

export interface Job {
  name: string;
  what: string;
  /** What the table and the chart show. */
  metric: 'iops' | 'mib';
  fio: readonly string[];
  /** Whose latency is shown. */
  latencyOf: FioSide;
  /** Ends after that many bytes, if not by time; then all counts from the first request on. */
  bytesMax?: number;
}

function job(
  name: string, what: string, metric: Job['metric'], latencyOf: FioSide, fio: string,
): Job {
  const args = fio.split(' ').map((word) => `--${word}`);
  return { name, what, metric, latencyOf, fio: args };
}

export const jobs: readonly Job[] = [
  job('write-1', '4 KiB random write, depth 1', 'iops', 'write', 'rw=randwrite bs=4k iodepth=1'),
  job('read-1', '4 KiB random read, depth 1', 'iops', 'read', 'rw=randread bs=4k iodepth=1'),
  job('write-32', '4 KiB random write, depth 32', 'iops', 'write',
    'rw=randwrite bs=4k iodepth=32'),
  job('read-32', '4 KiB random read, depth 32', 'iops', 'read', 'rw=randread bs=4k iodepth=32'),
  job('seqwrite', '1 MiB sequential write, depth 8', 'mib', 'write', 'rw=write bs=1m iodepth=8'),
  job('seqread', '1 MiB sequential read, depth 8', 'mib', 'read', 'rw=read bs=1m iodepth=8'),
  job('sync', '4 KiB random write + fdatasync, depth 1', 'iops', 'sync',
    'rw=randwrite bs=4k iodepth=1 fdatasync=1'),
  job('mix-16', '4 KiB random, 70 % read, depth 16', 'iops', 'write',
    'rw=randrw rwmixread=70 bs=4k iodepth=16'),
];

/** Beside the fio jobs on every subject; each brings subjects of its own or uses theirs. */
export const specialJobs = {
  cold: '4 KiB random write, depth 32, over 64 GiB of cold extents, and in a hot part',
  resync: 'the other node comes back: everything was rewritten, or 4 KiB blocks here and there',
  pgbench: 'pgbench, PostgreSQL on ext4 on the volume',
} as const;

export const jobNames = [...jobs.map(({ name }) => name), ...Object.keys(specialJobs)];

/** 16 MiB for metadata beyond the region that the jobs use. */
export const metadataBytes = 16 * 1024 * 1024;
/**
 * Hot extents are 512 of 2 MiB by default: the random jobs stay within. Small enough that the
 * regions of all subjects, 18 copies, stay in the page cache of a machine with 16 GiB.
 */
export const regionBytes = 512 * 1024 ** 2;
