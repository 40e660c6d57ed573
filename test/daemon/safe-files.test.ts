/**
 * Goal: who can write somewhere near cannot make hastd, which is root, write elsewhere; and nobody
 * but root, and a group that was named, can command it.
 * Method: links, pipes and open directories planted where hastd makes its files; other users.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { silentLogger } from '../../lib/base/log.ts';
import { groupId } from '../../lib/config/groups.ts';
import { loadConfig } from '../../lib/config/load.ts';
import { startControlServer } from '../../lib/control/server.ts';
import { Daemon } from '../../lib/daemon/daemon.ts';
import { KeptFiles } from '../../lib/daemon/kept-files.ts';
import { launch } from '../../lib/daemon/launcher.ts';
import { takePidfile } from '../../lib/daemon/pidfile.ts';
import { RoleRecordFile } from '../../lib/daemon/role-record.ts';
import { openInflight } from '../../lib/disk/inflight-file.ts';
import { UndoFileWriter } from '../../lib/disk/undo-file.ts';
import { undoInfo } from '../format/samples.ts';
import {
  FakeKernel, fakeWorker, nodeConfig, recordingLog, resourceConfig, shortDirectory,
} from './world.ts';

const nobody = '65534';

function planted(test: Test): { folder: string; victim: string; untouched: () => void } {
  const folder = shortDirectory(test);
  const victim = path.join(folder, 'victim');
  fs.writeFileSync(victim, 'precious', { mode: 0o644 });
  return {
    folder, victim,
    untouched: () => {
      test.equal(fs.readFileSync(victim, 'utf8'), 'precious', 'what the link names is untouched');
    },
  };
}

t.test('safe files: a pidfile that is a link, has a second name, or is a pipe', async (test) => {
  const { folder, victim, untouched } = planted(test);
  const file = path.join(folder, 'pid');
  fs.symlinkSync(victim, file);
  await test.rejects(takePidfile(file), {
    code: 'HAST_E_IO', message: /it is a link/, hint: /rm /,
  });
  fs.rmSync(file);
  fs.linkSync(victim, file);
  await test.rejects(takePidfile(file), { code: 'HAST_E_IO', message: /another name/ });
  fs.rmSync(file);
  spawnSync('mkfifo', [file]);
  await test.rejects(takePidfile(file), { code: 'HAST_E_IO', message: /it is no file/ });
  untouched();
});

t.test('safe files: a log that is a link', async (test) => {
  const { folder, victim, untouched } = planted(test);
  const logFile = path.join(folder, 'hastd.log');
  fs.symlinkSync(victim, logFile);
  const options = { script: '/nowhere', args: [], logFile, controlPath: path.join(folder, 's') };
  await test.rejects(launch(options), { code: 'HAST_E_IO', message: /the log .*it is a link/ });
  untouched();
});

t.test('safe files: directories of others, or open to them', async (test) => {
  for (const keyword of ['rundir', 'devdir'] as const) {
    const { folder } = planted(test);
    const config = { ...nodeConfig(folder, { resources: [] }), [keyword]: path.join(folder, 'x') };
    fs.mkdirSync(config[keyword]);
    const start = (): Promise<Daemon> => Daemon.start({
      config, load: () => ({ config, problems: [], format: () => '' }), log: silentLogger,
      program: fakeWorker, operations: new FakeKernel(),
    });
    fs.chmodSync(config[keyword], 0o777);
    const hint = new RegExp(`chmod go-w .* change '${keyword}'`);
    await test.rejects(start(), { code: 'HAST_E_IO', message: /others than root may write/, hint });
    fs.chmodSync(config[keyword], 0o755);
    fs.chownSync(config[keyword], Number(nobody), 0);
    await test.rejects(start(), { code: 'HAST_E_IO', message: /belongs to user 65534/ });
    fs.chownSync(config[keyword], 0, 0);
    test.equal(await (await start()).stop(), true, 'and then it starts');
  }
});

t.test('safe files: undo files', async (test) => {
  const { folder, victim, untouched } = planted(test);
  const file = path.join(folder, 'mine.undo');
  fs.symlinkSync(victim, file);
  await test.rejects(UndoFileWriter.create(file, undoInfo), { code: 'HAST_E_USAGE' });
  fs.rmSync(file);
  fs.symlinkSync(path.join(folder, 'absent'), file);
  await test.rejects(UndoFileWriter.create(file, undoInfo), { code: 'HAST_E_USAGE' });
  test.notOk(fs.existsSync(path.join(folder, 'absent')), 'nothing is made through a link');
  const open = path.join(folder, 'undo');
  fs.mkdirSync(open);
  fs.chmodSync(open, 0o777);
  const { log, lines } = recordingLog();
  const kept = new KeptFiles(UndoFileWriter.create, () => open, log);
  const errno = await new Promise<number>((resolve) => kept.create(undoInfo, resolve));
  test.not(errno, 0, 'a directory that is open to others keeps nothing');
  test.ok(lines.some((line) => line.includes('others than root may write')));
  untouched();
});

t.test('safe files: what a parent and a worker leave to the next ones', async (test) => {
  const { folder, victim, untouched } = planted(test);
  const file = path.join(folder, 'shared.json');
  fs.symlinkSync(victim, `${file}.new`);
  const record = {
    role: 'secondary', resource: resourceConfig('shared', {}), negotiated: null, isDetached: false,
  } as const;
  new RoleRecordFile(file, silentLogger).write(record);
  test.match(new RoleRecordFile(file, silentLogger).read(), { role: 'secondary' });
  test.equal(fs.lstatSync(file).mode & 0o777, 0o600);
  const table = path.join(folder, 'shared.inflight');
  fs.symlinkSync(victim, table);
  for (const inherits of [true, false]) {
    const memory = openInflight(table, inherits, silentLogger);
    if (memory !== null) test.equal(memory.inherited, false);
    test.ok(fs.lstatSync(table).isFile(), 'a link is replaced');
    fs.rmSync(table);
    fs.symlinkSync(victim, table);
  }
  untouched();
});

/** Whether a user may connect: 'yes', or the errno. */
function tries(socket: string, groups: readonly string[]): string {
  const script = `process.getBuiltinModule('net').connect(${JSON.stringify(socket)})` +
    ".on('connect', () => { console.log('yes'); process.exit() })" +
    ".on('error', ({ code }) => console.log(code))";
  const more = groups.length === 0 ? ['--clear-groups'] : [`--groups=${groups.join(',')}`];
  const { NODE_OPTIONS: _, ...env } = process.env;
  const { stdout } = spawnSync('setpriv', [
    `--reuid=${nobody}`, `--regid=${nobody}`, ...more, process.execPath, '-e', script,
  ], { encoding: 'utf8', env });
  return stdout.trim();
}

