/** The log as hastd writes it: to a file, to the journal, and to a terminal. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { journalStream, writesToJournal } from '../../lib/daemon/logger.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const logger = fileURLToPath(new URL('../../lib/daemon/logger.js', import.meta.url));
const program = `
  const { createLogger } = await import(${JSON.stringify(logger)});
  const log = createLogger({ fields: { resource: 'shared' } });
  log.debug({}, 'not shown');
  log.info({ from: 'waiting', to: 'complete' }, 'the status is');
  log.warn({ role: 'primary', reason: 'x y' }, 'disconnected');
`;

/** What a process with stderr in a file writes there. */
function written(dir: string, environment: (fd: number) => Record<string, string>): string[] {
  const file = path.join(dir, 'log');
  const fd = fs.openSync(file, 'w');
  spawnSync('env', [...plainNode, '--input-type=module', '-e', program], {
    stdio: ['ignore', 'ignore', fd], env: { ...process.env, ...environment(fd) },
  });
  fs.closeSync(fd);
  return fs.readFileSync(file, 'utf8').trimEnd().split('\n');
}

t.test('logger: JSON in a file', async (t) => {
  const lines = written(t.testdir({}), () => ({ JOURNAL_STREAM: '1:2' }));
  t.match(lines.map((line) => JSON.parse(line) as object), [
    { level: 'info', time: /^\d{4}-.*Z$/, pid: Number, resource: 'shared', msg: 'the status is' },
    { level: 'warn', role: 'primary', reason: 'x y', msg: 'disconnected' },
  ]);
  t.equal(lines.length, 2);
});

t.test('logger: the journal gets priorities, and has time and pid itself', async (t) => {
  const lines = written(t.testdir({}), (fd) => {
    const { dev, ino } = fs.fstatSync(fd);
    return { JOURNAL_STREAM: `${dev}:${ino}` };
  });
  t.same(lines.map((line) => line.slice(0, 3)), ['<6>', '<4>']);
  t.same(Object.keys(JSON.parse(lines[0]?.slice(3) ?? '') as object),
    ['level', 'resource', 'from', 'to', 'msg']);
  t.equal(writesToJournal(undefined), false);
  t.equal(writesToJournal('1:2', 9999), false);
  const said: string[] = [];
  const stream = journalStream({ write: (line) => said.push(line) }) as
    ReturnType<typeof journalStream> & { lastLevel: number };
  for (const level of [10, 20, 30, 40, 50, 60]) {
    stream.lastLevel = level;
    stream.write('');
  }
  t.same(said, ['<7>', '<7>', '<6>', '<4>', '<3>', '<2>']);
});

const hasScript = spawnSync('script', ['--version']).error === undefined;
t.test('logger: text on a terminal', {
  skip: hasScript ? false : 'script (bsdutils) is not installed',
}, async (t) => {
  const file = path.join(t.testdir({ 'program.mjs': program }), 'program.mjs');
  const run = (environment: Record<string, string>): string => spawnSync('script', [
    '-qec', ['env', ...plainNode, file].map((word) => `'${word}'`).join(' '), '/dev/null',
  ], {
    encoding: 'utf8', env: { ...process.env, TERM: 'xterm', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  }).stdout.replaceAll('\r', '');
  const [first = '', second = ''] = run({ NO_COLOR: '1' }).split('\n');
  const clock = /^\[?\d\d:\d\d:\d\d\]? /;
  t.match(first, clock);
  t.match(first, / INFO: \[shared\] the status is .*"from":"waiting"/);
  t.match(second, clock);
  t.match(second, / WARN: \[shared\] \(primary\) disconnected .*"reason":"x y"/);
  t.match(run({ NO_COLOR: '' }), /\u001b\[3\dm/);
});
