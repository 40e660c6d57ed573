/**
 * The daemon's side of streams over the control socket: one JSON line for each event, for as long
 * as the client stays. What a client has not read yet is bounded: one that is too slow is told so
 * in a last line, and ended. It never delays the daemon or another client.
 */
import type * as net from 'node:net';
import { HastError } from '../base/errors.ts';
import type { ControlReply } from './messages.ts';
import { controlSchema, toFailure } from './messages.ts';

/** Unread bytes of one client beside what the kernel holds. */
export const unreadBytesMax = 256 * 1024;

export class Followers {
  readonly #max: number;
  #count = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Throws HAST_E_BUSY. */
  refuseIfFull(): void {
    if (this.#count < this.#max) return;
    throw new HastError('HAST_E_BUSY', `${this.#count} others follow events already`, {
      hint: 'end some of them: ps -C node -o pid,args',
    });
  }

  /**
   * Returns once the stream has begun; throws where it cannot begin. `follow` may send before it
   * returns what ends it.
   */
  async serve(
    socket: net.Socket, reply: ControlReply, lastMs: number,
    follow: (send: (event: object) => void) => Promise<() => void>,
  ): Promise<void> {
    this.#count++;
    let isOver = false;
    let stop: (() => void) | undefined;
    const end = (): void => {
      if (isOver) return;
      isOver = true;
      this.#count--;
      stop?.();
    };
    socket.once('close', end);
    // It has nothing more to say: whatever it sends, and its end, is the end.
    socket.resume().once('end', () => socket.destroy());
    socket.write(line(reply));
    const send = (event: object): void => {
      if (isOver) return;
      if (socket.writableLength <= unreadBytesMax) {
        socket.write(line(event));
        return;
      }
      end();
      const error = toFailure(new HastError(
        'HAST_E_BUSY', 'events were not read fast enough: this stream ends',
        { hint: 'follow them again: it begins with the present state' },
      ));
      lastLine(socket, { schema: controlSchema, ok: false, error }, lastMs);
    };
    try {
      stop = await follow(send);
    } catch (error) {
      end();
      throw error;
    }
    if (isOver) stop();
  }
}

/** Sends it, and ends the connection when it was taken, or after `ms`. */
export function lastLine(socket: net.Socket, reply: ControlReply, ms: number): void {
  socket.resume(); // what still comes is dropped, so that closing does not reset the reply away
  socket.end(line(reply));
  const timer = setTimeout(() => socket.destroy(), ms);
  socket.once('finish', () => socket.destroySoon());
  socket.once('close', () => clearTimeout(timer));
}

function line(value: object): string {
  return `${JSON.stringify(value)}\n`;
}
