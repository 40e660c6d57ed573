/** Goal: the manual pages name every command, option and keyword, and groff takes them. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { keywords } from '../../lib/config/keywords.ts';
import { manualPages } from '../../man/pages.ts';
import { runHastctl } from '../fixtures/many-runs.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const read = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8');

const pages = new Map(manualPages({
  commands: read('docs/commands.md'), configuration: read('docs/configuration.md'),
  release: '1.2.3',
}).map(({ file, roff }) => [file, roff]));

/** Words of a page, without the marks of roff. */
function words(file: string): string {
  const roff = pages.get(file);
  if (roff === undefined) throw new Error(`no page ${file}`);
  return roff.replaceAll(/\\f[A-Z]/g, '').replaceAll('\\[lB]', '[').replaceAll('\\[rB]', ']')
    .replaceAll('\\', '');
}

/** Each option as its forms. */
function optionsIn(text: string): string[][] {
  return [...text.matchAll(/^ +(?:(-\w), )?(--[a-z-]+)/gm)].map(([, short, long = '']) =>
    short === undefined ? [long] : [short, long]);
}

t.test('man pages: package.json installs what is made', async (t) => {
  const { man, files } = JSON.parse(read('package.json')) as { man: string[]; files: string[] };
  t.same(man.map((file) => path.basename(file)), [...pages.keys()]);
  t.ok(files.includes('dist/pages'));
});

t.test('man pages: every command and option', async (t) => {
  const page = words('hastctl.8');
  const [{ stdout: main } = { stdout: '' }] = runHastctl([['--help']]);
  const commands = [...main.slice(main.indexOf('Commands:')).matchAll(/^ {2}([a-z-]+)/gm)]
    .map((match) => match[1] as string).filter((name) => name !== 'help');
  t.ok(commands.length > 15);
  const named = (text: string, forms: string[], where: string): void => {
    const found = forms.some((form) => new RegExp(`(^|[\\s|[(])${form}\\b`, 'm').test(text));
    t.ok(found, `${where} ${forms.join(' ')}`);
  };
  for (const forms of optionsIn(main)) named(page, forms, 'hastctl');
  const helps = runHastctl(commands.map((command) => [command, '--help']));
  for (const [index, command] of commands.entries()) {
    const at = new RegExp(`^${command}( .*)?$`, 'm').exec(page);
    t.ok(at, command);
    for (const forms of optionsIn(helps[index]?.stdout ?? '')) named(page, forms, command);
  }
  const hastd = path.join(root, 'dist/cli/hastd.js');
  const { stdout } = spawnSync('env', [...plainNode, hastd, '--help'], { encoding: 'utf8' });
  t.ok(optionsIn(stdout).length > 5);
  for (const forms of optionsIn(stdout)) named(words('hastd.8'), forms, 'hastd');
});

t.test('man pages: every keyword', async (t) => {
  const page = words('hast.conf.5');
  for (const word of Object.keys(keywords)) {
    t.match(page, new RegExp(`^\\.TP\n${word}\n`, 'm'), word);
  }
});

t.test('man pages: sections, and nothing of the Markdown', async (t) => {
  for (const [file, roff] of pages) {
    for (const heading of ['NAME', 'DESCRIPTION', 'FILES', 'SEE ALSO']) {
      if (heading === 'FILES' && file === 'hast.conf.5') continue;
      t.match(roff, new RegExp(`^\\.SH "${heading}"$`, 'm'), `${file}: ${heading}`);
    }
    t.notMatch(roff, /\|---|TERM.{1,3}OF/, file);
    t.equal(roff.match(/^\.SH "NAME"/gm)?.length, 1);
    t.match(roff, /hast-linux 1\.2\.3|hast\\-linux 1\.2\.3/);
  }
});

for (const [program, ...args] of [
  ['groff', '-man', '-Tutf8', '-ww', '-z'], ['mandoc', '-T', 'lint', '-W', 'warning'],
] as [string, ...string[]][]) {
  const isThere = spawnSync(program, ['--version']).error === undefined;
  t.test(`man pages: ${program} has nothing to say`, {
    skip: isThere ? false : `${program} is not installed`,
  }, async (t) => {
    for (const [file, roff] of pages) {
      const { status, stdout, stderr } = spawnSync(program, args, {
        input: roff, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C.UTF-8' },
      });
      t.same([status, stdout, stderr], [0, '', ''], file);
    }
  });
}
