/** The result as text. */
import { jobs, type Job } from './jobs.ts';
import type { BenchResult, Metric } from './result.ts';
import { median, medianOf, ratios } from './statistics.ts';

const MiB = 1024 * 1024;
const nothing = '-';
export const qemuCaveat = 'qemu 7.2: its FUSE export is known to corrupt data under direct I/O; ' +
  'it is here for its speed only.';

/** The first column to the left, the others to the right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, index) => {
      widths[index] = Math.max(widths[index] ?? 0, cell.length);
    });
  }
  const line = (row: readonly string[]): string => row.map((cell, index) => {
    const width = widths[index] ?? 0;
    return index === 0 ? cell.padEnd(width) : cell.padStart(width);
  }).join('  ').trimEnd();
  return rows.map(line).join('\n');
}

function number(value: number | null, digits = 0): string {
  return value === null ? nothing : value.toFixed(digits);
}

function jobTable(result: BenchResult, job: Job): string | null {
  const { measurements } = result;
  const unit = job.metric === 'mib' ? 'MiB/s' : 'IOPS';
  const whose = job.latencyOf === 'sync' ? 'fdatasync' : job.latencyOf;
  const rows = [[job.what, unit, '/ bare', `${whose} p50`, 'p99', 'p99.9 us', 'CPU s/GiB']];
  for (const { name } of result.subjects) {
    const of = (metric: Metric): number | null =>
      medianOf(measurements, { subject: name, job: job.name, metric });
    const rate = of(job.metric);
    if (rate === null) continue;
    const to = (subject: string) => ({ subject, job: job.name, metric: job.metric });
    const ratio = median(ratios(measurements, to(name), to('bare')));
    rows.push([name, number(rate), number(ratio, 2), number(of('p50')), number(of('p99')),
      number(of('p999')), number(of('cpu'), 2)]);
  }
  return rows.length > 1 ? formatTable(rows) : null;
}

function specialTable({ measurements }: BenchResult): string | null {
  const rows = [['other jobs', 'IOPS', 'MiB/s', 'tps', 'seconds', 'dirtied MiB', 'sent MiB']];
  const known = new Set(jobs.map(({ name }) => name));
  const seen = new Set(measurements.filter(({ job }) => !known.has(job))
    .map(({ subject, job }) => `${subject} ${job}`));
  for (const each of seen) {
    const [subject = '', job = ''] = each.split(' ');
    const of = (metric: Metric): number | null =>
      medianOf(measurements, { subject, job, metric });
    const mib = (metric: Metric): string => {
      const bytes = of(metric);
      return bytes === null ? nothing : number(bytes / MiB, 1);
    };
    rows.push([`${subject}, ${job}`, number(of('iops')), number(of('mib')), number(of('tps')),
      number(of('seconds'), 1), mib('bytesDirtied'), mib('bytesResynced')]);
  }
  return rows.length > 1 ? formatTable(rows) : null;
}

function subjectTable({ subjects, measurements }: BenchResult): string {
  const rows = [['subject', 'peak MiB', '']];
  for (const { name, what, problem, memoryPeakBytes } of subjects) {
    const memory = memoryPeakBytes === null ? nothing : number(memoryPeakBytes / MiB);
    const isMeasured = measurements.some(({ subject }) => subject === name);
    const mark = isMeasured ? 'FAILED' : 'NOT RUN';
    rows.push([name, memory, problem === null ? what : `${what}; ${mark}: ${problem}`]);
  }
  const width = Math.max(...rows.map((row) => (row[2] as string).length));
  return formatTable(rows.map(([name = '', memory = '', text = '']) =>
    [name, memory, text.padEnd(width)]));
}

export function formatGoals(result: BenchResult): string {
  const rows = [['goal: median of the ratios of each round', 'ratio', 'goal', 'verdict']];
  for (const { what, ratio, goal, verdict, problem } of result.goals) {
    rows.push([what, number(ratio, 2), goal ?? nothing,
      problem === null ? (verdict || 'for comparison') : verdict]);
  }
  const why = result.goals.filter(({ problem }) => problem !== null)
    .map(({ what, problem }) => `  not run: ${what}: ${problem}`);
  return [formatTable(rows), ...why].join('\n');
}

export function formatReport(result: BenchResult): string {
  const { machine, options, seconds } = result;
  const parts = [
    `${machine.processor}, ${machine.cores} cores, Linux ${machine.kernel}, ` +
      `Node ${machine.node}, ${machine.fio ?? 'no fio'} (${machine.engine})\n` +
      `${options.rounds} rounds, ${options.secondsPerJob} s for each job; took ` +
      `${(seconds / 60).toFixed(1)} minutes; all numbers are medians`,
    ...jobs.map((job) => jobTable(result, job)),
    specialTable(result),
    subjectTable(result),
    result.subjects.some(({ name }) => name.startsWith('qemu')) ? qemuCaveat : null,
    result.problems.length === 0 ? null : `problems:\n  ${result.problems.join('\n  ')}`,
    formatGoals(result),
  ];
  return `${parts.filter((part) => part !== null).join('\n\n')}\n`;
}
