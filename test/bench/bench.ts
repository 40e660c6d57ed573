/** What a run has: its bounds, and what came of it so far. */
import { errorText } from '../../lib/base/errors.ts';
import { run } from '../../cli/lab-run.ts';
import { fill, measure, type FioSettings } from './fio.ts';
import { metadataBytes, regionBytes, type Job } from './jobs.ts';
import type { Options } from './options.ts';
import { memoryPeak } from './process-use.ts';
import type { Measurement, SubjectResult } from './result.ts';
import type { RunningSubject } from './subjects.ts';

const minute = 60_000;
const budgetMs = { quick: 5 * minute, full: 40 * minute } as const;
/** For taking everything down, and the report. */
const endMs = 15_000;
const syncMs = 60_000;

export class Bench {
  readonly options: Options;
  readonly settings: FioSettings;
  readonly signal: AbortSignal;
  readonly measurements: Measurement[] = [];
  readonly problems: string[] = [];
  readonly subjects: SubjectResult[] = [];
  readonly #running: RunningSubject[] = [];
  readonly #began = performance.now();

  constructor(options: Options, engine: string, signal: AbortSignal) {
    this.options = options;
    this.signal = signal;
    this.settings = {
      engine, signal, seconds: options.seconds, warmMs: options.quick ? 500 : 1000,
    };
  }

  /** Of the files of a subject. */
  get sizeBytes(): number {
    return 2 * regionBytes + metadataBytes;
  }

  get seconds(): number {
    return (performance.now() - this.#began) / 1000;
  }

  /** Until the run must have ended. */
  get leftMs(): number {
    const { quick } = this.options;
    return (quick ? budgetMs.quick : budgetMs.full) - endMs - this.seconds * 1000;
  }

  /** When it must be ended, whatever it does: nothing that hangs makes it longer. */
  get boundMs(): number {
    return this.leftMs + endMs / 2;
  }

  /** What one measurement takes, about. */
  get stepMs(): number {
    return this.settings.seconds * 1000 + this.settings.warmMs + 1500;
  }

  say(text: string): void {
    process.stderr.write(`[${this.seconds.toFixed(0).padStart(4)} s] ${text}\n`);
  }

  problem(text: string): void {
    this.say(text);
    this.problems.push(text);
  }

  result(name: string, what: string): SubjectResult {
    const known = this.subjects.find((one) => one.name === name);
    if (known !== undefined) return known;
    const result = { name, what, problem: null, memoryPeakBytes: null };
    this.subjects.push(result);
    return result;
  }

  /** Opens a subject; null, with the reason noted, where that fails. */
  async open<T extends RunningSubject>(
    name: string, what: string, open: () => Promise<T>,
  ): Promise<T | null> {
    const result = this.result(name, what);
    this.say(`${name}: preparing`);
    try {
      const subject = await open();
      this.#running.push(subject);
      return subject;
    } catch (error) {
      if (this.signal.aborted) throw error;
      result.problem = errorText(error);
      this.say(`${name}: not run: ${result.problem}`);
      return null;
    }
  }

  /** Every block of the region has been written, so that none is allocated while it counts. */
  async fill(subject: RunningSubject, bytes: number): Promise<void> {
    await fill(subject.device, bytes, this.settings);
  }

  /** One job on one subject; false, with the reason noted, where that fails. */
  async measure(
    subject: RunningSubject, job: Job, round: number, bytes = regionBytes,
  ): Promise<boolean> {
    await this.settle();
    try {
      const one = await measure(subject, { job, round, bytes }, this.settings);
      this.measurements.push(one);
      const value = one.values[job.metric] ?? 0;
      const unit = job.metric === 'mib' ? 'MiB/s' : 'IOPS';
      this.say(`round ${round}: ${job.name}: ${subject.name}: ${value.toFixed(0)} ${unit}`);
      return true;
    } catch (error) {
      if (this.signal.aborted) throw error;
      this.failed(subject.name, `round ${round}: ${job.name}: ${errorText(error)}`);
      return false;
    }
  }

  failed(subject: string, why: string): void {
    this.problem(`${subject}: ${why}`);
    const result = this.subjects.find(({ name }) => name === subject);
    if (result !== undefined) result.problem ??= why;
  }

  /** What one subject left in the page cache is not written while the next one is measured. */
  async settle(): Promise<void> {
    await run(['sync', '--file-system', this.options.directory], {
      boundMs: syncMs, signal: this.signal,
    });
  }

  async close(subject: RunningSubject): Promise<void> {
    const at = this.#running.indexOf(subject);
    if (at < 0) return;
    this.#running.splice(at, 1);
    try {
      const pids = await subject.serving();
      const result = this.subjects.find(({ name }) => name === subject.name);
      if (result !== undefined && pids.length > 0) result.memoryPeakBytes = memoryPeak(pids);
    } catch {
      // It is broken, and said so before.
    }
    await subject.close().catch((error: unknown) => {
      this.problem(`${subject.name}: cannot be removed: ${errorText(error)}`);
    });
  }

  /** Whatever is open, also after a failure. */
  async closeAll(): Promise<void> {
    await Promise.all([...this.#running].map((subject) => this.close(subject)));
  }
}
