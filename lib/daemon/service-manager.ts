/**
 * hastd as a service of systemd: sd_notify(3), and the descriptors that it keeps while hastd is not
 * there (sd_pid_notify_with_fds(3), systemd.service(5) FileDescriptorStoreMax=). Without
 * NOTIFY_SOCKET in the environment nothing here does anything.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import { closeAtExec, notifyService } from '../base/libc.ts';
import type { Logger } from '../base/log.ts';

/** The first descriptor that a service manager passes: SD_LISTEN_FDS_START. */
const firstPassed = 3;
const passedVariables = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES'];

/** Keeps open file descriptions beyond the life of this process. */
export interface DescriptorStore {
  keep(name: string, fd: number): void;
  /** Also closes what was passed by this name. */
  letGo(name: string): void;
  /** A descriptor kept before this process began, at most once; null where there is none. */
  take(name: string): number | null;
  /** What was not taken is closed here; what nobody keeps any more is let go. */
  settle(): void;
}

export class ServiceManager implements DescriptorStore {
  readonly #log: Logger;
  readonly #passed: Map<string, number>;
  readonly #kept = new Set<string>();
  #hasFailed = false;

  constructor(log: Logger) {
    this.#log = log;
    this.#passed = passedDescriptors(process.env);
    for (const fd of this.#passed.values()) closeAtExec(fd);
    // They speak of this process only, not of those that it starts, nor of what it becomes.
    for (const name of passedVariables) delete process.env[name];
  }

  /**
   * Says twice within WatchdogSec= that the event loop turns; without that systemd kills hastd and
   * starts the next one, which takes the workers over.
   */
  watch(): void {
    const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid } = process.env;
    const periodMs = Number(microseconds ?? 0) / 1000;
    if (!(periodMs > 0) || (pid !== undefined && Number(pid) !== process.pid)) return;
    setInterval(() => this.#notify('WATCHDOG=1', null), periodMs / 2).unref();
  }

  ready(): void {
    this.#notify('READY=1', null);
  }

  stopping(): void {
    this.#notify('STOPPING=1', null);
  }

  keep(name: string, fd: number): void {
    this.#kept.add(name);
    // FDPOLL=0: a description of /dev/fuse looks broken to poll(2) while nobody serves it.
    this.#notify(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, fd);
  }

  letGo(name: string): void {
    this.#drop(name);
    this.#kept.delete(name);
    this.#notify(`FDSTOREREMOVE=1\nFDNAME=${name}`, null);
  }

  take(name: string): number | null {
    const fd = this.#passed.get(name) ?? null;
    this.#passed.delete(name);
    return fd;
  }

  settle(): void {
    for (const name of [...this.#passed.keys()]) {
      this.#drop(name);
      if (this.#kept.has(name)) continue;
      this.#log.warn({ name }, 'a kept descriptor belongs to no device any more');
      this.letGo(name);
    }
  }

  /** A connection of /dev/fuse ends with its last descriptor: none may stay unnoticed. */
  #drop(name: string): void {
    const fd = this.#passed.get(name);
    this.#passed.delete(name);
    if (fd !== undefined) fs.closeSync(fd);
  }

  #notify(state: string, fd: number | null): void {
    if (process.env['NOTIFY_SOCKET'] === undefined) return;
    const errno = notifyService(state, fd);
    if (errno === 0 || this.#hasFailed) return;
    this.#hasFailed = true;
    const hint = errno === os.constants.errno.ENOSYS ? 'install libsystemd (libsystemd.so.0)' : '';
    this.#log.error({ errno, hint }, 'the service manager cannot be told, and keeps nothing');
  }
}

/** By name. A name that comes twice was kept by two lives of hastd: the later one counts. */
function passedDescriptors(environment: NodeJS.ProcessEnv): Map<string, number> {
  const passed = new Map<string, number>();
  if (Number(environment['LISTEN_PID']) !== process.pid) return passed;
  const count = Number(environment['LISTEN_FDS'] ?? 0);
  const names = (environment['LISTEN_FDNAMES'] ?? '').split(':');
  for (let index = 0; index < count; index++) {
    passed.set(names[index] ?? '', firstPassed + index);
  }
  return passed;
}
