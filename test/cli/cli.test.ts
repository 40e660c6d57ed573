/**
 * hastd and hastctl as programs: exit codes, what they print, and the launcher. No resource
 * leaves role init, so nothing but sockets and files is needed.
 */
import * as childProcess from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { exitCodeOf } from '../../cli/exit-codes.ts';
import { duration, formatList, formatStatusTable, humanSize } from '../../cli/format-status.ts';
import { errorLine } from '../../cli/report.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import { resourceConfig, until } from '../daemon/world.ts';
import { plainNode } from '../fixtures/plain-node.ts';

t.jobs = 4;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

const bin = (name: string): string =>
  fileURLToPath(new URL(`../../cli/${name}.js`, import.meta.url));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function world(test: Test, more = '') {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-'));
  const conf = path.join(directory, 'hast.conf');
  const local = path.join(directory, 'disk');
  fs.writeFileSync(local, '');
  fs.truncateSync(local, 16 * 1024 * 1024);
  const write = (port: number, text = more): void => fs.writeFileSync(conf, `
rundir ${directory}/run
devdir ${directory}/dev
listen tcp4://127.0.0.1:${port}
${text}
resource shared {
    local ${local}
    on h1 { remote tcp://192.0.2.2 }
    on h2 { remote tcp://192.0.2.1 }
}
`);
  const pidfile = path.join(directory, 'run/hastd.pid');
  const log = path.join(directory, 'run/hastd.log');
  const stop = async (): Promise<void> => {
    if (!fs.existsSync(pidfile)) return;
    process.kill(Number(fs.readFileSync(pidfile, 'utf8')), 'SIGTERM');
    await until('hastd has ended', () => fs.readFileSync(log, 'utf8').includes('hastd ends'));
  };
  test.teardown(async () => {
    await stop();
    fs.rmSync(directory, { recursive: true, force: true });
  });
  const run = (name: string, ...args: string[]): Promise<Ended> => new Promise((resolve) => {
    const env = { ...process.env, HAST_CONF: conf, HAST_NODE: 'h1' };
    const options = { env, timeout: 20_000, cwd: directory };
    childProcess.execFile('env', [...plainNode, bin(name), ...args], options, (error, out, err) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : null;
      resolve({ code, stdout: out, stderr: err });
    });
  });
  return { directory, conf, local, pidfile, log, write, run, stop };
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

it('hastd: launched, asked, reloaded, started twice, stopped', async (test) => {
  const { directory, pidfile, log, write, run, stop } = world(test);
  const port = await freePort();
  write(port);
  test.match(await run('hastctl', 'status'), {
    code: 71, stdout: '',
    stderr: /hastctl: error: no hastd answers at .* \(ENOENT\); try: hastd -c/,
  });
  test.same(await run('hastd', '-d'), { code: 0, stdout: '', stderr: '' });
  const pid = Number(fs.readFileSync(pidfile, 'utf8'));
  test.equal(fs.readlinkSync(`/proc/${pid}/cwd`), '/');
  test.match(await run('hastctl', 'status', 'all'), {
    code: 0, stderr: '',
    stdout: `Name\tStatus\t Role\t\tComponents\n` +
      `shared\tinit     init           ${directory}/disk\ttcp://192.0.2.2\n`,
  });
  const json = await run('hastctl', 'list', '--json', 'shared');
  test.match(JSON.parse(json.stdout), [{ schema: 1, name: 'shared', role: 'init', worker: null }]);
  test.match(await run('hastctl', 'role', 'init', 'shared'), { code: 0, stdout: '', stderr: '' });
  test.match(await run('hastctl', 'status', 'share'), {
    code: 65,
    stderr: "hastctl: error: hastd knows no resource 'share'; try: did you mean 'shared'?\n",
  });
  for (const options of [['-F'], []]) {
    test.match(await run('hastd', ...options), {
      code: 75, stderr: new RegExp(`hastd: error: hastd runs already \\(pid ${pid} `),
    });
  }
  const other = `resource other { local ${directory}/other\non h1 { remote none } }`;
  write(port, `${other}\n`);
  process.kill(pid, 'SIGHUP');
  await until('reloaded', () => fs.readFileSync(log, 'utf8').includes('configuration reloaded'));
  test.match(await run('hastctl', 'status', 'other'), { code: 0, stdout: /\tnone\n$/ });
  await stop();
  test.notOk(fs.existsSync(path.join(directory, 'run/hastctl.sock')));
});

