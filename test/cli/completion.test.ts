/** Goal: the completion offers what hastctl takes; names come from the configuration. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { runHastctl } from '../fixtures/many-runs.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const script = path.join(root, 'cli/system/hastctl.bash');

const folder = t.testdir({ 'hast.conf': 'resource shared {\n}\n  resource "other" {\n}\n' });
const config = path.join(folder, 'hast.conf');

const complete = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hastctl; ' +
  'printf "%s\\n" "${COMPREPLY[@]}"';

/** What is offered for the last of these words. */
function offered(...words: string[]): string[] {
  const { stdout, stderr, status } = spawnSync(
    'bash', ['--norc', '-c', complete, script, 'hastctl', ...words],
    { encoding: 'utf8', env: { ...process.env, HAST_CONF: config } },
  );
  if (status !== 0) throw new Error(stderr);
  return stdout.split('\n').filter((word) => word !== '').sort();
}

const optionsIn = (text: string): string[] =>
  [...text.matchAll(/^ +(?:-\w, )?(--[a-z-]+)/gm)].map((match) => match[1] as string).sort();
const commandsIn = (text: string): string[] =>
  [...text.slice(text.indexOf('Commands:')).matchAll(/^ {2}([a-z-]+)/gm)]
    .map((match) => match[1] as string).sort();

t.test('completion: every command and every option, and no other', async (t) => {
  const [{ stdout: main } = { stdout: '' }] = runHastctl([['--help']]);
  const commands = commandsIn(main).filter((command) => command !== 'help');
  t.ok(commands.length > 15);
  t.same(offered(''), [...commands, 'help'].sort());
  t.same(offered('--'), optionsIn(main));
  const helps = runHastctl(commands.map((command) => [command, '--help']));
  for (const [index, command] of commands.entries()) {
    t.same(offered(command, '--'), optionsIn(helps[index]?.stdout ?? ''), command);
  }
});

t.test('completion: roles, actions and resources', async (t) => {
  t.same(offered('role', ''), ['init', 'primary', 'secondary']);
  t.same(offered('role', 'primary', ''), ['all', 'other', 'shared']);
  t.same(offered('role', '--force', 'primary', 's'), ['shared']);
  t.same(offered('resync', 'p'), ['pause']);
  t.same(offered('switchover', ''), ['other', 'shared']);
  t.same(offered('switchover', 'shared', ''), []);
  t.same(offered('map', 's'), ['shared']);
  t.same(offered('map', 'shared', ''), []);
  t.same(offered('events', 'sh'), ['shared']);
  t.same(offered('wait', '--role', 'p'), ['primary']);
  t.same(offered('wait', '--timeout', '5', 'o'), ['other']);
  t.same(offered('--json', 'up', 'sh'), ['shared']);
  t.same(offered('check', ''), []);
});

t.test('completion: another configuration, files, none at all', async (t) => {
  const other = path.join(t.testdir({ 'a.conf': 'resource third {\n' }), 'a.conf');
  t.same(offered('-c', other, 'up', 't'), ['third']);
  t.same(offered('-c', path.join(folder, 'hast.c')), [config]);
  fs.rmSync(other);
  t.same(offered('-c', other, 'up', ''), ['all']);
});
