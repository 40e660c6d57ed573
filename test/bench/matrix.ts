/** The fio jobs, on one subject after the other, round by round. */
import { isInstalled, run } from '../../cli/lab-run.ts';
import { labMissing } from '../../cli/lab.ts';
import type { Bench } from './bench.ts';
import { isInGoals } from './goals.ts';
import { jobs, regionBytes, type Job } from './jobs.ts';
import {
  needsOf, openSubject, packageOf, subjects, type RunningSubject, type Subject,
} from './subjects.ts';

/** Failures of one subject, after which it is left alone. */
const failuresMax = 2;

/** Why something cannot be measured here, with the package to install; null where it can. */
export async function missing(programs: readonly string[]): Promise<string | null> {
  const reason = labMissing();
  if (reason !== null) return reason;
  const absent: string[] = [];
  for (const program of programs) if (!await isHere(program)) absent.push(program);
  if (absent.length === 0) return null;
  const packages = [...new Set(absent.map(packageOf))].join(' ');
  return `${absent.join(', ')} not installed: run 'apt-get install ${packages}'`;
}

async function isHere(program: string): Promise<boolean> {
  if (program !== 'libfuse2') return await isInstalled(program);
  const { stdout } = await run(['ldconfig', '-p']);
  return stdout.includes('libfuse.so.2');
}

/** Which of the jobs a subject takes part in. */
export function jobsOf({ name }: Subject, { options }: Bench): Job[] {
  return jobs.filter((job) => {
    if (options.jobs !== null) return options.jobs.includes(job.name);
    return !options.quick || options.only !== null || isInGoals(name, job.name);
  });
}

export function chosenSubjects(bench: Bench): Subject[] {
  const { only } = bench.options;
  const named = subjects.filter(({ name }) => only === null || only.includes(name));
  return named.filter((subject) => jobsOf(subject, bench).length > 0 ||
    (bench.options.jobs?.includes('pgbench') === true && isInGoals(subject.name, 'pgbench')));
}

/** Opens what is chosen, and fills it. */
export async function openAll(bench: Bench): Promise<RunningSubject[]> {
  const opened: RunningSubject[] = [];
  for (const subject of chosenSubjects(bench)) {
    const absent = await missing(needsOf(subject));
    const running = await bench.open(subject.name, subject.what, async () => {
      if (absent !== null) throw new Error(absent);
      return await openSubject(subject, {
        bytes: bench.sizeBytes, directory: bench.options.directory, sparse: false,
        signal: bench.signal,
      });
    });
    if (running === null) continue;
    opened.push(running);
    if (subject.kind !== 'null-native') await bench.fill(running, regionBytes);
  }
  return opened;
}

/** `reserveMs`: what must be left of the time afterwards. */
export async function measureAll(
  bench: Bench, running: readonly RunningSubject[], reserveMs: number,
): Promise<void> {
  const failures = new Map<string, number>();
  for (let round = 1; round <= bench.options.rounds; round++) {
    for (const job of jobs) {
      const takers = running.filter(({ name }) => takesPart(bench, name, job) &&
        (failures.get(name) ?? 0) < failuresMax);
      if (takers.length === 0) continue;
      if (bench.leftMs < reserveMs + takers.length * bench.stepMs) {
        bench.problem(`round ${round}: ${job.name}: left out: the time was up`);
        continue;
      }
      for (const subject of takers) {
        if (await bench.measure(subject, job, round)) continue;
        failures.set(subject.name, (failures.get(subject.name) ?? 0) + 1);
      }
    }
  }
}

function takesPart(bench: Bench, name: string, job: Job): boolean {
  const subject = subjects.find((one) => one.name === name);
  return subject !== undefined && jobsOf(subject, bench).includes(job);
}
