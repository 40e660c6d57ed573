/**
 * What this node is and believes, for `hastctl check --peer` on either node, and the question to
 * the peer's hastd, which goes through the session of the pair (lib/format/switchover.ts).
 */
import { randomInt } from 'node:crypto';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { HastError, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatAddress } from '../config/address.ts';
import type { Config, ResourceConfig } from '../config/model.ts';
import { settingsOf } from '../config/settings-of.ts';
import type { NodeFacts, ReplyOf } from '../control/messages.ts';
import { parseFacts } from '../control/validate.ts';
import { namesOfFeatures, type Protocol } from '../format/protocol.ts';
import type { ResourceStatus } from '../format/status.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import { within } from './deadline.ts';
import { probePeer, resolveHost } from './peer-probe.ts';
import { release } from './release.ts';

/** The peer probes the way back meanwhile, and looks at its disk. */
const answerMs = 20_000;
const lookMs = 5000;
const listMax = 32;

export interface FactsNode {
  config: Pick<Config, 'node' | 'listen'>;
  protocol: Protocol;
}

export interface PeerFactsOptions {
  log: Logger;
  node(): FactsNode;
  resource(name: string): ResourceConfig | undefined;
  status(name: string): Promise<ResourceStatus>;
  /** Throws where it was not sent. */
  tell(name: string, say: SwitchoverSaid): Promise<unknown>;
}

export class PeerFacts {
  readonly #options: PeerFactsOptions;
  readonly #asked = new Map<number, (text: string) => void>();

  constructor(options: PeerFactsOptions) {
    this.#options = options;
  }

  /** Both nodes' facts; throws only where there is no such resource. */
  async ask(name: string): Promise<ReplyOf['peer-facts']> {
    const [local, asked] = await Promise.all([this.#own(name), this.#peer(name)]);
    return { local, ...asked };
  }

  /** A question of the peer, or its answer. */
  receive(name: string, said: SwitchoverSaid): void {
    if (said.kind === 'facts') this.#asked.get(said.id)?.(said.text);
    if (said.kind !== 'ask-facts') return;
    this.#own(name)
      .then((facts) => this.#options.tell(name, {
        kind: 'facts', id: said.id, text: JSON.stringify(facts),
      }))
      .catch((error: unknown) => {
        this.#options.log.warn({ resource: name, error: errorText(error) },
          'the peer asks, and cannot be answered');
      });
  }

  async #own(name: string): Promise<NodeFacts> {
    const resource = this.#options.resource(name);
    if (resource === undefined) {
      throw new HastError('HAST_E_UNKNOWN_RESOURCE', `hastd knows no resource '${name}'`, {
        hint: 'after a change of the file: systemctl reload hastd',
      });
    }
    const status = await this.#options.status(name).catch(() => null);
    return await collectFacts(this.#options.node(), resource, status);
  }

  async #peer(name: string): Promise<Omit<ReplyOf['peer-facts'], 'local'>> {
    const sentAt = Date.now();
    const none = (why: string, hint: string, isOld = false) =>
      ({ peer: null, why, hint, isOld, sentAt, heardAt: Date.now() });
    const status = await this.#options.status(name);
    const { connection, detail, protocolFeatures = [] } = status;
    const isConnected = ['connected', 'syncing', 'paused'].includes(connection);
    if (!isConnected) return none(whyNot(status), whatThen(status));
    if (!protocolFeatures.includes('facts')) {
      const why = 'the peer, or the worker here, is of a release that cannot be asked';
      return none(why, 'hastctl upgrade, on both nodes', true);
    }
    const id = randomInt(1, 2 ** 47);
    let told = (_: string): void => undefined;
    const answer = new Promise<string>((resolve) => { told = resolve; });
    this.#asked.set(id, told);
    try {
      await this.#options.tell(name, { kind: 'ask-facts', id });
      const text = await within(answerMs, "the peer's hastd", answer);
      const heardAt = Date.now();
      if (text === '') return none('there runs no hastd, only its worker', 'start hastd there');
      return { peer: await parseFacts(text), why: '', hint: '', isOld: false, sentAt, heardAt };
    } catch (error) {
      const hint = error instanceof HastError ? error.hint : undefined;
      return none(`${errorText(error)}${detail === '' ? '' : ` (${detail})`}`,
        hint ?? "see hastd's log on the peer");
    } finally {
      this.#asked.delete(id);
    }
  }
}

