/** Both syntaxes: what they accept, what they refuse, where they point, how they recover. */
import * as fc from 'fast-check';
import t from 'tap';
import type { Test } from 'tap';
import { keywordAt, keywords, levels } from '../../lib/config/keywords.ts';
import type { Level } from '../../lib/config/keywords.ts';
import { loadConfig } from '../../lib/config/load.ts';
import type { LoadResult } from '../../lib/config/load.ts';
import { limits } from '../../lib/config/limits.ts';

function load(text: string, file = 'hast.conf'): LoadResult {
  return loadConfig({
    file,
    hostname: 'h1.example.com',
    machineId: '0123456789abcdef0123456789abcdef',
    readFile: () => text,
    interfaces: () => ({}),
  });
}

/** `line:column+length severity message`, one per problem. */
function brief(result: LoadResult): string[] {
  return result.problems.map((one) =>
    `${one.line}:${one.column}+${one.length} ${one.severity} ${one.message}`);
}

const example = `
listen tcp://0.0.0.0
resource shared {
    local /dev/sdb1
    on h1 { remote tcp://10.0.0.233 }
    on h2 { remote tcp://10.0.0.231 }
}
`;

const sampleValues: Readonly<Record<string, string>> = {
  control: 'uds:///tmp/ctl',
  'control-group': 'root',
  pidfile: '/tmp/pid',
  listen: 'tcp://10.0.0.1',
  metrics: 'tcp://10.0.0.1:9000',
  rundir: '/tmp/run',
  devdir: '/tmp/dev',
  'undo-directory': '/tmp/undo',
  replication: 'async',
  checksum: 'sha256',
  compression: 'none',
  timeout: '7',
  exec: '/bin/hook',
  metaflush: 'on',
  frontend: 'fuse-native',
  cache: 'direct',
  'async-lag': '1M',
  'async-lag-time': '3',
  'disk-timeout': '0',
  'busy-poll': '20',
  'on-no-data': 'fail',
  'on-stop': 'refuse',
  'resync-rate': '10M',
  name: 'disk',
  local: '/dev/sdc',
  remote: 'none',
  source: 'tcp://10.0.0.9',
  filesystem: 'xfs',
  mountpoint: '/srv',
  options: 'noatime,logbsize=64k',
  mkfs: 'on',
  secret: '/etc/hast/secret',
  insecure: 'on',
  cert: '/etc/hast/node.crt',
  key: '/etc/hast/node.key',
  ca: '/etc/hast/ca.crt',
};

/** A file with one statement at one level, and everything else it needs. */
function fileWith(statement: string, level: Level): string {
  const at = (here: Level): string => (here === level ? statement : '');
  const local = statement.startsWith('local') ? '' : 'local /dev/sdb';
  const isPart = ['filesystem', 'mountpoint'].some((word) => statement.startsWith(word));
  const mount = level === 'mount' || isPart
    ? `mount { filesystem ext4 mountpoint /data } on h1 { mount { ${at('mount')} } }` : '';
  const tls = level !== 'tls' ? ''
    : `tls { cert /c key /k ca /a } on h1 { tls { ${statement} } }`;
  const remote = statement.startsWith('remote') && level === 'resource-node' ? '' : 'remote none';
  return [
    at('global'),
    `on h1 { ${at('node')} }`,
    `resource r { ${level === 'resource' ? local : 'local /dev/sdb'} ${mount} ${tls}`,
    at('resource'),
    `on h1 { ${remote} ${at('resource-node')} } }`,
  ].join('\n');
}

t.test('grammar: every keyword at every level', async (t) => {
  for (const word of Object.keys(keywords)) {
    for (const level of levels) {
      const result = load(fileWith(`${word} ${sampleValues[word]}`, level));
      const allowed = keywordAt(word, level) !== undefined;
      t.equal(result.config !== undefined, allowed, `${word} at ${level}: ${result.format()}`);
      if (allowed) continue;
      t.equal(result.problems.length, 1, `${word} at ${level}: one problem`);
      t.match(result.problems[0], { message: `'${word}' is not allowed` });
      t.match(result.problems[0]?.hint, /^it belongs /);
    }
  }
  for (const level of ['node', 'resource-node'] as const) {
    t.equal(load(fileWith('on x { }', level)).config, undefined, `on at ${level}`);
  }
});

