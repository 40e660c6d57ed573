/** The files under docs/examples, as far as the programs of this machine can check them. */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import { loadConfig } from '../../lib/config/load.ts';

const folder = path.join('docs', 'examples');

function tool(...argv: [string, ...string[]]): { missing: boolean; code: number; text: string } {
  const [program, ...args] = argv;
  const { error, status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { missing: error !== undefined, code: status ?? 255, text: `${stdout}${stderr}` };
}

t.test('examples: the line for fstab is what mount would read', async (t) => {
  const file = path.join(folder, 'fstab');
  const got = tool('findmnt', '--tab-file', file, '-rno', 'SOURCE,TARGET,FSTYPE,OPTIONS');
  if (got.missing) {
    t.pass('NOT TESTED: no findmnt', { skip: true });
    return;
  }
  t.match(got, { code: 0, text: /^\/dev\/hast\/shared \/data ext4 noauto,.*_netdev/ });
});

t.test('examples: each hast.conf is right on both nodes', async (t) => {
  const uses = fs.readdirSync(folder, { withFileTypes: true }).filter((one) => one.isDirectory());
  t.same(uses.map(({ name }) => name).sort(), ['nfs', 'postgresql', 'vm']);
  for (const { name } of uses) {
    const file = path.join(folder, name, 'hast.conf');
    for (const node of ['h1', 'h2']) {
      const { config, problems } = loadConfig({ file, node, interfaces: () => ({}) });
      t.same(problems, [], `${name} on ${node}`);
      t.equal(config?.resources.length, 1);
    }
    const text = fs.readFileSync(path.join(folder, name, 'README.md'), 'utf8');
    t.match(text, '## What was run', name);
  }
});