function whyNot({ role, connection, detail }: ResourceStatus): string {
  if (role === 'init') return 'the role is init: nothing is connected';
  const what = connection === 'refused' ? 'the handshake was refused' : 'not connected';
  return detail === '' ? what : `${what}: ${detail}`;
}

function whatThen({ name, role, connection }: ResourceStatus): string {
  if (role === 'init') return `hastctl role secondary ${name}`;
  if (connection === 'refused') return `hastctl list ${name}, on both nodes`;
  return `on the peer: hastctl check --peer; hastctl status ${name}`;
}

/** `status`: null where no hastd is there to ask. Never rejects. */
export async function collectFacts(
  { config, protocol }: FactsNode, resource: ResourceConfig, status: ResourceStatus | null,
): Promise<NodeFacts> {
  const askedAt = Date.now();
  const { remote, local, undoDirectory } = resource;
  const look = <T>(work: Promise<T>): Promise<T | null> =>
    within(lookMs, 'looking', work).catch(() => null);
  const [disk, free, addresses, reach] = await Promise.all([
    look(diskSizes(local)), look(freeBytes(undoDirectory)),
    look(remote === null ? Promise.resolve([]) : resolveHost(remote)),
    probePeer(resource, config.node),
  ]);
  return {
    node: config.node, release,
    versionMin: protocol.versionMin, versionMax: protocol.versionMax,
    features: namesOfFeatures(protocol.features),
    addresses: ownAddresses(), listen: config.listen.slice(0, listMax).map(formatAddress),
    local, diskBytes: disk?.bytes ?? null, sectorBytes: disk?.sector ?? null,
    mediaBytes: status === null || status.mediaSize === 0 ? null : status.mediaSize,
    remote: remote === null ? null : formatAddress(remote), remoteAddresses: addresses ?? [],
    settings: settingsOf(resource), undoDirectory, undoFreeBytes: free,
    reach, askedAt, toldAt: Date.now(),
  };
}

function ownAddresses(): string[] {
  return Object.values(os.networkInterfaces()).flatMap((list) => list ?? [])
    .filter(({ internal }) => !internal).map(({ address }) => address).slice(0, listMax);
}

/** From sysfs: a disk that hangs must not keep a thread. A regular file has no sectors. */
async function diskSizes(local: string): Promise<{ bytes: number; sector: number | null }> {
  const stat = await fs.stat(local);
  if (!stat.isBlockDevice()) return { bytes: stat.size, sector: null };
  const kernelName = path.basename(await fs.realpath(local));
  const folder = await fs.realpath(`/sys/class/block/${kernelName}`);
  const read = async (file: string): Promise<number> =>
    Number((await fs.readFile(file, 'utf8')).trim());
  const bytes = 512 * await read(path.join(folder, 'size'));
  const queue = path.join(folder, 'queue/logical_block_size');
  // A partition's queue is its disk's.
  const sector = await read(queue).catch(() =>
    read(path.join(folder, '../queue/logical_block_size')));
  return { bytes, sector };
}

/** Of the directory, or of what is there of its path. */
async function freeBytes(directory: string): Promise<number> {
  for (let folder = directory; ; folder = path.dirname(folder)) {
    const found = await fs.statfs(folder).catch(() => null);
    if (found !== null) return found.bavail * found.bsize;
    if (folder === '/') throw new Error('no root');
  }
}