t.test('grammar: words, strings, comments and layout', async (t) => {
  const result = load(
    '\ufeff# a comment\r\nresource a{local "/dev/a \\"b\\" \\\\c"#x\ron h1{remote\n\nnone}}\r\n',
  );
  t.equal(result.config, undefined, 'a comment reaches to the line feed');
  const good = load('resource a{local "/dev/a \\"b\\" \\\\c"#x\r\non h1{remote\n\nnone}}\r\n');
  t.strictSame(brief(good), []);
  t.equal(good.config?.resources[0]?.local, '/dev/a "b" \\c');
});

t.test('grammar: digits, keywords and properties of objects as names', async (t) => {
  const names = ['7', '10', 'on', 'resource', 'local', 'none', 'constructor', 'toString', '2'];
  const text = names.map((name) =>
    `resource ${name} { local /dev/${name} on h1 { remote none name ${name} } }`).join('\n');
  const result = load(text);
  t.equal(result.format(), '');
  t.strictSame(result.config?.resources.map((one) => one.name), names, 'in the order of the file');
  t.strictSame(result.config?.resources.map((one) => one.deviceName), names);
  const node = loadConfig({
    file: 'x', node: 'on', readFile: () => 'resource a { local /d on on { remote none } }',
  });
  t.equal(node.config?.node, 'on');
});

t.test('grammar: one slip is one problem, and what follows is still checked', async (t) => {
  const cases: [string, string[]][] = [
    ['timeout 20;\nresource', [
      "1:11+1 error unexpected character ';'",
      "2:1+8 error 'resource' without a name",
    ]],
    [`timeout = 20${example}`, [
      "1:9+1 error unexpected character '='",
    ]],
    [`bogus one two\ntimeout 3 4${example}`, [
      "1:1+5 error unknown keyword 'bogus'",
      "2:11+1 error unexpected '4' after the value of 'timeout'",
    ]],
    [`listen${example}`, ["1:1+6 error 'listen' has no value"]],
    [`timeout { x 1 }${example}`, ["1:1+7 error 'timeout' has no value"]],
    [`{ a b }\n}${example}`, ["1:1+1 error unexpected '{'", "2:1+1 error unexpected '}'"]],
    [`"timeout" 3${example}`, ["1:1+9 error expected a keyword, found the string 'timeout'"]],
    [`exec "/bin/x\ntimeout 3${example}`, ['1:6+7 error a string is not closed']],
    [`exec "/b\\q"${example}`, ["1:9+2 error unknown escape '\\q'"]],
    [`exec "/b\u0001"${example}`, ["1:6+5 error the path '/b?' holds a control character"]],
    ['resource a {\n local /dev/a\n on h1 { remote none\n}\nresource b {\n', [
      "5:1+8 error 'resource' cannot stand inside this section",
      '5:10+1 error this section is never closed',
      "5:10+1 error resource 'b' has no 'on' section for this node",
    ]],
    ['resource a {\n local /dev/a\n on h1 { remote none\n on h2 { remote none }\n}', [
      "4:2+2 error 'on' cannot stand inside this section",
    ]],
    ['resource a\n local /dev/a\n on h1\n remote none }\n}', [
      "1:10+1 error '{' is missing after 'a'",
      "3:5+2 error '{' is missing after 'h1'",
    ]],
    ['resource a { onn h1 { remote none } local /dev/a }', [
      "1:14+3 error unknown keyword 'onn'",
    ]],
    ['resource a { on h1 { remot none } lokal /dev/a }', [
      "1:22+5 error unknown keyword 'remot'",
      "1:35+5 error unknown keyword 'lokal'",
    ]],
    ['resource a { local /d on h1 { remote none } }\nresource a { timeout }', [
      "2:10+1 error resource 'a' is defined twice",
      "2:14+7 error 'timeout' has no value",
    ]],
    ['resource a { local /d name x{y} on h1 { remote none } }', [
      "1:29+1 error 'name' opens no section",
    ]],
  ];
  for (const [text, expected] of cases) t.strictSame(brief(load(text)), expected, text);
});

