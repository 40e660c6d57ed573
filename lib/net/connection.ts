/**
 * The link port on a TCP socket: frames out, frames in. The frame writes of one turn leave in
 * one system call (cork).
 *
 * Hot path: send() and the data listener run once per frame or chunk. `npm run bench`, write-32
 * without a ring: fullsync 1.1 times qemu's quorum.
 */
import type * as net from 'node:net';
import { HastError } from '../base/errors.ts';
import type { LinkHandler, LinkPort } from '../core/ports.ts';
import type { Frame } from '../format/frame.ts';
import { encodeFrame, FrameReader, type WireOptions } from '../format/wire.ts';

/** How long finish() waits for the last bytes to leave. */
export const finishMs = 2000;

/**
 * Hands on what the socket receives, first of all `rest`, and its end: more than once, where there
 * is more than one sign of it. A port must not call back synchronously: so not from here.
 */
export function listen(
  socket: net.Socket, rest: Buffer | null, take: (chunk: Buffer) => void,
  end: (reason: string) => void,
): void {
  socket.setNoDelay(true);
  socket.setTimeout(0);
  socket.on('data', take);
  socket.on('error', (error) => end(`connection error: ${error.message}`));
  socket.on('end', () => end('the peer closed the connection'));
  socket.on('close', () => end('the connection is closed'));
  setImmediate(() => {
    if (rest !== null && rest.length > 0) take(rest);
    if (!socket.destroyed) socket.resume();
  });
}

export class PeerConnection implements LinkPort {
  readonly #socket: net.Socket;
  readonly #options: WireOptions;
  readonly #reader: FrameReader;
  #handler: LinkHandler | null;
  #corked = false;
  readonly #emit: (piece: Buffer) => void;

  /**
   * `options` may be changed by its owner while the connection lives: each frame says how it is
   * made. `rest` are bytes that were read with the preface's answer.
   */
  constructor(socket: net.Socket, options: WireOptions, handler: LinkHandler, rest: Buffer | null) {
    this.#socket = socket;
    this.#options = options;
    this.#handler = handler;
    this.#emit = (piece) => {
      socket.write(piece);
    };
    this.#reader = new FrameReader(options, (frame) => this.#handler?.frame(frame));
    listen(socket, rest, (chunk) => this.#take(chunk), (reason) => this.#end(reason));
  }

  send(frame: Frame): void {
    if (this.#socket.destroyed || this.#handler === null) return;
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(this.#uncork);
    }
    encodeFrame(frame, this.#options, this.#emit);
  }

  close(): void {
    this.#handler = null;
    this.#socket.destroy();
  }

  finish(): void {
    this.#handler = null;
    this.#uncork();
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), finishMs).unref();
  }

  readonly #uncork = (): void => {
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  };

  #take(chunk: Buffer): void {
    if (this.#handler === null) return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      this.#end(error.message, true);
    }
  }

  #end(reason: string, isBad = false): void {
    const handler = this.#handler;
    this.#handler = null;
    this.#socket.destroy();
    if (handler !== null) setImmediate(() => handler.closed(reason, isBad));
  }
}
