/**
 * The layout as a test: which folder may import which, what the core must not touch, and how
 * large things may grow. The rules are data at the top; the checks are tested on small strings.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import ts from 'typescript';

const lineColumnsMax = 100;
const fileLinesMax = 500;
const functionLinesMax = 70;

/** Folder -> what its files may import of the project. `core/ports` and `core/types` are types. */
const mayImport: Record<string, readonly string[]> = {
  'lib/base': [],
  'lib/format': ['lib/base'],
  'lib/core': ['lib/base', 'lib/format'],
  'lib/config': ['lib/base', 'lib/format'],
  'lib/control': ['lib/base', 'lib/format'],
  'lib/uring': ['lib/base'],
  'lib/fuse': ['lib/base', 'lib/format', 'lib/core/ports.ts', 'lib/uring'],
  'lib/programs': ['lib/base'],
  'lib/loop': ['lib/base', 'lib/format', 'lib/programs'],
  'lib/filesystem': ['lib/base', 'lib/loop', 'lib/programs'],
  'lib/disk': [
    'lib/base', 'lib/format', 'lib/core/ports.ts', 'lib/core/superblock-store.ts', 'lib/uring',
    'lib/programs',
  ],
  'lib/pairing': ['lib/base'],
  'lib/net': ['lib/base', 'lib/format', 'lib/core/ports.ts', 'lib/uring'],
  'lib/monitor': ['lib/base', 'lib/format', 'lib/config'],
  'lib/daemon': [
    'lib/base', 'lib/format', 'lib/core', 'lib/config', 'lib/control', 'lib/fuse', 'lib/loop',
    'lib/filesystem', 'lib/disk', 'lib/net', 'lib/uring', 'lib/programs', 'lib/monitor',
  ],
  cli: ['lib/base', 'lib/format', 'lib/config', 'lib/control', 'lib/disk', 'lib/daemon', 'lib/loop',
    'lib/filesystem', 'lib/fuse', 'lib/net', 'lib/pairing'],
  docker: ['lib/base', 'cli'],
  man: [],
  test: ['lib', 'cli', 'docker', 'man'],
};

/** Packages, and the files or folders that alone may import them. */
const packageOwners: Record<string, readonly string[]> = {
  koffi: ['lib/base/libc.ts'],
  '@node-rs/crc32': ['lib/base/checksum.ts'],
  'fuse-native': ['lib/fuse/native-frontend.ts'],
  'lz4-napi': ['lib/net/lz4.ts'],
  '@peculiar/x509': ['lib/pairing/certificates.ts'],
  pino: ['lib/daemon/logger.ts'],
  'pino-pretty': ['lib/daemon/logger.ts'],
  'prom-client': ['lib/monitor/exposition.ts'],
  'playwright-core': ['test/monitor'],
  yaml: ['test/monitor'],
  ajv: ['lib/config', 'lib/control', 'test'],
  commander: ['cli', 'test/bench/options.ts'],
  unified: ['man'],
  'remark-parse': ['man'],
  'remark-gfm': ['man'],
  'remark-man': ['man'],
  mdast: ['man'],
  echarts: ['test/bench/chart.ts'],
  tap: ['test'],
  'fast-check': ['test'],
  typescript: ['test/tidy.test.ts', 'test/supply.test.ts', 'test/sim/mutate.ts'],
};

const pureFolders = ['lib/base', 'lib/format', 'lib/core'];
/** Files below the core that reach into Node, each for one reason its head tells. */
const impureFiles = ['lib/base/checksum.ts', 'lib/base/libc.ts'];
const bannedInPure: [RegExp, string][] = [
  [/from 'node:(?!assert')/, 'a Node module'],
  [/\b(await|Promise)\b|\basync\s*(function|\(|\w+\s*=>)/, 'a promise'],
  [/\b(Date\.|performance\.)/, 'a clock'],
  [/\b(setTimeout|setInterval|setImmediate|queueMicrotask)\b/, 'a timer'],
  [/\bMath\.random\b/, 'a random number'],
  [/\b(process|console)\./, 'the process'],
];

/** Started by name, not imported. */
const entries = ['cli/hastd.ts', 'cli/hastctl.ts', 'cli/demo.ts', 'cli/lab-janitor.ts',
  'docker/walk-through.ts', 'man/main.ts',
  'lib/daemon/worker.ts', 'lib/fuse/io-thread.ts', 'test/run.ts', 'test/daemon/fake-worker.ts',
  'test/sim/main.ts', 'test/fuzz/main.ts', 'test/bench/main.ts', 'test/bench/scale.ts'];

function sourceFiles(folder: string): string[] {
  return fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => path.posix.join(folder, name))
    .sort();
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, (all) => all.replaceAll(/[^\n]/g, ' '))
    .replaceAll(/(^|\s)\/\/.*$/gm, '$1');
}

