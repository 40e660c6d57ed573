/** What a reload applies, and what keeps the old configuration. */
import t from 'tap';
import { loadConfig } from '../../lib/config/load.ts';
import type { Config } from '../../lib/config/model.ts';
import { planReload } from '../../lib/config/reload.ts';
import type { ReloadPlan, Role } from '../../lib/config/reload.ts';

function load(text: string): Config {
  const result = loadConfig({
    file: 'hast.conf', node: 'h1', readFile: () => text, interfaces: () => ({}),
  });
  if (result.config === undefined) throw new Error(result.format());
  return result.config;
}

const resource = (name: string, inner = '', own = 'remote none'): string =>
  `resource ${name} { local /dev/${name} ${inner} on h1 { ${own} } }\n`;

function plan(old: string, next: string, role: Role = 'primary'): ReloadPlan {
  return planReload(load(old), load(next), () => role);
}

t.test('reload: nothing changed', async (t) => {
  t.strictSame(plan(resource('a'), `timeout 20 ${resource('a')}`), {
    refused: [], added: [], removed: [], changed: [], listenChanged: false, metricsChanged: false,
  });
});

t.test('reload: what changes live', async (t) => {
  const cases: [string, string, string[]][] = [
    ['', 'remote tcp://10.0.0.2', ['remote']],
    ['', 'remote none source tcp://10.0.0.2', ['source']],
    ['replication async', '', ['replication']],
    ['checksum none', '', ['checksum']],
    ['compression none', '', ['compression']],
    ['timeout 3', '', ['timeout']],
    ['exec /x', '', ['exec']],
    ['async-lag 1M async-lag-time 3', '', ['asyncLag', 'asyncLagTime']],
    ['disk-timeout 0', '', ['diskTimeout']],
    ['busy-poll 0', '', ['busyPoll']],
    ['on-no-data fail', '', ['onNoData']],
    ['on-stop force', '', ['onStop']],
    ['resync-rate 1M', '', ['resyncRate']],
    ['secret /key', '', ['authentication']],
    ['mount { filesystem ext4 mountpoint /data }', '', ['mount']],
  ];
  const moved = plan(resource('a') + resource('b'),
    `undo-directory /srv/undo ${resource('a')}${resource('b')}`);
  t.strictSame(moved.refused, []);
  t.strictSame(moved.changed.map((one) => one.fields), [['undoDirectory'], ['undoDirectory']]);
  for (const [inner, own, fields] of cases) {
    const next = resource('a', inner, own === '' ? 'remote none' : own);
    const { refused, changed } = plan(resource('a') + resource('b'), next + resource('b'));
    t.strictSame(refused, []);
    t.strictSame(changed.map((one) => [one.resource.name, one.fields]), [['a', fields]]);
  }
  t.ok(plan(resource('a'), `listen tcp://10.0.0.1 ${resource('a')}`).listenChanged);
  const swapped = plan(`listen a listen b ${resource('a')}`, `listen b listen a ${resource('a')}`);
  t.notOk(swapped.listenChanged);
  const added = plan(resource('a'), resource('b') + resource('a'));
  t.strictSame(added.refused, []);
  t.strictSame(added.added.map((one) => one.name), ['b']);
});

t.test('reload: what needs role init', async (t) => {
  for (const inner of ['name x', 'frontend fuse-native', 'cache direct', 'local /dev/other']) {
    const keyword = inner.split(' ')[0] ?? '';
    const next = resource('a').replace('local /dev/a', inner.startsWith('local')
      ? inner : `local /dev/a ${inner}`);
    const idle = plan(resource('a'), next, 'init');
    t.strictSame(idle.refused, []);
    t.equal(idle.changed.length, 1);
    for (const role of ['primary', 'secondary'] as const) {
      t.strictSame(plan(resource('a'), next, role).refused, [{
        what: `resource a: ${keyword}`,
        why: `it cannot change while the role is ${role}`,
        hint: 'hastctl role init a, then reload',
      }]);
    }
  }
  t.match(plan(resource('a'), '', 'init'), { refused: [], removed: ['a'] });
  t.match(plan(resource('a'), '', 'secondary'), { refused: [{ what: 'resource a' }] });
});

t.test('reload: what needs a restart, all named at once', async (t) => {
  const next = 'control /c pidfile /p rundir /r devdir /d timeout 4 ';
  const result = plan(resource('a'), next + resource('a', 'name x'));
  t.strictSame(result.refused.map((one) => one.what),
    ['control', 'pidfile', 'rundir', 'devdir', 'resource a: name']);
  t.strictSame(result.changed.map((one) => one.fields), [['deviceName', 'timeout']]);
  const same = load(resource('a'));
  const renamed = planReload(same, { ...same, node: 'h2' }, () => 'init');
  t.match(renamed.refused, [{ what: 'node' }]);
});
