/**
 * Two nodes on this machine, for the demo and the end-to-end tests: two network namespaces (or
 * two loopback addresses), a component each, and the one configuration of both. Everything lives
 * in one folder below the folder for temporary files.
 *
 * Nothing stays: `close` removes everything and may be repeated; signals that end the process
 * close the lab first; a janitor process does it where this process is killed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import type * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compareCopies } from './lab-compare.ts';
import { LabNetwork, nodeNames, type CutKind, type NetworkKind } from './lab-network.ts';
import { LabNode } from './lab-node.ts';
import { removeLab } from './lab-remains.ts';
import { sleep, until } from './lab-run.ts';

export interface LabOptions {
  /** Bytes of the components of h1 and h2. */
  sizes?: readonly [number, number];
  /** Component as regular file, or as block device (a loop device on it). */
  local?: 'file' | 'block';
  /** Lines for the resource, such as `replication async`. */
  resource?: readonly string[];
  /** Lines for a `mount` section, beside each node's own mount point; without them none. */
  mount?: readonly string[];
  /** Seconds. */
  timeout?: number;
  network?: NetworkKind;
  /** Called first when a signal interrupts. */
  onInterrupt?: () => void;
}

export const MiB = 1024 * 1024;
export const resourceName = 'shared';
const sizeDefault = 160 * MiB;
/** Two checkpoints for the flush and the number, one for the extents, and a little. */
const idleMs = 7000;
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Why a lab cannot be opened here, and what to do; null where it can. */
export function labMissing(): string | null {
  if (process.getuid?.() !== 0) return 'it mounts file systems: run it as root (sudo -s)';
  try {
    fs.closeSync(fs.openSync('/dev/fuse', 'r+'));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    return `/dev/fuse cannot be opened (${code}): run 'modprobe fuse'; ` +
      "in a container start it with '--privileged', or with '--device /dev/fuse'";
  }
  if (fs.existsSync('/dev/loop-control')) return null;
  return "/dev/loop-control does not exist: run 'modprobe loop'; " +
    "in a container start it with '--privileged -v /dev:/dev'";
}

export class Lab {
  readonly directory = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-lab-'));
  readonly config = path.join(this.directory, 'hast.conf');
  readonly #options: LabOptions;
  readonly #abort = new AbortController();
  readonly #janitor: ChildProcess;
  readonly #onSignal = (signal: NodeJS.Signals): void => void this.#interrupted(signal);
  #network: LabNetwork | undefined;
  #nodes: [LabNode, LabNode] | undefined;
  #closing: Promise<void> | undefined;
  #isInterrupted = false;
  #resourceLines: readonly string[];
  #globalLines: readonly string[] = [];
  #mountLines: readonly string[] | undefined;

