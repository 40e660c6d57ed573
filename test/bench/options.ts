/** The command line of `npm run bench`. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { jobNames, specialJobs } from './jobs.ts';
import { subjects } from './subjects.ts';

export interface Options {
  quick: boolean;
  rounds: number;
  seconds: number;
  /** Null: all. */
  only: string[] | null;
  jobs: string[] | null;
  out: string;
  directory: string;
}

const tmpfsMagic = 0x0102_1994;
const ramfsMagic = 0x8584_58f6;

function count(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`a whole number from ${min} to ${max}`);
  };
}

function among(known: readonly string[]): (text: string) => string[] {
  return (text) => {
    const names = text.split(',').filter((name) => name !== '');
    const unknown = names.find((name) => !known.includes(name));
    if (unknown === undefined && names.length > 0) return names;
    throw new InvalidArgumentError(`${unknown ?? 'nothing'} is not one of ${known.join(', ')}`);
  };
}

const exitUsage = 64;

/** The options; or, when there is nothing to run, the exit code. */
export function parseOptions(argv: readonly string[]): Options | number {
  try {
    return parse(argv);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitUsage;
    throw error;
  }
}

function parse(argv: readonly string[]): Options {
  const names = subjects.map(({ name }) => name);
  const program = new Command('bench')
    .description('Measures hast-linux against a bare loop device and qemu, on this machine.')
    .option('--quick', 'what the goals need, within 5 minutes; without, within 40', false)
    .option('--rounds <n>', 'rounds, whose median counts (default: 3)', count(1, 100))
    .option('--seconds <n>', 'of each job in a round (default: 4; quick: 1)', count(1, 600))
    .option('--only <subjects>', `with commas between: ${names.join(', ')}`, among(names))
    .option('--jobs <jobs>', `with commas between: ${jobNames.join(', ')}`, among(jobNames))
    .option('--out <directory>', 'for bench.json and bench.svg', path.join('dist', 'bench'))
    .option('--directory <directory>', 'for the data: on a real disk', os.tmpdir())
    .helpOption('-h, --help')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(`bench: ${text}`) });
  program.parse([...argv], { from: 'user' });
  const given = program.opts<Partial<Options> & Pick<Options, 'quick' | 'out' | 'directory'>>();
  return {
    quick: given.quick, rounds: given.rounds ?? 3,
    seconds: given.seconds ?? (given.quick ? 1 : 4),
    only: given.only ?? null, jobs: given.jobs ?? null,
    out: path.resolve(given.out), directory: path.resolve(given.directory),
  };
}

/** What brings subjects of its own is left out of a choice that does not name it. */
export function wantsSpecial(
  { only, jobs }: Options, job: keyof typeof specialJobs,
): boolean {
  return jobs === null ? only === null : jobs.includes(job);
}

/** Why the data cannot be there, or null. */
export function directoryProblem(directory: string, bytesNeeded: number): string | null {
  if (!fs.existsSync(directory)) return `${directory} does not exist`;
  const { type, bavail, bsize } = fs.statfsSync(directory);
  if (type === tmpfsMagic || type === ramfsMagic) {
    return `${directory} is in memory: choose a folder on a disk with --directory`;
  }
  const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(0)} GiB`;
  if (bavail * bsize >= bytesNeeded) return null;
  return `${directory} has ${gib(bavail * bsize)} free, ${gib(bytesNeeded)} are needed`;
}
