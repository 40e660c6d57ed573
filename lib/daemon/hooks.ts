/**
 * Hooks: `exec PATH EVENT RESOURCE [OLD NEW]`, with the original's events and arguments.
 * A hook runs beside the daemon and is never waited for and never killed: it may outlive the
 * daemon, so its output goes to the daemon's stderr and not through a pipe that would break.
 */
import * as childProcess from 'node:child_process';
import { errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { judgeAsOthers } from './oom-score.ts';

export type HookEvent =
  | 'role' | 'connect' | 'disconnect' | 'syncstart' | 'syncdone' | 'syncintr' | 'split-brain'
  /** Of ours. */
  | 'detach' | 'attach';

/** As the original's. */
export const slowDefaultMs = 60_000;

export interface HooksOptions {
  log: Logger;
  /** A hook that runs longer is named in the log this often. */
  slowMs?: number;
}

export class Hooks {
  readonly #log: Logger;
  readonly #slowMs: number;

  constructor(options: HooksOptions) {
    this.#log = options.log;
    this.#slowMs = options.slowMs ?? slowDefaultMs;
  }

  /** Starts `program EVENT RESOURCE ARGS...`; nothing where there is no program. */
  run(program: string | null, event: HookEvent, resource: string, args: string[] = []): void {
    if (program === null) return;
    const fields = { resource, event, program };
    let child: childProcess.ChildProcess;
    try {
      child = childProcess.spawn(program, [event, resource, ...args], {
        stdio: ['ignore', 2, 2],
        detached: true,
      });
    } catch (error) {
      this.#log.warn({ ...fields, error: errorText(error) }, 'the hook cannot be started');
      return;
    }
    judgeAsOthers(child.pid);
    child.unref();
    const startedAt = performance.now();
    const slow = setInterval(() => {
      const seconds = Math.round((performance.now() - startedAt) / 1000);
      this.#log.warn({ ...fields, pid: child.pid, seconds }, 'the hook is still running');
    }, this.#slowMs);
    slow.unref();
    child.once('error', (error) => {
      clearInterval(slow);
      this.#log.warn({ ...fields, error: errorText(error) }, 'the hook cannot be started');
    });
    child.once('exit', (code, signal) => {
      clearInterval(slow);
      if (code === 0) this.#log.debug({ ...fields, pid: child.pid }, 'the hook ended');
      else this.#log.warn({ ...fields, pid: child.pid, code, signal }, 'the hook failed');
    });
  }
}
