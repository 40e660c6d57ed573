/**
 * A folder for subjects that are not ours: their files, processes, FUSE mounts and loop devices.
 * It is removed like a lab, also by a janitor when this process is killed: everything in it is
 * found by the folder's name.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import type * as net from 'node:net';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { labVariable, removeLab } from '../../cli/lab-remains.ts';
import { succeed, until } from '../../cli/lab-run.ts';
import { attachLoop } from '../../lib/loop/loop.ts';

const startMs = 15_000;

export class Place {
  readonly directory: string;
  readonly #janitor: ChildProcess;
  readonly #signal: AbortSignal;

  constructor(parent: string, signal: AbortSignal) {
    this.directory = fs.mkdtempSync(path.join(parent, 'hast-bench-'));
    this.#signal = signal;
    const script = fileURLToPath(new URL('../../cli/lab-janitor.js', import.meta.url));
    this.#janitor = spawn(process.execPath, [script, this.directory], {
      stdio: ['pipe', 'ignore', 'ignore'], detached: true,
    });
    this.#janitor.stdin?.on('error', () => undefined);
    this.#janitor.on('error', () => undefined);
    this.#janitor.unref();
    (this.#janitor.stdin as net.Socket | null)?.unref();
  }

  file(name: string): string {
    return path.join(this.directory, name);
  }

  /** Runs to its end. */
  async run(argv: readonly string[], boundMs?: number): Promise<string> {
    const bound = boundMs === undefined ? {} : { boundMs };
    return await succeed(argv, { env: this.#environment, signal: this.#signal, ...bound });
  }

  /** Starts a server, and waits until it is `ready`. */
  async serve(argv: readonly string[], ready: () => boolean): Promise<number> {
    const [program = '', ...args] = argv;
    if (this.#signal.aborted) throw new Error('interrupted');
    const log = fs.openSync(this.file('log'), 'a');
    const child = spawn(program, args, {
      env: this.#environment, stdio: ['ignore', log, log], detached: true,
    });
    fs.closeSync(log);
    child.on('error', () => undefined);
    child.unref();
    await until(`the start of ${program}`, startMs, () => {
      if (this.#signal.aborted) throw new Error('interrupted');
      if (child.exitCode === null && child.pid !== undefined) return ready() ? true : undefined;
      throw new Error(`${program} ended: ${fs.readFileSync(this.file('log'), 'utf8').trim()}`);
    });
    return child.pid as number;
  }

  async attach(file: string): Promise<string> {
    if (this.#signal.aborted) throw new Error('interrupted');
    return await attachLoop(file);
  }

  /** May be repeated. */
  async close(): Promise<void> {
    const problems = await removeLab(this.directory);
    this.#janitor.stdin?.end(problems.length === 0 ? 'done\n' : '');
    if (problems.length > 0) throw new Error(`${this.directory}: ${problems.join('; ')}`);
  }

  get #environment(): NodeJS.ProcessEnv {
    return { ...process.env, [labVariable]: this.directory };
  }
}

/** With all its blocks allocated; `fill` then makes them written. */
export async function preallocate(file: string, bytes: number): Promise<void> {
  fs.closeSync(fs.openSync(file, 'a'));
  await succeed(['fallocate', '--length', String(bytes), file], { boundMs: 120_000 });
}
