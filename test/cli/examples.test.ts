/** The files under docs/examples, as far as the programs of this machine can check them. */
import { spawnSync } from 'node:child_process';
import * as path from 'node:path';
import t from 'tap';

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
