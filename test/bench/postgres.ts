/** One real use: PostgreSQL on ext4 on the volume, and pgbench. It runs as the user postgres. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { labVariable } from '../../cli/lab-remains.ts';
import { run, succeed } from '../../cli/lab-run.ts';
import { errorText } from '../../lib/base/errors.ts';
import type { Bench } from './bench.ts';
import { missing } from './matrix.ts';
import type { RunningSubject } from './subjects.ts';

const user = 'postgres';
const versionsFolder = '/usr/lib/postgresql';
const scale = 10;
const setupMs = 60_000;

/** Where initdb and pg_ctl are: Debian keeps them out of PATH. */
export function findPrograms(): string | null {
  const versions = fs.existsSync(versionsFolder) ? fs.readdirSync(versionsFolder) : [];
  const folders = versions.sort((one, other) => Number(other) - Number(one))
    .map((version) => path.join(versionsFolder, version, 'bin'));
  const has = (folder: string): boolean => ['initdb', 'pg_ctl', 'pgbench']
    .every((program) => fs.existsSync(path.join(folder, program)));
  return folders.find(has) ?? null;
}

export function parseTransactions(text: string): number {
  const tps = /^tps = ([\d.]+)/m.exec(text)?.[1];
  if (tps === undefined) throw new Error(`pgbench gave no rate: ${text.slice(-200)}`);
  return Number(tps);
}

class Server {
  readonly subject: RunningSubject;
  readonly #mountPoint: string;
  readonly #data: string;
  readonly #programs: string;
  readonly #signal: AbortSignal;

  constructor(subject: RunningSubject, programs: string, signal: AbortSignal) {
    this.subject = subject;
    this.#programs = programs;
    this.#signal = signal;
    this.#mountPoint = path.join(subject.directory, 'postgres');
    this.#data = path.join(this.#mountPoint, 'data');
  }

  async start(): Promise<void> {
    const { device, directory } = this.subject;
    // The server's user must get through.
    fs.chmodSync(directory, 0o711);
    fs.mkdirSync(this.#mountPoint, { recursive: true });
    await this.#run(['mkfs.ext4', '-q', '-F', device]);
    await this.#run(['mount', '-o', 'noatime', device, this.#mountPoint]);
    await this.#run(['install', '-d', '-m', '700', '-o', user, this.#data]);
    const options = `-c listen_addresses= -c unix_socket_directories=${this.#data}`;
    await this.#program('initdb', '--pgdata', this.#data, '--auth=trust', '--encoding=UTF8');
    await this.#program('pg_ctl', '--pgdata', this.#data, '--wait', '-o', options,
      '--log', path.join(this.#data, 'server.log'), 'start');
    await this.#program('pgbench', '--host', this.#data, '-i', '-q', '-s', String(scale), user);
  }

  async transactions(seconds: number): Promise<number> {
    return parseTransactions(await this.#program('pgbench', '--host', this.#data,
      '--client=8', '--jobs=2', `--time=${seconds}`, user));
  }

  async stop(): Promise<void> {
    await this.#program('pg_ctl', '--pgdata', this.#data, '-m', 'immediate', 'stop')
      .catch(() => undefined);
    await run(['umount', this.#mountPoint]).catch(() => undefined);
  }

  async #program(name: string, ...args: string[]): Promise<string> {
    return await this.#run(['runuser', '-u', user, '--', path.join(this.#programs, name), ...args]);
  }

  async #run(argv: readonly string[]): Promise<string> {
    const env = { ...process.env, [labVariable]: this.subject.directory };
    return await succeed(argv, { env, boundMs: setupMs, signal: this.#signal });
  }
}

export async function measurePostgres(
  bench: Bench, running: readonly RunningSubject[],
): Promise<void> {
  const absent = await missing(['mkfs.ext4', 'runuser']);
  const programs = findPrograms();
  const { code } = await run(['id', user]);
  const why = absent ?? (programs !== null && code === 0 ? null :
    "PostgreSQL is not installed: run 'apt-get install postgresql'");
  if (why !== null || programs === null) {
    bench.problem(`pgbench: not run: ${why}`);
    return;
  }
  const servers = running.map((subject) => new Server(subject, programs, bench.signal));
  try {
    for (const server of servers) {
      bench.say(`pgbench: preparing PostgreSQL on ${server.subject.name}`);
      await server.start();
    }
    await rounds(bench, servers);
  } catch (error) {
    if (bench.signal.aborted) throw error;
    bench.problem(`pgbench: ${errorText(error)}`);
  } finally {
    for (const server of servers) await server.stop();
  }
}

async function rounds(bench: Bench, servers: readonly Server[]): Promise<void> {
  const seconds = bench.options.quick ? 2 : Math.max(10, bench.settings.seconds);
  for (let round = 1; round <= bench.options.rounds; round++) {
    if (bench.leftMs < servers.length * (seconds + 3) * 1000) {
      bench.problem(`round ${round}: pgbench: left out: the time was up`);
      return;
    }
    for (const server of servers) {
      await bench.settle();
      const tps = await server.transactions(seconds);
      const { name } = server.subject;
      bench.measurements.push({ subject: name, job: 'pgbench', round, values: { tps } });
      bench.say(`round ${round}: pgbench: ${name}: ${tps.toFixed(0)} transactions a second`);
    }
  }
}
