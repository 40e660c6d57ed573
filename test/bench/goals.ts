/** What is aimed at, as ratios within a round; and whether a run met it. */
import type { GoalResult, Measurement } from './result.ts';
import { median, ratios, type Quantity } from './statistics.ts';

export interface Goal {
  what: string;
  over: Quantity;
  under: Quantity;
  atLeast?: number;
  atMost?: number;
  /** Below `atLeast`, and still acceptable. */
  floor?: number;
  /** Why it cannot be measured at present. */
  notYet?: string;
}

/** `subject job metric`. */
function quantity(text: string): Quantity {
  const [subject = '', job = '', metric = ''] = text.split(' ');
  return { subject, job, metric: metric as Quantity['metric'] };
}

function goal(
  what: string, over: string, under: string,
  aim: Pick<Goal, 'atLeast' | 'atMost' | 'floor' | 'notYet'> = {},
): Goal {
  return { what, over: quantity(over), under: quantity(under), ...aim };
}

export const goals: readonly Goal[] = [
  goal('local / bare, 4k write, depth 32', 'local write-32 iops', 'bare write-32 iops',
    { atLeast: 0.9 }),
  goal('local / bare, 4k read, depth 32', 'local read-32 iops', 'bare read-32 iops',
    { atLeast: 0.9 }),
  goal('local / qemu, 4k read, depth 32', 'local read-32 iops', 'qemu read-32 iops',
    { atLeast: 3 }),
  goal('fullsync / qemu-quorum, 4k write, depth 32', 'fullsync write-32 iops',
    'qemu-quorum write-32 iops', { atLeast: 3.5, floor: 2.5 }),
  goal('fullsync / qemu-quorum, 4k write, depth 1, median latency', 'fullsync write-1 p50',
    'qemu-quorum write-1 p50', { atMost: 0.75 }),
  goal('fullsync / qemu-quorum, 1M sequential write', 'fullsync seqwrite mib',
    'qemu-quorum seqwrite mib', { atLeast: 5 }),
  goal('fullsync / bare, 1M sequential write', 'fullsync seqwrite mib', 'bare seqwrite mib',
    { atLeast: 0.5 }),
  goal('fullsync / bare, 4k write + fdatasync', 'fullsync sync iops', 'bare sync iops',
    { atLeast: 0.5 }),
  goal('cold / hot extents, 4k write, depth 32', 'fullsync-sparse cold iops',
    'fullsync-sparse hot iops', { atLeast: 0.5 }),
  goal('the same without hast-linux (bare)', 'bare-sparse cold iops', 'bare-sparse hot iops'),
  goal('resync / fullsync sequential write, rate', 'resync resync mib', 'resync seqwrite mib',
    { atLeast: 0.8 }),
  goal('bytes sent by a resync / bytes dirtied, 4k', 'resync resync-random bytesResynced',
    'resync resync-random bytesDirtied', { atMost: 1.1 }),
  goal('local-native / null-native, 4k write, depth 32', 'local-native write-32 iops',
    'null-native write-32 iops', { atLeast: 0.6 }),
  goal('TLS / plain, 1M sequential write', 'fullsync-tls seqwrite mib', 'fullsync seqwrite mib',
    { atLeast: 0.6 }),
  goal('TLS / plain, 4k write, depth 32', 'fullsync-tls write-32 iops', 'fullsync write-32 iops',
    { atLeast: 0.6 }),
  goal('fullsync / bare, pgbench', 'fullsync pgbench tps', 'bare pgbench tps'),
];

/** Jobs of a subject that some goal needs. */
export function isInGoals(subject: string, job: string): boolean {
  return goals.some(({ over, under }) => [over, under].some((one) =>
    one.subject === subject && one.job === job));
}

export function aimText({ atLeast, atMost, floor }: Goal): string | null {
  if (atMost !== undefined) return `<= ${atMost}`;
  if (atLeast === undefined) return null;
  return floor === undefined ? `>= ${atLeast}` : `>= ${atLeast} (floor ${floor})`;
}

/** `why`: what is known of a subject that was not measured. */
export function evaluate(
  measurements: readonly Measurement[], why: (subject: string) => string | null = () => null,
  table: readonly Goal[] = goals,
): GoalResult[] {
  return table.map((one) => {
    const all = one.notYet === undefined ? ratios(measurements, one.over, one.under) : [];
    const ratio = median(all);
    const problem = ratio !== null ? null : one.notYet ??
      why(one.over.subject) ?? why(one.under.subject) ?? 'not measured in this run';
    return {
      what: one.what, ratio, rounds: all.length, goal: aimText(one), problem,
      verdict: ratio === null ? 'not run' : verdict(one, ratio),
    };
  });
}

function verdict({ atLeast, atMost, floor }: Goal, ratio: number): GoalResult['verdict'] {
  if (atMost !== undefined) return ratio <= atMost ? 'met' : 'missed';
  if (atLeast === undefined) return '';
  if (ratio >= atLeast) return 'met';
  return floor !== undefined && ratio >= floor ? 'floor met' : 'missed';
}
