/** `tls`, `secret` and `insecure`: where they may stand, which one holds, and their files. */
import * as fs from 'node:fs';
import t from 'tap';
import { loadConfig } from '../../lib/config/load.ts';
import type { LoadResult } from '../../lib/config/load.ts';
import type { Authentication } from '../../lib/config/model.ts';
import { inspectCredentials } from '../../lib/net/credentials.ts';
import { Authority } from '../../lib/pairing/certificates.ts';
import { writePair, writePrivate, writeSecret, writeTls } from '../fixtures/credentials.ts';

const tls = 'tls { cert /c key /k ca /a }';

function load(text: string, node = 'h1', files = false): LoadResult {
  const inspect = (one: Authentication) => {
    if (one.kind === 'none') throw new Error('nothing to inspect');
    return inspectCredentials(one);
  };
  return loadConfig({
    file: text.startsWith('{') ? 'hast.json' : 'hast.conf', node, readFile: () => text,
    interfaces: () => ({}), ...(files ? { inspectAuthentication: inspect } : {}),
  });
}

const wrap = (inner: string, own = '', top = ''): string =>
  `${top}\nresource r { local /dev/sdb ${inner}\non h1 { remote tcp://10.0.0.2 ${own} }\n` +
  'on h2 { remote tcp://10.0.0.1 } }';

function found(text: string, node = 'h1'): Authentication | undefined {
  const result = load(text, node);
  if (result.config === undefined) throw new Error(result.format());
  return result.config.resources[0]?.authentication;
}

function problems(text: string, files = true): string[] {
  return load(text, 'h1', files).problems.map(({ severity, message, hint }) =>
    `${severity}: ${message}; ${hint ?? ''}`);
}

t.test('authentication: every level, and the strongest that speaks of it', async (t) => {
  const names = { own: 'h1', peers: ['h2'], stamp: '' };
  t.strictSame(found(wrap('')), { kind: 'none' });
  const plain = { kind: 'tls', cert: '/c', key: '/k', ca: '/a', ...names };
  const ofNode = wrap('', '', `on h1 { ${tls} }`);
  for (const text of [wrap('', '', tls), wrap(tls), wrap('', tls), ofNode]) {
    t.strictSame(found(text), plain);
  }
  t.strictSame(found(wrap(tls), 'h2'), { ...plain, own: 'h2', peers: ['h1'] });
  t.strictSame(found(wrap('tls { ca /b }', 'tls { key /l }', tls)),
    { ...plain, key: '/l', ca: '/b' }, 'what a section leaves out comes from the weaker ones');
  const secret = { kind: 'secret', file: '/s', ...names };
  t.strictSame(found(wrap('secret /s', '', tls)), secret);
  t.strictSame(found(wrap(tls, '', 'secret /s')), plain);
  const json = JSON.stringify({
    tls: { cert: '/c', key: '/k', ca: '/a' },
    resources: { r: { local: '/d', on: { h1: { remote: '10.0.0.2' }, h2: { remote: 'none' } } } },
  });
  t.strictSame(found(json), plain);
});

