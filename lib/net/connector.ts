/** Dialing the peer: connect, preface, one byte of answer. */
import * as net from 'node:net';
import type { ConnectResult, LinkHandler } from '../core/ports.ts';
import {
  encodePreface, PrefaceAnswer, prefaceAnswerText, PrefaceRole, PrefaceSecurity,
  type SecurityWord,
} from '../format/preface.ts';
import type { Protocol } from '../format/protocol.ts';
import type { WireOptions } from '../format/wire.ts';
import type { Reactor } from '../uring/reactor.ts';
import type { Credentials } from './credentials.ts';
import { openConnection } from './open-connection.ts';
import { secureDialed } from './secure.ts';

export interface DialOptions {
  host: string;
  port: number;
  /** 4 or 6 to insist on a family, 0 for either. */
  family: 0 | 4 | 6;
  /** Local address to bind, and its port (0: any); null: the kernel's choice. */
  source: { host: string; port: number } | null;
  timeoutMs: number;
  resource: string;
  node: string;
  isPrimary: boolean;
  /** What this node speaks; this program's own by default. */
  protocol?: Protocol;
  wire: WireOptions;
  /** What the connection is secured by; nothing by default. */
  credentials?: Credentials | null;
  /** Told, before `done`, where the two nodes do not come to terms about that. */
  onUnsecured?: (text: string) => void;
  /** What reads and writes the connection; Node does by default. */
  reactor?: Reactor | null;
}

/** Of an attempt's time, for a handshake that begins late in it. */
const leftMsMin = 500;

function failureText(error: NodeJS.ErrnoException, { host, port }: DialOptions): string {
  const where = `${host} port ${port}`;
  switch (error.code) {
    case 'ECONNREFUSED': return `no hastd listens at ${where}`;
    case 'ENOTFOUND': case 'EAI_AGAIN': return `the name ${host} cannot be resolved`;
    case 'EHOSTUNREACH': case 'ENETUNREACH': return `${where} is not reachable`;
    case 'EADDRNOTAVAIL': return `the source address is not one of this node (${where})`;
    default: return `${where}: ${error.message}`;
  }
}

/** Calls `done` exactly once, within the timeout. */
export function dial(options: DialOptions, done: (result: ConnectResult) => void): void {
  const socket = net.connect({
    host: options.host, port: options.port, family: options.family,
    ...(options.source === null ? {} : { localAddress: options.source.host }),
    ...(options.source === null || options.source.port === 0
      ? {}
      : { localPort: options.source.port }),
  });
  const credentials = options.credentials ?? null;
  const startedAt = performance.now();
  let ended = false;
  const end = (result: ConnectResult): void => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    if ('failed' in result) socket.destroy();
    else if (credentials === null) socket.removeAllListeners();
    done(result);
  };
  let connected = false;
  const { host, port, timeoutMs } = options;
  const timer = setTimeout(() => {
    const what = connected ? 'does not answer the preface' : 'does not answer';
    end({ failed: `${host} port ${port} ${what} within ${timeoutMs / 1000} s`, answered: false });
  }, timeoutMs);
  const role = options.isPrimary ? PrefaceRole.primary : PrefaceRole.secondary;
  const security = PrefaceSecurity[credentials?.kind ?? 'none'];
  const { resource, node, protocol } = options;
  const preface = encodePreface(resource, node, role, protocol, security);
  socket.on('error', (error) => end({ failed: failureText(error, options), answered: connected }));
  socket.on('close', () => end({
    failed: `${host} port ${port} closed the connection without an answer`, answered: connected,
  }));
  socket.on('connect', () => {
    connected = true;
    socket.setNoDelay(true);
    socket.write(preface);
  });
  socket.once('data', (chunk) => {
    socket.pause();
    const answer = chunk[0] as number;
    if (answer !== PrefaceAnswer.ok) {
      const failed = refusalText(answer, credentials?.kind ?? 'none');
      if (answer >= PrefaceAnswer.needsNone) options.onUnsecured?.(failed);
      end({ failed, answered: true });
      return;
    }
    const rest = chunk.subarray(1);
    if (credentials === null) {
      end(opened(socket, rest, options));
      return;
    }
    clearTimeout(timer);
    const left = Math.max(leftMsMin, timeoutMs - (performance.now() - startedAt));
    secure(socket, preface, { ...options, credentials, timeoutMs: left }, end);
  });
}

function opened(socket: net.Socket, rest: Buffer, options: DialOptions): ConnectResult {
  return {
    open: (handler: LinkHandler) =>
      openConnection(socket, options.wire, handler, rest, options.reactor ?? null),
  };
}

function secure(
  raw: net.Socket, preface: Buffer, options: DialOptions & { credentials: Credentials },
  end: (result: ConnectResult) => void,
): void {
  const { credentials, resource, timeoutMs } = options;
  raw.removeAllListeners();
  raw.on('error', () => undefined);
  secureDialed(raw, { credentials, resource, preface, timeoutMs }, (secured) => {
    if ('socket' in secured) {
      end(opened(secured.socket, secured.rest, options));
      return;
    }
    options.onUnsecured?.(secured.failed);
    end({ failed: secured.failed, answered: true });
  });
}

function refusalText(answer: number, own: SecurityWord): string {
  const text = prefaceAnswerText(answer);
  switch (answer) {
    case PrefaceAnswer.needsNone: return mismatchText('none', own);
    case PrefaceAnswer.needsTls: return mismatchText('tls', own);
    case PrefaceAnswer.needsSecret: return mismatchText('secret', own);
    case PrefaceAnswer.malformed:
      return own === 'none' ? text : `${text}: it may run a release without tls and secret`;
    default: return text;
  }
}

const securityNames = { none: 'neither TLS nor a secret', tls: 'TLS', secret: 'a secret' } as const;

/** The two nodes are set to different ways of knowing each other: said on both. */
export function mismatchText(peer: SecurityWord, own: SecurityWord): string {
  const lacks = own === 'none' ? '' : `the peer does not use ${securityNames[own]}: `;
  return `${lacks}the peer uses ${securityNames[peer]} and this node ${securityNames[own]}; ` +
    'set the same on both nodes (tls, secret), then reload hastd';
}
