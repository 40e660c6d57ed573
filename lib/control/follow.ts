/** hastctl's side of the events: the lines of one connection, until it ends. */
import type * as net from 'node:net';
import { HastError } from '../base/errors.ts';
import type { StateEvent } from '../format/state-event.ts';
import { connectDaemon } from './client.ts';
import { checkSocketPath, controlSchema, fromFailure } from './messages.ts';
import { parseEvent, parseReply } from './validate.ts';

/**
 * Events as they come. Throws HAST_E_NO_DAEMON where nobody answers, HAST_E_PROTOCOL when the
 * connection is lost, and the daemon's own error where it refuses or ends the stream.
 */
export async function* followDaemon(
  resources: readonly string[], path: string, signal?: AbortSignal,
): AsyncGenerator<StateEvent> {
  checkSocketPath(path);
  const socket = await connectDaemon(path);
  const abort = (): void => void socket.destroy();
  signal?.addEventListener('abort', abort);
  try {
    socket.write(`${JSON.stringify({ schema: controlSchema, command: 'events', resources })}\n`);
    let isBegun = false;
    for await (const line of linesOf(socket)) {
      if (isBegun && !line.startsWith('{"schema":1,"ok":')) {
        yield await parseEvent(line);
        continue;
      }
      const parsed = await parseReply(line, 'events');
      if (!parsed.ok) throw fromFailure(parsed.error);
      isBegun = true;
    }
  } finally {
    signal?.removeEventListener('abort', abort);
    socket.destroy();
  }
  if (signal?.aborted === true) return;
  throw new HastError('HAST_E_PROTOCOL', 'the connection to hastd ended', {
    hint: 'hastctl status',
  });
}

/**
 * Ends also where the connection is lost: the caller says so. The length of a line is not
 * bounded here: the daemon is root's, as its socket is.
 */
async function* linesOf(socket: net.Socket): AsyncGenerator<string> {
  socket.setEncoding('utf8');
  let rest = '';
  try {
    for await (const chunk of socket) {
      const lines = `${rest}${chunk as string}`.split('\n');
      rest = lines.pop() ?? '';
      yield* lines;
    }
  } catch {
    // Destroyed from either side: what is missing of a line is no event.
  }
}
