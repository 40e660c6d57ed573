/**
 * `hastctl install-units` as a program: what it writes, twice, over changes, and what systemd and
 * udev of this machine say of it; and that the package carries what it writes.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { unitWord } from '../../cli/install-units.ts';

const hastctl = fileURLToPath(new URL('../../cli/hastctl.js', import.meta.url));
const units = ['hastd.service', 'hast-standby.service', 'hast@.service', 'hast.target'];

interface Ended {
  missing: boolean;
  code: number;
  stdout: string;
  stderr: string;
}

function tool(program: string, ...args: string[]): Ended {
  const { error, status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { missing: error !== undefined, code: status ?? 255, stdout, stderr };
}

function install(dir: string, ...args: string[]): Ended {
  return tool(process.execPath, hastctl, 'install-units', '--dir', dir, ...args);
}

function allBelow(dir: string): string[] {
  return fs.readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => fs.statSync(path.join(dir, name)).isFile()).sort();
}

t.test('install-units: written, repeated, replaced, kept where changed by hand', async (t) => {
  const dir = t.testdir({});
  const first = install(dir);
  t.equal(first.code, 0, first.stderr);
  t.same(allBelow(dir), [
    ...units.map((name) => `etc/systemd/system/${name}`), 'etc/udev/rules.d/60-hast.rules',
  ].sort());
  t.equal(first.stdout.match(/: written$/gm)?.length, 5);
  const service = path.join(dir, 'etc/systemd/system/hastd.service');
  const text = fs.readFileSync(service, 'utf8');
  t.match(text, `ExecStart=${process.execPath} ${path.join(path.dirname(hastctl), 'hastd.js')} -F`);
  t.notMatch(allBelow(dir).map((name) => fs.readFileSync(path.join(dir, name), 'utf8')).join(''),
    /@[A-Z]+@/, 'no word is left to be filled in');

  t.equal(install(dir).stdout.match(/: unchanged$/gm)?.length, 5);
  const other = install(dir, '-c', '/srv/my hast.conf', '--node', 'h1');
  t.match(other.stdout, 'hastd.service: replaced');
  t.match(fs.readFileSync(service, 'utf8'), ' -F\n');
  t.match(fs.readFileSync(service, 'utf8'), '-c "/srv/my hast.conf" --node h1 -F');

  fs.appendFileSync(service, 'Nice=1\n');
  const refused = install(dir);
  t.equal(refused.code, 77);
  t.match(refused.stderr, `changed by hand: ${service}; nothing was written; try: `);
  t.match(fs.readFileSync(path.join(dir, 'etc/systemd/system/hast@.service'), 'utf8'),
    '-c "/srv/my hast.conf"', 'the others were not touched either');
  t.match(install(dir, '--force').stdout, 'hastd.service: changed by hand');
  t.equal(fs.readFileSync(service, 'utf8'), text);
  t.match(JSON.parse(install(dir, '--json').stdout)[0], { file: service, outcome: 'unchanged' });

  const printed = install(t.testdir({}), '--print');
  t.match(printed.stdout, 'ExecStop=');
  t.same(allBelow(t.testdirName), [], 'printing writes nothing');
});

t.test('install-units: for cluster managers, where they are installed', async (t) => {
  const dir = t.testdir({ etc: { keepalived: {} }, usr: { lib: { ocf: {} } } });
  install(dir, '-c', '/srv/hast.conf');
  const scripts = ['hast/keepalived-check', 'hast/keepalived-notify', 'ocf/resource.d/hast/hast'];
  const below = path.join(dir, 'usr/lib');
  t.same(allBelow(below), [...scripts, 'hast/keepalived.conf'].sort());
  for (const script of scripts) {
    const file = path.join(below, script);
    t.equal(fs.statSync(file).mode & 0o777, 0o755, script);
    t.equal(tool('sh', '-n', file).code, 0);
  }
  for (const script of scripts.slice(0, 2)) {
    const text = fs.readFileSync(path.join(below, script), 'utf8');
    t.match(text, `installed='${process.execPath} ${hastctl} -c /srv/hast.conf'\n`);
  }
});

t.test('install-units: words of a command line', async (t) => {
  t.equal(unitWord('/usr/bin/node'), '/usr/bin/node');
  t.equal(unitWord('a b'), '"a b"');
  t.equal(unitWord('100%$x'), '100%%$$x');
  t.equal(unitWord('say "\\"'), '"say \\"\\\\\\""');
});

t.test('install-units: systemd takes the units', async (t) => {
  const dir = t.testdir({});
  install(dir);
  const folder = path.join(dir, 'etc/systemd/system');
  fs.copyFileSync(path.join(folder, 'hast@.service'), path.join(folder, 'hast@shared.service'));
  const files = [...units, 'hast@shared.service'].map((name) => path.join(folder, name));
  const checked = tool('systemd-analyze', 'verify', '--man=no', ...files);
  if (checked.missing) {
    t.pass('NOT TESTED: no systemd-analyze', { skip: true });
    return;
  }
  // Units of the system itself may be missing on a machine without systemd.
  const words = checked.stderr.split('\n').filter((line) => /hast/.test(line));
  t.same(words, [], 'no complaint about ours');
  t.equal(checked.code, 0, checked.stderr);
});

t.test('install-units: hastd.service hides no mounts and stops no workers', async (t) => {
  const text = fs.readFileSync('cli/system/hastd.service', 'utf8')
    .split('\n').filter((line) => !line.startsWith('#')).join('\n');
  // systemd.exec(5): each of these makes a mount namespace.
  t.notMatch(text, /^(Protect|Private|ReadOnly|ReadWrite|Inaccessible|Bind|Temporary|Root)\w*=/m);
  t.match(text, /^KillMode=process$/m);
  t.match(text, /^NotifyAccess=all$/m);
  t.match(text, /^WatchdogSec=/m);
  for (const name of ['hast@.service', 'hast-standby.service']) {
    t.notMatch(fs.readFileSync(`cli/system/${name}`, 'utf8'), /^(Requires|BindsTo)=/m,
      'a restart of hastd is none of what is mounted');
  }
});

t.test('install-units: the rule for udev', async (t) => {
  const dir = t.testdir({});
  install(dir);
  const file = path.join(dir, 'etc/udev/rules.d/60-hast.rules');
  const lines = fs.readFileSync(file, 'utf8').split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  // Pairs of a key, an operator and a quoted value.
  const pair = '[A-Z]+(?:\\{[^}]+\\})?(?:==|!=|\\+=|=)"[^"]*"';
  const form = new RegExp(`^${pair}(?:, ${pair})*$`);
  t.same(lines.filter((line) => !form.test(line)), []);
  t.match(lines.join('\n'), 'ATTR{loop/backing_file}!="/run/hast/*/volume"');
  const checked = tool('udevadm', 'verify', file);
  if (checked.missing || /[Uu]nknown command|unrecognized/.test(checked.stderr)) {
    t.pass('NOT TESTED: no udevadm verify', { skip: true });
  } else {
    t.equal(checked.code, 0, checked.stderr);
  }
});

t.test('package: it carries what install-units writes', async (t) => {
  const packed = tool('npm', 'pack', '--dry-run', '--json', '--ignore-scripts');
  t.equal(packed.code, 0, packed.stderr);
  const [{ files }] = JSON.parse(packed.stdout) as [{ files: { path: string }[] }];
  const names = new Set(files.map((file) => file.path));
  for (const name of fs.readdirSync('cli/system', { recursive: true, encoding: 'utf8' })) {
    if (fs.statSync(path.join('cli/system', name)).isDirectory()) continue;
    t.ok(names.has(`cli/system/${name}`), name);
  }
  for (const name of ['dist/cli/hastctl.js', 'dist/cli/hastd.js', 'docs/commands.md']) {
    t.ok(names.has(name), name);
  }
});