t.test('authentication: what is wrong is named, with what to do', async (t) => {
  const cases: [string, RegExp][] = [
    [wrap(`secret /s ${tls}`), /'tls' and 'secret' are both given; choose one/],
    [wrap('tls { cert /c ca /a }'), /section has no 'key'; add 'key \/etc\/hast\/tls\/node.key/],
    [wrap('tls { cert c key /k ca /a }'), /absolute|'c'/],
    [wrap('tls /c { key /k ca /a cert /c }'), /'tls' has no name, found '\/c'; write 'tls \{ cert/],
    [wrap('cert /c'), /'cert'.*; .*in a 'tls' section/],
    ['secret /s resource r { local /d on h1 { remote tcp://10.0.0.2 } }',
      /'secret' needs the name of the other node of resource 'r'; write one 'on NODE/],
    ['secret /s resource r { local /d on h1 { remote a } on h2 { } on h3 { } }',
      /'secret' needs the name of the other node.*h2, h3/],
    [wrap('', '', 'insecure off'), /peer of resource 'r' is unauthent.*'insecure' is off; set/],
    [wrap('insecure off'), /'insecure' is not allowed/],
  ];
  for (const [text, pattern] of cases) {
    const all = problems(text, false);
    t.equal(all.length, 1, text);
    t.match(all, [pattern]);
    t.match(all, [/^error/]);
  }
  t.strictSame(problems('insecure off resource r { local /d on h1 { remote none } }'), []);
  t.strictSame(problems(wrap(''), false), []);
  t.match(problems(wrap('')), [/^warning: the peer of resource 'r' is unauthenticated/]);
});

t.test('authentication: the secret is in a file that root alone can read', async (t) => {
  const directory = t.testdir();
  const file = writeSecret(directory);
  const text = wrap(`secret ${file}`);
  t.strictSame(problems(text), []);
  const stamp = (): string => {
    const one = load(text, 'h1', true).config?.resources[0]?.authentication;
    return one === undefined || one.kind === 'none' ? '' : one.stamp;
  };
  const before = stamp();
  t.equal(stamp(), before);
  fs.rmSync(file);
  writeSecret(directory);
  t.not(stamp(), before, 'another file is noticed');
  fs.chmodSync(file, 0o640);
  t.match(problems(text), [/not root's alone \(owner 0, mode 0640\); chown root .*; chmod 600/]);
  fs.chmodSync(file, 0o400);
  t.strictSame(problems(text), []);
  fs.chownSync(file, 12345, 0);
  t.match(problems(text), [/owner 12345/]);
  fs.rmSync(file);
  writePrivate(file, 'x'.repeat(31));
  t.match(problems(text), [/holds 31 bytes, at least 32 are needed; .*head -c 32 /]);
  fs.rmSync(file);
  t.match(problems(text), [/does not exist; .*head -c 32 \/dev\/urandom \| base64 > .*other node/]);
  fs.mkdirSync(file);
  t.match(problems(text), [/no file of at most/]);
});

t.test('authentication: certificates that cannot work are errors, late ones not', async (t) => {
  const directory = t.testdir({ other: {} });
  const [mine] = await writePair(directory, ['h1']);
  const [other] = await writePair(`${directory}/other`, ['h1']);
  if (mine === undefined || other === undefined) throw new Error('no certificates');
  const section = (one: object): string =>
    `tls { ${Object.entries({ ...mine, ...one }).map((pair) => pair.join(' ')).join(' ')} }`;
  t.strictSame(problems(wrap(section({}))), []);
  t.match(problems(wrap(section({ key: other.key }))), [/error: .*is not the key of/]);
  t.match(problems(wrap(section({ ca: other.ca }))), [/warning: no certificate in .* vouches/]);
  t.match(problems(wrap(section({ cert: mine.key }))), [/error: .*no certificate in PEM/]);
  t.match(problems(wrap(section({ key: mine.cert }))), [/error: .*no private key in PEM/]);
  t.match(problems(wrap(section({ ca: '/none' }))), [/\/none does not exist; hastctl pair init/]);
  t.match(load(wrap(section({})), 'h2', true).format(),
    /is not for node 'h2' but for "DNS:h1"/);
  fs.chmodSync(mine.key, 0o644);
  t.match(problems(wrap(section({}))), [/not root's alone/]);
  const authority = await Authority.create('test');
  const from = new Date('2020-01-01');
  const until = async (to: Date): Promise<string> => section(writeTls(
    `${directory}/other`, 'h1', await authority.issue(['h1'], { from, to }),
    authority.certificate,
  ));
  const expired = await until(new Date('2021-01-01'));
  t.match(problems(wrap(expired)), [/warning: .*has expired .*hastctl pair init --force/]);
  const soon = await until(new Date(Date.now() + 86_400_000));
  t.match(problems(wrap(soon)), [/warning: .*expires soon/]);
});
