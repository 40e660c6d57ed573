/** What check --peer says of two nodes' facts: each difference is one finding with what to type. */
import t from 'tap';
import { compareNodes, summary, type Answer, type Finding } from '../../cli/compare-nodes.ts';
import type { NodeFacts } from '../../lib/control/messages.ts';
import { resourceConfig } from '../daemon/world.ts';
import { settingsOf } from '../../lib/config/settings-of.ts';

const GiB = 1024 ** 3;
const remote = { family: 'tcp', host: '10.0.0.1', port: 8457 } as const;
const resource = resourceConfig('shared', { local: '/dev/sdb1', remote });
const own = { ...resource, remote: { ...remote, host: '10.0.0.2' } };

function facts(node: 'h1' | 'h2', more: Partial<NodeFacts> = {}): NodeFacts {
  const [ip, other] = node === 'h1' ? ['10.0.0.1', '10.0.0.2'] : ['10.0.0.2', '10.0.0.1'];
  return {
    node, release: '1.0.0', versionMin: 1, versionMax: 1, features: ['remote', 'facts'],
    addresses: [ip, 'fe80::1'], listen: ['tcp://0.0.0.0', 'tcp://::'], local: '/dev/sdb1',
    diskBytes: GiB, sectorBytes: 512, mediaBytes: GiB / 2, remote: `tcp://${other}`,
    remoteAddresses: [other], settings: settingsOf(resource), undoDirectory: '/var/lib/hast',
    undoFreeBytes: GiB, reach: { ok: true, milliseconds: 0.4, text: '', hint: '' },
    askedAt: 1010, toldAt: 1510, ...more,
  };
}

function answer(local: Partial<NodeFacts> = {}, peer: Partial<NodeFacts> | null = {}): Answer {
  return {
    local: facts('h1', local), peer: peer === null ? null : facts('h2', peer),
    why: '', hint: '', isOld: false, sentAt: 1000, heardAt: 1520,
  };
}

const view = { own, peer: resource };

function found(given: Answer, seen: Parameters<typeof compareNodes>[2] = view): Finding[] {
  const findings = compareNodes('shared', given, seen);
  for (const { hint, message } of findings) {
    if (hint === '') throw new Error(`nothing to type: ${message}`);
  }
  return findings;
}

t.test('compare: two nodes that fit', async (t) => {
  t.same(found(answer()), []);
  t.equal(summary(answer()), 'peer h2: release 1.0.0, answers within 0.4 ms, clocks 0.00 s apart');
});

t.test('compare: each difference is named', async (t) => {
  const cases: [Answer, Finding['severity'], RegExp, RegExp][] = [
    [answer({}, { release: '1.1.0' }), 'warning', /1\.0\.0 on h1, 1\.1\.0 on h2/, /upgrade/],
    [answer({}, { features: ['remote'] }), 'note', /h2 does not know facts/, /upgrade on h2/],
    [answer({ versionMax: 2 }), 'note', /h2 does not know protocol 2/, /upgrade/],
    [answer({}, { node: 'h1' }), 'error', /both nodes call themselves h1/, /hostnamectl/],
    [answer({}, { addresses: ['10.0.0.9'] }), 'warning',
      /'remote' of h1 .*h2 has 10\.0\.0\.9/, /NAT/],
    [answer({}, { listen: ['tcp://0.0.0.0:9000'] }), 'error',
      /port 8457.*listens on 9000/, /listen/],
    [answer({}, { settings: { ...settingsOf(resource), timeout: '9' } }), 'warning',
      /'timeout' is 1 in the file of h1, and 9 on h2/, /reload/],
    [answer({}, { settings: { ...settingsOf(resource), cache: 'direct' } }), 'note',
      /'cache'/, /reload/],
    [answer({}, { settings: { ...settingsOf(resource), authentication: 'tls' } }), 'warning',
      /'authentication' is none in the file of h1, and tls on h2/, /reload/],
    [answer({}, { local: '/dev/sdc1' }), 'warning', /'local' of h2 is \/dev\/sdb1; there/, /same/],
    [answer({}, { remote: 'tcp://10.0.0.7', remoteAddresses: ['10.0.0.1'] }), 'warning',
      /'remote' of h2 is 10\.0\.0\.1 port 8457; there it is tcp:\/\/10\.0\.0\.7/, /same/],
    [answer({}, { mediaBytes: GiB / 4 }), 'error', /the volume has/, /create -m SIZE shared/],
    [answer({}, { diskBytes: 2 * GiB }), 'note', /are not used/, /smaller/],
    [answer({}, { sectorBytes: 4096 }), 'note', /sectors of 512/, /4096/],
    [answer({}, { askedAt: 61_010, toldAt: 61_510 }), 'warning', /60\.0 s ahead/, /timedatectl/],
    [answer({}, { undoFreeBytes: 1024 }), 'note', /on h2/, /undo-directory/],
    [answer({ reach: { ok: false, layer: 'route', text: 'no route', hint: 'ip route' } }), 'error',
      /from h1 to its peer: no route/, /ip route/],
    [answer({ settings: { ...settingsOf(own), exec: '/old' } }), 'warning',
      /hastd here still works with other values of exec/, /reload/],
    [{ ...answer({}, null), why: 'away', hint: 'x' }, 'error', /cannot be asked: away/, /x/],
    [{ ...answer({}, null), why: 'old', hint: 'x', isOld: true }, 'warning', /only this node/, /x/],
  ];
  for (const [given, severity, message, hint] of cases) {
    t.match(found(given), [{ severity, message, hint }], String(message));
    t.equal(found(given).length, 1, String(message));
  }
  const [unknown] = found(answer(), { own, peer: undefined });
  t.match(unknown, { severity: 'warning', message: /says nothing of a node h2/ });
});

t.test('compare: what only one release knows is no difference; NAT and loopback', async (t) => {
  t.same(found(answer({}, { settings: { ...settingsOf(resource), novel: '1' } })), []);
  t.same(found(answer({}, { addresses: [] })), []);
  t.same(found(answer({ remoteAddresses: ['127.0.0.1'] })), []);
  t.same(found(answer({ remoteAddresses: ['::ffff:10.0.0.2'] })), []);
});
