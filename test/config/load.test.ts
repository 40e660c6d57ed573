/** The configuration of one node: precedence, matching, addresses, and the checks of meaning. */
import { readFileSync } from 'node:fs';
import type { NetworkInterfaceInfo } from 'node:os';
import { Ajv } from 'ajv';
import t from 'tap';
import { formatAddress, isRefusal, parseAddress } from '../../lib/config/address.ts';
import { keywords } from '../../lib/config/keywords.ts';
import { loadConfig } from '../../lib/config/load.ts';
import type { LoadOptions, LoadResult } from '../../lib/config/load.ts';
import { limits } from '../../lib/config/limits.ts';
import type { ResourceConfig } from '../../lib/config/model.ts';
import { configSchema } from '../../lib/config/schema.ts';

const machineId = '0123456789abcdef0123456789abcdef';

function nic(address: string, family: 'IPv4' | 'IPv6'): NetworkInterfaceInfo {
  const base = { address, netmask: '', mac: '', internal: false, cidr: null };
  return family === 'IPv6' ? { ...base, family, scopeid: 0 } : { ...base, family };
}

function load(text: string, more: Partial<LoadOptions> = {}): LoadResult {
  return loadConfig({
    file: 'hast.conf',
    hostname: 'h1.example.com',
    machineId,
    readFile: () => text,
    interfaces: () => ({ eth0: [nic('10.0.0.1', 'IPv4'), nic('fd00::1', 'IPv6')] }),
    ...more,
  });
}

function resource(text: string, more: Partial<LoadOptions> = {}): ResourceConfig {
  const result = load(text, more);
  const [first] = result.config?.resources ?? [];
  if (first === undefined) throw new Error(result.format());
  return first;
}

function messages(result: LoadResult, severity: 'error' | 'warning' = 'error'): string[] {
  return result.problems.filter((one) => one.severity === severity)
    .map((one) => `${one.line}:${one.column} ${one.message}`);
}

/** One resource whose own section holds `inner`. */
function wrap(inner: string, top = ''): string {
  return `${top}\nresource r {\nlocal /dev/sdb\non h1 {\n${inner}\n}\n}`;
}

t.test('load: the short example, and every default', async (t) => {
  const text = 'resource shared {\n local /dev/sdb1\n' +
    ' on h1 { remote tcp://10.0.0.233 }\n on h2 { remote tcp://10.0.0.231 }\n}\n';
  const { config, problems, format } = load(text);
  t.strictSame(problems, []);
  t.equal(format(), '');
  t.strictSame(config, {
    file: 'hast.conf',
    node: 'h1',
    control: { family: 'uds', path: '/run/hast/hastctl.sock' },
    controlGroup: null,
    pidfile: '/run/hast/hastd.pid',
    rundir: '/run/hast',
    devdir: '/dev/hast',
    listen: [
      { family: 'tcp4', host: '0.0.0.0', port: 8457 },
      { family: 'tcp6', host: '::', port: 8457 },
    ],
    metrics: null,
    resources: [{
      name: 'shared',
      deviceName: 'shared',
      local: '/dev/sdb1',
      remote: { family: 'tcp', host: '10.0.0.233', port: 8457 },
      source: null,
      replication: 'fullsync',
      checksum: 'crc32',
      compression: 'hole',
      timeout: 20,
      exec: null,
      frontend: 'direct',
      cache: 'writeback',
      asyncLag: 67108864,
      asyncLagTime: 10,
      diskTimeout: 30,
      busyPoll: 50,
      onNoData: 'stall',
      onStop: 'keep',
      resyncRate: 0,
      undoDirectory: '/var/lib/hast',
      mount: null,
      authentication: { kind: 'none' },
    }],
  });
  t.match(load(text, { hostname: 'h2' }).config?.resources[0]?.remote, { host: '10.0.0.231' });
  const v4 = load(text, { interfaces: () => ({ lo: [nic('127.0.0.1', 'IPv4')] }) });
  t.equal(v4.config?.listen.length, 1, 'no IPv6 in the kernel');
});

t.test('load: a file that cannot be read', async (t) => {
  const result = loadConfig({ file: `${t.testdir()}/none.conf` });
  t.equal(result.config, undefined);
  t.match(result.problems, [{ kind: 'missing-file', severity: 'error' }]);
  t.match(result.format(), /none\.conf: error: cannot read the configuration: no such file\n/);
  const path = t.testdir({ 'hast.json': '{"resources": {}}' });
  const real = loadConfig({ file: `${path}/hast.json` });
  t.match(real.problems, [{ kind: 'config', message: 'no resource is defined' }]);
  t.ok(real.config);
});

