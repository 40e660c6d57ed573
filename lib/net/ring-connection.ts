/**
 * HOT PATH. The link port on the descriptor of a TCP connection that the ring reads and writes:
 * what is sent within a turn leaves in one call, and no stream of Node is in between.
 * `npm run bench`, write-32: fullsync 3.4 to 3.8 times qemu's quorum;
 * docs/decisions/016-one-thread-and-a-ring.md has the reasons.
 *
 * - The descriptor is closed when the ring has nothing under way with it.
 * - One send is under way at a time, so the bytes keep their order. Payloads are sent from where
 *   they are.
 * - Received payloads are views of where the ring put them: receive-memory.ts.
 */
import * as fs from 'node:fs';
import { HastError } from '../base/errors.ts';
import { addressOf, endSending, setNonBlocking, shutdownSocket } from '../base/libc.ts';
import type { LinkHandler, LinkPort } from '../core/ports.ts';
import type { Frame } from '../format/frame.ts';
import { encodeFrame, FrameReader, type WireOptions } from '../format/wire.ts';
import { type Reactor, RingOpcode, type RingOp, type TurnEnd } from '../uring/reactor.ts';
import { finishMs } from './connection.ts';
import { ReceiveMemory } from './receive-memory.ts';

const MSG_NOSIGNAL = 0x4000;
/** Pieces of one send: UIO_MAXIOV is 1024. */
const piecesMax = 128;
const EINTR = 4;
const EAGAIN = 11;

/** Offsets of struct msghdr and its size on 64-bit Linux; the iovec array follows. */
const messageIov = 16;
const messageIovLength = 24;
const messageSize = 56;
const iovSize = 16;

export class RingConnection implements LinkPort, TurnEnd {
  readonly #fd: number;
  readonly #reactor: Reactor;
  readonly #options: WireOptions;
  #handler: LinkHandler | null;
  readonly #message = Buffer.alloc(messageSize + piecesMax * iovSize);
  readonly #messageAddress = addressOf(this.#message);
  /** To be sent, from the first byte not yet sent. */
  #queue: Buffer[] = [];
  #sending = false;
  #receiving = false;
  #asked = false;
  #isFinishing = false;
  #isShut = false;
  #isClosed = false;
  readonly #memory: ReceiveMemory;
  readonly #emit = (piece: Buffer): void => {
    this.#queue.push(piece);
  };
  readonly #sendOp: RingOp = { completed: (result) => this.#sent(result) };
  readonly #receiveOp: RingOp = { completed: (result) => this.#received(result) };

  /** As of PeerConnection; `fd` belongs to this object from now on. */
  constructor(
    fd: number, reactor: Reactor, options: WireOptions, handler: LinkHandler, rest: Buffer | null,
  ) {
    this.#fd = fd;
    this.#reactor = reactor;
    this.#options = options;
    this.#handler = handler;
    const reader = new FrameReader(options, (frame) => this.#handler?.frame(frame));
    this.#memory = new ReceiveMemory(reader);
    // The ring waits for the socket itself where it has to.
    setNonBlocking(fd, false);
    // After the caller's constructor: ports never call back synchronously.
    setImmediate(() => {
      if (rest !== null) this.#memory.keep(rest);
      this.#take();
      if (this.#handler !== null) this.#receive();
    });
  }

  send(frame: Frame): void {
    if (this.#handler === null) return;
    encodeFrame(frame, this.#options, this.#emit);
    this.#ask();
  }

  close(): void {
    this.#handler = null;
    this.#shut();
  }

  finish(): void {
    this.#handler = null;
    this.#isFinishing = true;
    setTimeout(() => this.#shut(), finishMs).unref();
    this.#ask();
  }

  /** Sends what was gathered. */
  turnEnd(): void {
    this.#asked = false;
    if (this.#sending || this.#isShut) return;
    const queue = this.#queue;
    if (queue.length === 0) {
      if (this.#isFinishing) endSending(this.#fd);
      return;
    }
    const message = this.#message;
    const count = Math.min(queue.length, piecesMax);
    let at = messageSize;
    for (let index = 0; index < count; index++) {
      const piece = queue[index] as Buffer;
      writeAddress(message, at, addressOf(piece));
      message.writeUInt32LE(piece.length, at + 8);
      at += iovSize;
    }
    writeAddress(message, messageIov, this.#messageAddress + messageSize);
    message.writeUInt32LE(count, messageIovLength);
    this.#sending = true;
    const { ring } = this.#reactor;
    const address = this.#messageAddress;
    ring.prepare(this.#sendOp, RingOpcode.sendmsg, this.#fd, address, 1, 0, MSG_NOSIGNAL);
  }

  #ask(): void {
    if (this.#asked || this.#sending) return;
    this.#asked = true;
    this.#reactor.later(this);
  }

  #sent(result: number): void {
    this.#sending = false;
    if (this.#isShut) {
      this.#closeWhenIdle();
      return;
    }
    if (result < 0 && result !== -EINTR && result !== -EAGAIN) {
      this.#end(`connection error: sending failed (errno ${-result})`);
      return;
    }
    this.#drop(Math.max(0, result));
    if (this.#queue.length > 0 || this.#isFinishing) this.#ask();
  }

  /** The first `bytes` of the queue have left. */
  #drop(bytes: number): void {
    const queue = this.#queue;
    let left = bytes;
    let whole = 0;
    while (whole < queue.length && left >= (queue[whole] as Buffer).length) {
      left -= (queue[whole] as Buffer).length;
      whole++;
    }
    if (whole === queue.length) {
      queue.length = 0;
      return;
    }
    if (whole > 0) queue.splice(0, whole);
    if (left > 0) queue[0] = (queue[0] as Buffer).subarray(left);
  }

  #receive(): void {
    const { address, room } = this.#memory.makeRoom();
    this.#receiving = true;
    const { ring } = this.#reactor;
    ring.prepare(this.#receiveOp, RingOpcode.recv, this.#fd, address, room, 0);
  }

  #received(result: number): void {
    this.#receiving = false;
    if (this.#isShut) {
      this.#closeWhenIdle();
      return;
    }
    if (result > 0) {
      this.#memory.filled(result);
      this.#take();
    } else if (result === 0) {
      this.#end('the peer closed the connection');
      return;
    } else if (result !== -EINTR && result !== -EAGAIN) {
      this.#end(`connection error: receiving failed (errno ${-result})`);
      return;
    }
    if (!this.#isShut) this.#receive();
  }

  #take(): void {
    // Of a connection that finishes, what still comes is read and means nothing.
    if (this.#handler === null) {
      this.#memory.drop();
      return;
    }
    try {
      this.#memory.take();
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      this.#end(error.message, true);
    }
  }

  #end(reason: string, isBad = false): void {
    const handler = this.#handler;
    this.#handler = null;
    this.#shut();
    if (handler !== null) setImmediate(() => handler.closed(reason, isBad));
  }

  /** At once: nothing that is under way sends or receives another byte. */
  #shut(): void {
    if (this.#isShut) return;
    this.#isShut = true;
    shutdownSocket(this.#fd);
    this.#closeWhenIdle();
  }

  /** Sooner, an operation could meet another file under the number. */
  #closeWhenIdle(): void {
    if (this.#sending || this.#receiving || this.#isClosed) return;
    this.#isClosed = true;
    this.#queue = [];
    fs.close(this.#fd);
  }
}

function writeAddress(memory: Buffer, at: number, address: number): void {
  memory.writeUInt32LE(address % 0x1_0000_0000, at);
  memory.writeUInt32LE(Math.floor(address / 0x1_0000_0000), at + 4);
}
