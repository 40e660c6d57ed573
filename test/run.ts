/**
 * Runs the compiled tests under tap and ends with one line that counts:
 * `N passed, N failed, N skipped`. `unit` or `e2e` as argument runs that part alone.
 *
 * Two files run at a time, each end-to-end test in namespaces of its own; those that are about time
 * or memory, or start many processes, run alone. With three at a time each took half as long again.
 */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import * as readline from 'node:readline';

const root = path.join(import.meta.dirname, '..');

const alone = [
  'demo', 'kill-cycles', 'large', 'memory',
  // Their mount namespaces begin as copies, and would hold what another test has mounted.
  'container', 'pacemaker', 'postgresql',
];

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

function testFiles(folder: string): string[] {
  return fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.js'))
    .map((name) => path.join(folder, name))
    .sort();
}

/** Takes one line of TAP; prints what a person wants to see of it. */
function takeLine(line: string, counts: Counts): void {
  const summary = /^# \{ total: (.*) \}$/.exec(line);
  if (summary !== null) {
    const field = (name: string): number =>
      Number(new RegExp(`${name}: (\\d+)`).exec(line)?.[1] ?? 0);
    counts.passed += field('pass');
    counts.failed += field('fail');
    counts.skipped += field('skip') + field('todo');
    return;
  }
  const point = /^(\s*)(ok|not ok) \d+ - (.*)$/.exec(line);
  if (point === null) {
    const isDetail = /^\s+(at|found|wanted|diff|- |\+ |\d+:)/.test(line);
    if (isDetail || process.env['HAST_TEST_VERBOSE'] !== undefined) {
      console.log(line);
    }
    return;
  }
  const [, indent, verdict, title] = point as unknown as [string, string, string, string];
  const skip = /# SKIP ?(.*)$/i.exec(title);
  if (verdict === 'not ok') console.log(`FAILED ${indent}${title}`);
  else if (skip !== null) console.log(`SKIPPED ${indent}${title}`);
  else if (indent.length <= 4) console.log(`${indent}ok ${title}`);
}

async function run(files: string[], jobs: number, timeout: number, counts: Counts): Promise<void> {
  if (files.length === 0) return;
  const tap = path.join(root, '..', 'node_modules', '.bin', 'tap');
  const child = spawn(tap, [
    '--reporter=tap', `--jobs=${jobs}`, `--timeout=${timeout}`, ...files,
  ], { stdio: ['ignore', 'pipe', 'inherit'], cwd: path.join(root, '..') });
  const lines = readline.createInterface({ input: child.stdout });
  const before = counts.failed;
  lines.on('line', (line) => takeLine(line, counts));
  const code = await new Promise<number>((resolve) => {
    child.on('close', (status) => resolve(status ?? 1));
  });
  // A runner that broke down, or a file that ran nothing, is a failure whatever was counted.
  if (code !== 0 && counts.failed === before) counts.failed++;
}

async function main(): Promise<void> {
  const part = process.argv[2] ?? 'all';
  const all = testFiles(path.join(root, 'test'));
  const isE2e = (file: string): boolean => file.includes(`${path.sep}e2e${path.sep}`);
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  if (part !== 'e2e') await run(all.filter((file) => !isE2e(file)), 2, 300, counts);
  if (part !== 'unit') {
    const isAlone = (file: string): boolean => alone.includes(path.basename(file, '.test.js'));
    await run(all.filter((file) => isE2e(file) && !isAlone(file)), 2, 600, counts);
    await run(all.filter((file) => isE2e(file) && isAlone(file)), 1, 600, counts);
  }
  const { passed, failed, skipped } = counts;
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
}

await main();