t.test('load: precedence', async (t) => {
  const layers = (global: string, res: string, own: string): string =>
    `${global}\nresource r {\nlocal /dev/a\n${res}\non h1 { remote none\n${own}\n}\n}`;
  t.equal(resource(layers('timeout 1', '', '')).timeout, 1);
  t.equal(resource(layers('timeout 1', 'timeout 2', '')).timeout, 2);
  t.equal(resource(layers('exec /a', 'exec /b', '')).exec, '/b');
  t.equal(resource(layers('exec /a', 'exec none', '')).exec, null);
  t.equal(resource(layers('', 'name x', 'name y')).deviceName, 'y');
  t.equal(resource(layers('', '', 'local /dev/b')).local, '/dev/b');
  const three = layers('frontend fuse-native', 'frontend direct', 'frontend fuse-native');
  t.equal(resource(three).frontend, 'fuse-native');
  const late = 'resource r { on h1 { remote none local /dev/a } }\nchecksum none';
  t.equal(resource(late).checksum, 'none', 'global statements hold for resources above them');
  t.equal(resource(layers('compression lz4', '', '')).compression, 'lzf');
});

t.test('load: sections of the same node are merged, the last value holds', async (t) => {
  const text = `
    on h1 { rundir /a listen tcp://10.0.0.1 }
    listen tcp://10.0.0.2
    on h1.example.com { rundir /b listen tcp://10.0.0.3 }
    on h1 { devdir /d }
    on h2 { rundir /x listen tcp://10.0.0.4 }
    resource r {
      on h1 { local /1 remote none }
      on h1.example.com { local /2 }
      on h1 { name n }
    }`;
  const { config } = load(text);
  t.equal(config?.rundir, '/b');
  t.equal(config?.devdir, '/d');
  t.equal(config?.pidfile, '/b/hastd.pid');
  t.equal(config?.control.path, '/b/hastctl.sock');
  t.strictSame(config?.listen.map(formatAddress).sort(),
    ['tcp://10.0.0.1', 'tcp://10.0.0.2', 'tcp://10.0.0.3']);
  t.match(config?.resources, [{ local: '/2', deviceName: 'n', remote: null }]);
  t.equal(config?.node, 'h1.example.com', 'the best match');
});

t.test('load: which sections are of this node', async (t) => {
  const text = (on: string): string => `resource r { local /a on ${on} { remote none } }`;
  const uuid = '01234567-89AB-cdef-0123-456789abcdef';
  for (const on of ['h1.example.com', 'h1', machineId, uuid]) {
    t.equal(load(text(on)).config?.node, on, on);
  }
  for (const on of ['h1.example', 'H1', 'h', 'h2', `${machineId}0`]) {
    t.equal(load(text(on)).config, undefined, on);
  }
  t.ok(load(text('a.b'), { node: 'a.b' }).config);
  t.ok(load(text('a'), { node: 'a.b' }).config);
  t.notOk(load(text('a.b'), { node: 'a' }).config);
  t.notOk(load(text('h1'), { node: 'a' }).config, '--node replaces the host name');
  t.notOk(load(text(machineId), { node: 'a' }).config, '--node replaces the machine id');
  t.match(load(text('h2')).problems, [{
    message: "resource 'r' has no 'on' section for this node",
    hint: `this node answers to 'h1.example.com', 'h1' or '${machineId}'; it has 'on' for 'h2'`,
    column: 10,
    length: 1,
  }]);
});

