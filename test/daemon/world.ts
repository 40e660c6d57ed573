/** A daemon's surroundings without kernel: fake device operations, hooks and log. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import type { Logger } from '../../lib/base/log.ts';
import type { Config, ResourceConfig } from '../../lib/config/model.ts';
import type { DeviceOperations } from '../../lib/daemon/device.ts';
import type { Hooks } from '../../lib/daemon/hooks.ts';
import type { Timing } from '../../lib/daemon/timing.ts';
import type { WorkerProgram } from '../../lib/daemon/worker-link.ts';
import { plainNode } from '../fixtures/plain-node.ts';

export const fakeWorker: WorkerProgram = {
  command: 'env',
  args: [...plainNode, fileURLToPath(new URL('./fake-worker.js', import.meta.url))],
};

/** Long where a slow machine must not fail a test, short where every test waits. */
export const testTiming: Timing = {
  promoteMsMin: 10_000,
  deviceReserveMs: 100,
  readyMs: 10_000,
  stepMs: 10_000,
  stopMs: 5000,
  killMs: 5000,
  holderRetryMs: 1,
  statusMs: 5000,
  reloadMs: 5000,
  orderMs: 5000,
  copyMs: 5000,
  backoffMsMin: 50,
  backoffMsMax: 200,
  stableMs: 60_000,
  reviveMsMin: 50,
  reviveMsMax: 200,
  reviveStableMs: 60_000,
};

/** Counts what exists, records what was asked, and fails or hangs where a test says so. */
export class FakeKernel implements DeviceOperations {
  readonly calls: string[] = [];
  readonly open = new Set<number>();
  readonly mounts: string[] = [];
  readonly loops = new Map<string, string>();
  users: string[] = [];
  /** Descriptors of local components. */
  readonly locals = new Set<number>();
  /** Flushes of them; each ends with `flushError`, or never where `flushLocal` hangs. */
  flushes = 0;
  flushError: string | null = null;
  /** Calls by name that fail, or that never return. */
  readonly failing = new Set<string>();
  readonly hanging = new Set<string>();
  #loopCount = 0;

  async #called(name: string): Promise<void> {
    this.calls.push(name);
    if (this.hanging.has(name)) await new Promise(() => undefined);
    if (this.failing.has(name)) throw new HastError('HAST_E_DEVICE', `fake ${name} fails`);
  }

  async openFuse(): Promise<number> {
    await this.#called('openFuse');
    const fd = fs.openSync('/dev/null', 'r');
    this.open.add(fd);
    return fd;
  }

  async closeFuse(fd: number): Promise<void> {
    await this.#called('closeFuse');
    this.open.delete(fd);
    fs.closeSync(fd);
  }

  async mountFuse(_fd: number, mountPoint: string): Promise<void> {
    await this.#called('mountFuse');
    this.mounts.push(mountPoint);
  }

  async isMounted(mountPoint: string): Promise<boolean> {
    return this.mounts.includes(mountPoint);
  }

  async unmountFuse(mountPoint: string, { lazy }: { lazy: boolean }): Promise<void> {
    await this.#called(lazy ? 'unmountFuse:lazy' : 'unmountFuse');
    this.mounts.splice(this.mounts.indexOf(mountPoint), 1);
  }

  async attachLoop(file: string): Promise<string> {
    await this.#called('attachLoop');
    const loop = `/dev/loop${this.#loopCount++}`;
    this.loops.set(loop, file);
    return loop;
  }

  async detachLoop(device: string, { lazy }: { lazy: boolean }): Promise<void> {
    await this.#called(lazy ? 'detachLoop:lazy' : 'detachLoop');
    this.loops.delete(device);
  }

  async findLoops(file: string): Promise<string[]> {
    return [...this.loops].filter(([, backing]) => backing === file).map(([loop]) => loop);
  }

  async holders(): Promise<string[]> {
    return this.users;
  }

  async openLocal(): Promise<number> {
    const fd = fs.openSync('/dev/null', 'r');
    this.locals.add(fd);
    return fd;
  }

  async flushLocal(fd: number): Promise<void> {
    if (!this.locals.has(fd)) throw new Error('a flush of what is not open');
    this.flushes++;
    if (this.hanging.has('flushLocal')) await new Promise(() => undefined);
    if (this.flushError !== null) {
      throw Object.assign(new Error(this.flushError), { code: this.flushError });
    }
  }

  async closeLocal(fd: number): Promise<void> {
    this.locals.delete(fd);
    fs.closeSync(fd);
  }

  /** What would be left on the machine. */
  get left(): string[] {
    const fds = [...this.open, ...this.locals];
    return [...this.mounts, ...this.loops.keys(), ...fds.map((fd) => `fd ${fd}`)];
  }
}

export function fakeHooks(): { hooks: Hooks; ran: string[] } {
  const ran: string[] = [];
  const run: Hooks['run'] = (program, event, resource, args = []) => {
    if (program !== null) ran.push([event, resource, ...args].join(' '));
  };
  return { hooks: { run } as unknown as Hooks, ran };
}

export function recordingLog(): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  const add = (level: string) => (fields: object, message: string): void => {
    lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
  };
  const log = {
    trace: add('trace'), debug: add('debug'), info: add('info'), warn: add('warn'),
    error: add('error'),
  };
  return { log, lines };
}

export function resourceConfig(name: string, more: Partial<ResourceConfig> = {}): ResourceConfig {
  return {
    name, deviceName: name, local: 'well', remote: null, source: null,
    replication: 'fullsync', checksum: 'crc32', compression: 'hole', timeout: 1,
    exec: '/hook', frontend: 'direct', cache: 'writeback', asyncLag: 1, asyncLagTime: 1,
    diskTimeout: 30, busyPoll: 50, onNoData: 'stall', onStop: 'refuse', resyncRate: 0,
    undoDirectory: '/var/lib/hast', mount: null,
    authentication: { kind: 'none' }, ...more,
  };
}

/** A directory with a short path: a unix socket's has at most 107 bytes. */
export function shortDirectory(test: Test): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-'));
  test.teardown(() => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export function nodeConfig(directory: string, more: Partial<Config> = {}): Config {
  const rundir = path.join(directory, 'run');
  return {
    file: path.join(directory, 'hast.conf'),
    node: 'h1',
    control: { family: 'uds', path: path.join(rundir, 'hastctl.sock') },
    controlGroup: null,
    pidfile: path.join(rundir, 'hastd.pid'),
    rundir,
    devdir: path.join(directory, 'dev'),
    listen: [{ family: 'tcp', host: '127.0.0.1', port: 0 }],
    metrics: null,
    resources: [],
    ...more,
  };
}

/** Waits until `reached` holds; fails after thirty seconds. */
export async function until(what: string, reached: () => boolean | Promise<boolean>) {
  const end = performance.now() + 30_000;
  while (!await reached()) {
    if (performance.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
