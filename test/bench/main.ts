/**
 * `npm run bench`: measures, prints two tables, and writes bench.json and bench.svg. Whatever it
 * made is removed at the end, after an error and after a signal.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { errorText } from '../../lib/base/errors.ts';
import { Bench } from './bench.ts';
import { renderChart } from './chart.ts';
import { measureCold } from './cold.ts';
import { chooseEngine } from './fio.ts';
import { evaluate } from './goals.ts';
import { describeMachine } from './machine.ts';
import { chosenSubjects, measureAll, missing, openAll } from './matrix.ts';
import { directoryProblem, parseOptions, wantsSpecial, type Options } from './options.ts';
import { measurePostgres } from './postgres.ts';
import { formatReport } from './report.ts';
import type { BenchResult } from './result.ts';
import { measureResync } from './resync.ts';

const exitFailed = 1;
const exitUnable = 69;
/** What the special jobs need of the time. */
const reserveMs = { quick: 100_000, full: 480_000 } as const;
/** A lab that is open listens to signals too. */
const listenersMax = 64;
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

async function measureEverything(bench: Bench): Promise<void> {
  const { options } = bench;
  const running = await openAll(bench);
  const reserve = options.only === null && options.jobs === null
    ? (options.quick ? reserveMs.quick : reserveMs.full) : 0;
  await measureAll(bench, running, reserve);
  const used = running.filter(({ name }) => name === 'bare' || name === 'fullsync');
  if (!wantsSpecial(options, 'pgbench')) used.length = 0;
  for (const subject of running) if (!used.includes(subject)) await bench.close(subject);
  if (used.length > 0) await measurePostgres(bench, used);
  for (const subject of used) await bench.close(subject);
  if (wantsSpecial(options, 'resync')) await measureResync(bench);
  if (wantsSpecial(options, 'cold')) await measureCold(bench);
}

async function resultOf(bench: Bench, startedAt: string): Promise<BenchResult> {
  const { options, settings } = bench;
  const why = (name: string): string | null =>
    bench.subjects.find((one) => one.name === name)?.problem ?? null;
  return {
    schema: 1, startedAt, seconds: bench.seconds,
    options: {
      quick: options.quick, rounds: options.rounds, secondsPerJob: options.seconds,
      sizeBytes: bench.sizeBytes,
    },
    machine: await describeMachine(options.directory, settings.engine),
    subjects: bench.subjects, problems: bench.problems,
    goals: evaluate(bench.measurements, why), measurements: bench.measurements,
  };
}

function write(result: BenchResult, out: string): void {
  fs.mkdirSync(out, { recursive: true });
  const json = path.join(out, 'bench.json');
  const chart = path.join(out, 'bench.svg');
  fs.writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`);
  fs.writeFileSync(chart, renderChart(result));
  process.stdout.write(`${formatReport(result)}\nwritten: ${json}, ${chart}\n`);
}

async function run(options: Options): Promise<number> {
  const startedAt = new Date().toISOString();
  // The labs' folders are made where temporary files go.
  process.env['TMPDIR'] = options.directory;
  process.setMaxListeners(listenersMax);
  const abort = new AbortController();
  let signal: NodeJS.Signals | null = null;
  const interrupted = (which: NodeJS.Signals): void => {
    signal ??= which;
    abort.abort();
  };
  for (const one of signals) process.on(one, interrupted);
  const engine = await chooseEngine(path.join(options.directory, `hast-bench-${process.pid}`));
  const bench = new Bench(options, engine, abort.signal);
  const copies = 2 * chosenSubjects(bench).length;
  const problem = directoryProblem(options.directory, copies * bench.sizeBytes);
  if (problem !== null) return unable(problem);
  let code = 0;
  const bound = setTimeout(() => abort.abort(), bench.boundMs);
  try {
    await measureEverything(bench);
  } catch (error) {
    code = exitFailed;
    const why = abort.signal.aborted ? 'the time was up' : errorText(error);
    if (signal === null) bench.problem(`ended early: ${why}`);
  } finally {
    clearTimeout(bound);
    await bench.closeAll();
  }
  if (signal !== null) return 128 + os.constants.signals[signal as NodeJS.Signals];
  write(await resultOf(bench, startedAt), options.out);
  return code;
}

function unable(why: string): number {
  process.stderr.write(`bench: cannot run here: ${why}\n`);
  return exitUnable;
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (typeof options === 'number') return options;
  const absent = await missing(['fio', 'losetup', 'fallocate']);
  return absent === null ? await run(options) : unable(absent);
}

process.exit(await main());