  private constructor(options: LabOptions) {
    this.#options = options;
    this.#resourceLines = options.resource ?? [];
    this.#mountLines = options.mount;
    this.#janitor = startJanitor(this.directory);
    for (const signal of signals) process.on(signal, this.#onSignal);
  }

  static async open(options: LabOptions = {}): Promise<Lab> {
    const lab = new Lab(options);
    try {
      await lab.#open();
    } catch (error) {
      await lab.close();
      throw error;
    }
    return lab;
  }

  /** Being removed, or gone. */
  get closed(): boolean {
    return this.#abort.signal.aborted;
  }

  get network(): LabNetwork {
    if (this.#network === undefined) throw new Error('the lab is not open');
    return this.#network;
  }

  get nodes(): readonly [LabNode, LabNode] {
    if (this.#nodes === undefined) throw new Error('the lab is not open');
    return this.#nodes;
  }

  get h1(): LabNode {
    return this.nodes[0];
  }

  get h2(): LabNode {
    return this.nodes[1];
  }

  /** Writes the configuration anew; what is not named stays. */
  configure(lines: {
    resource?: readonly string[]; global?: readonly string[]; mount?: readonly string[];
  } = {}): void {
    this.#mountLines = lines.mount ?? this.#mountLines;
    this.#resourceLines = lines.resource ?? this.#resourceLines;
    this.#globalLines = lines.global ?? this.#globalLines;
    fs.writeFileSync(this.config, this.#configText());
  }

  cut(how?: CutKind): Promise<void> {
    return this.network.cut(how);
  }

  heal(): Promise<void> {
    return this.network.heal();
  }

  /** Bounds what h1 sends, in Mbit/s; null ends that. */
  slowDown(rate: number | null): Promise<void> {
    return this.network.slowDown(rate);
  }

  /** Creates both copies, starts both daemons, makes `h1` primary and `h2` secondary. */
  async bringUp(): Promise<void> {
    const each = (work: (node: LabNode) => Promise<unknown>): Promise<unknown> =>
      Promise.all(this.nodes.map(work));
    await each((node) => node.control('create', resourceName));
    await each((node) => node.start());
    await this.h2.control('role', 'secondary', resourceName);
    await this.h1.control('role', 'primary', resourceName);
    await this.settle();
  }

  /** Waits until both copies are complete, and nothing is on its way. */
  async settle(boundMs = 60_000): Promise<void> {
    for (const node of this.nodes) {
      await node.untilStatus('complete and at rest', ({ status, dirtyBytes, statistics }) => {
        const { queueSend, queueRecv, queueDone } = statistics;
        const atRest = dirtyBytes + queueSend + queueRecv + queueDone === 0;
        return status === 'complete' && atRest;
      }, boundMs);
    }
  }

  /** Waits until the checkpoints of an idle pair have dropped all marks: what comes is new. */
  async unmark(): Promise<void> {
    await this.settle();
    await sleep(idleMs);
  }

  /** Rejects, naming where, unless the data of both copies are equal byte for byte. */
  compare(): Promise<void> {
    return compareCopies(this.h1.local, this.h2.local);
  }

  /** Removes everything; rejects where something cannot be removed. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #open(): Promise<void> {
    const { signal } = this.#abort;
    this.#network = await LabNetwork.open(this.directory, { signal }, this.#options.network);
    const [h1, h2] = nodeNames.map((name) => new LabNode({
      name, lab: this.directory, config: this.config, resource: resourceName,
      prefix: this.network.prefix(name), signal,
    })) as [LabNode, LabNode];
    this.#nodes = [h1, h2];
    const sizes = this.#options.sizes ?? [sizeDefault, sizeDefault];
    for (const [index, node] of this.nodes.entries()) {
      node.makeDisk(sizes[index] ?? sizeDefault);
      if (this.#options.local === 'block') await node.useBlockDevice();
    }
    this.configure();
  }

  async #close(): Promise<void> {
    this.#abort.abort();
    const problems = await removeLab(this.directory);
    this.#janitor.stdin?.end(problems.length === 0 ? 'done\n' : '');
    await until('the end of the janitor', 20_000, () =>
      this.#janitor.exitCode ?? this.#janitor.signalCode ?? undefined).catch(() => undefined);
    for (const signal of signals) process.off(signal, this.#onSignal);
    if (problems.length > 0) throw new Error(`the lab left: ${problems.join('; ')}`);
  }

  async #interrupted(signal: NodeJS.Signals): Promise<void> {
    if (this.#isInterrupted) return;
    this.#isInterrupted = true;
    this.#abort.abort();
    this.#options.onInterrupt?.();
    // What was under way ends within this, so that it leaves nothing after the removal.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await this.close().catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
    });
    process.exit(128 + os.constants.signals[signal]);
  }

  #configText(): string {
    const { network } = this;
    const lines = [`timeout ${this.#options.timeout ?? 5}`, ...this.#globalLines];
    for (const node of this.nodes) {
      lines.push(
        `on ${node.name} {`, `    listen ${network.url(node.name)}`,
        `    rundir ${node.rundir}`, `    devdir ${node.devdir}`,
        `    undo-directory ${node.undoDirectory}`, '}',
      );
    }
    lines.push(`resource ${resourceName} {`, ...this.#resourceLines.map((line) => `    ${line}`));
    for (const [index, node] of this.nodes.entries()) {
      const peer = this.nodes[1 - index] as LabNode;
      lines.push(
        `    on ${node.name} {`, `        local ${node.local}`,
        `        remote ${network.url(peer.name)}`,
      );
      if (this.#mountLines !== undefined) {
        const all = [`mountpoint ${node.mountPoint}`, ...this.#mountLines];
        lines.push('        mount {', ...all.map((line) => `            ${line}`), '        }');
      }
      if (network.kind === 'loopback') {
        // Else every connection would come from 127.0.0.1.
        lines.push(`        source tcp://${network.address(node.name)}`);
      }
      lines.push('    }');
    }
    return `${lines.join('\n')}\n}\n`;
  }
}

function startJanitor(directory: string): ChildProcess {
  const script = fileURLToPath(new URL('./lab-janitor.js', import.meta.url));
  const janitor = spawn('env', ['-u', 'NODE_OPTIONS', process.execPath, script, directory], {
    stdio: ['pipe', 'ignore', 'ignore'], detached: true,
  });
  janitor.stdin?.on('error', () => undefined);
  janitor.on('error', () => undefined);
  janitor.unref();
  (janitor.stdin as net.Socket | null)?.unref();
  return janitor;
}
