/** hastctl's side of the control socket. */
import * as net from 'node:net';
import { HastError, errnoName } from '../base/errors.ts';
import { readLine } from './line.ts';
import type { ControlCommand, ControlRequest, ReplyOf } from './messages.ts';
import { checkSocketPath, controlSchema, fromFailure, lineBytesMax } from './messages.ts';
import { parseReply } from './validate.ts';

const connectMs = 5000;

export interface CallOptions {
  /** Path of the control socket. */
  path: string;
  /** How long the daemon may take to answer. */
  timeoutMs: number;
}

/**
 * Asks the daemon. Throws HAST_E_NO_DAEMON where nobody answers, HAST_E_PROTOCOL where the
 * connection is lost or the reply is no reply, and the daemon's own error where it sent one.
 */
export async function callDaemon<C extends ControlCommand>(
  command: C,
  options: CallOptions,
): Promise<ReplyOf[C['command']]> {
  checkSocketPath(options.path);
  const socket = await connectDaemon(options.path);
  try {
    const request: ControlRequest = { schema: controlSchema, ...command };
    const answer = readLine(socket, { bytesMax: lineBytesMax, timeoutMs: options.timeoutMs });
    socket.write(`${JSON.stringify(request)}\n`);
    const parsed = await parseReply(await lost(answer), command.command as C['command']);
    if (!parsed.ok) throw fromFailure(parsed.error);
    return parsed.reply;
  } finally {
    socket.destroy();
  }
}

async function lost(answer: Promise<string>): Promise<string> {
  try {
    return await answer;
  } catch (cause) {
    if (!(cause instanceof HastError)) throw cause;
    throw new HastError(cause.code, `hastd did not answer: ${cause.message}`, {
      cause, hint: "look at hastd's log, then ask again",
    });
  }
}

/** Throws HAST_E_NO_DAEMON. */
export function connectDaemon(path: string): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path);
    const fail = (why: string, hint: string, cause?: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      const options = cause === undefined ? { hint } : { cause, hint };
      reject(new HastError('HAST_E_NO_DAEMON', `no hastd answers at ${path} (${why})`, options));
    };
    const timer = setTimeout(() => fail('no connection', "look at hastd's log"), connectMs);
    const onError = (error: Error): void => {
      const name = errnoName(error);
      const hint = name === 'EACCES' || name === 'EPERM' ? 'run hastctl as root' : 'start hastd';
      fail(name ?? error.message, hint, error);
    };
    socket.once('error', onError);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', onError);
      socket.on('error', () => undefined); // readLine reports it
      resolve(socket);
    });
  });
}
