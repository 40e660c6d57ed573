/** The state of one request of the application on the usual data path; records are pooled. */
import type { AppIo } from './app-io.ts';
import { PeerStage, type Mode } from './completion.ts';
import type { MarkRequest } from './dirty-tracker.ts';
import type { Held } from './held.ts';
import type { PeerStream, RoomWaiter, StreamItem } from './peer-stream.ts';
import { AppOp, type AppRequest } from './ports.ts';
import type { RangeLock } from './range-lock.ts';

/** One request, piece by piece: a write is one piece, a large discard many. */
export class AppRecord implements RangeLock, MarkRequest, StreamItem, RoomWaiter {
  app: AppRequest | null = null;
  op: AppOp = AppOp.read;
  from = 0;
  to = 0;
  firstExtent = 0;
  lastExtent = 0;
  begins = false;
  pieceFrom = 0;
  pieceTo = 0;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  /** Of the piece under way: its entry in the in-flight table. */
  entry = -1;
  mode: Mode = 'fullsync';
  /** What the stream carries, where it is not the request's own memory. */
  copy: Buffer | null = null;
  /** The stream that carries this piece, while its session lives. */
  stream: PeerStream | null = null;
  counts = false;
  stage: PeerStage = PeerStage.none;
  localDone = false;
  /** The stream still refers to this record. */
  atPeer = false;
  marked = false;
  locked = false;
  launched = false;
  /** Its place among the requests, in the order they came. */
  order = 0;
  /** Monotonic milliseconds of its arrival. */
  since = 0;
  /** The request went to another data path: what comes for this record is late. */
  isLate = false;
  /** Of a late record: the local operation that may still use the request's memory. */
  held: Held | null = null;
  readonly #io: AppIo;

  constructor(io: AppIo) {
    this.#io = io;
  }

  onGranted(): void {
    if (this.isLate) return;
    this.locked = true;
    this.#io.nextPiece(this);
  }

  onMarked(): void {
    if (this.isLate) return;
    this.marked = true;
    this.#io.launch(this);
  }

  onRoom(): void {
    if (!this.isLate) this.#io.launch(this);
  }

  readonly onLocal = (errno: number): void => this.#io.localDone(this, errno);
  readonly onRead = (errno: number): void => this.#io.readDone(this, errno);

  peerReceived(): void {
    if (this.isLate) return;
    if (this.stage === PeerStage.none) this.stage = PeerStage.received;
    this.#io.advance(this);
  }

  peerDone(): void {
    if (this.isLate) return;
    this.stage = PeerStage.done;
    this.atPeer = false;
    this.#io.executed(this);
    this.#io.advance(this);
  }

  peerLost(): void {
    if (this.isLate) return;
    this.atPeer = false;
    // The link may still be sending from it: the collector takes it.
    this.copy = null;
    this.stream = null;
    this.counts = false;
    this.#io.advance(this);
  }
}
