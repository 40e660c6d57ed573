/**
 * The scripts for keepalived and Pacemaker against a stand-in for hastctl, which writes down what
 * it is called with and answers as it is told. The real thing is in test/e2e.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { until } from '../../cli/lab-run.ts';

const system = path.resolve('cli', 'system');
const scripts = ['keepalived-notify', 'keepalived-check', 'ocf/hast'];

/** `up`, `down` and `role` take as long as the file `slow` says and end as `code` says. */
const standIn = `#!/bin/sh
cd "$(dirname "$0")" || exit
case $1 in
status) cat status ;;
*)
    echo "$*" >> calls
    [ ! -e slow ] || sleep "$(cat slow)"
    code=$(cat code 2> /dev/null || echo 0)
    [ "$code" = 0 ] || echo "hastctl: error: refused"
    exit "$code"
    ;;
esac
`;

class Place {
  readonly directory: string;

  constructor(test: Test) {
    this.directory = test.testdir({
      hastctl: standIn, state: {},
      systemctl: '#!/bin/sh\necho "systemctl $*" >> "${0%/*}/calls"\n',
      logger: '#!/bin/sh\nshift 3\necho "$*" >> "$LOGGED"\n',
    });
    for (const name of ['hastctl', 'systemctl', 'logger']) fs.chmodSync(this.file(name), 0o755);
  }

  file(name: string): string {
    return path.join(this.directory, name);
  }

  write(name: string, text: string): void {
    fs.writeFileSync(this.file(name), text);
  }

  read(name: string): string {
    return fs.existsSync(this.file(name)) ? fs.readFileSync(this.file(name), 'utf8') : '';
  }

  get environment(): NodeJS.ProcessEnv {
    return {
      ...process.env, HASTCTL: this.file('hastctl'), LOGGED: this.file('log'),
      KEEPALIVED_STATE_DIR: this.file('state'), UP_SECONDS: '4', RETRY_AFTER_SECONDS: '5',
      PATH: `${this.directory}:${process.env['PATH'] ?? ''}`,
    };
  }

  status(role: string, status: string, localDisk: string): void {
    // A text in it must not be taken for a value.
    const detail = 'he said "role": "init", and "status": "failed"';
    const one = { schema: 1, detail, name: 'shared', role, status, localDisk };
    this.write('status', `${JSON.stringify([one], null, 2)}\n`);
  }

  check(): { code: number | null; why: string } {
    const { status, stderr } = spawnSync(path.join(system, 'keepalived-check'), ['shared'], {
      env: this.environment, encoding: 'utf8',
    });
    return { code: status, why: stderr };
  }

  notify(state: string, ...resources: string[]): Promise<number | null> {
    return ended(this.begin(state, ...resources));
  }

  begin(state: string, ...resources: string[]): ChildProcess {
    return spawn(path.join(system, 'keepalived-notify'), [
      ...resources, 'INSTANCE', 'shared', state, '100',
    ], { env: this.environment, stdio: 'ignore', detached: true });
  }
}

function ended(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.once('exit', resolve));
}

