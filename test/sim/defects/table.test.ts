/**
 * Goal: docs/defects-of-the-original.md and the scenarios name the same defects.
 * Method: names are read from both; each scenario has a head comment that names the place in the
 * original's source.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';

const folder = 'test/sim/defects';
const documentFile = 'docs/defects-of-the-original.md';
const nameForm = /^S[3-8]-[a-z0-9]+(-[a-z0-9]+)*$/;

interface Found {
  name: string;
  file: string;
  comment: string;
}

/** The scenarios of one source text; what follows a slash in a title is a variant. */
function scenariosIn(text: string, file: string): Found[] {
  const calls = text.matchAll(/^ *(?:scenario|compared|study)\(\s*['`]([^'`/]+)/gm);
  return [...calls].map((match) => {
    const before = text.slice(0, match.index);
    const comment = before.slice(before.lastIndexOf('/*'));
    return { name: match[1] as string, file, comment };
  });
}

function namesIn(document: string): string[] {
  return [...document.matchAll(/^\|.*\| *`([^`]+)` *\|$/gm)].map((match) => match[1] as string);
}

function twice(names: string[]): string[] {
  return names.filter((name, at) => names.indexOf(name) !== at);
}

t.test('defects: the table and the scenarios name the same', async (t) => {
  const files = fs.readdirSync(folder).filter((name) => /\.test\.ts$/.test(name));
  const found = files.flatMap((name) => {
    const file = path.join(folder, name);
    return scenariosIn(fs.readFileSync(file, 'utf8'), file);
  });
  const names = found.map((one) => one.name);
  const listed = namesIn(fs.readFileSync(documentFile, 'utf8'));
  t.ok(names.length > 30, `${names.length} scenarios`);
  t.same(names.filter((name) => !nameForm.test(name)), []);
  t.same(twice(names), []);
  t.same(twice(listed), []);
  t.same([...listed].sort(), [...names].sort());
});

t.test('defects: each scenario says where the original does it, and what ours does', async (t) => {
  for (const name of fs.readdirSync(folder)) {
    if (!/\.test\.ts$/.test(name)) continue;
    const file = path.join(folder, name);
    for (const one of scenariosIn(fs.readFileSync(file, 'utf8'), file)) {
      t.match(one.comment, /\w+\.c\b/, `${one.name}: the place in its source`);
      t.match(one.comment, /\b[Oo]urs\b/, `${one.name}: what is promised here`);
      t.equal(one.comment.match(/\*\//g)?.length, 1, `${one.name}: a comment of its own`);
    }
  }
});

t.test('defects: the search for names bites', async (t) => {
  const text = "/* one */\ncompared('S5-x', {}, f);\n/* two */\n  scenario(`S5-y/${kind}`, g);\n";
  t.same(scenariosIn(text, 'f').map((one) => one.name), ['S5-x', 'S5-y']);
  t.match(scenariosIn(text, 'f')[1]?.comment, /two/);
  t.same(namesIn('| a | b | `S5-x` |\n| `no` | name | here |\n'), ['S5-x']);
  t.same(twice(['a', 'b', 'a']), ['a']);
});