it('hastd: a port in use, a bad file, no file, a bad option, a run directory', async (test) => {
  const { conf, directory, write, run } = world(test);
  const server = net.createServer();
  test.teardown(() => { server.close(); });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  write(port);
  const { code, stderr } = await run('hastd');
  test.equal(code, 71);
  test.match(stderr, `cannot listen on tcp4://127.0.0.1:${port}`);
  test.match(stderr, `try: end what uses port ${port}, or change 'listen'`);
  test.notOk(fs.existsSync(path.join(directory, 'run/hastd.pid')), 'nothing is left');
  write(port, 'timeout never');
  test.match(await run('hastd'), { code: 78, stderr: /hast\.conf:5:9: error: .*hastctl check/s });
  test.match(await run('hastd', '-c', `${conf}.missing`), { code: 72, stderr: /no such file/ });
  test.match(await run('hastd', '-X'), { code: 64, stderr: /^hastd: error: unknown option/ });
  test.match(await run('hastd', '-h'), { code: 0, stdout: /--node <name>/ });
  write(port, '');
  fs.writeFileSync(path.join(directory, 'run2'), '');
  fs.writeFileSync(conf, fs.readFileSync(conf, 'utf8').replace('/run', '/run2'));
  test.match(await run('hastd'), { code: 74, stderr: /cannot make the directory .*run2/ });
});

it('hastctl: usage errors have a nearest guess, errors can be JSON', async (test) => {
  const { write, run } = world(test);
  write(1);
  test.match(await run('hastctl', 'statsu'), {
    code: 64, stderr: "hastctl: error: unknown command 'statsu'; try: did you mean 'status'?\n",
  });
  const { code, stderr } = await run('hastctl', 'role', 'king', 'shared', '--json');
  test.equal(code, 64);
  test.match(JSON.parse(stderr), {
    schema: 1, error: { code: 'HAST_E_USAGE', message: "unknown role 'king'" },
  });
  test.match(await run('hastctl', 'role', 'primary'), { code: 64, stderr: /missing required/ });
  test.match(await run('hastctl'), { code: 64, stderr: /Usage: hastctl/ });
  test.match(await run('hastctl', '-c', '/nonexistent', 'list'), { code: 72 });
});

it('hastctl: create, dump and check without the daemon', async (test) => {
  const { conf, local, write, run } = world(test);
  write(1);
  test.match(await run('hastctl', 'check'), {
    code: 0, stdout: /note: resource shared: .* has no metadata; try: hastctl create shared/,
  });
  test.match(await run('hastctl', 'dump'), { code: 66, stderr: /shared: .*no metadata/ });
  test.match(await run('hastctl', 'create', '-e', '3M', 'shared'), { code: 65 });
  test.match(await run('hastctl', 'create', '-m', '1T', 'shared'), { code: 65 });
  test.match(await run('hastctl', 'create', 'shraed'), { code: 65, stderr: /mean 'shared'\?/ });
  const created = await run('hastctl', 'create', '-e', '1M', '-k', '64', '-m', '8M', 'shared');
  test.same(created, { code: 0, stdout: '', stderr: '' });
  test.match(await run('hastctl', 'create', 'shared'), { code: 77, stderr: /--force/ });
  const dump = await run('hastctl', 'dump');
  test.match(dump.stdout, /^resource: shared\n {4}datasize: 8388608 \(8\.0MB\)\n/);
  test.match(dump.stdout, `losetup --find --show --read-only -o 1048576 --sizelimit 8388608`);
  test.match(JSON.parse((await run('hastctl', 'dump', '--json', 'shared')).stdout), [
    { schema: 1, name: 'shared', mediaSize: 8388608, keepDirty: 64, history: [] },
  ]);
  test.match(await run('hastctl', 'check'), {
    code: 0, stdout: `${conf}: ok: node h1, 1 resource\n`, stderr: '',
  });
  fs.rmSync(local);
  test.match(await run('hastctl', 'check'), { code: 78, stdout: /does not exist/ });
  test.match(await run('hastctl', 'create', 'shared'), { code: 66, stderr: /does not exist/ });
});

