/**
 * hastctl's commands beside role and status, as a program, against a daemon in this process
 * whose workers are fakes: what is printed, and the exit codes.
 */
import * as childProcess from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Test } from 'tap';
import { formatResolution } from '../../cli/order-commands.ts';
import { holds } from '../../cli/wait-command.ts';
import { silentLogger } from '../../lib/base/log.ts';
import { loadConfig } from '../../lib/config/load.ts';
import { Daemon } from '../../lib/daemon/daemon.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import {
  FakeKernel, fakeWorker, resourceConfig, shortDirectory, testTiming,
} from '../daemon/world.ts';
import { plainNode } from '../fixtures/plain-node.ts';

t.jobs = 4;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

const hastctl = fileURLToPath(new URL('../../cli/hastctl.js', import.meta.url));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A daemon with the resources `well` and `other`, whose worker behaves as `other` says. */
async function world(test: Test, other = 'refuse-order') {
  const directory = shortDirectory(test);
  const conf = path.join(directory, 'hast.conf');
  fs.writeFileSync(conf, `
rundir ${directory}/run
devdir ${directory}/dev
listen tcp4://127.0.0.1:47115
resource well { local "/x" on h1 { remote none } }
resource other { local "/y,${other}" on h1 { remote none } }
`);
  const load = () => loadConfig({ file: conf, node: 'h1' });
  const { config, format } = load();
  if (config === undefined) throw new Error(format());
  const daemon = await Daemon.start({
    config: { ...config, listen: [{ family: 'tcp4', host: '127.0.0.1', port: 0 }] },
    load, log: silentLogger, program: fakeWorker, operations: new FakeKernel(),
    timing: testTiming,
  });
  test.teardown(() => daemon.stop());
  const run = (...args: string[]): Promise<Ended> => new Promise((resolve) => {
    const env = { ...process.env, HAST_CONF: conf, HAST_NODE: 'h1' };
    const options = { env, timeout: 20_000, cwd: directory };
    childProcess.execFile('env', [...plainNode, hastctl, ...args], options, (error, out, err) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : null;
      resolve({ code, stdout: out, stderr: err });
    });
  });
  const secondary = async (): Promise<void> => {
    test.equal((await run('role', 'secondary', 'all')).code, 0);
  };
  return { directory, run, secondary };
}

const silent = { code: 0, stdout: '', stderr: '' };

it('orders: silent where done, an error with a hint for each that is not', async (test) => {
  const { run, secondary } = await world(test);
  test.same(await run('detach', 'well'), {
    code: 77, stdout: '',
    stderr: 'hastctl: error: well: the role is init: nothing uses the copy; ' +
      'try: hastctl role secondary well\n',
  });
  await secondary();
  for (const args of [['resync', 'pause'], ['resync', 'resume'], ['detach'], ['peer-gone']]) {
    test.same(await run(...args, 'well'), silent, args.join(' '));
  }
  test.match(await run('attach', 'well'), {
    code: 77, stderr: /well: the copy is attached already .*; try: hastctl detach well first/,
  });
  test.same(await run('detach', 'all'), {
    code: 77, stdout: '', stderr: 'hastctl: error: other: fake refusal of detach; try: not now\n',
  });
  const json = await run('peer-gone', '--json', 'all');
  test.equal(json.code, 77);
  test.match(JSON.parse(json.stdout), [
    { name: 'well', error: null }, { name: 'other', error: { code: 'HAST_E_REFUSED' } },
  ]);
  test.match(await run('detach', 'wel'), { code: 65, stderr: /did you mean 'well'\?/ });
  test.match(await run('resync', 'stop', 'well'), { code: 64, stderr: /pause\|resume/ });
  test.match(await run('detach'), { code: 64, stderr: /missing required argument/ });
});

