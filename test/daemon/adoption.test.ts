/**
 * Goal: what one hastd leaves for the next: records of roles, messages over a socket, descriptors
 * of another process. Method: the real files, sockets and processes, without a worker.
 */
import * as childProcess from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import t from 'tap';
import { openProcess, reapChild, signalProcess, takeDescriptor } from '../../lib/base/libc.ts';
import { MessageSocket } from '../../lib/daemon/message-socket.ts';
import { RoleRecordFile, type RoleRecord } from '../../lib/daemon/role-record.ts';
import { ServiceManager } from '../../lib/daemon/service-manager.ts';
import { hashOf, workerFile } from '../../lib/daemon/worker-files.ts';
import { recordingLog, resourceConfig, shortDirectory } from './world.ts';

const it = t.test;
const serviceManager = new URL('../../lib/daemon/service-manager.js', import.meta.url).href;

it('files of workers: the name, or a hash where a socket could not have it', async (test) => {
  test.equal(workerFile('/run/hast', 'shared', 'socket'), '/run/hast/.workers/shared.sock');
  test.equal(workerFile('/run/hast', 'shared', 'record'), '/run/hast/.workers/shared.json');
  const long = workerFile('/run/hast', 'x'.repeat(127), 'socket');
  test.equal(long, `/run/hast/.workers/${hashOf('x'.repeat(127))}.sock`);
  test.ok(Buffer.byteLength(long) <= 107);
});

it('record: of this boot only, gone in role init', async (test) => {
  const { log, lines } = recordingLog();
  const file = path.join(test.testdir(), 'folder', 'a.json');
  const record: RoleRecord = {
    role: 'primary', resource: resourceConfig('a'), isDetached: false,
    negotiated: { minor: 45, flags: 1, flags2: 2, maxWrite: 4096 },
  };
  const store = new RoleRecordFile(file, log);
  test.equal(store.read(), null, 'none yet');
  store.write(record);
  test.same(new RoleRecordFile(file, log).read(), record);
  test.equal(fs.statSync(file).mode & 0o777, 0o600);
  test.equal(fs.statSync(path.dirname(file)).mode & 0o777, 0o700);
  const text = fs.readFileSync(file, 'utf8');
  fs.writeFileSync(file, text.replace(/"bootId":"[^"]*"/, '"bootId":"another"'));
  test.equal(store.read(), null, 'of another boot');
  fs.writeFileSync(file, text.replace('"version":1', '"version":2'));
  test.equal(store.read(), null, 'of another release');
  test.same(lines, []);
  fs.writeFileSync(file, text.slice(0, 20));
  test.equal(store.read(), null, 'cut off');
  test.equal(lines.length, 1);
  store.write(null);
  test.notOk(fs.existsSync(file));
});

it('messages: whole, in order, however they are cut; what is none ends it', async (test) => {
  const file = path.join(shortDirectory(test), 's');
  const got: unknown[] = [];
  let why = '';
  const ended = new Promise<void>((resolve) => {
    const server = net.createServer((socket) => {
      new MessageSocket(socket, {
        message: (message) => got.push(message),
        closed: (text) => {
          why = text;
          server.close();
          resolve();
        },
      });
    });
    server.listen(file, () => {
      const client = net.connect(file);
      client.on('error', () => undefined);
      const text = `${JSON.stringify({ type: 'ü\n' })}\n${JSON.stringify({ type: 'a' })}\n`;
      const raw = Buffer.from(text);
      client.write(raw.subarray(0, 10));
      setTimeout(() => client.write(raw.subarray(10, 12)), 20);
      setTimeout(() => client.write(Buffer.concat([raw.subarray(12), Buffer.from('{"type"')])), 40);
      setTimeout(() => client.write(':"b"}\nnonsense\n{"type":"c"}\n'), 60);
    });
  });
  await ended;
  test.same(got, [{ type: 'ü\n' }, { type: 'a' }, { type: 'b' }], 'nothing after the nonsense');
  test.equal(why, 'a message is no JSON');
});

it('descriptors of another process', async (test) => {
  const file = path.join(test.testdir({ f: 'text' }), 'f');
  const fd = fs.openSync(file, 'r');
  const child = childProcess.spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', fd] });
  const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
  fs.readSync(fd, Buffer.alloc(2));
  const opened = openProcess(child.pid ?? 0);
  test.equal(opened.errno, 0);
  const taken = takeDescriptor(opened.fd, 3);
  test.equal(taken.errno, 0);
  const rest = Buffer.alloc(8);
  test.equal(fs.readSync(taken.fd, rest), 2, 'the same description: it reads on');
  test.not(takeDescriptor(opened.fd, 77).errno, 0, 'one that is not open');
  test.equal(signalProcess(opened.fd, 9), 0);
  test.equal(await ended, 'SIGKILL');
  test.not(signalProcess(opened.fd, 9), 0, 'it is gone');
  reapChild(child.pid ?? 0);
  for (const one of [fd, taken.fd, opened.fd]) fs.closeSync(one);
  test.not(openProcess(child.pid ?? 0).errno, 0);
});

it('service manager: descriptors passed to this process, once; what nobody takes is closed', async (
  test,
) => {
  const { log, lines } = recordingLog();
  const before = { ...process.env };
  test.teardown(() => {
    process.env = before;
  });
  // Numbers 3 and up, as a service manager passes them: of a process that does nothing else.
  const script = `
    import { ServiceManager } from ${JSON.stringify(serviceManager)};
    import * as fs from 'node:fs';
    process.env.LISTEN_PID = String(process.pid);
    const services = new ServiceManager({ warn: (fields) => console.log(fields.name) });
    const isOpen = (fd) => fs.existsSync('/proc/self/fd/' + fd) &&
      fs.readlinkSync('/proc/self/fd/' + fd).endsWith('/f');
    console.log(process.env.LISTEN_FDS, services.take('b'), services.take('b'));
    services.letGo('a');
    services.keep('c', 5);
    services.settle();
    console.log([3, 4, 5, 6].map(isOpen).join());
  `;
  const file = path.join(test.testdir({ f: 'text' }), 'f');
  const fds = [0, 1, 2, 3].map(() => fs.openSync(file, 'r'));
  const { NODE_OPTIONS: _, NOTIFY_SOCKET: __, ...env } = process.env;
  const ended = childProcess.spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit', ...fds], encoding: 'utf8',
    env: { ...env, LISTEN_FDS: '4', LISTEN_FDNAMES: 'a:b:c:d' },
  });
  for (const fd of fds) fs.closeSync(fd);
  test.equal(ended.stdout, 'undefined 4 null\nd\nfalse,true,false,false\n');
  Object.assign(process.env, { LISTEN_PID: '1', LISTEN_FDS: '1', LISTEN_FDNAMES: 'fuse-a' });
  test.equal(new ServiceManager(log).take('fuse-a'), null, 'for another process');
  test.same(lines, []);
});
