/**
 * Whether an address may speak for a resource: it must be the IP of its `remote`, port ignored.
 * Host names are resolved when somebody connects and kept for a while; while the name server is
 * away the last answer goes on counting.
 */
import * as dns from 'node:dns/promises';
import * as net from 'node:net';
import { errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ResourceConfig } from '../config/model.ts';
import { within } from './deadline.ts';

type Remote = ResourceConfig['remote'];
type HostAddress = Exclude<Remote, null>;

/** Node's dns.lookup with `all`; replaced in tests. */
export type Lookup = (host: string, family: 0 | 4 | 6) => Promise<string[]>;

const resolvedMs = 60_000;
/** After a failure nobody is asked again for so long: strangers connect as often as they like. */
const failedMs = 2000;
const lookupMs = 3000;

interface Entry {
  at: number;
  ips: string[];
}

async function systemLookup(host: string, family: 0 | 4 | 6): Promise<string[]> {
  const found = await dns.lookup(host, { all: true, family });
  return found.map(({ address }) => address);
}

export class PeerAddresses {
  readonly #lookup: Lookup;
  readonly #log: Logger;
  readonly #entries = new Map<string, Entry>();
  /** One lookup per name at a time: each occupies a thread of the pool. */
  readonly #pending = new Map<string, Promise<string[]>>();

  constructor(log: Logger, lookup: Lookup = systemLookup) {
    this.#log = log;
    this.#lookup = lookup;
  }

  /** `remote none` accepts nobody. */
  async allows(remote: Remote, ip: string): Promise<boolean> {
    if (remote === null) return false;
    const list = new net.BlockList();
    const ips = net.isIP(remote.host) === 0 ? await this.#resolve(remote) : [remote.host];
    for (const one of ips) add(list, one);
    const plain = withoutZone(ip);
    const family = net.isIP(plain);
    return family !== 0 && list.check(plain, family === 4 ? 'ipv4' : 'ipv6');
  }

  async #resolve(remote: HostAddress): Promise<string[]> {
    const family = remote.family === 'tcp4' ? 4 : remote.family === 'tcp6' ? 6 : 0;
    const key = `${family}/${remote.host}`;
    const known = this.#entries.get(key);
    if (known !== undefined && performance.now() - known.at < resolvedMs) return known.ips;
    try {
      const asked = this.#ask(key, remote.host, family);
      const ips = await within(lookupMs, `resolving ${remote.host}`, asked);
      this.#entries.set(key, { at: performance.now(), ips });
      return ips;
    } catch (error) {
      const fields = { host: remote.host, error: errorText(error) };
      this.#log.warn(fields, 'the name in remote cannot be resolved');
      const ips = known?.ips ?? [];
      this.#entries.set(key, { at: performance.now() - resolvedMs + failedMs, ips });
      return ips;
    }
  }

  #ask(key: string, host: string, family: 0 | 4 | 6): Promise<string[]> {
    const pending = this.#pending.get(key) ??
      this.#lookup(host, family).finally(() => this.#pending.delete(key));
    this.#pending.set(key, pending);
    return pending;
  }
}

function add(list: net.BlockList, ip: string): void {
  const plain = withoutZone(ip);
  const family = net.isIP(plain);
  if (family !== 0) list.addAddress(plain, family === 4 ? 'ipv4' : 'ipv6');
}

function withoutZone(ip: string): string {
  return ip.replace(/%.*$/, '');
}