it('resolve and undo: options, files, what is shown', async (test) => {
  const { directory, run, secondary } = await world(test);
  await secondary();
  for (const options of [[], ['--discard-local', '--discard-peer']]) {
    test.match(await run('resolve', 'well', ...options), { code: 64, stderr: /--dry-run/ });
  }
  const dry = await run('resolve', 'well', '--discard-local', '--dry-run');
  test.equal(dry.code, 0);
  test.equal(dry.stdout, [
    'resource: well', '    given up: local', '    local generation: 00000000000000aa',
    '    local writes: 4096 (4.0KB)', '        8192 4096',
    '    peer generation: 00000000000000bb', '    peer writes: 1048576 (1.0MB)',
    '        0 4096', '        and 7 more', '    copied to local: 1052672 (1.0MB)',
    '    dry run: nothing was changed', '',
  ].join('\n'));
  const undo = path.join(fs.realpathSync(directory), 'kept');
  const json = await run('resolve', 'well', '--discard-peer', '--undo', 'kept', '--json');
  test.match(JSON.parse(json.stdout), {
    schema: 1, name: 'well', discard: 'peer', dryRun: false, undo, full: false,
    localGeneration: '00000000000000aa', local: { bytes: 4096 }, copyBytes: 1052672,
  });
  fs.writeFileSync(undo, 'precious');
  test.match(await run('resolve', 'well', '--discard-peer', '--undo', 'kept'), {
    code: 64, stderr: /kept exists: an undo file is never overwritten/,
  });
  test.match(await run('resolve', 'other', '--discard-peer'), {
    code: 77, stderr: /fake refusal of resolve; try: not now/,
  });
  test.match(await run('resolve', 'all', '--discard-peer'), { code: 65 });
  test.same(await run('undo', 'well', 'kept'), silent);
  test.match(await run('undo', 'other', 'kept'), { code: 77, stderr: /fake refusal of undo/ });
  test.match(await run('undo', 'well', 'gone'), { code: 66, stderr: /gone does not exist/ });
  test.match(await run('undo', 'well'), { code: 64 });
});

it('formats: a resolution of everything, with its undo file', async (test) => {
  const side = { bytes: 0, ranges: [], more: 0 };
  test.equal(formatResolution({
    name: 'shared', discard: 'peer', dryRun: false, undo: '/root/undo', full: true,
    localGeneration: 'aa', peerGeneration: 'bb', local: side, peer: side, copyBytes: 1024 ** 3,
  }), [
    'resource: shared', '    given up: peer', '    local generation: aa',
    '    local writes: 0 (0B)', '    peer generation: bb', '    peer writes: 0 (0B)',
    '    copied to peer: 1073741824 (1.0GB), the whole volume: a map does not speak of the ' +
      'other copy', '    undo: /root/undo', '',
  ].join('\n'));
});

it('wait: returns when all holds, 79 when the time is over', async (test) => {
  const { run, secondary } = await world(test, 'mute');
  test.match(await run('wait', 'well'), { code: 64, stderr: /--connected, --synced and --role/ });
  test.match(await run('wait', 'well', '--role', 'king'), { code: 64, stderr: /unknown role/ });
  test.match(await run('wait', 'well', '--connected', '--timeout', '1m'), { code: 64 });
  test.same(await run('wait', 'well', '--role', 'init'), silent);
  test.same(await run('wait', 'all', '--connected', '--timeout', '0'), {
    code: 79, stdout: '',
    stderr: 'hastctl: error: not within 0 s: well is init, init, none; other is init, init, ' +
      'none; try: hastctl list well other\n',
  });
  const waiting = run('wait', 'well', '--connected', '--synced', '--role', 'secondary');
  await secondary();
  test.same(await waiting, silent);
  const late = await run('wait', 'well', '--role', 'primary', '--timeout', '1', '--json');
  test.equal(late.code, 79);
  test.match(JSON.parse(late.stderr), { error: { code: 'HAST_E_TIMEOUT' } });
  const json = await run('wait', 'well', '--synced', '--json');
  test.match(JSON.parse(json.stdout), [{ schema: 1, name: 'well', status: 'complete' }]);
  test.match(await run('wait', 'wel', '--synced'), { code: 65 });
});

it('wait: what counts as connected and as in sync', async (test) => {
  const idle = idleStatus(resourceConfig('shared'), '', 'secondary', '');
  const none = { connected: false, synced: false, role: undefined };
  const words = ['none', 'connecting', 'connected', 'syncing', 'paused', 'refused'] as const;
  test.same(words.filter((connection) =>
    holds({ ...idle, connection }, { ...none, connected: true })),
  ['connected', 'syncing', 'paused']);
  const states = ['complete', 'syncing', 'degraded', 'diskless', 'waiting'] as const;
  test.same(states.filter((status) => holds({ ...idle, status }, { ...none, synced: true })),
    ['complete']);
});
