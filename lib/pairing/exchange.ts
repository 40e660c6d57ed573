/**
 * How the second node gets its certificate: one request and one answer, each a line of JSON, within
 * TLS 1.3 whose pre-shared key is in the code. So both know that the other one has the code,
 * and nobody in between learns or changes anything.
 *
 * - A private key never leaves its node.
 * - A code works once; wrong keys end the offer after `attemptsMax`, time does after `timeoutMs`.
 */
import { X509Certificate } from 'node:crypto';
import * as net from 'node:net';
import * as tls from 'node:tls';
import { HastError, errnoName, errorText } from '../base/errors.ts';
import { Authority, type Issued, keyOfRequest, requestCertificate } from './certificates.ts';
import { fingerprintOf, formatCode, newKey, type PairCode } from './code.ts';

const attemptsMax = 5;
const connectionsMax = 16;
/** One connection, from its beginning to its end. */
const exchangeMs = 10_000;
const lineBytesMax = 64 * 1024;
const namesMax = 8;
const nodeName = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/;
const common = { minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' } as const;

/** PEM of what a node keeps. */
export interface NodeFiles extends Issued {
  ca: string;
}

export interface OfferOptions {
  /** Names of this node. */
  names: readonly string[];
  host: string;
  port: number;
  timeoutMs: number;
  /** Told when it listens. */
  onCode(code: string): void;
  /** Told of connections that were no use. */
  onRefused(why: string): void;
  /** Keeps this node's files; what it throws is told to the other node, and ends the offer. */
  keep(files: NodeFiles): void;
}

interface Request {
  names: string[];
  request: string;
}

/**
 * Makes a CA, and waits for the other node. Gives that node's names. Rejects with HAST_E_TIMEOUT,
 * HAST_E_REFUSED after too many wrong attempts, HAST_E_ADDRESS_IN_USE.
 */
export async function offerPair(options: OfferOptions): Promise<string[]> {
  const { names, host, port, timeoutMs } = options;
  const authority = await Authority.create(`hast-linux ${names[0] ?? ''}`);
  const own = { ...await authority.issue(names), ca: authority.certificate };
  const key = newKey();
  const fingerprint = fingerprintOf(new X509Certificate(own.ca).raw);
  const sockets = new Set<net.Socket>();
  const server = net.createServer();
  let timer: NodeJS.Timeout | undefined;
  try {
    await listen(server, host, port);
    const { port: used } = server.address() as net.AddressInfo;
    return await new Promise<string[]>((resolve, reject) => {
      const offer = new Offer(options, authority, own, key, { resolve, reject });
      timer = setTimeout(() => {
        reject(new HastError('HAST_E_TIMEOUT', 'the other node did not come in time', {
          hint: 'hastctl pair init again',
        }));
      }, timeoutMs);
      offer.onTaken = () => clearTimeout(timer);
      server.on('connection', (socket) => {
        if (sockets.size >= connectionsMax) {
          socket.destroy();
          return;
        }
        sockets.add(socket);
        socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
        setTimeout(() => socket.destroy(), exchangeMs).unref();
        offer.take(socket);
      });
      options.onCode(formatCode({ host, port: used, fingerprint, key }));
    });
  } finally {
    clearTimeout(timer);
    server.close();
    // The answer has left; the last bytes of a refusal may go too.
    for (const socket of sockets) setTimeout(() => socket.destroy(), 1000).unref();
  }
}

/** What becomes of the connections that come for one code. */
class Offer {
  onTaken: () => void = () => undefined;
  readonly #options: OfferOptions;
  readonly #authority: Authority;
  readonly #own: NodeFiles;
  readonly #key: Buffer;
  readonly #end: { resolve: (names: string[]) => void; reject: (error: Error) => void };
  #wrong = 0;
  #isTaken = false;

  constructor(
    options: OfferOptions, authority: Authority, own: NodeFiles, key: Buffer,
    end: { resolve: (names: string[]) => void; reject: (error: Error) => void },
  ) {
    this.#options = options;
    this.#authority = authority;
    this.#own = own;
    this.#key = key;
    this.#end = end;
  }

  take(socket: net.Socket): void {
    const server = tls.createServer({
      ...common, pskCallback: () => this.#key, handshakeTimeout: exchangeMs,
    });
    server.on('tlsClientError', (error) => {
      // Who says nothing, or goes, has not tried a key.
      const { code = '' } = error as NodeJS.ErrnoException;
      if (code.startsWith('ERR_SSL_')) this.#refuse(socket.remoteAddress ?? '');
    });
    server.on('secureConnection', (secured) => {
      secured.on('error', () => undefined);
      readLine(secured).then((line) => this.#answer(secured, line)).catch((error: unknown) => {
        secured.end(`${JSON.stringify({ error: errorText(error) })}\n`);
      });
    });
    server.emit('connection', socket);
  }

  #refuse(from: string): void {
    this.#options.onRefused(`${from}: a wrong code`);
    if (++this.#wrong < attemptsMax) return;
    this.#end.reject(new HastError('HAST_E_REFUSED', `${this.#wrong} attempts with a wrong code`, {
      hint: 'find out who connects, then hastctl pair init again',
    }));
  }

  async #answer(secured: tls.TLSSocket, line: string): Promise<void> {
    const { names, keep } = this.#options;
    const asked = parseRequest(line, names);
    const publicKey = await keyOfRequest(asked.request);
    if (publicKey === null) throw new Error('the request is not signed by its key');
    const certificate = await this.#authority.sign(publicKey, asked.names);
    if (this.#isTaken) throw new Error('the code was used already');
    this.#isTaken = true;
    this.onTaken();
    try {
      keep(this.#own);
    } catch (error) {
      this.#end.reject(error as Error);
      throw error;
    }
    const reply = { certificate, ca: this.#own.ca, names };
    secured.end(`${JSON.stringify(reply)}\n`, () => this.#end.resolve(asked.names));
  }
}

async function listen(server: net.Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const why = errnoName(cause) ?? cause.message;
      const message = `cannot listen on ${host} port ${port}: ${why}`;
      const hint = '--address HOST[:PORT] with an address of this node and a free port';
      reject(new HastError('HAST_E_ADDRESS_IN_USE', message, { cause, hint }));
    });
    server.listen({ host, port }, resolve);
  });
}