t.test('grammar: guesses', async (t) => {
  const hint = (text: string): string | undefined => load(text).problems[0]?.hint;
  t.equal(hint('replicaton async'), "did you mean 'replication'?");
  t.equal(hint('Timeout 3'), "did you mean 'timeout'?");
  t.equal(hint('tiemout 3'), "did you mean 'timeout'?");
  t.equal(hint('remot none'), "did you mean 'remote'? it belongs in an 'on' section of a resource");
  t.match(hint('zzzzzzzz 3'), /^allowed here: control, control-group, pidfile/);
  t.match(load('resource a { replication fullsnyc }').problems.at(-1)?.hint,
    /^did you mean 'fullsync'\? expected 'fullsync', 'memsync'/);
});

t.test('grammar: the text shown for problems', async (t) => {
  const text = 'resource shared {\n\tlocal /dev/sdb1\n\ton h1 { remot tcp://10.0.0.233 }\n}\n';
  t.equal(load(text).format(), [
    "hast.conf:3:10: error: unknown keyword 'remot'",
    '  3 | \ton h1 { remot tcp://10.0.0.233 }',
    '    | \t        ^~~~~',
    "    = did you mean 'remote'?",
    '',
  ].join('\n'));
  const long = `resource a { local /d ${' '.repeat(200)}exec rel on h1 { remote none } }`;
  t.equal(load(long).format(), [
    "hast.conf:1:228: error: the path 'rel' is relative",
    `  1 | ${' '.repeat(19)}exec rel on h1 { remote none } }`,
    `    | ${' '.repeat(24)}^~~`,
    '    = the daemon has no working directory of its own: begin with /',
    '',
  ].join('\n'));
  t.notMatch(load('exec \u001b[31m\n').format(), /\u001b/, 'no escapes to the terminal');
});

t.test('grammar: the last statement of a level holds, and check says so', async (t) => {
  const result = load(`timeout 3\ntimeout 4${example}`);
  t.equal(result.config?.resources[0]?.timeout, 4);
  t.strictSame(brief(result), ["2:1+7 warning 'timeout' is set twice in this section"]);
});

t.test('grammar: values', async (t) => {
  const first = (text: string): string => load(`${text}${example}`).problems[0]?.message ?? '';
  t.equal(first('timeout 0'), "'timeout' is zero: 0");
  t.equal(first('timeout -5'), "'timeout' is negative: -5");
  t.equal(first('timeout 86401'), "'timeout' cannot be 86401");
  t.equal(first('timeout 20s'), "'timeout' cannot be '20s'");
  t.equal(first('checksum md5'), "'checksum' cannot be 'md5'");
  t.equal(first('metaflush no'), "'metaflush' cannot be 'no'");
  t.equal(first('async-lag 1P'), "'1P' is not a size");
  t.equal(first('async-lag 2T'), "'2T' is out of range");
  t.equal(first('async-lag 12'), "'async-lag' is too small: 12");
  t.equal(first('disk-timeout -1'), "'disk-timeout' is negative: -1");
  t.equal(first('disk-timeout 86401'), "'disk-timeout' cannot be 86401");
  t.equal(first('busy-poll -1'), "'busy-poll' is negative: -1");
  t.equal(first('busy-poll 1001'), "'busy-poll' cannot be 1001");
  t.equal(first('busy-poll 50us'), "'busy-poll' cannot be '50us'");
  t.equal(first('on-no-data wait'), "'on-no-data' cannot be 'wait'");
  t.equal(first('on-stop end'), "'on-stop' cannot be 'end'");
  t.equal(first('resync-rate 65535'), "'resync-rate' is too small: 65535");
  t.equal(first('resync-rate 63k'), "'63k' is out of range");
  t.equal(first('resync-rate fast'), "'fast' is not a size");
  t.match(load(`resync-rate 2T${example}`).problems[0]?.hint, /from 64k to 1T.*or 'auto'$/);
  t.equal(first('resource -x { }'), "'-x' cannot be used as a name");
  t.equal(first('on "a b" { }'), "'a b' cannot be used as a name");
  for (const [text, bytes] of [['4096', 4096], ['64k', 65536], ['2M', 2097152], ['1g', 2 ** 30]]) {
    const { config } = load(`async-lag ${text}${example}`);
    t.equal(config?.resources[0]?.asyncLag, bytes);
  }
  for (const [text, rate] of [['auto', 0], ['64k', 65536], ['65536', 65536], ['1T', 2 ** 40]]) {
    t.equal(load(`resync-rate ${text}${example}`).config?.resources[0]?.resyncRate, rate);
  }
  t.equal(load(`busy-poll 0${example}`).config?.resources[0]?.busyPoll, 0, 'never');
  t.equal(load(`disk-timeout 0${example}`).config?.resources[0]?.diskTimeout, 0, 'never');
  const inner = load(`on-no-data fail
resync-rate 1M${example.replace('local', 'resync-rate auto local')}`);
  t.match(inner.config?.resources, [{ onNoData: 'fail', resyncRate: 0 }], 'auto beats global');
});

