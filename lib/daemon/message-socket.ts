/**
 * Messages over a unix socket, one JSON line each: between a worker and a parent that did not start
 * it. Both may be of different versions, which JSON outlives; see `adoptionVersion`.
 */
import type * as net from 'node:net';
import { errorText } from '../base/errors.ts';

/** Bytes of one message; a status is the longest. */
const lineBytesMax = 4 * 1024 * 1024;

export interface MessageHandler {
  /** An object with a `type`, which may be any text; nothing else of it is checked. */
  message(message: { type: string }): void;
  /** The other side is gone, or sent what is no message. Called once; nothing follows. */
  closed(why: string): void;
}

export class MessageSocket {
  readonly #socket: net.Socket;
  readonly #handler: MessageHandler;
  #unread: Buffer[] = [];
  #unreadBytes = 0;
  #isOpen = true;

  constructor(socket: net.Socket, handler: MessageHandler) {
    this.#socket = socket;
    this.#handler = handler;
    socket.on('data', (chunk: Buffer) => this.#data(chunk));
    socket.on('error', (error) => this.#end(errorText(error)));
    socket.on('close', () => this.#end('the other side is gone'));
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** `then`: it is with the kernel, or will never be. */
  send(message: object, then?: (error: Error | null) => void): void {
    if (!this.#isOpen) {
      then?.(new Error('the connection has ended'));
      return;
    }
    this.#socket.write(`${JSON.stringify(message)}\n`, (error) => then?.(error ?? null));
  }

  /** Ends it; `closed` is not called any more. */
  close(): void {
    this.#isOpen = false;
    this.#socket.destroy();
  }

  #data(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0 && this.#isOpen; end = rest.indexOf(0x0a)) {
      const line = Buffer.concat([...this.#unread, rest.subarray(0, end)]);
      this.#unread = [];
      this.#unreadBytes = 0;
      rest = rest.subarray(end + 1);
      this.#line(line);
    }
    if (rest.length === 0) return;
    this.#unread.push(rest);
    this.#unreadBytes += rest.length;
    if (this.#unreadBytes > lineBytesMax) this.#end('a message is too long');
  }

  #line(line: Buffer): void {
    let message: unknown;
    try {
      message = JSON.parse(line.toString());
    } catch {
      this.#end('a message is no JSON');
      return;
    }
    if (!isMessage(message)) {
      this.#end('a message has no type');
      return;
    }
    this.#handler.message(message);
  }

  #end(why: string): void {
    if (!this.#isOpen) return;
    this.close();
    this.#handler.closed(why);
  }
}

function isMessage(value: unknown): value is { type: string } {
  return typeof value === 'object' && value !== null && 'type' in value &&
    typeof value.type === 'string';
}