t.test('control socket: for root, and for a group that is named', async (test) => {
  const folder = shortDirectory(test);
  fs.chmodSync(folder, 0o755);
  const gid = groupId('daemon');
  if (gid === null) throw new Error('no group daemon');
  for (const group of [null, gid]) {
    const file = path.join(folder, `socket-${String(group)}`);
    const server = await startControlServer({
      path: file, group, log: silentLogger, handle: () => Promise.reject(new Error('not asked')),
    });
    const stat = fs.statSync(file);
    test.equal(stat.mode & 0o777, group === null ? 0o600 : 0o660);
    test.equal(stat.uid, 0);
    if (group !== null) test.equal(stat.gid, gid);
    test.equal(tries(file, []), 'EACCES', 'another user');
    test.equal(tries(file, [String(gid)]), group === null ? 'EACCES' : 'yes', 'a member');
    await server.close();
  }
});

t.test('control-group: a name, a number, an unknown one', async (test) => {
  const load = (line: string) => loadConfig({
    file: '/etc/hast.conf', node: 'h1', readFile: () => `${line}\n`,
  });
  test.same(load('control-group daemon').config?.controlGroup, {
    name: 'daemon', gid: groupId('daemon'),
  });
  test.same(load('control-group 4242').config?.controlGroup, { name: '4242', gid: 4242 });
  test.equal(load('').config?.controlGroup, null);
  const { problems } = load('control-group no-such-group');
  test.match(problems.filter(({ severity }) => severity === 'error'), [{
    severity: 'error', line: 1, message: "there is no group 'no-such-group'", hint: /groupadd/,
  }]);
  test.equal(load('control-group no-such-group').config, undefined);
});
