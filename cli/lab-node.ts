/** One node of a lab: its daemon, its commands, its copy. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { callDaemon } from '../lib/control/client.ts';
import { isAlive } from '../lib/daemon/process-state.ts';
import { describeCopy, type CopyDescription } from '../lib/disk/inspect.ts';
import type { ResourceStatus } from '../lib/format/status.ts';
import type { NodeName } from './lab-network.ts';
import {
  clearDevices, clearFilesystems, killAll, labVariable, processesOf,
} from './lab-remains.ts';
import { run, succeed, until, type RunOptions, type RunResult } from './lab-run.ts';

const statusMs = 5000;
const programs = {
  hastd: fileURLToPath(new URL('./hastd.js', import.meta.url)),
  hastctl: fileURLToPath(new URL('./hastctl.js', import.meta.url)),
};

export interface NodePlace {
  name: NodeName;
  /** Folder of the lab. */
  lab: string;
  /** The configuration of both nodes. */
  config: string;
  resource: string;
  /** What stands before a program that runs on the node. */
  prefix: string[];
  signal: AbortSignal;
}

export class LabNode {
  readonly name: NodeName;
  readonly directory: string;
  readonly rundir: string;
  readonly devdir: string;
  readonly undoDirectory: string;
  readonly device: string;
  /** Where tests and the demo mount the device. */
  readonly mountPoint: string;
  /** File behind the component. */
  readonly disk: string;
  /** Component as in the configuration: the file, or a loop device on it. */
  local: string;
  readonly #place: NodePlace;

  constructor(place: NodePlace) {
    this.#place = place;
    this.name = place.name;
    this.directory = path.join(place.lab, place.name);
    this.rundir = path.join(this.directory, 'run');
    this.devdir = path.join(this.directory, 'dev');
    this.undoDirectory = path.join(this.directory, 'undo');
    this.device = path.join(this.devdir, place.resource);
    this.mountPoint = path.join(this.directory, 'data');
    this.disk = path.join(this.directory, 'disk');
    this.local = this.disk;
    fs.mkdirSync(this.mountPoint, { recursive: true });
  }

  /** What a shell on this node has in its environment. */
  get environment(): NodeJS.ProcessEnv {
    return {
      ...process.env, HAST_CONF: this.#place.config, HAST_NODE: this.name,
      [labVariable]: this.#place.lab,
    };
  }

