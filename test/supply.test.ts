/**
 * Goal: what is installed with hast-linux is known: pinned, licensed so that anybody may use it,
 * listed in docs/dependencies.md, and no program of it runs at installation.
 * And: nothing that the configuration or the peer says ever goes through a shell.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import ts from 'typescript';

const allowed = ['MIT', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'Apache-2.0'];
/** Have a script at installation, which is not run (`allowScripts`). */
const scripted = ['fuse-native', 'koffi'];

interface Locked {
  version: string;
  license?: string;
  dev?: boolean;
  optional?: boolean;
  hasInstallScript?: boolean;
}

interface Manifest {
  dependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
  allowScripts: Record<string, boolean>;
}

function readJson<T>(file: string): T {
  return JSON.parse(fs.readFileSync(file, 'utf8')) as T;
}

const { packages } = readJson<{ packages: Record<string, Locked> }>('package-lock.json');
const manifest = readJson<Manifest>('package.json');
const production = Object.entries(packages).filter(([at, { dev }]) => at !== '' && dev !== true)
  .map(([at, locked]) => ({ name: at.replace(/^.*node_modules\//, ''), ...locked }));
const document = fs.readFileSync('docs/dependencies.md', 'utf8');

t.test('supply: every dependency of production has a licence that is allowed', async (t) => {
  t.ok(production.length > 40, `${production.length} packages`);
  const others = production.filter(({ license }) => !allowed.includes(license ?? 'none'));
  t.same(others.map(({ name, license }) => `${name}: ${license ?? 'none'}`), []);
});

t.test('supply: the list of docs/dependencies.md is what package-lock.json installs', async (t) => {
  const rows = [...document.matchAll(/^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm)];
  const listed = new Map(rows.flatMap(([, names = '', , license = '']) =>
    names.split(', ').map((name) => [name.trim(), license.trim()] as const)));
  /** Builds of one package for each platform. */
  const family = (name: string): string => name.replace(/^@koromix\/koffi-.*/, '@koromix/koffi-*')
    .replace(/^@node-rs\/crc32-.*/, '@node-rs/crc32-*')
    .replace(/^@antoniomuso\/lz4-napi-.*/, '@antoniomuso/lz4-napi-*')
    .replace(/^fuse-shared-library-.*/, 'fuse-shared-library-*');
  const installed = new Map(production.map(({ name, license }) => [family(name), license]));
  for (const [name, license] of installed) t.equal(listed.get(name), license, name);
  const direct = [...Object.keys(manifest.dependencies),
    ...Object.keys(manifest.optionalDependencies)];
  for (const name of direct) t.match(document, `| ${name} |`, `${name} says why`);
  t.same([...listed.keys()].filter((name) => name !== 'package' && !name.startsWith('---') &&
    !installed.has(name)), [], 'and nothing else');
});

t.test('supply: versions are pinned, and no script runs at installation', async (t) => {
  const direct = { ...manifest.dependencies, ...manifest.optionalDependencies };
  for (const [name, version] of Object.entries(direct)) t.match(version, /^\d+\.\d+\.\d+$/, name);
  const withScript = production.filter(({ hasInstallScript }) => hasInstallScript === true);
  t.same(withScript.map(({ name }) => name).sort(), scripted);
  for (const name of scripted) t.equal(manifest.allowScripts[name], false, name);
  // The binary is a package of its own: what is loaded was there without any script.
  const loads = (name: string, use: string): string => {
    const script = `module.require(process.argv[1]).${use};` +
      'console.log(Object.keys(require.cache).join())';
    const { stdout } = spawnSync(process.execPath, ['-e', script, name], {
      encoding: 'utf8', env: { PATH: process.env['PATH'] },
    });
    return stdout;
  };
  t.match(loads('koffi', 'load(null)'), /node_modules\/@koromix\/koffi-linux-/);
  t.match(loads('@node-rs/crc32', 'crc32("")'), /node_modules\/@node-rs\/crc32-linux-/);
});

t.test('security: the tests that docs/security.md names are there', async (t) => {
  const text = fs.readFileSync('docs/security.md', 'utf8');
  const named = [...text.matchAll(/test\/[a-z0-9/-]+\.test\.ts/g)].map(([file]) => file);
  t.ok(new Set(named).size >= 7, 'several');
  for (const file of named) t.ok(fs.existsSync(file), file);
  t.ok(fs.existsSync('SECURITY.md'));
});

/** Calls that would start a shell, or run text. */
function dangers(file: string, text: string): string[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2023, true);
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    const line = source.getLineAndCharacterOfPosition(node.getStart()).line + 1;
    const note = (what: string): void => void found.push(`${file}:${line}: ${what}`);
    if (ts.isPropertyAssignment(node) && node.name.getText() === 'shell') note('the option shell');
    if (ts.isIdentifier(node) && /^(execSync|execFileSync|execFile|eval)$/.test(node.text)) {
      note(node.text);
    }
    if (ts.isCallExpression(node)) {
      const called = node.expression.getText();
      if (/^(childProcess|child_process|cp)\.exec$|^exec$/.test(called)) note(called);
      if (/^(new )?Function$|^vm\./.test(called)) note(called);
    }
    if (ts.isStringLiteral(node) && /^(\/bin\/)?(ba|da)?sh$/.test(node.text)) note(node.text);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

t.test('no shell: in nothing that runs on a production system', async (t) => {
  t.equal(dangers('x.ts', "spawn('a', [], { shell: true });").length, 1, 'the check bites');
  t.equal(dangers('x.ts', "childProcess.exec(`mount ${x}`); spawn('sh', ['-c', x])").length, 2);
  t.same(dangers('x.ts', "/a/.exec(text); const shell = 1; spawn(hook, [event, name])"), []);
  const files = ['lib', 'cli'].flatMap((folder) =>
    fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts')).map((name) => path.posix.join(folder, name)));
  t.ok(files.length > 100);
  // The demo shows a shell's commands, made of its own texts.
  const found = files.filter((file) => file !== 'cli/demo.ts' && !file.startsWith('cli/lab'))
    .flatMap((file) => dangers(file, fs.readFileSync(file, 'utf8')));
  t.same(found, []);
});