function importsOf(text: string): string[] {
  const code = withoutComments(text);
  const statements = code.matchAll(/^(?:import|export)\b[^;'"]*?from '([^']+)'/gm);
  const calls = code.matchAll(/\b(?:import|require)\(\s*'([^']+)'/g);
  const effects = code.matchAll(/^import '([^']+)'/gm);
  return [...statements, ...calls, ...effects].map((match) => match[1] as string);
}

function layerOf(file: string): string | undefined {
  return Object.keys(mayImport).find((folder) => file.startsWith(`${folder}/`));
}

function importProblem(file: string, target: string): string | null {
  if (target.startsWith('node:')) return null;
  if (!target.startsWith('.')) {
    const name = target.startsWith('@') ? target : target.split('/')[0] as string;
    const owners = packageOwners[name];
    if (owners === undefined) return `${target} is not in the table of packages`;
    return owners.some((owner) => file === owner || file.startsWith(`${owner}/`))
      ? null
      : `only ${owners.join(', ')} may import ${name}`;
  }
  const resolved = path.posix.normalize(path.posix.join(path.posix.dirname(file), target));
  const own = layerOf(file);
  if (own === undefined) return 'this folder is not in the import table';
  const allowed = [own, ...(mayImport[own] ?? [])];
  return allowed.some((one) => resolved === one || resolved.startsWith(`${one}/`))
    ? null
    : `${own} may not import ${resolved}`;
}

function impurities(text: string): string[] {
  const code = withoutComments(text).replaceAll(/'[^'\n]*'|`[^`]*`/g, (all) =>
    all.startsWith("'node:") ? all : "''");
  return bannedInPure.filter(([pattern]) => pattern.test(code)).map(([, what]) => what);
}

function longFunctions(file: string, text: string): string[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2023, true);
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node) && 'body' in node && node.body !== undefined) {
      const from = source.getLineAndCharacterOfPosition(node.getStart()).line;
      const to = source.getLineAndCharacterOfPosition(node.getEnd()).line;
      if (to - from + 1 > functionLinesMax) found.push(`line ${from + 1}: ${to - from + 1} lines`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

t.test('tidy: the checks bite', async (t) => {
  t.match(importProblem('lib/core/a.ts', '../disk/b.ts'), /may not import/);
  t.equal(importProblem('lib/core/a.ts', '../format/b.ts'), null);
  t.match(importProblem('lib/core/a.ts', 'koffi'), /only lib\/base\/libc.ts/);
  t.equal(impurities("const a = Date.now();\nawait x;").length, 2);
  t.equal(impurities("// Date.now()\nconst text = 'await process.exit';").length, 0);
  const long = `function f() {\n${'g();\n'.repeat(functionLinesMax)}}`;
  t.equal(longFunctions('x.ts', long).length, 1);
});

t.test('tidy: imports, purity and sizes', async (t) => {
  const files = ['lib', 'cli', 'docker', 'man', 'test'].flatMap(sourceFiles);
  t.ok(files.length > 50, 'the tree was found');
  const problems: string[] = [];
  const imported = new Set<string>();
  for (const file of files) {
    const text = fs.readFileSync(file, 'utf8');
    const lines = text.split('\n');
    for (const target of importsOf(text)) {
      const problem = importProblem(file, target);
      if (problem !== null && !(file === 'test/tidy.test.ts')) problems.push(`${file}: ${problem}`);
      imported.add(path.posix.normalize(path.posix.join(path.posix.dirname(file), target)));
    }
    if (pureFolders.some((one) => file.startsWith(`${one}/`)) && !impureFiles.includes(file)) {
      for (const what of impurities(text)) problems.push(`${file}: uses ${what}`);
    }
    if (lines.length - 1 > fileLinesMax) problems.push(`${file}: ${lines.length - 1} lines`);
    lines.forEach((line, index) => {
      const where = `${file}:${index + 1}`;
      if (line.length > lineColumnsMax) problems.push(`${where}: ${line.length} columns`);
      if (/\b(TODO|FIXME|XXX)\b/.test(line) && file !== 'test/tidy.test.ts') {
        problems.push(`${where}: an unfinished mark`);
      }
    });
    for (const one of longFunctions(file, text)) problems.push(`${file}: a long function, ${one}`);
  }
  for (const file of files) {
    const isEntry = entries.includes(file) || file.endsWith('.test.ts') ||
      file.startsWith('test/fixtures/');
    if (!isEntry && !imported.has(file)) problems.push(`${file}: nobody imports it`);
  }
  t.same(problems, []);
});

t.test('tidy: one title in each document', async (t) => {
  const docs = fs.readdirSync('docs', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md')).map((name) => path.join('docs', name));
  for (const file of ['README.md', 'docker/README.md', ...docs]) {
    const text = fs.readFileSync(file, 'utf8').replaceAll(/^```[\s\S]*?^```/gm, '');
    t.equal(text.match(/^# /gm)?.length, 1, file);
  }
});
