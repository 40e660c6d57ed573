/**
 * A line on a terminal's standard error while something takes longer than a second: what is under
 * way, since when, and how far a resync is. It is wiped away before anything else is printed.
 * Elsewhere one plain line after ten seconds, so that a log shows what a script waits for.
 */
import type { ResourceStatus } from '../lib/format/status.ts';
import { duration, resyncText } from './format-status.ts';
import type { Context } from './output.ts';
import { control, cut, hasColours, painter, sizeOf } from './terminal.ts';
import { bar } from './top-view.ts';

const showAfterMs = 1000;
const sayAfterMs = 10_000;
const everyMs = 250;
const askEveryMs = 1000;
const turns = '|/-\\';
const barWidth = 24;

export interface ProgressOptions {
  /** Statuses to show the resyncs of; asked once a second, and failures are ignored. */
  watch?: () => Promise<ResourceStatus[]>;
}

/** Runs `work`, and shows that it is under way. */
export async function withProgress<T>(
  context: Context, what: string, work: () => Promise<T>, options: ProgressOptions = {},
): Promise<T> {
  const { stderr } = process;
  if (context.json) return await work();
  if (!stderr.isTTY) {
    const timer = setTimeout(() => stderr.write(`${what} is under way\n`), sayAfterMs);
    return await work().finally(() => clearTimeout(timer));
  }
  const line = new ProgressLine(what, options);
  try {
    return await work();
  } finally {
    line.end();
  }
}

class ProgressLine {
  readonly #what: string;
  readonly #options: ProgressOptions;
  readonly #startedAt = performance.now();
  readonly #timer: NodeJS.Timeout;
  #statuses: ResourceStatus[] = [];
  #askedAt = -Infinity;
  #turn = 0;
  #isShown = false;

  constructor(what: string, options: ProgressOptions) {
    this.#what = what;
    this.#options = options;
    this.#timer = setInterval(() => this.#draw(), everyMs);
  }

  end(): void {
    clearInterval(this.#timer);
    if (this.#isShown) process.stderr.write(`\r${control.clearLine}`);
  }

  #draw(): void {
    const now = performance.now();
    const { watch } = this.#options;
    if (watch !== undefined && now - this.#askedAt >= askEveryMs) {
      this.#askedAt = now;
      watch().then((statuses) => { this.#statuses = statuses; }, () => undefined);
    }
    if (now - this.#startedAt < showAfterMs) return;
    this.#isShown = true;
    const paint = painter(hasColours(process.stderr));
    const text = progressText(this.#what, (now - this.#startedAt) / 1000, this.#statuses);
    const turn = turns[this.#turn++ % turns.length] ?? '';
    // One column free: a full line would go on in the next.
    const line = cut(`${paint('cyan', turn)} ${text}`, sizeOf(process.stderr).columns - 1);
    process.stderr.write(`\r${line}${control.clearLine}`);
  }
}

/** `shared: role primary  0:12  [████····] 42.1%, 10MB/s, 3:20 left` */
export function progressText(
  what: string, seconds: number, statuses: readonly ResourceStatus[],
): string {
  const copying = statuses.filter((one) => resyncText(one) !== '' && one.syncPercent < 100);
  const bars = copying.map((one) => {
    const name = statuses.length > 1 ? `${one.name} ` : '';
    return `  ${name}${bar(one.syncPercent, barWidth)} ${resyncText(one)}`;
  });
  return `${what}  ${duration(Math.floor(seconds))}${bars.join('')}`;
}