it('formats: the table, the list and sizes', async (test) => {
  const resource = resourceConfig('shared', {
    local: '/dev/sdb1', remote: { family: 'tcp', host: '10.0.0.233', port: 8457 },
  });
  const idle = idleStatus(resource, '/dev/hast/shared', 'secondary', '');
  const status = {
    ...idle, status: 'complete', role: 'primary', worker: 42, dirtyBytes: 2097152,
    extentSize: 2097152, keepDirty: 512, mediaSize: 1024 ** 4, connection: 'connected',
    localDisk: 'up-to-date', peerDisk: 'up-to-date', peerRole: 'secondary', syncPercent: 99.98,
    disconnectedSince: 1_700_000_000,
  } as const;
  const split = { ...idle, name: 'other', status: 'split-brain', remote: 'none' } as const;
  test.equal(formatStatusTable([status, split]), [
    'Name\tStatus\t Role\t\tComponents',
    'shared\tcomplete primary        /dev/sdb1\ttcp://10.0.0.233',
    'other\tsplit-brain secondary      /dev/sdb1\tnone', '',
  ].join('\n'));
  test.equal(formatList([status]), [
    'shared:', '  role: primary', '  provname: shared', '  localpath: /dev/sdb1',
    '  extentsize: 2097152 (2.0MB)', '  keepdirty: 512', '  remoteaddr: tcp://10.0.0.233',
    '  replication: fullsync', '  status: complete', '  workerpid: 42',
    '  dirty: 2097152 (2.0MB)', '  mediasize: 1099511627776 (1.0TB)',
    '  connection: connected', '  disconnected since: 2023-11-14T22:13:20.000Z',
    '  synced: 99.9%', '  local disk: up-to-date', '  peer disk: up-to-date',
    '  peer role: secondary', '  authentication: none (unauthenticated, in clear text)',
    '  single copy writes: 0', '  statistics:', '    reads: 0',
    '    writes: 0', '    deletes: 0', '    flushes: 0', '    activemap updates: 0',
    '    local errors: read: 0, write: 0, delete: 0, flush: 0',
    '    queues: local: 0, send: 0, recv: 0, done: 0, idle: 0', '',
  ].join('\n'));
  const resync = (more: object): string | undefined =>
    /^ {2}resync: (.*)$/m.exec(formatList([{ ...status, ...more }]))?.[1];
  const runs = { connection: 'syncing', syncPercent: 42.19, syncRate: 10 * 1024 ** 2 };
  test.same([
    resync({}), resync({ resyncPaused: true }), resync({ ...runs, syncEta: 200.2 }),
    resync({ ...runs, syncRate: 0 }), resync({ ...runs, connection: 'paused', resyncPaused: true }),
  ], [undefined, 'paused', '42.1%, 10MB/s, 3:21 left', '42.1%, 0B/s', '42.1%, paused']);
  test.same([0, 59, 3599, 3600, 90_061].map(duration), [
    '0:00', '0:59', '59:59', '1:00:00', '1d 1:01:01',
  ]);
  test.same([0, 999, 1000, 2097152, 512 * 1024 ** 2, 10 * 1024 ** 3].map(humanSize), [
    '0B', '999B', '1.0KB', '2.0MB', '512MB', '10GB',
  ]);
});

it('errors: one line each, an exit code for each', async (test) => {
  const refused = new HastError('HAST_E_PROMOTE_REFUSED', 'not safe', { hint: 'wait' });
  test.equal(errorLine('hastctl', refused), 'hastctl: error: not safe; try: wait\n');
  const lines = new HastError('HAST_E_IO', 'a\n  b', { hint: 'c' });
  test.equal(errorLine('hastd', lines), 'hastd: error: a; b; try: c\n');
  const cause = Object.assign(new Error('gone'), { code: 'ENOENT' });
  test.same([
    refused, new HastError('HAST_E_DEVICE', 'x', { cause }), new HastError('HAST_E_DEVICE', 'x'),
    new HastError('HAST_E_TIMEOUT', 'x'), new Error('bug'),
  ].map(exitCodeOf), [77, 66, 71, 75, 70]);
});
