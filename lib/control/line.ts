/** Reads one line of bounded size in bounded time from a socket: both ends of the protocol. */
import type * as net from 'node:net';
import { HastError } from '../base/errors.ts';

export interface LineBounds {
  bytesMax: number;
  timeoutMs: number;
}

/**
 * The text before the first newline. Throws HAST_E_TIMEOUT in silence, HAST_E_PROTOCOL where
 * the line is too long, is followed by more, is no UTF-8, or the other side ends before it.
 */
export function readLine(socket: net.Socket, bounds: LineBounds): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const timer = setTimeout(() => {
      fail('HAST_E_TIMEOUT', `no complete message within ${bounds.timeoutMs / 1000} s`);
    }, bounds.timeoutMs);
    const settle = (): void => {
      clearTimeout(timer);
      socket.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', onError);
      socket.pause();
    };
    const fail = (code: 'HAST_E_TIMEOUT' | 'HAST_E_PROTOCOL', why: string, cause?: Error): void => {
      settle();
      const hint = "see hastd's log; the same command again";
      reject(new HastError(code, why, cause === undefined ? { hint } : { cause, hint }));
    };
    const onData = (chunk: Buffer): void => {
      chunks.push(chunk);
      size += chunk.length;
      const end = chunk.indexOf(0x0a);
      if (size > bounds.bytesMax) return fail('HAST_E_PROTOCOL', 'the message is too long');
      if (end < 0) return;
      if (end !== chunk.length - 1) return fail('HAST_E_PROTOCOL', 'more than one message');
      settle();
      try {
        const raw = Buffer.concat(chunks);
        resolve(new TextDecoder('utf-8', { fatal: true }).decode(raw.subarray(0, -1)));
      } catch (cause) {
        reject(new HastError('HAST_E_PROTOCOL', 'the message is not UTF-8', { cause }));
      }
    };
    const onEnd = (): void => fail('HAST_E_PROTOCOL', 'the connection ended before its message');
    const onError = (error: Error): void => {
      fail('HAST_E_PROTOCOL', `the connection was lost: ${error.message}`, error);
    };
    socket.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', onError);
  });
}
