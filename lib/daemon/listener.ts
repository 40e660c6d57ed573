/**
 * The listening TCP sockets. An accepted connection is asked for nothing but its preface, in
 * bounded time, and then handed to the worker of its resource; the worker answers it.
 *
 * - Only addresses named by some resource's `remote` are read at all.
 * - Exactly the preface is consumed: the dialer waits for the answer byte, so anything that
 *   follows is noise and ends the connection.
 * - At most `unreadMax` connections wait for their preface at a time, and as many for their end;
 *   where there are more, one of the address that has most has to go.
 * - A worker gets at most `handOverMax` connections a second: each costs it a session.
 * - Noise and silence cost one log line per address and 10 s.
 */
import * as net from 'node:net';
import { HastError, errnoName, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatAddress } from '../config/address.ts';
import type { Config, ResourceConfig } from '../config/model.ts';
import type { Preface } from '../format/preface.ts';
import {
  PrefaceAnswer, decodePreface, prefaceSize, prefaceVersionFits,
} from '../format/preface.ts';
import type { Protocol } from '../format/protocol.ts';
import { RateLimit } from './deadline.ts';
import type { PeerAddresses } from './peer-addresses.ts';
import { Throttle, WaitingRoom } from './waiting-room.ts';

export type ListenAddress = Config['listen'][number];

/** What a resource says to a connection. */
export interface PeerTarget {
  remote: ResourceConfig['remote'];
  /** `init`: the resource takes part in nothing; `busy`: it has no worker right now. */
  state: 'ready' | 'init' | 'busy';
  handOver(preface: Uint8Array, socket: net.Socket): void;
}

export interface ListenerOptions {
  log: Logger;
  addresses: PeerAddresses;
  /** Every resource of this node, by name. */
  targets(): ReadonlyMap<string, PeerTarget>;
  /** What this node speaks; this program's own by default. */
  protocol?: Protocol;
  prefaceMs?: number;
  unreadMax?: number;
}

const defaultPrefaceMs = 5000;
const defaultUnreadMax = 256;
/** A peer dials five times a second at most. */
const handOverMax = 16;
const handOverMs = 1000;
/** A refused client may take its answer within this. */
const refusedMs = 1000;
const noiseLogMs = 10_000;

type Answer = Exclude<keyof typeof PrefaceAnswer, 'ok'>;

export class Listener {
  readonly #options: ListenerOptions;
  readonly #servers = new Map<string, net.Server>();
  readonly #unread: WaitingRoom;
  /** Refused ones that may take their answer. */
  readonly #leaving: WaitingRoom;
  readonly #handOvers = new Throttle(handOverMax, handOverMs);
  readonly #noise = new RateLimit(noiseLogMs);

  constructor(options: ListenerOptions) {
    this.#options = options;
    const max = options.unreadMax ?? defaultUnreadMax;
    this.#unread = new WaitingRoom(max);
    this.#leaving = new WaitingRoom(max);
  }

  /** Port of the first address; for tests that listen on port 0. */
  get port(): number {
    const [server] = this.#servers.values();
    const address = server?.address();
    return address !== null && typeof address === 'object' ? address.port : 0;
  }

