/** The link port on an open socket: on the ring where this process has one. */
import type * as net from 'node:net';
import { TLSSocket } from 'node:tls';
import { duplicateDescriptor } from '../base/libc.ts';
import type { LinkHandler, LinkPort } from '../core/ports.ts';
import type { WireOptions } from '../format/wire.ts';
import type { Reactor } from '../uring/reactor.ts';
import { PeerConnection } from './connection.ts';
import { RingConnection } from './ring-connection.ts';
import { TlsConnection } from './tls-connection.ts';

/** What Node shows of a socket's handle, undocumented. */
interface SocketHandle {
  fd?: unknown;
  readStop?: () => void;
}

/** `rest`: bytes that were read with the preface or its answer. */
export function openConnection(
  socket: net.Socket, options: WireOptions, handler: LinkHandler, rest: Buffer | null,
  reactor: Reactor | null,
): LinkPort {
  // What the ring would see is not what was sent.
  if (socket instanceof TLSSocket) {
    return new TlsConnection(socket, options, handler, rest, reactor);
  }
  const taken = reactor === null ? null : takeOver(socket);
  return reactor === null || taken === null
    ? new PeerConnection(socket, options, handler, rest)
    : new RingConnection(taken.fd, reactor, options, handler, join(rest, taken.rest));
}

/**
 * A descriptor of the connection that Node knows nothing of, and what Node had read of it. Node's
 * own is closed: paused, it would go on reading until its buffer is full.
 */
function takeOver(socket: net.Socket): { fd: number; rest: Buffer | null } | null {
  const { _handle: handle } = socket as { _handle?: SocketHandle | null };
  if (typeof handle?.fd !== 'number' || handle.fd < 0) return null;
  socket.setNoDelay(true);
  const { errno, fd } = duplicateDescriptor(handle.fd);
  if (errno !== 0) return null;
  handle.readStop?.();
  const rest = socket.read() as Buffer | null;
  socket.removeAllListeners();
  socket.on('error', () => undefined);
  socket.destroy();
  return { fd, rest };
}

function join(first: Buffer | null, second: Buffer | null): Buffer | null {
  if (first === null || second === null) return first ?? second;
  return Buffer.concat([first, second]);
}
