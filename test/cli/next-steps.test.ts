/**
 * Goal: every error that reaches a person says what to do next. Method: every `new HastError` in
 * the sources is looked at. Who makes one says what to do, except for errors whose cause this
 * program cannot know better than their code does: those have the code's usual next step.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { errorJson, errorLine } from '../../cli/report.ts';
import { HastError, nextStep } from '../../lib/base/errors.ts';
import { runHastctl } from '../fixtures/many-runs.ts';
import { plainNode } from '../fixtures/plain-node.ts';

/** Bugs, and what a peer or a client says that is not of this protocol. */
const usual = ['HAST_E_INTERNAL', 'HAST_E_PROTOCOL', 'HAST_E_CHECKSUM'];
/** Bytes, and the kernel's interface: who calls knows file and disk, the code says the rest. */
const folders = ['lib/base/', 'lib/format/', 'lib/fuse/'];
/** The reason for the end of a session: it stands in the log, not before a person. */
const allowed = ["the peer's disk failed"];

interface Site {
  place: string;
  code: string;
  hasHint: boolean;
  text: string;
}

function sites(file: string, source: string): Site[] {
  return [...source.matchAll(/new HastError\(/g)].map((match) => {
    let depth = 1;
    let end = match.index + match[0].length;
    for (; depth > 0 && end < source.length; end++) {
      if (source[end] === '(') depth++;
      if (source[end] === ')') depth--;
    }
    const text = source.slice(match.index, end);
    const line = source.slice(0, match.index).split('\n').length;
    const code = /HAST_E_\w+/.exec(text)?.[0] ?? '';
    // An options object that is made elsewhere carries the hint there.
    const hasHint = /\bhint\b|, options\)$/.test(text);
    return { place: `${file}:${line}`, code, hasHint, text };
  });
}

const isFine = ({ place, code, hasHint, text }: Site): boolean =>
  hasHint || usual.includes(code) || folders.some((folder) => place.startsWith(folder)) ||
  allowed.some((words) => text.includes(words));

t.test('next steps: the check bites', async (t) => {
  const found = sites('cli/a.ts', "throw new HastError('HAST_E_BUSY', `late (${f(1)})`);\n" +
    "x(new HastError('HAST_E_BUSY', 'a', { hint: 'b' }));");
  t.match(found, [{ place: 'cli/a.ts:1', code: 'HAST_E_BUSY', hasHint: false }, { hasHint: true }]);
  t.same(found.map(isFine), [false, true]);
});

t.test('next steps: who makes an error says what to do', async (t) => {
  const files = ['lib', 'cli'].flatMap((folder) =>
    fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts')).map((name) => path.join(folder, name)));
  const all = files.flatMap((file) => sites(file, fs.readFileSync(file, 'utf8')));
  t.ok(all.length > 200, `${all.length} errors`);
  t.same(all.filter((site) => !isFine(site)).map(({ place, text }) => `${place} ${text}`), []);
});

t.test('next steps: what is printed always has one', async (t) => {
  const codes = new Set(fs.readFileSync('lib/base/errors.ts', 'utf8').match(/HAST_E_\w+/g));
  t.ok(codes.size > 20);
  for (const code of codes) {
    const error = new HastError(code as HastError['code'], 'what');
    t.match(errorLine('hastctl', error), /^hastctl: error: what; try: \S.+\n$/, code);
    t.not((JSON.parse(errorJson(error)) as { error: { hint: string } }).error.hint, '', code);
  }
  t.equal(nextStep(new HastError('HAST_E_BUSY', 'a', { hint: 'own' })), 'own');
  t.match(errorLine('hastctl', new Error('oops')), /; try: /);
});

t.test('next steps: a wrong command line, of both programs', async (t) => {
  const wrong = [
    ['statsu'], ['status', '--jsno'], ['role'], ['resolve', 'a'], ['wait', 'a'], ['-c'],
    ['wait', 'a', '--synced', '--timeout', 'x'], ['create', 'a', '-m', 'big'],
    ['up', 'a', '--wait', 'x'], ['resync', 'a', 'b'], ['check', 'more'],
  ];
  const judge = (program: string, args: string[], code: number | null, stderr: string): void => {
    t.equal(code, 64, `${program} ${args.join(' ')}: ${stderr}`);
    t.match(stderr, new RegExp(`^${program}: error: .+; try: .+\n$`), args.join(' '));
  };
  for (const [index, { code, stderr }] of runHastctl(wrong).entries()) {
    judge('hastctl', wrong[index] ?? [], code, stderr);
  }
  const [version] = runHastctl([['--version']]);
  t.match(version, { code: 0, stdout: /^hast-linux \d+\.\d+\.\d+\n$/ });
  const hastd = fileURLToPath(new URL('../../cli/hastd.js', import.meta.url));
  for (const args of [['--foo'], ['start']]) {
    const { status, stderr } = spawnSync('env', [...plainNode, hastd, ...args], {
      encoding: 'utf8',
    });
    judge('hastd', args, status, stderr);
  }
  const own = spawnSync('env', [...plainNode, hastd, '-V'], { encoding: 'utf8' });
  t.equal(own.stdout, version?.stdout);
});