  /**
   * Listens on exactly these addresses. Throws HAST_E_ADDRESS_IN_USE where one cannot be had;
   * then nothing has changed.
   */
  async listen(addresses: readonly ListenAddress[]): Promise<void> {
    const wanted = new Map(addresses.map((address) => [formatAddress(address), address]));
    const fresh = new Map<string, net.Server>();
    try {
      for (const [key, address] of wanted) {
        if (this.#servers.has(key)) continue;
        const server = await this.#bind(address, key);
        if (server !== undefined) fresh.set(key, server);
      }
      if (fresh.size + this.#servers.size === 0 && wanted.size > 0) {
        throw new HastError('HAST_E_ADDRESS_IN_USE', 'no listen address exists on this machine', {
          hint: "change 'listen'",
        });
      }
    } catch (error) {
      for (const server of fresh.values()) server.close();
      throw error;
    }
    for (const [key, server] of this.#servers) {
      if (wanted.has(key)) continue;
      server.close();
      this.#servers.delete(key);
    }
    for (const [key, server] of fresh) {
      this.#servers.set(key, server);
      this.#options.log.info({ listen: key }, 'listening');
    }
  }

  /** Stops listening and drops who has not been handed over. */
  close(): void {
    // A server's own 'close' waits for connections that workers hold: nobody waits for it.
    for (const server of this.#servers.values()) server.close();
    this.#servers.clear();
    for (const room of [this.#unread, this.#leaving]) {
      for (const socket of room) socket.destroy();
    }
  }

  /** Undefined where the kernel does not have the address family of a wildcard address. */
  #bind(address: ListenAddress, key: string): Promise<net.Server | undefined> {
    const server = net.createServer({ noDelay: true }, (socket) => this.#accept(socket));
    return new Promise((resolve, reject) => {
      server.once('error', (cause) => {
        const errno = errnoName(cause);
        const wildcard = address.host === '::' || address.host === '0.0.0.0';
        if (wildcard && (errno === 'EAFNOSUPPORT' || errno === 'EADDRNOTAVAIL')) {
          this.#options.log.debug({ listen: key }, 'the kernel does not have this address family');
          return resolve(undefined);
        }
        reject(bindError(address, errno ?? cause.message, cause));
      });
      const { host, port, family } = address;
      server.listen({ host, port, ipv6Only: family === 'tcp6', exclusive: true }, () => {
        server.removeAllListeners('error');
        server.on('error', (error) => {
          this.#options.log.error({ listen: key, error: errorText(error) }, 'accepting failed');
        });
        resolve(server);
      });
    });
  }

  #accept(socket: net.Socket): void {
    const ip = socket.remoteAddress ?? '';
    socket.on('error', () => socket.destroy());
    const out = this.#unread.enter(socket, ip);
    if (out !== null) {
      this.#complain(out.remoteAddress ?? ip, 'too many connections wait for their preface');
      out.destroy();
    }
    this.#judge(socket, ip)
      .catch((error: unknown) => {
        this.#complain(ip, errorText(error));
        socket.destroy();
      })
      .finally(() => this.#unread.leave(socket));
  }

  async #judge(socket: net.Socket, ip: string): Promise<void> {
    const { targets, addresses, protocol } = this.#options;
    if (!await this.#isPeer(ip)) return this.#refuse(socket, ip, 'addressRefused');
    const timeoutMs = this.#options.prefaceMs ?? defaultPrefaceMs;
    const raw = await readExactly(socket, prefaceSize, timeoutMs);
    let preface: Preface;
    try {
      preface = decodePreface(raw, protocol);
    } catch (error) {
      return this.#refuse(socket, ip, 'malformed', errorText(error));
    }
    // A probe of hastctl check --peer: being answered is all it wants.
    if (preface.resource === '') return dismiss(socket, 'unknownResource');
    if (!prefaceVersionFits(preface, protocol)) return this.#refuse(socket, ip, 'version');
    const known = targets().get(preface.resource);
    if (known === undefined) return this.#refuse(socket, ip, 'unknownResource', preface.resource);
    if (!await addresses.allows(known.remote, ip)) {
      return this.#refuse(socket, ip, 'addressRefused', preface.resource);
    }
    if (socket.destroyed) return;
    // Looked up again: the wait may have changed it. No await from here to the hand-over.
    const target = targets().get(preface.resource);
    if (target === undefined || target.state !== 'ready') {
      const answer = target?.state === 'busy' ? 'busy' : 'roleInit';
      this.#options.log.debug({ resource: preface.resource, ip, answer }, 'a peer has to wait');
      return this.#dismiss(socket, ip, answer);
    }
    if (!this.#handOvers.allows(preface.resource)) {
      this.#complain(ip, `too many connections a second: ${preface.resource}`);
      return this.#dismiss(socket, ip, 'busy');
    }
    if (socket.readableLength > 0) throw new Error('data after the preface');
    this.#options.log.debug({ resource: preface.resource, ip, node: preface.node }, 'a peer');
    target.handOver(raw, socket);
  }

  async #isPeer(ip: string): Promise<boolean> {
    for (const { remote } of this.#options.targets().values()) {
      if (await this.#options.addresses.allows(remote, ip)) return true;
    }
    return false;
  }

  #refuse(socket: net.Socket, ip: string, answer: Answer, why = ''): void {
    this.#complain(ip, why === '' ? answer : `${answer}: ${why}`);
    this.#dismiss(socket, ip, answer);
  }

  /** Writes the answer byte and ends, reading on so that the answer is not reset away. */
  #dismiss(socket: net.Socket, ip: string, answer: Answer): void {
    if (socket.destroyed) return;
    this.#leaving.enter(socket, ip)?.destroy();
    socket.resume();
    socket.end(Uint8Array.of(PrefaceAnswer[answer]));
    const timer = setTimeout(() => socket.destroy(), refusedMs);
    socket.once('close', () => clearTimeout(timer));
  }

  #complain(ip: string, reason: string): void {
    const suppressed = this.#noise.take(ip);
    if (suppressed === undefined) return;
    this.#options.log.warn({ ip, reason, suppressed }, 'a connection is refused');
  }
}

/** The next `size` bytes; whatever follows them stays in the socket. */
function readExactly(socket: net.Socket, size: number, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      clearTimeout(timer);
      socket.off('readable', onReadable).off('end', onEnd).off('close', onEnd);
    };
    const fail = (why: string): void => {
      settle();
      reject(new Error(why));
    };
    const timer = setTimeout(() => fail('no preface in time'), timeoutMs);
    const onEnd = (): void => fail('it ended before its preface');
    const onReadable = (): void => {
      const raw = socket.read(size) as Buffer | null;
      if (raw === null) return;
      // At the end of the stream read() gives what there is.
      if (raw.length !== size) return fail('it ended before its preface');
      settle();
      resolve(raw);
    };
    socket.on('readable', onReadable).on('end', onEnd).on('close', onEnd);
  });
}

function bindError(address: ListenAddress, why: string, cause: Error): HastError {
  const text = `${formatAddress(address)} (port ${address.port})`;
  const hint = why === 'EADDRINUSE'
    ? `end what uses port ${address.port}, or change 'listen'`
    : why === 'EADDRNOTAVAIL'
      ? `give this machine the address, or change 'listen'`
      : "change 'listen'";
  const message = `cannot listen on ${text}: ${why}`;
  return new HastError('HAST_E_ADDRESS_IN_USE', message, { cause, hint });
}
