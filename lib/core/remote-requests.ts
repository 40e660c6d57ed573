/** The requests of lib/core/remote-io.ts, one class for each kind. */
import { Held } from './held.ts';
import type { MarkRequest } from './dirty-tracker.ts';
import type { ReadItem, RoomWaiter, StreamItem } from './peer-stream.ts';
import type { AppRequest } from './ports.ts';
import type { RangeLock } from './range-lock.ts';
import type { RemoteIo } from './remote-io.ts';

const errnoIo = 5;

/** One request; never pooled: this path is for bad days. */
export abstract class RemoteRequest {
  readonly app: AppRequest;
  /** Monotonic milliseconds of its arrival. */
  since = 0;
  held: Held | null;
  isOver = false;
  /** A local operation runs that counts. */
  local = false;

  constructor(app: AppRequest, held: Held | null) {
    this.app = app;
    this.held = held;
  }

  /** Sends what has to be sent over `stream`; called for each new one, in order. */
  abstract resume(): void;

  /** The local disk was given up: nothing of it is waited for. */
  localGone(): void {
    if (this.local) this.held = new Held();
    this.local = false;
  }

  answer(errno: number, data: Buffer | null = null): void {
    this.isOver = true;
    if (this.held !== null) {
      this.held.answer(this.app, errno, data);
      return;
    }
    if (data !== null) data.copy(this.app.buffer, this.app.bufferOffset);
    this.app.complete(errno);
  }
}

export class RemoteWrite extends RemoteRequest
  implements RangeLock, MarkRequest, RoomWaiter, StreamItem {
  readonly from: number;
  readonly to: number;
  pieceFrom: number;
  pieceTo: number;
  firstExtent = 0;
  lastExtent = 0;
  begins = false;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  locked = false;
  /** May start: marked where there is a local copy. */
  ready = false;
  marked = false;
  /** Waits for its extents to be hot. */
  isMarking = false;
  localStarted = false;
  sent = false;
  durable = false;
  /** Of a write that ended with an error: its local operation returned. */
  onReturned: (() => void) | null = null;
  readonly #io: RemoteIo;

  constructor(io: RemoteIo, app: AppRequest, held: Held | null) {
    super(app, held);
    this.#io = io;
    this.from = app.offset;
    this.to = app.offset + app.length;
    this.pieceFrom = this.from;
    this.pieceTo = this.from;
  }

  onGranted(): void {
    // Granted again by locks that are no longer in force.
    if (this.locked || this.isOver) return;
    this.locked = true;
    this.#io.nextPiece(this);
  }

  onMarked(): void {
    this.#io.wasMarked(this);
  }

  onRoom(): void {
    this.#io.launch(this);
  }

  readonly onLocal = (errno: number): void => this.#io.localDone(this, errno);

  peerReceived(): void {
    // Only a flush of the peer counts.
  }

  peerDone(): void {
    // As above.
  }

  peerLost(): void {
    // RemoteIo.streamLost() sees to all of them.
  }

  override resume(): void {
    if (this.ready) this.#io.launch(this);
  }
}

export class RemoteRead extends RemoteRequest implements ReadItem {
  readonly readLength: number;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  sent = false;
  readonly #io: RemoteIo;

  constructor(io: RemoteIo, app: AppRequest, held: Held | null) {
    super(app, held);
    this.#io = io;
    this.readLength = app.length;
  }

  readonly onLocal = (errno: number): void => this.#io.readLocally(this, errno);

  peerReceived(): void {
    // A read is answered once.
  }

  peerData(payload: Buffer, at: number): void {
    this.#io.end(this, 0, payload.subarray(at, at + this.readLength));
  }

  peerDone(): void {
    this.#io.end(this, errnoIo);
  }

  peerLost(): void {
    this.sent = false;
  }

  override resume(): void {
    this.#io.ask(this);
  }
}

export class RemoteFlush extends RemoteRequest {
  peerDone = false;
  readonly #io: RemoteIo;

  constructor(io: RemoteIo, app: AppRequest, held: Held | null) {
    super(app, held);
    this.#io = io;
  }

  override resume(): void {
    this.#io.wantFlush();
  }

  override localGone(): void {
    // A flush lends no memory.
    this.local = false;
  }
}
