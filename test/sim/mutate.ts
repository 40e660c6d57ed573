/**
 * Runs the simulator against deliberate mistakes: `npm run sim:mutants [-- --only NAME,NAME]`.
 *
 * Each mutant gets a copy of the compiled program in which its files were compiled anew, and seeds
 * until one fails. A mutant that survives, or whose line is gone, makes the exit code 1.
 */
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import ts from 'typescript';
import { mutants, type Edit, type Mutant } from './mutants.ts';

const run = promisify(execFile);
const dist = path.join(import.meta.dirname, '..', '..');
const root = path.join(dist, '..');

export interface Verdict {
  name: string;
  rule: string;
  /** Seeds until it was caught; null: it survived. */
  seeds: number | null;
  seconds: number;
  /** What the simulator said, or why the mutant could not be made. */
  what: string;
}

/** The lines that `mutant` changes. */
export function editsOf(mutant: Mutant): Edit[] {
  return [mutant, ...mutant.also ?? []];
}

function pieces(edit: Edit): string[] {
  return fs.readFileSync(path.join(root, edit.file), 'utf8').split(edit.find);
}

/** How often the line of `edit` occurs in its file: once, or it says nothing. */
export function occurrences(edit: Edit): number {
  return pieces(edit).length - 1;
}

/** The mutated source; throws where the line is not found exactly once. */
function mutated(edit: Edit): string {
  const count = occurrences(edit);
  if (count !== 1) throw new Error(`the line occurs ${count} times`);
  return pieces(edit).join(edit.replace);
}

function compile(folder: string, edit: Edit): void {
  const { outputText } = ts.transpileModule(mutated(edit), {
    fileName: edit.file,
    compilerOptions: {
      target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext,
      rewriteRelativeImportExtensions: true, verbatimModuleSyntax: true,
    },
  });
  fs.writeFileSync(path.join(folder, edit.file.replace(/\.ts$/, '.js')), outputText);
}

/** A folder with the compiled program, mutated. */
function build(mutant: Mutant): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-mutant-'));
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }\n');
  for (const part of ['lib/base', 'lib/format', 'lib/core', 'test/fixtures', 'test/sim']) {
    fs.cpSync(path.join(dist, part), path.join(folder, part), {
      recursive: true, filter: (name) => !/\.(map|d\.ts)$/.test(name),
    });
  }
  for (const edit of editsOf(mutant)) compile(folder, edit);
  return folder;
}

function optionsOf({ faults, set }: Mutant): string[] {
  const kinds = faults === undefined ? [] : ['--faults', faults.join(',')];
  return [...kinds, '--set', set ?? ''];
}

/** The seed finds nothing in the core as it is: what it found was the mutant. */
async function passes(seed: number, options: readonly string[]): Promise<boolean> {
  const main = path.join(dist, 'test', 'sim', 'main.js');
  try {
    await run(process.execPath, [main, '--seed', String(seed), ...options], { maxBuffer: 1 << 26 });
    return true;
  } catch {
    return false;
  }
}

/** Runs seeds against `mutant` until one fails, at most `mutant.seeds` or `secondsMax`. */
export async function judge(mutant: Mutant, secondsMax = 120): Promise<Verdict> {
  const { name, rule } = mutant;
  const start = performance.now();
  const verdict = (seeds: number | null, what: string): Verdict =>
    ({ name, rule, seeds, what, seconds: (performance.now() - start) / 1000 });
  const options = optionsOf(mutant);
  let folder = '';
  try {
    folder = build(mutant);
    await run(process.execPath, [
      path.join(folder, 'test', 'sim', 'main.js'), '--seeds', String(mutant.seeds),
      '--seconds', String(secondsMax), ...options,
    ], { maxBuffer: 1 << 26, timeout: secondsMax * 1000 + 30_000 });
    return verdict(null, 'SURVIVED');
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    const seeds = /^(\d+) seeds, 1 failed/m.exec(stdout ?? '')?.[1];
    const what = /^FAILED seed \d+: (?:\w*Error: )?(.*)$/m.exec(stdout ?? '')?.[1];
    if (seeds !== undefined && what !== undefined) {
      if (!await passes(Number(seeds), options)) return verdict(null, 'BROKEN: also without it');
      return verdict(Number(seeds), what);
    }
    const why = stderr?.trim().split('\n').slice(0, 6).join(' ') ?? String(error);
    return verdict(null, `BROKEN: ${why}`);
  } finally {
    if (folder !== '') fs.rmSync(folder, { recursive: true, force: true });
  }
}

function printVerdict(verdict: Verdict): void {
  const { name, seeds, seconds, what, rule } = verdict;
  console.log(`${name.padEnd(42)} ${rule.padEnd(20)} ${String(seeds ?? '-').padStart(5)} ` +
    `${seconds.toFixed(1).padStart(6)} s  ${what.slice(0, 110)}`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: {
    only: { type: 'string' }, jobs: { type: 'string', default: '2' },
    seconds: { type: 'string', default: '120' },
  } });
  const names = values.only?.split(',') ?? mutants.map((one) => one.name);
  const waiting = mutants.filter((one) => names.includes(one.name));
  const total = waiting.length;
  let caught = 0;
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const verdict = await judge(next, Number(values.seconds));
      printVerdict(verdict);
      if (verdict.seeds !== null) caught++;
    }
  };
  console.log(`${'mutant'.padEnd(42)} ${'rule'.padEnd(20)} seeds   time    caught by`);
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker));
  console.log(`${caught} of ${total} caught`);
  if (caught !== total || total === 0) process.exitCode = 1;
}

if (process.argv[1] === import.meta.filename) await main();
