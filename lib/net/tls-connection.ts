/**
 * HOT PATH. The link port on a TLS connection. Node encrypts and decrypts; what this does is to
 * hand it few and large pieces. `npm run bench`, fullsync-tls:
 * 0.65 to 0.74 of the sequential rate without TLS, 0.8 to 0.95 of 4 KiB writes at depth 32.
 *
 * - Small pieces of a turn are put together, so that they share records and system calls. A large
 *   one goes alone and is not copied.
 * - One write is under way at a time. Node reports its end from its check phase, so that the
 *   reactor's turns are kept short meanwhile.
 * - TLS proves every byte: `checksum crc32` is left out, `sha256` is not.
 */
import type { TLSSocket } from 'node:tls';
import { HastError } from '../base/errors.ts';
import type { LinkHandler, LinkPort } from '../core/ports.ts';
import type { Frame } from '../format/frame.ts';
import { encodeFrame, FrameReader, type WireOptions } from '../format/wire.ts';
import type { Reactor, TurnEnd } from '../uring/reactor.ts';
import { finishMs, listen } from './connection.ts';
import { ReceiveMemory } from './receive-memory.ts';

/** Pieces from this size on are written alone. */
const largeBytes = 32 * 1024;
/** Pieces that were handed over and are still in the queue. */
const keptMax = 128;
/** Of small pieces put together: 16 records. */
const gatheredBytesMax = 256 * 1024;

export class TlsConnection implements LinkPort, TurnEnd {
  readonly #socket: TLSSocket;
  readonly #reactor: Reactor | null;
  readonly #options: WireOptions;
  readonly #bare: WireOptions;
  readonly #memory: ReceiveMemory;
  #handler: LinkHandler | null;
  #queue: Buffer[] = [];
  /** Pieces of the queue that were handed to Node already. */
  #done = 0;
  #isWriting = false;
  #asked = false;
  #isFinishing = false;
  readonly #emit = (piece: Buffer): void => {
    this.#queue.push(piece);
  };
  readonly #written = (): void => {
    this.#isWriting = false;
    this.#write();
  };

  /** As of PeerConnection. */
  constructor(
    socket: TLSSocket, options: WireOptions, handler: LinkHandler, rest: Buffer | null,
    reactor: Reactor | null,
  ) {
    this.#socket = socket;
    this.#reactor = reactor;
    this.#options = options;
    this.#bare = { ...options, checksum: 'none' };
    this.#handler = handler;
    const reader = new FrameReader(options, (frame) => this.#handler?.frame(frame));
    this.#memory = new ReceiveMemory(reader);
    if (reactor !== null) reactor.nodeIsBusy = () => this.#isBusy();
    listen(socket, rest, (chunk) => this.#take(chunk), (reason) => this.#end(reason));
    setImmediate(() => this.#receiveInPlace());
  }

  send(frame: Frame): void {
    if (this.#socket.destroyed || this.#handler === null) return;
    const { checksum, compression } = this.#options;
    this.#bare.compression = compression;
    encodeFrame(frame, checksum === 'crc32' ? this.#bare : this.#options, this.#emit);
    this.#ask();
  }

  close(): void {
    this.#handler = null;
    this.#socket.destroy();
  }

  finish(): void {
    this.#handler = null;
    this.#isFinishing = true;
    this.#ask();
    setTimeout(() => this.#socket.destroy(), finishMs).unref();
  }

  turnEnd(): void {
    this.#asked = false;
    this.#write();
  }

  #ask(): void {
    if (this.#asked || this.#isWriting) return;
    this.#asked = true;
    // What is left to Node waits for the end of the reactor's turn: too long.
    if (this.#reactor === null) process.nextTick(() => this.turnEnd());
    else this.#reactor.later(this);
  }

  #write(): void {
    if (this.#isWriting || this.#socket.destroyed) return;
    if (this.#done === this.#queue.length) {
      this.#queue.length = 0;
      this.#done = 0;
      if (this.#isFinishing) this.#socket.end();
      return;
    }
    this.#isWriting = true;
    this.#socket.write(this.#next(), this.#written);
  }

  #next(): Buffer {
    const queue = this.#queue;
    const from = this.#done;
    let end = from;
    let bytes = 0;
    while (end < queue.length) {
      const { length } = queue[end] as Buffer;
      if (end > from && (length >= largeBytes || bytes + length > gatheredBytesMax)) break;
      bytes += length;
      end++;
      if (length >= largeBytes) break;
    }
    const first = queue[from] as Buffer;
    const next = end === from + 1 ? first : Buffer.concat(queue.slice(from, end), bytes);
    this.#done = end;
    if (end >= keptMax) {
      queue.splice(0, end);
      this.#done = 0;
    }
    return next;
  }

  /**
   * What is decrypted goes where payloads lie, and not into a buffer of its own for every record:
   * the collector spent a seventh of the machine on those. Node does so for sockets made with
   * `onread`, which one that is secured later cannot be; what it uses for that is undocumented, and
   * where it is missing 'data' goes on.
   */
  #receiveInPlace(): void {
    const socket = this.#socket as unknown as Record<symbol, unknown> & {
      _handle?: { useUserBuffer?: (buffer: Buffer) => void } | null;
    };
    const own = Object.getOwnPropertySymbols(socket);
    const [buffer, onBytes, next] = ['kBuffer', 'kBufferCb', 'kBufferGen'].map((name) =>
      own.find((symbol) => symbol.description === name));
    const handle = socket._handle;
    if (buffer === undefined || onBytes === undefined || next === undefined) return;
    if (this.#handler === null || typeof handle?.useUserBuffer !== 'function') return;
    // What Node has read already comes first.
    if (this.#socket.readableLength > 0) {
      setImmediate(() => this.#receiveInPlace());
      return;
    }
    const room = this.#memory.room();
    socket[buffer] = room;
    socket[onBytes] = (bytes: number) => this.#taken(bytes);
    socket[next] = () => this.#memory.room();
    handle.useUserBuffer(room);
  }

  #taken(bytes: number): boolean {
    this.#memory.filled(bytes);
    this.#pass(() => this.#memory.take());
    return true;
  }

  /** A write whose end the kernel does not report, because it took all of it at once. */
  #isBusy(): boolean {
    if (!this.#isWriting || this.#socket.destroyed) return false;
    // Undocumented; where it is missing, turns sleep as always.
    const { _handle: handle } = this.#socket as
      unknown as { _handle?: { _parent?: { writeQueueSize?: number } } | null };
    return handle?._parent?.writeQueueSize === 0;
  }

  #take(chunk: Buffer): void {
    this.#pass(() => this.#memory.push(chunk));
  }

  #pass(take: () => void): void {
    if (this.#handler === null) {
      this.#memory.drop();
      return;
    }
    try {
      take();
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
