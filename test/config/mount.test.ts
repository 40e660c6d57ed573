/** The `mount` section: both syntaxes, inheritance, and what is refused where. */
import t from 'tap';
import { loadConfig } from '../../lib/config/load.ts';
import type { LoadResult } from '../../lib/config/load.ts';
import type { MountConfig } from '../../lib/config/model.ts';

function load(text: string, file = 'hast.conf', node = 'h1'): LoadResult {
  return loadConfig({ file, node, readFile: () => text, interfaces: () => ({}) });
}

const wrap = (inner: string, own = ''): string =>
  `resource r {\nlocal /dev/sdb\n${inner}\non h1 { remote none ${own} }\n` +
  'on h2 { remote none mount { mountpoint /second } }\n}';

function mountOf(text: string, file?: string, node?: string): MountConfig | null {
  const result = load(text, file, node);
  if (result.config === undefined) throw new Error(result.format());
  return result.config.resources[0]?.mount ?? null;
}

function problems(text: string, file?: string): string[] {
  return load(text, file).problems.map((one) =>
    `${one.line}:${one.column} ${one.message}; ${one.hint ?? ''}`);
}

t.test('mount: values, defaults, and the part of a node', async (t) => {
  t.equal(mountOf(wrap('')), null);
  const short = 'mount { filesystem ext4 mountpoint /data }';
  const plain = { filesystem: 'ext4', mountPoint: '/data', options: null, mkfs: false };
  t.strictSame(mountOf(wrap(short)), plain);
  t.strictSame(mountOf(wrap(short), 'hast.conf', 'h2'), { ...plain, mountPoint: '/second' });
  const own = 'mount { options noatime,commit=5 mkfs on }';
  t.strictSame(mountOf(wrap(short, own)), { ...plain, options: 'noatime,commit=5', mkfs: true });
  t.strictSame(mountOf(wrap('', 'mount {\nfilesystem xfs\nmountpoint /a//b/\n}')), {
    ...plain, filesystem: 'xfs', mountPoint: '/a/b',
  });
  t.strictSame(mountOf(wrap('mount { filesystem xfs }\nmount { mountpoint "/my data" }')), {
    ...plain, filesystem: 'xfs', mountPoint: '/my data',
  }, 'two sections are one');
});

t.test('mount: the JSON form', async (t) => {
  const json = (mount: unknown): string => JSON.stringify({
    resources: { r: { local: '/dev/sdb', mount, on: { h1: { remote: 'none' } } } },
  });
  const section = { filesystem: 'btrfs', mountpoint: '/data', options: 'noatime,ro', mkfs: true };
  t.strictSame(mountOf(json(section), 'hast.json'), {
    filesystem: 'btrfs', mountPoint: '/data', options: 'noatime,ro', mkfs: true,
  });
  t.match(problems(json('/data'), 'hast.json'), ["1:47 'mount' must be an object"]);
  t.match(problems(json({ ...section, mkfs: 'yes' }), 'hast.json'), ["'mkfs' cannot be 'yes'"]);
  t.match(problems(json({ ...section, where: 1 }), 'hast.json'), ["unknown keyword 'where'"]);
});

t.test('mount: what is wrong is named, once, with what to do', async (t) => {
  const rest = 'filesystem ext4 mountpoint /data';
  const cases: [string, string][] = [
    ['mount { mountpoint data filesystem ext4 }', "3:20 the path 'data' is relative"],
    ['mount { mountpoint / filesystem ext4 }', "3:20 '/' cannot be used for this"],
    ['mount { filesystem ext5 mountpoint /d }', "'filesystem' cannot be 'ext5'; did you mean"],
    ['mount { filesystem ntfs mountpoint /d }', "expected 'ext2', 'ext3', 'ext4', 'xfs' or"],
    ['mount { filesystem ext4 }', "has no 'mountpoint'; add 'mountpoint /DIRECTORY'"],
    ['mount { mountpoint /data }', "has no 'filesystem'; add 'filesystem ext4'"],
    ['mount { mountpiont /data filesystem ext4 }', "did you mean 'mountpoint'?"],
    ['filesystem ext4', "it belongs in a 'mount' section"],
    [`mount { timeout 3 ${rest} }`, "'timeout' is not allowed in a 'mount' section"],
    [`mount { mkfs maybe ${rest} }`, "'mkfs' cannot be 'maybe'; expected 'on' or 'off'"],
    [`mount /data { ${rest} }`, "'mount' has no name, found '/data'; write 'mount {"],
    ['mount /data', "'mount' has no name"],
    ['mount', "'{' is missing after 'mount'; write 'mount { ... }'"],
    [`mount { ${rest} options noatime,remount }`, "the option 'remount' is not one for"],
    [`mount { ${rest} options noatime,,ro }`, 'holds an empty option'],
    [`mount { ${rest} options "a b" }`, 'hold a space'],
    [`mount { ${rest} options }`, "'options' has no value"],
    [`mount { ${rest}; }`, "unexpected character ';'"],
    ['mount { filesystem ext4 mountpoint /run }', "would hide '/run/hast' of the daemon"],
  ];
  for (const [inner, expected] of cases) {
    const found = problems(wrap(inner));
    t.ok(found[0]?.includes(expected), `${inner}: ${found.join(' | ')}`);
    t.equal(found.length, 1, `${inner}: ${found.join(' | ')}`);
  }
  t.match(problems('mount { }'), ["'mount' is not allowed at the top level of the file"]);
  const open = problems(`resource r { local /a mount { ${rest} on h1 { remote none } }`);
  t.match(open, ["'on' cannot stand inside this section"], 'a brace was forgotten');
  const two = ['a', 'b'].map((name) =>
    `resource ${name} { local /dev/${name} mount { ${rest} } on h1 { remote none } }`);
  t.match(problems(two.join('\n')), ["2:62 '/data' is also the 'mountpoint' of resource 'a'"]);
});