  /** A command on this node; `hastd`, `hastctl` and Node.js itself are those of this build. */
  run(argv: readonly string[], boundMs?: number): Promise<RunResult> {
    return run(this.#argv(argv), this.#options(boundMs));
  }

  /** As `run`; an exit code other than 0 rejects. Gives stdout. */
  succeed(argv: readonly string[], boundMs?: number): Promise<string> {
    return succeed(this.#argv(argv), this.#options(boundMs));
  }

  /** A program in this node's network; an exit code other than 0 rejects. Gives stdout. */
  onNode(argv: readonly string[], boundMs?: number): Promise<string> {
    return succeed([...this.#place.prefix, ...argv], this.#options(boundMs));
  }

  hastctl(...args: string[]): Promise<RunResult> {
    return this.run(['hastctl', ...args], 150_000);
  }

  /** As `hastctl`; an exit code other than 0 rejects. Gives stdout. */
  control(...args: string[]): Promise<string> {
    return this.succeed(['hastctl', ...args], 150_000);
  }

  /** A sparse file as the component; an existing one is replaced by an empty one. */
  makeDisk(size: number): void {
    fs.rmSync(this.disk, { force: true });
    fs.writeFileSync(this.disk, '');
    fs.truncateSync(this.disk, size);
  }

  /**
   * The component becomes a block device: a loop device on `file`. It is named by a link, as in
   * /dev/disk/by-id: which loop device is free depends on who else on the machine takes one.
   */
  async useBlockDevice(file = this.disk): Promise<void> {
    const loop = (await this.succeed(['losetup', '--find', '--show', file])).trim();
    this.local = path.join(this.directory, 'component');
    fs.rmSync(this.local, { force: true });
    fs.symlinkSync(loop, this.local);
  }

  /** Another, empty block device of the size in place of the component, under the same name. */
  async replaceBlockDevice(size = fs.statSync(this.disk).size): Promise<void> {
    await this.succeed(['losetup', '-d', fs.realpathSync(this.local)]);
    this.makeDisk(size);
    await this.useBlockDevice();
  }

  /** `more`: variables in the environment of the daemon. */
  async start(more: Record<string, string> = {}): Promise<void> {
    const options = this.#options(undefined);
    await succeed(this.#argv(['hastd']), { ...options, env: { ...options.env, ...more } });
  }

  /** Ends the daemon in order; rejects where it goes on, for instance with its device in use. */
  async stop(boundMs = 20_000): Promise<void> {
    const pid = this.pid;
    if (pid === undefined) return;
    process.kill(pid, 'SIGTERM');
    await until(`the end of hastd on ${this.name}`, boundMs, () => isAlive(pid) ? undefined : true);
  }

  /** As if the machine lost power, but for what the kernel holds: see `clearRemains`. */
  async kill(): Promise<number[]> {
    const pids = this.processes();
    const stuck = await killAll(() => this.processes());
    if (stuck.length > 0) throw new Error(`processes ${stuck.join(' ')} cannot be killed`);
    return pids;
  }

  /** Takes mounts and loop devices away that the processes of a killed node served. */
  async clearRemains(): Promise<void> {
    await clearDevices(this.rundir);
    await clearFilesystems(this.directory);
    await clearDevices(this.rundir);
  }

  /** The daemon and everything it started. */
  processes(): number[] {
    const { pid } = this;
    const family = pid === undefined ? [] : [pid, ...descendants(pid)];
    return [...new Set([...family, ...processesOf(this.#place.lab, this.name)])];
  }

  /** Of the running daemon. */
  get pid(): number | undefined {
    try {
      const pid = Number(fs.readFileSync(path.join(this.rundir, 'hastd.pid'), 'utf8').trim());
      return Number.isInteger(pid) && pid > 1 && isOurs(pid, this.#place.lab) ? pid : undefined;
    } catch {
      return undefined;
    }
  }

  async status(): Promise<ResourceStatus> {
    const socket = path.join(this.rundir, 'hastctl.sock');
    const { resources } = await callDaemon(
      { command: 'status' as const, resources: [this.#place.resource] },
      { path: socket, timeoutMs: statusMs },
    );
    const [status] = resources;
    if (status === undefined) throw new Error('no status');
    return status;
  }

  /** The first status that fits; what it is instead is in the rejection. */
  async untilStatus(
    what: string,
    fits: (status: ResourceStatus) => boolean,
    boundMs = 20_000,
  ): Promise<ResourceStatus> {
    let last = '';
    return await until(`${what} on ${this.name}`, boundMs, async () => {
      if (this.#place.signal.aborted) throw new Error('interrupted');
      try {
        const status = await this.status();
        last = describe(status);
        return fits(status) ? status : undefined;
      } catch (error) {
        last = String(error);
        return undefined;
      }
    }, () => last);
  }

  /** Metadata of the copy, as `hastctl dump` shows them. */
  dump(): CopyDescription {
    return describeCopy(this.local);
  }

  /** Everything the daemon and its workers logged. */
  log(): string {
    const file = path.join(this.rundir, 'hastd.log');
    return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
  }

  async mount(...options: string[]): Promise<void> {
    await this.succeed(['mount', ...options, this.device, this.mountPoint]);
  }

  async unmount(): Promise<void> {
    await this.succeed(['umount', this.mountPoint]);
  }

  #options(boundMs: number | undefined): RunOptions {
    const bound = boundMs === undefined ? {} : { boundMs };
    return { env: this.environment, signal: this.#place.signal, ...bound };
  }

  #argv(argv: readonly string[]): string[] {
    const [program = '', ...args] = argv;
    // A test runner loads itself into every Node process by this variable: the nodes' programs are
    // to be as they are delivered, also in what they use of memory and time.
    const plainNode = ['env', '-u', 'NODE_OPTIONS', process.execPath];
    if (program === process.execPath) return [...plainNode, ...args];
    if (program !== 'hastd' && program !== 'hastctl') return [...argv];
    return [...this.#place.prefix, ...plainNode, programs[program], ...args];
  }
}

function describe(status: ResourceStatus): string {
  const { role, status: word, connection, dirtyBytes, localDisk, peerDisk, detail } = status;
  return `role ${role}, status ${word}, connection ${connection}, dirty ${dirtyBytes}, ` +
    `local ${localDisk}, peer ${peerDisk}, detail '${detail}'`;
}

/** A pid read from a file may belong to somebody else by now. */
function isOurs(pid: number, lab: string): boolean {
  const environment = fs.readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
  return environment.includes(`${labVariable}=${lab}`) && isAlive(pid);
}

function descendants(pid: number): number[] {
  try {
    const text = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    const children = text === '' ? [] : text.split(' ').map(Number);
    return children.flatMap((child) => [child, ...descendants(child)]);
  } catch {
    return [];
  }
}