t.test('address: what parses, and what is refused', async (t) => {
  const good: [string, 'listen' | 'remote' | 'source' | 'control', object][] = [
    ['tcp://10.0.0.1', 'remote', { family: 'tcp', host: '10.0.0.1', port: 8457 }],
    ['TCP4://10.0.0.1:1', 'listen', { family: 'tcp4', host: '10.0.0.1', port: 1 }],
    ['10.0.0.1', 'source', { family: 'tcp', host: '10.0.0.1', port: 0 }],
    ['10.0.0.1:0', 'source', { family: 'tcp', host: '10.0.0.1', port: 0 }],
    ['peer.example.com:65535', 'remote', { host: 'peer.example.com', port: 65535 }],
    ['tcp6://fd00::1', 'remote', { family: 'tcp6', host: 'fd00::1', port: 8457 }],
    ['tcp://[fd00::1]:99', 'remote', { host: 'fd00::1', port: 99 }],
    ['tcp://[fd00::1]', 'remote', { host: 'fd00::1', port: 8457 }],
    ['tcp://[fe80::1%eth0]:99', 'remote', { host: 'fe80::1%eth0', port: 99 }],
    ['::', 'listen', { family: 'tcp', host: '::' }],
    ['UDS:///run/x', 'control', { family: 'uds', path: '/run/x' }],
    ['unix:///run//x', 'control', { path: '/run/x' }],
    ['/run/x', 'control', { path: '/run/x' }],
  ];
  for (const [text, use, expected] of good) t.match(parseAddress(text, use), expected, text);
  const bad: [string, 'listen' | 'remote' | 'source' | 'control', RegExp][] = [
    ['', 'remote', /empty/],
    ['http://x', 'remote', /unknown kind of address 'http:\/\/'/],
    ['tcp://', 'remote', /host is missing/],
    ['tcp://:8457', 'remote', /host is missing/],
    ['tcp://h:0', 'remote', /'0' is not a port/],
    ['tcp://h:65536', 'listen', /not a port/],
    ['tcp://h:', 'listen', /'' is not a port/],
    ['tcp://h:http', 'listen', /not a port/],
    ['tcp://fd00::1:zz', 'remote', /neither HOST:PORT nor an IPv6/],
    ['tcp://[fd00::1', 'remote', /is not '\[ADDRESS\]:PORT'/],
    ['tcp://[10.0.0.1]:5', 'remote', /not an IPv6 address/],
    ['tcp://10.0.0.256', 'remote', /not an IPv4 address/],
    ['tcp://10.0.0', 'remote', /not an IPv4 address/],
    ['tcp://10.0.0.1/24', 'remote', /after the host/],
    ['tcp4://::1', 'listen', /not an IPv4/],
    ['tcp6://10.0.0.1', 'listen', /not an IPv6/],
    ['tcp://a..b', 'remote', /not a host name/],
    ['tcp://-a', 'remote', /not a host name/],
    ['tcp://a b', 'remote', /not a host name/],
    ['tcp://0.0.0.0', 'remote', /not the address of a peer/],
    ['tcp://[0::0]:1', 'remote', /not the address of a peer/],
    ['uds:///x', 'listen', /cannot be a unix socket/],
    ['/x', 'remote', /cannot be a unix socket/],
    ['tcp://h', 'control', /must be a unix socket/],
    ['uds://x', 'control', /relative/],
    [`uds:///${'x'.repeat(107)}`, 'control', /108 bytes, at most 107/],
    [`tcp://${'x'.repeat(1024)}`, 'remote', /longer than 1024/],
  ];
  for (const [text, use, message] of bad) {
    const result = parseAddress(text, use);
    t.match(isRefusal(result) ? result.message : 'accepted', message, text);
  }
  for (const text of ['tcp://10.0.0.1', 'tcp6://[::1]:99', 'tcp4://a:1', 'tcp6://::1']) {
    const address = parseAddress(text, 'remote');
    t.equal(isRefusal(address) ? '' : formatAddress(address), text);
  }
  t.equal(formatAddress({ family: 'uds', path: '/x' }), 'uds:///x');
});

t.test('check: remote on an own address', async (t) => {
  const verdict = (remote: string, listen: string): string => {
    const result = load(wrap(`remote ${remote}`, listen));
    const [first] = result.problems;
    return first === undefined ? 'fine' : `${first.severity} ${first.line}:${first.column}`;
  };
  const cases: [string, string, string][] = [
    ['tcp://10.0.0.2', '', 'fine'],
    ['tcp://10.0.0.1', '', 'error 5:8'],
    ['tcp://127.0.0.1', 'listen tcp://0.0.0.0', 'error 5:8'],
    ['tcp://127.3.2.1', 'listen tcp://0.0.0.0', 'error 5:8'],
    ['tcp://localhost', 'listen tcp://0.0.0.0', 'error 5:8'],
    ['tcp://h1', 'listen tcp://0.0.0.0', 'error 5:8'],
    ['tcp://H1.example.com', '', 'error 5:8'],
    ['tcp://10.0.0.1:8458', 'listen tcp://0.0.0.0', 'warning 5:8'],
    ['tcp://10.0.0.1:99', 'listen tcp://10.0.0.1:99', 'error 5:8'],
    ['tcp://10.0.0.1', 'listen tcp://127.0.0.1', 'warning 5:8'],
    ['tcp://localhost', 'listen tcp://127.0.0.1', 'error 5:8'],
    ['tcp6://localhost', 'listen tcp://0.0.0.0', 'warning 5:8'],
    ['tcp://[fd00:0::1]:8457', 'listen tcp6://::', 'error 5:8'],
    ['tcp://fd00::1', 'listen tcp://0.0.0.0', 'warning 5:8'],
    ['tcp://::1', '', 'error 5:8'],
    ['tcp://10.0.0.1', 'on h1 { listen tcp://10.0.0.1 } listen tcp://10.0.0.1:99', 'error 5:8'],
    ['none', '', 'fine'],
  ];
  for (const [remote, listen, expected] of cases) {
    t.equal(verdict(remote, listen), expected, `${remote} with ${listen}`);
  }
  const other = load(
    'resource r { local /a on h1 { remote tcp://10.0.0.2 } on h2 { remote tcp://10.0.0.1 } }',
  );
  t.strictSame(other.problems, [], 'the section of the peer names this node: right');
});