const full = `
control uds:///tmp/ctl
pidfile /tmp/pid
listen tcp://10.0.0.1
listen tcp6://[::1]:99
metrics 9458
rundir /tmp/run
devdir /tmp/dev
undo-directory /tmp/undo/
timeout 7
resync-rate auto
async-lag 1M
metaflush off
on h1 { listen tcp4://10.0.0.2:9 }
resource b { local /dev/b compression lzf on h1 { remote none } }
resource a {
  replication async
  async-lag-time 3
  disk-timeout 5
  busy-poll 0
  on-no-data fail
  on-stop force
  resync-rate 20M
  on h1.example.com { name disk local /dev/c remote tcp://peer:1 source tcp://10.0.0.9 }
  on h2 { local /dev/d remote tcp://h1 frontend fuse-native }
}`;

const fullJson = {
  control: 'uds:///tmp/ctl',
  pidfile: '/tmp/pid',
  listen: ['tcp://10.0.0.1', 'tcp6://[::1]:99'],
  metrics: 9458,
  rundir: '/tmp/run',
  devdir: '/tmp/dev',
  'undo-directory': '/tmp/undo',
  timeout: 7,
  'resync-rate': 'auto',
  'async-lag': 1048576,
  metaflush: false,
  on: { h1: { listen: 'tcp4://10.0.0.2:9' } },
  resources: {
    b: { local: '/dev/b', compression: 'lzf', on: { h1: { remote: 'none' } } },
    a: {
      replication: 'async',
      'async-lag-time': 3,
      'disk-timeout': 5,
      'busy-poll': 0,
      'on-no-data': 'fail',
      'on-stop': 'force',
      'resync-rate': '20M',
      on: {
        'h1.example.com': {
          name: 'disk', local: '/dev/c', remote: 'tcp://peer:1', source: 'tcp://10.0.0.9',
        },
        h2: { local: '/dev/d', remote: 'tcp://h1', frontend: 'fuse-native' },
      },
    },
  },
};

t.test('json: the same model as hast.conf', async (t) => {
  const conf = load(full);
  const json = load(JSON.stringify(fullJson, null, 2), 'hast.json');
  t.equal(conf.problems.length, 2);
  t.strictSame(json.problems.map((one) => one.message), conf.problems.map((one) => one.message));
  t.ok(conf.config);
  t.strictSame({ ...json.config, file: '' }, { ...conf.config, file: '' });
});

