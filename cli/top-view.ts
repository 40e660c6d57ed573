/** What `hastctl top` draws: rates between samples, the latencies of the last seconds, history. */
import type {
  LatencyStage, RequestKind, ResourceStatistics,
} from '../lib/format/statistics.ts';
import type { ResourceStatus } from '../lib/format/status.ts';
import { humanSize, notes, resyncText, styleOf } from './format-status.ts';
import type { Paint } from './terminal.ts';

export interface Sample {
  /** Milliseconds of a steady clock. */
  at: number;
  status: ResourceStatus;
  /** null without a worker that counts. */
  statistics: ResourceStatistics | null;
}

/** Samples kept of each resource: what the line of history shows. */
const historyMax = 60;
/** Latencies are those of this many samples. */
const windowSamples = 5;
const bars = '▁▂▃▄▅▆▇█';
const stages: [LatencyStage, string][] = [
  ['local', 'local disk'], ['network', 'network'], ['peer-disk', 'peer disk'], ['total', 'total'],
];

/** A second or so of a resource; bytes and requests a second. */
interface Rates {
  read: number;
  write: number;
  requests: number;
}

export class History {
  readonly #samples = new Map<string, Sample[]>();

  /** A worker that is a new one begins anew. */
  add(samples: readonly Sample[]): void {
    const names = new Set(samples.map(({ status }) => status.name));
    for (const name of this.#samples.keys()) if (!names.has(name)) this.#samples.delete(name);
    for (const sample of samples) {
      const list = this.#samples.get(sample.status.name) ?? [];
      const isNew = sample.status.worker !== list.at(-1)?.status.worker;
      this.#samples.set(sample.status.name, [...isNew ? [] : list, sample].slice(-historyMax));
    }
  }

  get names(): string[] {
    return [...this.#samples.keys()];
  }

  of(name: string): readonly Sample[] {
    return this.#samples.get(name) ?? [];
  }
}

function rates(from: Sample | undefined, to: Sample | undefined): Rates | null {
  const [before, after] = [from?.statistics, to?.statistics];
  if (before == null || after == null || from === undefined || to === undefined) return null;
  const seconds = Math.max(0.001, (to.at - from.at) / 1000);
  const per = (kind: RequestKind, what: 'count' | 'bytes'): number =>
    Math.max(0, after.requests[kind][what] - before.requests[kind][what]) / seconds;
  return {
    read: per('read', 'bytes'), write: per('write', 'bytes'),
    requests: per('read', 'count') + per('write', 'count') + per('discard', 'count') +
      per('flush', 'count'),
  };
}

/** Milliseconds that half and that 99 of 100 stayed below, of what was counted between the two. */
export function latency(
  from: ResourceStatistics | null, to: ResourceStatistics, stage: LatencyStage,
): { median: number; slow: number } | null {
  const { latencyBounds } = to;
  const counts = new Array<number>(latencyBounds.length + 1).fill(0);
  const add = ({ latencies }: ResourceStatistics, sign: number): void => {
    for (const one of latencies) {
      // A flush of the application is as long as the disk's: what is shown is reads and writes.
      if (one.stage !== stage || one.kind === 'flush') continue;
      one.buckets.forEach((count, at) => {
        counts[at] = (counts[at] ?? 0) + sign * count;
      });
    }
  };
  add(to, 1);
  if (from !== null) add(from, -1);
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total <= 0) return null;
  const below = (part: number): number => {
    let sum = 0;
    const at = counts.findIndex((count) => {
      sum += count;
      return sum >= total * part;
    });
    return (latencyBounds[at] ?? latencyBounds.at(-1) ?? 0) * 1000;
  };
  return { median: below(0.5), slow: below(0.99) };
}

/** One character for each value, the highest as the full block. */
export function sparkline(values: readonly number[]): string {
  const top = Math.max(...values, 1);
  return values.map((value) =>
    bars[Math.min(bars.length - 1, Math.floor(value / top * (bars.length - 1) + 0.5))]).join('');
}

/** `[######....]` of `width` characters between the brackets. */
export function bar(percent: number, width: number): string {
  const full = Math.max(0, Math.min(width, Math.floor(percent / 100 * width)));
  return `[${'█'.repeat(full)}${'·'.repeat(width - full)}]`;
}

export interface TopView {
  history: History;
  chosen: string;
  /** Of the terminal. */
  columns: number;
  rows: number;
  /** Shown instead of the clock's line where hastd does not answer. */
  gone: string | null;
  clock: string;
  paint: Paint;
}

const columnWidths = [12, 14, 10, 10, 10, 8, 6, 9];

/** Lines for the whole screen: all resources, and below them the chosen one in full. */
export function topLines(view: TopView): string[] {
  const { history, chosen, clock, gone, paint, rows } = view;
  const head = gone === null ? paint('dim', `${clock}   q ends, up and down choose`)
    : `${clock}   ${paint('alarm', 'hastd does not answer')} ${gone}`;
  const names = history.names;
  const detail = chosenLines(view);
  // The table gives way where the screen is low: the chosen one is always in it.
  const shown = Math.max(1, Math.min(names.length, rows - detail.length - 4));
  const first = Math.max(0, Math.min(names.indexOf(chosen) - shown + 1, names.length - shown));
  const title = row(['Name', 'Status', 'Role', 'Read/s', 'Write/s', 'IOPS', 'Queue', 'Dirty']);
  return [
    `${paint('bold', 'hast')}  ${head}`, '', paint('bold', `  ${title}`),
    ...names.slice(first, first + shown).map((name) => tableLine(view, name)), '', ...detail,
  ];
}

function row(cells: readonly string[]): string {
  return cells.map((cell, column) => {
    const width = columnWidths[column] ?? 8;
    return column < 3 ? cell.padEnd(width) : cell.padStart(width);
  }).join(' ');
}

function tableLine({ history, chosen, paint }: TopView, name: string): string {
  const samples = history.of(name);
  const last = samples.at(-1);
  if (last === undefined) return '';
  const { status, statistics } = last;
  const now = rates(samples.at(-2), last);
  const rate = (value: number | undefined): string =>
    value === undefined ? '-' : `${humanSize(value)}`;
  const line = row([
    name, status.status, status.role, rate(now?.read), rate(now?.write),
    now === null ? '-' : String(Math.round(now.requests)),
    statistics === null ? '-' : String(statistics.queues.requests), humanSize(status.dirtyBytes),
  ]);
  const at = Math.max(name.length, columnWidths[0] ?? 0) + 1;
  const word = status.status;
  const painted = line.slice(0, at) + paint(styleOf(status), word) + line.slice(at + word.length);
  return `${name === chosen ? paint('cyan', '>') : ' '} ${painted}`;
}

function chosenLines({ history, chosen, columns, paint }: TopView): string[] {
  const samples = history.of(chosen);
  const last = samples.at(-1);
  if (last === undefined) return [];
  const { status, statistics } = last;
  const label = (text: string): string => paint('dim', text.padEnd(11));
  const lines = [
    `${paint('bold', chosen)}  ${status.local}  ${status.remote}   connection ` +
      `${status.connection}   disks ${status.localDisk}/${status.peerDisk}`,
  ];
  const width = Math.max(10, Math.min(historyMax - 1, columns - 40));
  for (const [what, text] of [['read', 'read'], ['write', 'write']] as const) {
    const values = samples.slice(1).map((one, at) => rates(samples[at], one)?.[what] ?? 0);
    const peak = Math.max(0, ...values);
    const line = sparkline(values.slice(-width)).padStart(width);
    lines.push(`${label(text)}${paint('green', line)}  at most ${humanSize(peak)}/s`);
  }
  if (statistics !== null) {
    const from = samples.at(-1 - windowSamples)?.statistics ?? samples[0]?.statistics ?? null;
    const before = from === statistics ? null : from;
    const parts = stages.map(([stage, text]) => {
      const found = latency(before, statistics, stage);
      return `${text} ${found === null ? '-'
        : `${milliseconds(found.median)}/${milliseconds(found.slow)}`}`;
    });
    lines.push(`${label('latency ms')}${parts.join('   ')}   ${paint('dim', '(median/99%)')}`);
    const { queues, secondsBehind } = statistics;
    lines.push(`${label('queues')}application ${queues.requests}   local ${queues.local}   ` +
      `to peer ${queues.send} (${humanSize(queues.sendBytes)})   from peer ${queues.receive}`);
    if (secondsBehind !== null && secondsBehind > 0) {
      lines.push(`${label('behind')}${secondsBehind.toFixed(1)} s would be lost with this node`);
    }
  }
  const resync = resyncText(status);
  if (resync !== '' && status.syncPercent < 100) {
    lines.push(`${label('resync')}${paint('cyan', bar(status.syncPercent, 30))} ${resync}`);
  }
  return [...lines, ...notes(status, paint).map((note) => `  ${note}`)];
}

function milliseconds(value: number): string {
  return value < 10 ? value.toFixed(2) : value.toFixed(0);
}
