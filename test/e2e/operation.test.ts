/**
 * Goal: a pair at work is changed: its configuration by SIGHUP, its roles while the device is in
 * use. What cannot be done changes nothing and says why.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep, until } from '../../cli/lab-run.ts';
import { killPart } from '../fixtures/e2e-kill.ts';
import { checksums, makeFilesystem, pairTest, writeFile } from '../fixtures/e2e-lab.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const refused = 77;

/** The line that the daemon logs about a reload after `work`. */
async function reload(node: LabNode): Promise<string> {
  const before = node.log().length;
  process.kill(node.pid ?? 0, 'SIGHUP');
  return await until(`a reload on ${node.name}`, 20_000, () => {
    const lines = node.log().slice(before).split('\n');
    return lines.find((line) => line.includes('reloaded'));
  });
}

async function reloadTest(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2, nodes } = lab;
  lab.configure({ resource: ['replication fullsync', 'compression none'] });
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  const { worker } = await h1.status();

  lab.configure({
    global: ['metrics 9457'],
    resource: ['replication async', 'checksum sha256', 'compression lzf'],
  });
  for (const node of nodes) inner.match(await reload(node), 'configuration reloaded');
  for (const node of nodes) {
    const { replication, checksum, compression } = await node.status();
    inner.same([replication, checksum, compression], ['async', 'sha256', 'lzf'], 'live');
  }
  await writeFile(h1, 'after the reload', '4M');
  await lab.settle();
  await metricsTest(inner, lab);

  // One change that cannot be made live keeps the whole: also the one that could.
  const other = path.join(lab.directory, 'other');
  fs.writeFileSync(other, '');
  const text = fs.readFileSync(lab.config, 'utf8');
  fs.writeFileSync(lab.config, text
    .replace('replication async', 'replication memsync')
    .replace(`local ${h1.local}`, `local ${other}`)
    .replace(`rundir ${h1.rundir}`, `rundir ${h1.rundir}2`));
  const line = await reload(h1);
  inner.match(line, 'configuration not reloaded');
  inner.match(line, `resource ${resourceName}: local: it cannot change while the role is primary`);
  inner.match(line, 'rundir: it is fixed while the daemon runs', 'every refusal is listed');
  inner.equal((await h1.status()).replication, 'async', 'nothing was applied');
  inner.equal((await h1.status()).local, h1.local);

  fs.writeFileSync(lab.config, 'resource { garbage');
  inner.match(await reload(h1), 'configuration not reloaded', 'garbage is not loaded');
  lab.configure();
  inner.match(await reload(h1), 'configuration reloaded');
  inner.equal((await h1.status()).worker, worker, 'the worker went on all the time');
  inner.equal((await h2.status()).status, 'complete');
  await writeFile(h1, 'at the end', '1M');
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

/** `metrics` came with the reload; a node of a lab has a loopback of its own. */
async function metricsTest(inner: Test, { h1, h2 }: Lab): Promise<void> {
  const get = async (node: LabNode, path: string): Promise<string> => {
    const script = `fetch('http://127.0.0.1:9457/${path}').then((reply) => reply.text())` +
      '.then((text) => process.stdout.write(text))';
    return await node.onNode(['env', ...plainNode, '-e', script]);
  };
  const label = `resource="${resourceName}"`;
  const [one, two] = [await get(h1, 'metrics'), await get(h2, 'metrics')];
  inner.match(one, `hast_role{${label},role="primary"} 1\n`);
  inner.match(one, `hast_local_disk{${label},state="up-to-date"} 1\n`);
  inner.match(one, new RegExp(`hast_requests_total\\{${label},kind="write"\\} [1-9]`));
  inner.match(two, new RegExp(`hast_executed_bytes_total\\{${label},kind="write"\\} [1-9]`));
  for (const stage of ['total', 'local', 'peer', 'network', 'peer-disk']) {
    const labels = `${label},stage="${stage}",kind="write"`;
    inner.match(one, new RegExp(`hast_latency_seconds_count\\{${labels}\\} [1-9]`), stage);
  }
  const { resources: [shared] } = JSON.parse(await get(h1, 'status.json')) as {
    resources: { map: { mediaSize: number }; hasAnswered: boolean }[];
  };
  inner.match(shared, { hasAnswered: true, map: { peerStale: [0] } });
  inner.equal(await get(h1, `healthz/${resourceName}`), 'primary, complete\n');
}