t.test('json: problems have lines and columns', async (t) => {
  const cases: [string, string[]][] = [
    ['', ['1:1+0 error the file ends where a value belongs']],
    ['[]', ['1:1+1 error the configuration must be an object']],
    ['{"timeout": 20,}', [
      "1:15+1 error a ',' before '}'",
    ]],
    ['{\n  // no\n}', ["2:3+2 error expected a key, found '//'"]],
    ["{\"exec\": '/x'}", ["1:10+4 error unexpected ''/x''"]],
    ['{"exec": /x}', ["1:10+2 error unexpected '/x'"]],
    ['{"exec": "/x}', ['1:10+4 error a string is not closed']],
    ['{"exec": "/\\x"}', ['1:10+5 error a string holds an unknown escape']],
    ['{"timeout": 020}', ["1:13+3 error unexpected '020'"]],
    ['{"timeout": 20 "exec": 1}', ["1:16+1 error expected ',' or '}', found '\"'"]],
    ['{"timeout": 20} x', ['1:17+1 error unexpected text after the end of the object']],
    ['{"a":'.repeat(20), ['1:81+1 error nested too deep']],
    ['{\n"timeout": "20",\n"exec": "x",\n"resource": {},\n"on": [],\n"timeoutt": 1}', [
      "2:12+4 error 'timeout' cannot be '20'",
      "3:9+3 error the path 'x' is relative",
      "4:1+10 error unknown keyword 'resource'",
      "5:7+1 error 'on' must be an object, not a list",
      "6:1+10 error unknown keyword 'timeoutt'",
    ]],
    ['{"resources": {"local": 1, "a": {"on": {"h1": null}, "local": "/d"}, "a": 2}}', [
      "1:25+1 error 'local' must be an object, not 1",
      "1:47+4 error 'h1' must be an object, not null",
      "1:70+3 error 'a' is defined twice",
    ]],
    ['{"resources": {"a/b": {}, "c": {"on": {"h1": 3}}}, "listen": ["tcp://x", 5, []]}', [
      "1:16+5 error 'a/b' cannot be used as a name",
      "1:16+5 error resource 'a/b' has no 'on' section for this node",
      "1:46+1 error 'h1' must be an object, not 3",
      "1:74+1 error 'listen' cannot be 5",
      "1:77+1 error 'listen' cannot be a list",
    ]],
  ];
  for (const [text, expected] of cases) {
    const result = load(text, 'x.json');
    const errors = brief(result).filter((one) => one.includes(' error '));
    t.strictSame(errors, expected, text);
  }
});

function checkPositions(t: Test, text: string, file: string): void {
  const result = load(text, file);
  const lines = text.split('\n');
  for (const { line, column, length, message } of result.problems) {
    const width = lines[line - 1]?.length ?? -1;
    if (line < 1 || column < 1 || length < 0 || column - 1 + length > width) {
      t.fail(`${message} at ${line}:${column}+${length}`, { text });
    }
  }
  const errors = result.problems.some((one) => one.severity === 'error');
  if (errors !== (result.config === undefined)) t.fail('config iff no error', { text });
  if (result.problems.length > limits.problemCountMax + 1) t.fail('too many', { text });
  result.format();
}

t.test('grammar: any text is answered with valid positions (property)', async (t) => {
  const words = [
    ...Object.keys(keywords), 'on', 'resource', 'resources', 'h1', 'h2', '{', '}', '{ ', '}\n',
    '\n', '\r\n', '#', '"', '\\', '"a b"', '/dev/sdb', 'tcp://[::1]:1', 'tcp://h:0', 'none', '20',
    '-1', '64M', '__proto__', 'constructor', '\u0000', '\ufffd', '\u{1f600}',
    ';', ':', ',', '[', ']',
  ];
  const soup = fc.array(fc.constantFrom(...words), { maxLength: 40 });
  const inserted = fc.string({ maxLength: 5, unit: 'binary' });
  const cut = fc.tuple(fc.nat(full.length), fc.nat(12), inserted);
  const json = JSON.stringify(fullJson, null, 1);
  const mutate = (text: string, [at, count, insert]: [number, number, string]): string =>
    text.slice(0, at) + insert + text.slice(at + count);
  fc.assert(fc.property(soup, fc.constantFrom(' ', ''), fc.array(cut, { maxLength: 3 }),
    (parts, glue, cuts) => {
      checkPositions(t, parts.join(glue), 'hast.conf');
      checkPositions(t, parts.join(glue), 'hast.json');
      checkPositions(t, cuts.reduce(mutate, full), 'hast.conf');
      checkPositions(t, cuts.reduce(mutate, json), 'hast.json');
    }), { numRuns: 400 });
});

t.test('grammar: large and hostile files end quickly', async (t) => {
  const size = limits.fileBytesMax - 16;
  for (const unit of ['{', '"\\', 'on a{', 'timeout 0 ', '{"a":']) {
    const text = unit.repeat(Math.floor(size / unit.length));
    checkPositions(t, text, 'hast.conf');
    checkPositions(t, text, 'hast.json');
  }
  checkPositions(t, `"${'a'.repeat(size)}"`, 'hast.conf');
  checkPositions(t, `"${'a'.repeat(size)}"`, 'hast.json');
  t.strictSame(brief(load(' '.repeat(limits.fileBytesMax + 1))), [
    '1:1+0 error the file is too large',
  ]);
});
