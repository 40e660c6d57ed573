/** Dialing the peer: connect, preface, one byte of answer. */
import * as net from 'node:net';
import type { ConnectResult, LinkHandler } from '../core/ports.ts';
import {
  encodePreface, PrefaceAnswer, prefaceAnswerText, PrefaceRole,
} from '../format/preface.ts';
import type { Protocol } from '../format/protocol.ts';
import type { WireOptions } from '../format/wire.ts';
import type { Reactor } from '../uring/reactor.ts';
import { openConnection } from './open-connection.ts';

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
  /** What reads and writes the connection; Node does by default. */
  reactor?: Reactor | null;
}

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
  let ended = false;
  const end = (result: ConnectResult): void => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    if ('failed' in result) socket.destroy();
    else socket.removeAllListeners();
    done(result);
  };
  let connected = false;
  const { host, port, timeoutMs } = options;
  const timer = setTimeout(() => {
    const what = connected ? 'does not answer the preface' : 'does not answer';
    end({ failed: `${host} port ${port} ${what} within ${timeoutMs / 1000} s`, answered: false });
  }, timeoutMs);
  socket.on('error', (error) => end({ failed: failureText(error, options), answered: connected }));
  socket.on('close', () => end({
    failed: `${host} port ${port} closed the connection without an answer`, answered: connected,
  }));
  socket.on('connect', () => {
    connected = true;
    socket.setNoDelay(true);
    const role = options.isPrimary ? PrefaceRole.primary : PrefaceRole.secondary;
    socket.write(encodePreface(options.resource, options.node, role, options.protocol));
  });
  socket.once('data', (chunk) => {
    socket.pause();
    const answer = chunk[0] as number;
    if (answer !== PrefaceAnswer.ok) {
      end({ failed: prefaceAnswerText(answer), answered: true });
      return;
    }
    const rest = chunk.subarray(1);
    end({
      open: (handler: LinkHandler) =>
        openConnection(socket, options.wire, handler, rest, options.reactor ?? null),
    });
  });
}
