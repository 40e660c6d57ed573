/**
 * The network of two nodes on one machine: two network namespaces joined by a veth pair, or,
 * where the machine does not allow that, two loopback addresses with one port.
 */
import { randomInt } from 'node:crypto';
import * as net from 'node:net';
import * as path from 'node:path';
import { run, succeed, type RunOptions } from './lab-run.ts';

export const nodeNames = ['h1', 'h2'] as const;
export type NodeName = (typeof nodeNames)[number];
export type NetworkKind = 'namespaces' | 'loopback';
/** `link`: the cable is pulled; `drop`: packets vanish silently. */
export type CutKind = 'link' | 'drop';

const link = 'hast0';
const portDefault = 8457;

/** Names of the namespaces of the lab in `directory`: derived, so that anybody can remove them. */
export function namespacesOf(directory: string): string[] {
  return nodeNames.map((name) => `${path.basename(directory)}-${name}`);
}

export class LabNetwork {
  readonly kind: NetworkKind;
  readonly port: number;
  readonly #directory: string;
  readonly #options: RunOptions;

  private constructor(
    kind: NetworkKind, port: number, directory: string, options: RunOptions,
  ) {
    this.kind = kind;
    this.port = port;
    this.#directory = directory;
    this.#options = options;
  }

  /** Without `only`, namespaces where they work, else loopback. */
  static async open(
    directory: string, options: RunOptions, only?: NetworkKind,
  ): Promise<LabNetwork> {
    if (only !== 'loopback') {
      try {
        await joinNamespaces(directory, options);
        return new LabNetwork('namespaces', portDefault, directory, options);
      } catch (error) {
        await removeNamespaces(directory);
        if (only === 'namespaces' || options.signal?.aborted === true) throw error;
      }
    }
    return new LabNetwork('loopback', await freePort(), directory, options);
  }

  address(node: NodeName): string {
    const host = node === 'h1' ? 1 : 2;
    return this.kind === 'namespaces' ? `10.77.0.${host}` : `127.0.0.${host}`;
  }

  /** As in the configuration. */
  url(node: NodeName): string {
    const port = this.port === portDefault ? '' : `:${this.port}`;
    return `tcp://${this.address(node)}${port}`;
  }

  /** What stands before a program that runs on the node. */
  prefix(node: NodeName): string[] {
    if (this.kind === 'loopback') return [];
    // Not `ip netns exec`: that makes a mount namespace, and mounts would be lost in it.
    return ['nsenter', `--net=/var/run/netns/${this.#namespace(node)}`];
  }

  async cut(how: CutKind = 'link'): Promise<void> {
    const namespace = this.#needNamespace('h2');
    if (how === 'link') {
      await succeed(['ip', '-n', namespace, 'link', 'set', link, 'down'], this.#options);
      return;
    }
    const hook = (name: string): string =>
      `add chain inet lab ${name} { type filter hook ${name} priority 0; policy drop; }`;
    const rules = `add table inet lab; ${hook('input')}; ${hook('output')}`;
    await succeed([...this.prefix('h2'), 'nft', rules], this.#options);
  }

  /** Ends every cut. */
  async heal(): Promise<void> {
    const namespace = this.#needNamespace('h2');
    await run([...this.prefix('h2'), 'nft', 'delete table inet lab'], this.#options)
      .catch(() => undefined);
    await succeed(['ip', '-n', namespace, 'link', 'set', link, 'up'], this.#options);
  }

  /** Bounds what h1 sends, in Mbit/s; null ends that. */
  async slowDown(rate: number | null): Promise<void> {
    this.#needNamespace('h1');
    const shape = rate === null ? 'del dev hast0 root'
      : `replace dev hast0 root tbf rate ${rate}mbit burst 64kb latency 100ms`;
    await succeed([...this.prefix('h1'), 'tc', 'qdisc', ...shape.split(' ')], this.#options);
  }

  #needNamespace(node: NodeName): string {
    if (this.kind === 'namespaces') return this.#namespace(node);
    throw new Error('the link can be cut only between network namespaces');
  }

  #namespace(node: NodeName): string {
    return `${path.basename(this.#directory)}-${node}`;
  }
}

async function joinNamespaces(directory: string, options: RunOptions): Promise<void> {
  const [first = '', second = ''] = namespacesOf(directory);
  const ip = (...args: string[]): Promise<string> => succeed(['ip', ...args], options);
  await ip('netns', 'add', first);
  await ip('netns', 'add', second);
  await ip('link', 'add', link, 'netns', first, 'type', 'veth',
    'peer', 'name', link, 'netns', second);
  for (const [index, namespace] of [first, second].entries()) {
    await ip('-n', namespace, 'address', 'add', `10.77.0.${index + 1}/24`, 'dev', link);
    await ip('-n', namespace, 'link', 'set', 'lo', 'up');
    await ip('-n', namespace, 'link', 'set', link, 'up');
  }
  await succeed(['nsenter', `--net=/var/run/netns/${first}`, 'true'], options);
}

export async function removeNamespaces(directory: string): Promise<void> {
  for (const namespace of namespacesOf(directory)) {
    await run(['ip', 'netns', 'delete', namespace]).catch(() => undefined);
  }
}

/** A port that is free on both loopback addresses now. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const port = randomInt(20_000, 30_000);
    if (await isFree('127.0.0.1', port) && await isFree('127.0.0.2', port)) return port;
  }
  throw new Error('no free port on the loopback addresses');
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen({ host, port }, () => server.close(() => resolve(true)));
  });
}