t.test('check: required, double and colliding', async (t) => {
  t.strictSame(messages(load('resource r {\n on h1 { }\n}')), [
    "1:10 resource 'r' has no 'local' for this node",
    "2:5 resource 'r' has no 'remote' for this node",
  ]);
  const two = (a: string, b: string): string =>
    `resource a { ${a} on h1 { remote none } }\nresource b { ${b} on h1 { remote none } }`;
  t.strictSame(messages(load(two('local /dev/a', 'local /dev/./a'))),
    ["2:20 '/dev/./a' is also the 'local' of resource 'a'"]);
  t.strictSame(messages(load(two('local /dev/a name x', 'local /dev/b name x'))),
    ["2:32 device name 'x' is also that of 'a'"]);
  t.strictSame(messages(load(two('local /dev/a name b', 'local /dev/b'))),
    ["2:10 device name 'b' is also that of 'a'"]);
  const named = (name: string, top = ''): LoadResult =>
    load(`${top} resource ${name} { local /a on h1 { remote none } }`);
  for (const name of ['hastctl.sock', 'hastd.pid', 'hastd.log']) {
    t.match(messages(named(name)), [/belongs to a file of the daemon/], name);
  }
  t.match(messages(named('ctl', 'control /run/hast/ctl')), [/belongs to a file/]);
  t.match(messages(named('pid', 'rundir /r/ pidfile /r/pid')), [/belongs to a file/]);
  t.ok(named('ctl', 'control /tmp/ctl').config);
  for (const name of ['.', '..', '_a', 'a/b', '"a b"', '"\u00e4"', '""']) {
    t.match(messages(named(name)), [/name/], name);
  }
  t.match(messages(named('a', 'rundir /x devdir /x/')), [/same directory/]);
  t.match(messages(named('a', 'rundir /')), [/cannot be used/]);
  t.match(messages(named('a', 'pidfile /x control /x')), [/same file/]);
  t.strictSame(messages(load(wrap('remote tcp://10.0.0.2 source tcp6://::1'))),
    ["5:30 'source' is IPv6, 'remote' is IPv4"]);
});

t.test('check: limits', async (t) => {
  const name = 'a'.repeat(limits.resourceNameBytesMax);
  const path = `/${'p'.repeat(limits.pathBytesMax - 1)}`;
  const node = 'n'.repeat(limits.nodeNameBytesMax);
  const one = (named: string, local: string): string =>
    `resource ${named} { local ${local} on h1 { remote none } }\n`;
  t.ok(load(`on ${node} { }\n${one(name, path)}`).config);
  t.match(messages(load(one(`${name}a`, '/a'))), [/128 bytes, at most 127/]);
  t.match(messages(load(one('a', `${path}p`))), [/4096 bytes, at most 4095/]);
  t.match(messages(load(`on ${node}n { }\n${one('a', '/a')}`)), [/65 bytes, at most 64/]);
  const many = (count: number): string =>
    Array.from({ length: count }, (_, index) => one(`r${index}`, `/d/${index}`)).join('');
  t.equal(load(many(limits.resourceCountMax)).config?.resources.length, limits.resourceCountMax);
  t.match(messages(load(many(limits.resourceCountMax + 1))), [/too many resources/]);
  const listen = Array.from({ length: 65 }, (_, index) => `listen h:${index + 1}\n`).join('');
  t.match(messages(load(listen + one('a', '/a'))), [/too many 'listen' addresses/]);
  const long = `/${'r'.repeat(94)}`;
  const result = load(`rundir ${long}\n${one('a', '/a')}`);
  t.match(messages(result), [/^1:8 the control socket below this would have a path of 108 bytes/]);
  t.ok(load(`rundir ${long}\ncontrol /c\n${one('a', '/a')}`).config);
});

