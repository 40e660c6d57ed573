/**
 * Goal: bad input of one operator on one node. Each is refused with a nonzero exit code and a
 * sentence that says what and what to do; nothing is lost, nothing hangs.
 */
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { until } from '../../cli/lab-run.ts';
import { checksums, makeFilesystem, pairTest, writeFile } from '../fixtures/e2e-lab.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const exit = {
  data: 65, noInput: 66, system: 71, noFile: 72, temporary: 75, refused: 77, config: 78,
};

/** The command fails with that code and says something like it, in one line each. */
async function fails(
  inner: Test, node: LabNode, argv: string[], code: number, text: RegExp | string,
): Promise<void> {
  const result = await node.run(argv, 40_000);
  const name = `${argv.slice(0, 4).join(' ')}: ${String(text)}`;
  const said = `${result.stdout}${result.stderr}`;
  inner.equal(result.code, code, `${name}: exit code ${code}, said: ${said.trim()}`);
  inner.match(said, text, name);
  inner.notMatch(said, /^\s+at .*:\d+:\d+\)?$/m, `${name}: no stack trace`);
}

async function configurations(inner: Test, lab: Lab): Promise<void> {
  const { h1, config } = lab;
  const good = fs.readFileSync(config, 'utf8');
  const cases: { title: string; text: string; says: RegExp }[] = [
    { title: 'garbage', text: '\u0000\u0001}{ resource ][', says: /hast\.conf:1/ },
    { title: 'cut short', text: good.slice(0, good.length - 4), says: /'\}'|not closed|missing/ },
    { title: 'a word for a number', text: good.replace('timeout 5', 'timeout soon'),
      says: /timeout.*soon|whole number of seconds/ },
    { title: 'a negative number', text: good.replace('timeout 5', 'timeout -5'),
      says: /whole number of seconds/ },
    { title: 'an unknown mode', text: good.replace('resource shared {',
      'resource shared {\n    replication sometimes'), says: /fullsync.*memsync.*async/ },
    { title: 'an unknown keyword', text: `replicaton async\n${good}`,
      says: /did you mean 'replication'/ },
    { title: 'a relative path', text: good.replace(`local ${h1.local}`, 'local disk'),
      says: /is relative[^]*begin with \// },
    { title: 'an impossible address', text: good.replace('remote tcp://10.77.0.2', 'remote 10:x:y'),
      says: /remote|address/ },
    { title: 'no resource of this node', text: good.replaceAll('on h1 {', 'on h9 {'),
      says: /h1/ },
  ];
  for (const { title, text, says } of cases) {
    fs.writeFileSync(config, text);
    inner.comment(title);
    await fails(inner, h1, ['hastctl', 'check'], exit.config, says);
    await fails(inner, h1, ['hastd'], exit.config, says);
    await fails(inner, h1, ['hastctl', 'status'], exit.config, says);
  }
  inner.same(h1.processes(), [], 'nothing was started');
  fs.writeFileSync(config, good);
  await fails(inner, h1, ['hastctl', '-c', '/nonexistent/hast.conf', 'status'], exit.noFile,
    '/nonexistent/hast.conf');
  await fails(inner, h1, ['hastd', '-c', '/nonexistent/hast.conf'], exit.noFile, 'nonexistent');
  await fails(inner, h1, ['hastctl', 'status'], exit.system, /hastd.*; try: hastd/);
  await fails(inner, h1, ['hastctl', 'role', 'primary', resourceName], exit.system, /hastd/);
  await fails(inner, h1, ['hastctl', 'create', 'sharde'], exit.data, "did you mean 'shared'");
}

async function creating(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const create = ['hastctl', 'create', resourceName];
  fs.rmSync(h1.disk);
  await fails(inner, h1, create, exit.noInput, `${h1.disk} does not exist`);
  fs.mkdirSync(h1.disk);
  await fails(inner, h1, create, exit.noInput, 'neither a block device nor a regular file');
  fs.rmdirSync(h1.disk);
  h1.makeDisk(64 * 1024);
  await fails(inner, h1, create, exit.data, /too few.*try: give it \d+ MiB or more/);
  inner.ok(fs.readFileSync(h1.disk).every((one) => one === 0), 'it is untouched');

  h1.makeDisk(64 * MiB);
  const loop = (await h1.succeed(['losetup', '--find', '--show', h1.disk])).trim();
  await fails(inner, h1, create, exit.temporary, `attached to ${loop}`);
  await h1.succeed(['losetup', '-d', loop]);
  await fails(inner, h1, [...create, '-m', '1T'], exit.data, 'does not fit');

  await h1.succeed(['mkfs.ext4', '-q', '-F', '-L', 'precious', h1.disk]);
  const before = fs.readFileSync(h1.disk);
  await fails(inner, h1, create, exit.refused,
    /holds an? ext4 signature \(label precious\).*--force/);
  inner.ok(before.equals(fs.readFileSync(h1.disk)), 'the file system is untouched');
  await h1.control('create', '--force', resourceName);
  const { copyId } = h1.dump();
  await fails(inner, h1, create, exit.refused, /holds a copy already.*--force/);
  inner.equal(h1.dump().copyId, copyId, 'the copy is the same');
  await h1.control('create', '--force', resourceName);
  inner.not(h1.dump().copyId, copyId, 'unless by force');
}

async function mounted(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const create = ['hastctl', 'create', '--force', resourceName];
  await h1.succeed(['mkfs.ext4', '-q', h1.local]);
  await h1.succeed(['mount', h1.local, h1.mountPoint]);
  await fails(inner, h1, create, exit.temporary, /in use: mounted/);
  await h1.start();
  await fails(inner, h1, ['hastctl', 'role', 'secondary', resourceName], exit.temporary,
    /in use: mounted/);
  inner.equal((await h1.status()).role, 'init', 'the role is what it was');
  await h1.unmount();
  await fails(inner, h1, ['hastctl', 'role', 'secondary', resourceName], exit.noInput,
    /hastctl create/);
  await h1.control('create', '--force', resourceName);
  await h1.control('role', 'secondary', resourceName);
  const busy = await h1.run(['mount', h1.local, h1.mountPoint]);
  inner.not(busy.code, 0, 'what hastd uses cannot be mounted');
}

async function daemons(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2, config } = lab;
  await h1.control('create', resourceName);
  await h1.start();
  await fails(inner, h1, ['hastd'], exit.temporary, `hastd runs already (pid ${h1.pid}`);
  await h1.control('role', 'secondary', resourceName);
  await fails(inner, h1, ['hastctl', 'create', '--force', resourceName], exit.temporary,
    'locked by another process');
  await fails(inner, h1, ['hastctl', 'role', 'secondary', 'other'], exit.data,
    "no resource 'other'");
  await fails(inner, h1, ['hastctl', 'role', 'master', resourceName], 64, "unknown role 'master'");

  // Another daemon with everything its own but the disk.
  const good = fs.readFileSync(config, 'utf8');
  fs.writeFileSync(config, good.replace(`local ${h2.local}`, `local ${h1.local}`));
  await h2.start();
  await fails(inner, h2, ['hastctl', 'role', 'secondary', resourceName], exit.temporary,
    'locked by another process');
  await fails(inner, h2, ['hastctl', 'role', 'primary', resourceName], exit.temporary,
    'locked by another process');
  inner.equal((await h2.status()).role, 'init');
  await h2.stop();
  fs.writeFileSync(config, good);

  // The port of h2 belongs to somebody else.
  const [nsenter = '', namespace = ''] = lab.network.prefix('h2');
  const mark = path.join(lab.directory, 'port-is-held');
  const script = "require('node:net').createServer().listen(8457,'10.77.0.2'," +
    `()=>require('node:fs').writeFileSync('${mark}',''))`;
  const holder = h2.run([nsenter, namespace, 'env', ...plainNode, '-e', script], 60_000);
  holder.catch(() => undefined);
  await until('the holder of the port', 20_000, () => fs.existsSync(mark) || undefined);
  await fails(inner, h2, ['hastd'], exit.system, /cannot listen on .*8457.*EADDRINUSE/);
  inner.notOk(fs.existsSync(path.join(h2.rundir, 'hastctl.sock')), 'nothing is left of it');
  await h2.kill();
}