async function inUse(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'file', '2M');
  const sums = await checksums(h1);
  for (const role of ['secondary', 'init']) {
    const { code, stderr } = await h1.hastctl('role', role, resourceName);
    inner.equal(code, refused, `role ${role} is refused`);
    inner.match(stderr, `mounted on ${h1.mountPoint}`, 'and names who holds the device');
    inner.match(stderr, /try: .*unmount/);
  }
  process.kill(h1.pid ?? 0, 'SIGTERM');
  await until('the refusal', 10_000, () =>
    h1.log().includes('hastd does not stop: the device is in use') || undefined);
  inner.equal((await h1.status()).status, 'complete', 'SIGTERM ends no mounted device');
  inner.equal(await checksums(h1), sums, 'the file system works on');

  const open = await fs.promises.open(h1.device, 'r');
  await h1.unmount();
  const held = await h1.hastctl('role', 'secondary', resourceName);
  inner.equal(held.code, refused);
  inner.match(held.stderr, `pid ${process.pid}`, 'a program that has it open is named');
  await open.close();
  await h1.control('role', 'secondary', resourceName);
  inner.notOk(fs.existsSync(h1.device), 'allowed after umount: the device is gone');
  inner.equal((await h1.status()).role, 'secondary');
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  inner.equal(await checksums(h2), sums);
  await h2.unmount();
  for (const node of lab.nodes) await node.stop();
  inner.notOk(fs.existsSync(path.join(h1.rundir, 'hastd.pid')), 'SIGTERM ends an unused daemon');
}

async function byForce(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'file', '2M');
  const sums = await checksums(h1);
  await lab.settle();
  await h1.control('role', 'init', '--force', resourceName);
  inner.equal((await h1.status()).role, 'init');
  inner.notOk(fs.existsSync(h1.device), 'the device is gone');
  const file = path.join(h1.mountPoint, 'x');
  const write = await h1.run(['sh', '-c', 'echo text > "$1" && sync -f "$1"', 'sh', file]);
  inner.not(write.code, 0, 'who used it gets errors, and does not hang');
  await h1.succeed(['umount', h1.mountPoint])
    .catch(() => h1.succeed(['umount', '-l', h1.mountPoint]));

  // h1 answers and may have newer data: h2 must hear of it first.
  const alone = await h2.hastctl('role', 'primary', resourceName);
  inner.equal(alone.code, refused);
  inner.match(alone.stderr, 'the peer is alive, but there was no handshake with it');
  await h1.control('role', 'secondary', resourceName);
  await lab.settle();
  await h2.control('role', 'primary', resourceName);
  await h2.mount('-o', 'noatime');
  inner.equal(await checksums(h2), sums, 'the peer has what was synced');
  await writeFile(h2, 'more', '2M');
  await lab.settle();
  await h2.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  // And the forced node works again.
  await h2.control('role', 'secondary', resourceName);
  await h1.control('role', 'primary', resourceName);
  await h1.mount('-o', 'noatime');
  inner.equal((await checksums(h1)).split('\n').length, sums.split('\n').length + 1);
}

/** The worker, and then everything, is killed on the primary, and the same node goes on. */
async function killed(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  await writeFile(h1, 'file', '2M');
  const sums = await checksums(h1);
  const { worker } = await h1.status();
  process.kill(worker ?? 0, 'SIGKILL');
  await h1.untilStatus('another worker', (now) => now.worker !== null && now.worker !== worker);
  inner.equal(await checksums(h1), sums, 'every file is there after the worker was killed');
  await lab.settle();

  // The parent and its worker, with I/O under way. Mounted file system, loop device and FUSE mount
  // stay behind, all dead.
  const writing = h1.run(['dd', 'if=/dev/zero', `of=${h1.mountPoint}/zeros`, 'bs=64k',
    'count=800', 'oflag=direct', 'status=none']);
  writing.catch(() => undefined);
  await sleep(100);
  await killPart(h1, 'node', (await h1.status()).worker);
  await writing;
  await h1.start();
  await h1.control('role', 'primary', resourceName);
  const again = `${h1.mountPoint}2`;
  fs.mkdirSync(again);
  await h1.succeed(['mount', '-o', 'noatime', h1.device, again]);
  await h1.succeed(['cat', path.join(again, 'file')]);
  await h1.succeed(['umount', '-l', h1.mountPoint]);
  await h1.succeed(['umount', again]);
  await h1.mount('-o', 'noatime');
  fs.rmSync(path.join(h1.mountPoint, 'zeros'), { force: true });
  inner.equal(await checksums(h1), sums, 'and after everything was killed');
  await lab.settle();
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

t.setTimeout(290_000);
await pairTest(t, 'operation: reload by SIGHUP', {}, reloadTest);
await pairTest(t, 'operation: a device in use is not taken away', {
  resource: ['on-stop refuse'],
}, inUse);
await pairTest(t, 'operation: unless by force', {}, byForce);
await pairTest(t, 'operation: a killed primary comes back on the same node', {}, killed);
