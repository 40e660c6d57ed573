/**
 * Goal: what docs/examples/postgresql promises: the first machine dies while clients commit, the
 * other one goes on, and no transaction that a client heard of is missing.
 * Method: a real PostgreSQL with page checksums on the example's configuration; psql prints the row
 * of an INSERT only after its commit was acknowledged.
 */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { until } from '../../cli/lab-run.ts';
import { findPrograms } from '../bench/postgres.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';

const name = resourceName;
const clients = 4;
/** Acknowledged commits of each client before the machine dies. */
const commits = 150;
const perClient = 1_000_000;
const folder = findPrograms();
const user = 'postgres';
const clientGroups: number[] = [];

/** The values of the example, for both nodes. */
function exampleLines(): string[] {
  const text = fs.readFileSync('docs/examples/postgresql/hast.conf', 'utf8');
  return ['replication', 'cache'].map((word) => {
    const [line] = new RegExp(`^ *${word} .*$`, 'm').exec(text) ?? [];
    if (line === undefined) throw new Error(`the example has no ${word}`);
    return line;
  });
}

function postgres(node: LabNode, program: string, ...args: string[]): Promise<string> {
  const data = path.join(node.mountPoint, 'pg');
  const file = path.join(folder ?? '', program);
  return node.succeed(['runuser', '-u', user, '--', file, ...args.map((one) =>
    one.replaceAll('DATA', data))], 60_000);
}

async function startServer(node: LabNode): Promise<void> {
  await postgres(node, 'pg_ctl', '--pgdata', 'DATA', '--wait', '--log', 'DATA/server.log', '-o',
    '-c listen_addresses= -c unix_socket_directories=DATA -c shared_buffers=16MB', 'start');
}

/** It writes over its environment, by which the lab finds the processes of a node. */
function serverProcesses(node: LabNode): number[] {
  const data = path.join(node.mountPoint, 'pg');
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      const words = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return words.includes(data) && words.some((word) => word.endsWith('/postgres'));
    } catch {
      return false; // it has ended
    }
  }).map(Number).flatMap((pid) => {
    const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return [pid, ...children.split(' ').filter(Boolean).map(Number)];
  });
}

function kill(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // it has ended
    }
  }
}

interface Client {
  heard: string[];
  /** No more commands; resolves when everything that psql said was read. */
  end(): Promise<void>;
}

/** Commits one row after the other until the server is gone; gives the rows it heard of. */
function client(node: LabNode, number: number): Client {
  const data = path.join(node.mountPoint, 'pg');
  const psql = spawn('runuser', [
    '-u', user, '--', path.join(folder ?? '', 'psql'), '-h', data, '-XqAt', user,
  ], { stdio: ['pipe', 'pipe', 'ignore'], detached: true });
  // With runuser, whose child psql is.
  if (psql.pid !== undefined) clientGroups.push(-psql.pid);
  const heard: string[] = [];
  let rest = '';
  let next = number * perClient;
  const insert = (): void => {
    psql.stdin.write(`INSERT INTO log VALUES (${next++}) RETURNING id;\n\\echo\n`);
  };
  psql.stdin.on('error', () => undefined);
  psql.stdout.on('data', (chunk: Buffer) => {
    const lines = `${rest}${chunk.toString()}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines.filter((one) => one !== '')) {
      heard.push(line);
      insert();
    }
  });
  insert();
  const ended = new Promise<void>((resolve) => { psql.once('close', () => resolve()); });
  const end = (): Promise<void> => {
    psql.stdin.end();
    return ended;
  };
  return { heard, end };
}

async function failover(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  lab.configure({
    resource: exampleLines(), mount: ['filesystem ext4', 'options noatime', 'mkfs on'],
  });
  fs.chmodSync(lab.directory, 0o711);
  for (const node of lab.nodes) {
    fs.chmodSync(node.directory, 0o711);
    await node.control('create', name);
    await node.start();
  }
  await h2.control('role', 'secondary', name);
  await h1.control('up', name);
  await lab.settle();
  const data = path.join(h1.mountPoint, 'pg');
  await h1.succeed(['install', '-d', '-m', '700', '-o', user, data]);
  await postgres(h1, 'initdb', '--pgdata', 'DATA', '--auth=trust', '--data-checksums',
    '--no-instructions');
  await startServer(h1);
  const sql = (node: LabNode, text: string): Promise<string> =>
    postgres(node, 'psql', '-h', 'DATA', '-XqAt', '-c', text, user);
  await sql(h1, 'CREATE TABLE log (id int PRIMARY KEY)');

  const loads = Array.from({ length: clients }, (_, index) => client(h1, index + 1));
  await until('the commits', 60_000, () =>
    Promise.resolve(loads.every(({ heard }) => heard.length >= commits) ? true : undefined));
  const server = serverProcesses(h1);
  test.ok(server.length > 1, 'the server is found');
  const dying = h1.kill();
  kill(server);
  await dying;
  await h1.clearRemains();
  await Promise.all(loads.map((one) => one.end()));

  await h2.untilStatus('the loss', ({ connection }) => connection === 'connecting');
  await h2.control('up', name);
  await startServer(h2);
  const kept = new Set((await sql(h2, 'SELECT id FROM log')).trim().split('\n'));
  const heard = loads.flatMap((one) => one.heard);
  test.ok(heard.length >= clients * commits, `${heard.length} commits were acknowledged`);
  test.same(heard.filter((id) => !kept.has(id)), [], 'none of them is missing');
  // What was committed and not heard of any more: at most what was under way.
  test.ok(kept.size <= heard.length + clients, `${kept.size} are there`);
  await sql(h2, `INSERT INTO log VALUES (${99 * perClient})`);
  await postgres(h2, 'pg_ctl', '--pgdata', 'DATA', '--wait', '-m', 'fast', 'stop');
  const checked = await postgres(h2, 'pg_checksums', '--pgdata', 'DATA', '--check');
  test.match(checked, /Bad checksums: +0/);
  await h2.control('down', name);
}

const missing = folder === null ? 'SKIPPED, NOT TESTED: PostgreSQL is not installed' : null;
t.setTimeout(240_000);
if (missing !== null) t.test('postgresql', { skip: missing }, () => undefined);
else {
  await pairTest(t, 'postgresql: a failover under load', {
    local: 'block', sizes: [256 * MiB, 256 * MiB], needs: ['runuser'], boundMs: 150_000,
  }, async (test, lab) => {
    try {
      await failover(test, lab);
    } finally {
      kill(clientGroups);
      for (const node of lab.nodes) kill(serverProcesses(node));
    }
  });
}