/** Throws with a text for the other node. */
function parseRequest(line: string, taken: readonly string[]): Request {
  const { names, request } = JSON.parse(line) as Partial<Record<keyof Request, unknown>>;
  const isSound = Array.isArray(names) && names.length > 0 && names.length <= namesMax &&
    names.every((name) => typeof name === 'string' && nodeName.test(name)) &&
    typeof request === 'string';
  if (!isSound) throw new Error('a request that makes no sense');
  const same = (names as string[]).find((name) => taken.includes(name));
  if (same !== undefined) throw new Error(`both nodes are called '${same}': give one --node NAME`);
  return { names: names as string[], request };
}

export interface JoinOptions {
  /** Names of this node. */
  names: readonly string[];
  timeoutMs?: number;
}

/**
 * The other side: asks with the code. Gives what to keep, and the names of the node that made the
 * code. Rejects with HAST_E_REFUSED or HAST_E_TIMEOUT; nothing was kept then.
 */
export async function joinPair(
  code: PairCode, { names, timeoutMs = exchangeMs }: JoinOptions,
): Promise<{ files: NodeFiles; names: string[] }> {
  const asked = await requestCertificate(names);
  const line = await askFor(code, JSON.stringify({ names, request: asked.request }), timeoutMs);
  const reply = JSON.parse(line) as {
    error?: string; certificate?: string; ca?: string; names?: string[];
  };
  const { error, certificate = '', ca = '' } = reply;
  if (error !== undefined) {
    throw new HastError('HAST_E_REFUSED', `the other node refuses: ${error}`, {
      hint: 'look at what hastctl pair init says there',
    });
  }
  const issuer = new X509Certificate(ca);
  const own = new X509Certificate(certificate);
  if (!fingerprintOf(issuer.raw).equals(code.fingerprint) || !own.verify(issuer.publicKey)) {
    throw new HastError('HAST_E_REFUSED', 'the CA is not the one that the code speaks of', {
      hint: 'hastctl pair init again on the other node, and take its new code',
    });
  }
  return { files: { certificate, ca, key: asked.key }, names: reply.names ?? [] };
}

function askFor(code: PairCode, line: string, timeoutMs: number): Promise<string> {
  const { host, port, key } = code;
  const where = `${host} port ${port}`;
  return new Promise((resolve, reject) => {
    const fail = (what: 'HAST_E_REFUSED' | 'HAST_E_TIMEOUT', why: string, hint: string): void =>
      reject(new HastError(what, why, { hint }));
    const again = 'hastctl pair init again on the other node, and take its new code';
    const socket = tls.connect({
      ...common, host, port, checkServerIdentity: () => undefined,
      pskCallback: () => ({ psk: key, identity: 'pair' }),
    });
    const timer = setTimeout(() => {
      fail('HAST_E_TIMEOUT', `${where} does not answer`, 'look for a firewall between the nodes');
      socket.destroy();
    }, timeoutMs);
    socket.on('close', () => {
      clearTimeout(timer);
      fail('HAST_E_REFUSED', `${where} closed the connection`, again);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const { code: errorCode = '' } = error;
      if (errorCode.startsWith('ERR_SSL_')) {
        fail('HAST_E_REFUSED', `${where} does not know this code`, again);
      } else if (errorCode === 'ECONNREFUSED') {
        fail('HAST_E_REFUSED', `nobody waits at ${where}: the code was used, or its time is over`,
          again);
      } else {
        fail('HAST_E_TIMEOUT', `${where}: ${error.message}`, 'look at the network');
      }
    });
    socket.once('secureConnect', () => {
      // Without the code somebody could still show a certificate that this machine trusts.
      if (!socket.isSessionReused()) {
        fail('HAST_E_REFUSED', `${where} does not know this code`, again);
        socket.destroy();
        return;
      }
      socket.write(`${line}\n`);
      readLine(socket).then(resolve, reject).finally(() => socket.destroy());
    });
  });
}

function readLine(socket: tls.TLSSocket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
      const end = text.indexOf('\n');
      if (end >= 0) resolve(text.slice(0, end));
      else if (text.length > lineBytesMax) reject(new Error('more than a line'));
    });
    socket.on('close', () => {
      reject(new HastError('HAST_E_REFUSED', 'the other node closed the connection', {
        hint: 'look at what hastctl pair init says there',
      }));
    });
  });
}