/** A client at the address of h2 that says nothing, or noise, or half of something. */
const noiseScript = `
const net = require('node:net'); const crypto = require('node:crypto');
for (let i = 0; i < 40; i++) {
  const socket = net.connect(8457, '10.77.0.1', () => {
    if (i % 4 === 1) socket.write(crypto.randomBytes(300000));
    if (i % 4 === 2) socket.write('GET / HTTP/1.1\\r\\n\\r\\n');
    if (i % 4 === 3) socket.write(crypto.randomBytes(20));
  });
  socket.on('error', () => undefined);
  socket.resume();
}
setTimeout(() => process.exit(process._getActiveHandles().filter(
  (one) => one instanceof net.Socket && one.remotePort === 8457).length > 0 ? 9 : 0), 9000);
`;

async function noise(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  const { worker } = await h1.status();
  const script = path.join(lab.directory, 'noise.cjs');
  fs.writeFileSync(script, noiseScript);
  const client = h2.run([...lab.network.prefix('h2'), 'env', ...plainNode, script], 30_000);
  client.catch(() => undefined);
  await writeFile(h1, 'under noise', '8M');
  inner.equal((await h1.status()).status, 'complete', 'the pair stays complete');
  await h2.control('status');
  inner.equal((await client).code, 0, 'who says nothing is dropped');
  await writeFile(h1, 'after noise', '1M');

  // The control socket hears noise too.
  const socket = net.connect(path.join(h1.rundir, 'hastctl.sock'));
  socket.on('error', () => undefined);
  socket.write('{"command": "role", "role": 7}\n\u0000garbage\n');
  const silent = net.connect(path.join(h1.rundir, 'hastctl.sock'));
  await h1.control('status');
  socket.destroy();
  silent.destroy();
  inner.equal((await h1.status()).worker, worker, 'the worker is the same');
  const sums = await checksums(h1);
  inner.equal(sums.trim().split('\n').length, 2);
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

t.setTimeout(290_000);
await pairTest(t, 'bad input: configurations, absent daemon', {}, configurations);
await pairTest(t, 'bad input: create where it would destroy or cannot work', {}, creating);
await pairTest(t, 'bad input: a mounted component', { local: 'block' }, mounted);
await pairTest(t, 'bad input: two daemons, a port in use', {}, daemons);
await pairTest(t, 'bad input: silence and noise on the sockets', {}, noise);