t.test('scripts: they are shell scripts that a POSIX shell reads', async (t) => {
  for (const script of scripts) {
    const file = path.join(system, script);
    t.match(fs.readFileSync(file, 'utf8'), /^#!\/bin\/sh\n/, script);
    t.equal(fs.statSync(file).mode & 0o111, 0o111, 'may be executed');
    t.equal(spawnSync('sh', ['-n', file]).status, 0);
  }
});

t.test('keepalived-check: who may have the address', async (t) => {
  const place = new Place(t);
  const rows: [string, string, string, number][] = [
    ['primary', 'complete', 'up-to-date', 0],
    ['primary', 'degraded', 'up-to-date', 0],
    ['primary', 'diskless', 'detached', 0],
    ['primary', 'split-brain', 'up-to-date', 0],
    ['primary', 'failed', 'failed', 1],
    ['secondary', 'complete', 'up-to-date', 0],
    ['secondary', 'waiting', 'up-to-date', 0],
    ['secondary', 'syncing', 'up-to-date', 0],
    ['secondary', 'syncing', 'inconsistent', 1],
    ['secondary', 'waiting', 'outdated', 1],
    ['secondary', 'split-brain', 'up-to-date', 1],
    ['secondary', 'failed', 'failed', 1],
    ['init', 'init', 'unknown', 1],
  ];
  for (const [role, status, copy, code] of rows) {
    place.status(role, status, copy);
    const got = place.check();
    t.equal(got.code, code, `${role}, ${status}, ${copy}: ${got.why.trim()}`);
    t.equal(got.why === '', code === 0, 'a refusal has a reason');
  }
  fs.rmSync(place.file('status'));
  t.match(place.check(), { code: 1, why: 'hastctl status fails' });
});

t.test('keepalived-notify: up and down, for the names it is given', async (t) => {
  const place = new Place(t);
  t.equal(await place.notify('MASTER'), 0);
  for (const state of ['BACKUP', 'FAULT', 'STOP']) t.equal(await place.notify(state), 0);
  t.equal(place.read('calls'), 'up shared\ndown shared\ndown shared\ndown shared\n');
  place.write('calls', '');
  t.equal(await place.notify('MASTER', 'a', 'b'), 0);
  t.equal(await place.notify('BACKUP', 'a', 'b'), 0);
  t.equal(place.read('calls'), 'up a\nup b\ndown b\ndown a\n', 'down in the other order');
  place.write('calls', '');
  t.equal(await place.notify('MASTER', 'a', 'db.service'), 0);
  t.equal(await place.notify('FAULT', 'a', 'db.service'), 0);
  const calls = 'up a\nsystemctl start db.service\nsystemctl stop db.service\ndown a\n';
  t.equal(place.read('calls'), calls, 'what works on the volume comes after it, and goes before');
  place.write('calls', '');
  t.equal(await place.notify('MASTER_PRIORITY'), 0);
  t.equal(place.read('calls'), '', 'what is no state is passed over');
  t.match(place.read('log'), 'daemon.notice -- shared: up: a b');
});

t.test('keepalived-notify: gives up, and the check fails for a while', async (t) => {
  const place = new Place(t);
  place.status('secondary', 'complete', 'up-to-date');
  place.write('code', '77');
  t.equal(await place.notify('MASTER'), 1);
  t.match(place.read('calls'), /^(up shared\n){2,}down shared\n$/, 'after more than one attempt');
  t.match(place.read('log'), /daemon.err -- .*gives up being master.*hastctl: error: refused/);
  t.match(place.check(), { code: 1, why: 'gave up' });
  await until('the check', 10_000, () => place.check().code === 0 || undefined);

  place.write('code', '65');
  place.write('calls', '');
  t.equal(await place.notify('MASTER'), 1);
  t.equal(place.read('calls'), 'up shared\ndown shared\n', 'a wrong name is not tried again');
  place.write('code', '0');
  t.equal(await place.notify('MASTER'), 0);
  t.equal(place.check().code, 0, 'success takes the mark away');
});

t.test('keepalived-notify: the newest state wins', async (t) => {
  const place = new Place(t);
  place.write('slow', '1');
  const first = place.notify('MASTER');
  await until('the first', 10_000, () => place.read('calls') === 'up shared\n' || undefined);
  const states = ['BACKUP', 'MASTER', 'FAULT', 'MASTER', 'BACKUP'];
  const codes = await Promise.all([first, ...states.map((state) => place.notify(state))]);
  t.same(codes, codes.map(() => 0));
  t.equal(place.read('calls'), 'up shared\ndown shared\n', 'in turn, and only the last');

  // A demotion that is refused goes on, until it is done or not wanted any more.
  place.write('calls', '');
  fs.rmSync(place.file('slow'));
  place.write('code', '77');
  const down = place.notify('BACKUP');
  await until('two attempts', 10_000, () =>
    place.read('calls').startsWith('down shared\ndown shared\n') || undefined);
  place.write('code', '0');
  t.equal(await place.notify('MASTER'), 0);
  t.equal(await down, 0);
  t.match(place.read('calls'), /^(down shared\n)+up shared\n$/);
  t.match(place.read('log'), 'not down yet: hastctl: error: refused');
});

t.test('keepalived-notify: it goes on when keepalived ends', async (t) => {
  const place = new Place(t);
  place.write('slow', '1');
  const child = place.begin('STOP');
  await until('the first step', 10_000, () => place.read('calls') !== '' || undefined);
  process.kill(-(child.pid ?? 0), 'SIGTERM');
  t.equal(await ended(child), 0);
  t.match(place.read('log'), 'shared: down');
});