t.test('check: warnings', async (t) => {
  t.strictSame(messages(load(''), 'warning'), ['1:1 no resource is defined']);
  const old = load(wrap('remote none metaflush off', 'compression lzf metaflush on'));
  t.ok(old.config);
  t.strictSame(messages(old, 'warning'), [
    "1:13 'lzf' means lz4 here",
    "5:23 'metaflush off' is ignored",
  ]);
  const twice = load(wrap('remote none', 'on h1 { listen a:1 listen 10.0.0.1 } listen 0.0.0.0'));
  t.strictSame(messages(twice, 'warning'),
    ["1:27 'listen tcp://10.0.0.1' adds nothing to tcp://0.0.0.0"]);
  t.strictSame(twice.config?.listen.map(formatAddress), ['tcp://0.0.0.0', 'tcp://a:1']);
  const same = load(wrap('remote none', 'listen 10.0.0.1 listen 10.0.0.1 listen ::'));
  t.strictSame(same.config?.listen.map(formatAddress), ['tcp://10.0.0.1', 'tcp://::']);
});

t.test('check: an injected look at the local path', async (t) => {
  const seen: string[] = [];
  const inspectLocal = (path: string): string | null => {
    seen.push(path);
    return path === '/dev/bad' ? "'/dev/bad' does not exist" : null;
  };
  const text = 'resource a { local /dev/a on h1 { remote none } }\n' +
    'resource b { local /dev/bad on h1 { remote none } }\n' +
    'resource c { local rel on h1 { remote none } }';
  const result = load(text, { inspectLocal });
  t.strictSame(seen, ['/dev/a', '/dev/bad'], 'never a path that is wrong already');
  t.strictSame(messages(result),
    ["2:20 '/dev/bad' does not exist", "3:20 the path 'rel' is relative"]);
});

t.test('schema: valid itself, and described in the documentation', async (t) => {
  const ajv = new Ajv({ allowUnionTypes: true });
  ajv.addKeyword({ keyword: 'valueKind', type: 'string', schemaType: 'string' });
  t.ok(ajv.validateSchema(configSchema), 'a JSON schema');
  const docs = readFileSync('docs/configuration.md', 'utf8');
  for (const word of Object.keys(keywords)) {
    t.match(docs, new RegExp(`^\\| \`${word}\` \\|`, 'm'), `${word} has a row`);
  }
  for (const [name, value] of Object.entries(limits)) {
    const shown = value.toLocaleString('en').replaceAll(',', ' ');
    t.match(docs, new RegExp(`^\\|.*\\b${shown}\\b`, 'm'), `${name}: ${shown} is in a table`);
  }
});

t.test('metrics: off, a port, an address, and what is refused', async (t) => {
  const metrics = (lines: string) => load(`${lines}\nresource a { local /dev/b
    on h1 { remote none } }`);
  const loopback = { family: 'tcp', host: '127.0.0.1', port: 9457 };
  const good: [string, object | null][] = [
    ['', null],
    ['metrics none', null],
    ['metrics 9457', loopback],
    ['metrics :9457', loopback],
    ['metrics tcp://:9457', loopback],
    ['metrics tcp://127.0.0.1', loopback],
    ['metrics tcp6://:1', { family: 'tcp6', host: '::1', port: 1 }],
    ['metrics tcp://0.0.0.0:80', { family: 'tcp', host: '0.0.0.0', port: 80 }],
    ['metrics 9457 on h1 { metrics none }', null],
    ['on h1 { metrics 9457 } on h2 { metrics 1 }', loopback],
  ];
  for (const [text, value] of good) {
    const { config, problems } = metrics(text);
    t.same(problems, [], text);
    t.same(config?.metrics, value, text);
  }
  for (const text of ['metrics 0', 'metrics 65536', 'metrics tcp://h:x', 'metrics uds:///x']) {
    t.equal(metrics(text).config, undefined, text);
  }
  t.match(metrics('metrics tcp://0.0.0.0:8457').format(), /listens for its peer.*another port/s);
  t.match(metrics('listen tcp://10.0.0.1:9457 metrics tcp://10.0.0.1').format(), /another port/);
  const resources = { a: { local: '/b', on: { h1: { remote: 'none' } } } };
  const json = load(JSON.stringify({ metrics: 9457, resources }), { file: 'hast.json' });
  t.same(json.config?.metrics, loopback);
});
