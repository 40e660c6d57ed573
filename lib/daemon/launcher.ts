/**
 * Starting hastd in the background: the launcher starts the same program in the foreground,
 * detached, with RUNDIR/hastd.log as its stderr, and returns when the control socket answers.
 * Why a start failed comes back over an IPC channel that is closed as soon as it succeeded.
 */
import * as childProcess from 'node:child_process';
import { constants } from 'node:fs';
import type * as fs from 'node:fs/promises';
import { HastError } from '../base/errors.ts';
import { callDaemon } from '../control/client.ts';
import type { ControlFailure } from '../control/messages.ts';
import { fromFailure, toFailure } from '../control/messages.ts';
import { within } from './deadline.ts';
import { openOwn } from './safe-files.ts';

const { O_WRONLY, O_APPEND, O_CREAT } = constants;
const launchedVariable = 'HAST_LAUNCHED';
const logFileMode = 0o640;
const startMs = 30_000;
const pingMs = 5000;
const reportMs = 2000;

type LaunchMessage = { type: 'started' } | { type: 'failed'; failure: ControlFailure };

export interface LaunchOptions {
  /** The program and its arguments, which make it stay in the foreground. */
  script: string;
  args: string[];
  logFile: string;
  controlPath: string;
}

/** The pid of the running daemon. Throws what the daemon failed with. */
export async function launch(options: LaunchOptions): Promise<number> {
  const logFile = await openLog(options.logFile);
  try {
    const child = childProcess.spawn(process.execPath, [options.script, ...options.args], {
      cwd: '/',
      detached: true,
      env: { ...process.env, [launchedVariable]: '1' },
      stdio: ['ignore', logFile.fd, logFile.fd, 'ipc'],
    });
    await within(startMs, 'starting hastd', outcome(child, options.logFile)).catch(
      (error: unknown) => {
        child.kill('SIGKILL'); // nothing is promoted yet, so nothing is lost
        throw error;
      },
    );
    child.unref();
  } finally {
    await logFile.close();
  }
  const { pid } = await callDaemon({ command: 'ping' }, {
    path: options.controlPath, timeoutMs: pingMs,
  });
  return pid;
}

function outcome(child: childProcess.ChildProcess, logFile: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('message', (message: LaunchMessage) => {
      if (message.type === 'failed') {
        reject(fromFailure(message.failure));
        return;
      }
      if (child.connected) child.disconnect();
      resolve();
    });
    child.once('close', (code, signal) => {
      const how = signal ?? `exit code ${code ?? 'unknown'}`;
      reject(new HastError('HAST_E_INTERNAL', `hastd ended at its start (${how})`, {
        hint: `see ${logFile}`,
      }));
    });
  });
}

function openLog(file: string): Promise<fs.FileHandle> {
  const hint = "run hastd as root, or change 'rundir'";
  return openOwn(file, O_WRONLY | O_APPEND | O_CREAT, logFileMode, 'the log', hint);
}

/** The launched side. Does nothing in a daemon that was started in the foreground. */
export class LaunchedSide {
  readonly #launched = process.env[launchedVariable] === '1' && process.send !== undefined;

  constructor() {
    delete process.env[launchedVariable]; // workers and hooks are not launched
  }

  get isLaunched(): boolean {
    return this.#launched;
  }

  started(): Promise<void> {
    return this.#report({ type: 'started' });
  }

  failed(error: unknown): Promise<void> {
    return this.#report({ type: 'failed', failure: toFailure(error) });
  }

  /** Returns when the launcher has it, or is gone: the daemon goes on without it. */
  async #report(message: LaunchMessage): Promise<void> {
    if (!this.#launched || !process.connected) return;
    const sent = new Promise<void>((resolve) => {
      process.send?.(message, undefined, {}, () => resolve());
    });
    await within(reportMs, 'telling the launcher', sent).catch(() => undefined);
    if (process.connected) process.disconnect();
  }
}
