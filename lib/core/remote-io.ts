/**
 * The primary's data path while the peer's copy is the one that counts: the local copy is absent,
 * or is being filled. lib/core/app-io.ts is the path of every other state.
 *
 * Invariants
 * - a write is answered only when a flush of the peer covers it, whatever the mode; what is not
 *   answered is sent again, in order, over the next session;
 * - a block that is stale here is written locally only as a whole; a read that touches one is
 *   answered by the peer, in stream order;
 * - a range is held from the first piece to the answer, so a fetch never passes a write.
 */
import { FrameType } from '../format/frame.ts';
import { alignDown, alignUp, limits } from '../format/limits.ts';
import type { CoreContext } from './context.ts';
import type { Held } from './held.ts';
import type { PeerStream } from './peer-stream.ts';
import { AppOp, type AppRequest } from './ports.ts';
import { RemoteFlush, RemoteRead, RemoteWrite, type RemoteRequest } from './remote-requests.ts';

const errnoIo = 5;

export interface RemoteHost {
  readonly isDiskless: boolean;
  /** Which blocks are stale here is known: the others may be read. */
  readonly isMapKnown: boolean;
}

export class RemoteIo {
  readonly #context: CoreContext;
  readonly #host: RemoteHost;
  readonly #active = new Set<RemoteRequest>();
  #stream: PeerStream | null = null;
  #flushWanted = false;
  #flushing = false;
  /** New requests wait while the last ones end; null where they do not. */
  #gate: { queue: AppRequest[]; onEmpty: (() => void) | null } | null = null;

  constructor(context: CoreContext, host: RemoteHost) {
    this.#context = context;
    this.#host = host;
  }

  get activeCount(): number {
    return this.#active.size + (this.#gate?.queue.length ?? 0);
  }

  /** Arrival of the oldest unanswered request, monotonic milliseconds; Infinity for none. */
  get oldestSince(): number {
    let oldest = Infinity;
    for (const { since } of this.#active) oldest = Math.min(oldest, since);
    return oldest;
  }

  submit(
    app: AppRequest, held: Held | null = null, since = this.#context.measures.tick(),
  ): void {
    if (this.#gate !== null) {
      this.#gate.queue.push(app);
      return;
    }
    if (app.op === AppOp.read) this.#read(this.#add(new RemoteRead(this, app, held), since));
    else if (app.op === AppOp.flush) this.#add(new RemoteFlush(this, app, held), since).resume();
    else {
      const write = this.#add(new RemoteWrite(this, app, held), since);
      if (this.#context.locks.acquire(write)) write.onGranted();
    }
  }

  /** The peer is ready: everything unanswered goes over `stream`, in the order it came. */
  useStream(stream: PeerStream): void {
    this.#stream = stream;
    for (const request of [...this.#active]) if (!request.isOver) request.resume();
  }

  /** The session ended. */
  streamLost(): void {
    this.#stream = null;
    for (const request of this.#active) {
      // Also what the peer executed: without a flush it may have lost it.
      if (request instanceof RemoteWrite && !request.durable) request.sent = false;
    }
  }

  /** The local disk was given up; the range locks in force are new ones. */
  localGone(): void {
    const { locks } = this.#context;
    for (const request of [...this.#active]) {
      if (request.isOver) continue;
      request.localGone();
      if (request instanceof RemoteFlush && request.peerDone) this.end(request, 0);
      else if (request instanceof RemoteRead) this.ask(request);
      if (!(request instanceof RemoteWrite)) continue;
      // Its marks were those of the disk that is gone.
      request.marked = request.isMarking = false;
      request.localStarted = true;
      const isHeld = locks.acquire(request);
      if (!request.locked) {
        if (isHeld) request.onGranted();
        continue;
      }
      request.ready = true;
      this.launch(request);
      this.#advance(request);
    }
  }

  /** There is a local copy again, and no session: what waits is to be written to both. */
  copyAttached(): void {
    for (const request of [...this.#active]) {
      if (!(request instanceof RemoteWrite) || !request.locked || request.isOver) continue;
      // Those that came with the end of the session know of the copy already.
      if (!request.marked && !request.isMarking) this.#prepare(request);
    }
  }

  /** Ends every request with EIO. */
  failAll(): void {
    for (const request of [...this.#active]) this.#failOne(request);
    const queue = this.#gate?.queue ?? [];
    this.#gate = null;
    this.#context.measures.failedRequests += queue.length;
    for (const app of queue) app.complete(errnoIo);
  }

  /** Takes no further requests and calls `onEmpty` when none is left. */
  close(onEmpty: () => void): void {
    this.#gate = { queue: [], onEmpty };
    this.#maybeEmpty();
  }

  /** Takes requests again, those that waited first. */
  open(): void {
    const queue = this.#gate?.queue ?? [];
    this.#gate = null;
    for (const app of queue) this.submit(app);
  }

  /** Gives the waiting requests away; there are no others. */
  takeQueue(): AppRequest[] {
    const queue = this.#gate?.queue ?? [];
    this.#gate = null;
    // Another loss of the local copy begins with a new agreement, perhaps over this very stream.
    this.#stream = null;
    return queue;
  }

  /** One flush frame for everything sent since the last one. */
  turnEnd(): void {
    const stream = this.#open;
    if (!this.#flushWanted || this.#flushing || stream === null || !stream.hasFlushRoom()) return;
    this.#flushWanted = false;
    this.#flushing = true;
    const covered = [...this.#active].filter((one) =>
      one instanceof RemoteFlush || (one instanceof RemoteWrite && one.sent && !one.durable));
    for (const one of covered) if (one instanceof RemoteFlush) this.#flushLocal(one);
    const epoch = stream.flush(0, (lost) => {
      this.#flushing = false;
      if (!lost) this.#flushed(covered);
      if (this.#flushWanted) this.#context.turn.request();
    });
    // What is not flushed here is the business of the local marks.
    epoch.localFlushed();
  }

  wantFlush(): void {
    this.#flushWanted = true;
    this.#context.turn.request();
  }

  nextPiece(write: RemoteWrite): void {
    if (write.isOver) return;
    write.pieceFrom = write.pieceTo;
    write.pieceTo = write.app.op === AppOp.write
      ? write.to
      : Math.min(write.to, write.pieceFrom + pieceBytesMax(this.#context));
    write.durable = false;
    write.sent = false;
    this.#prepare(write);
  }

  /** Marks the piece where there is a local copy, and starts it. */
  #prepare(write: RemoteWrite): void {
    const { tracker } = this.#context;
    tracker.aim(write, write.pieceFrom, write.pieceTo);
    write.localStarted = this.#host.isDiskless;
    write.ready = this.#host.isDiskless;
    write.isMarking = !this.#host.isDiskless;
    if (this.#host.isDiskless) this.launch(write);
    else if (tracker.mark(write)) this.wasMarked(write);
  }

  wasMarked(write: RemoteWrite): void {
    write.isMarking = false;
    if (write.isOver || this.#host.isDiskless) {
      // Answered with an error, or the disk went away, while it waited.
      if (!this.#host.isDiskless) this.#context.tracker.unmark(write);
      return;
    }
    write.marked = true;
    write.ready = true;
    this.launch(write);
  }

  /** Starts the piece on both copies, or again on the peer's. */
  launch(write: RemoteWrite): void {
    const stream = this.#open;
    if (write.isOver || !write.ready || write.sent || write.durable || stream === null) return;
    if (!stream.hasRoom()) {
      stream.whenRoom(write);
      return;
    }
    const { app, pieceFrom } = write;
    const length = write.pieceTo - pieceFrom;
    write.sent = true;
    if (app.op === AppOp.write) {
      // No headroom: a frame of the same memory may still be queued in the link.
      stream.send(write, FrameType.write, 0, pieceFrom, length, app.buffer, app.bufferOffset, 0);
    } else {
      const type = app.op === AppOp.discard ? FrameType.discard : FrameType.zero;
      stream.send(write, type, 0, pieceFrom, length, null, 0, 0);
    }
    this.wantFlush();
    if (!write.localStarted) this.#writeLocally(write);
  }

  localDone(write: RemoteWrite, errno: number): void {
    this.#context.statistics.queueLocal--;
    if (!write.local) {
      write.held?.over();
      write.onReturned?.();
      return;
    }
    write.local = false;
    if (errno !== 0) {
      this.#context.localFailed(write.app.op === AppOp.write ? 'write' : 'delete', errno);
      return;
    }
    const [from, to] = this.#localRange(write);
    this.#context.tracker.wroteLocally(from, to - from);
    this.#advance(write);
  }

  /** Asks the peer. */
  ask(read: RemoteRead): void {
    const stream = this.#open;
    if (read.isOver || read.local || read.sent || stream === null) return;
    read.sent = true;
    stream.ask(read, read.app.offset);
  }

  /** The local read returned. */
  readLocally(read: RemoteRead, errno: number): void {
    this.#context.statistics.queueLocal--;
    if (!read.local) {
      read.held?.over();
      return;
    }
    read.local = false;
    if (errno === 0) {
      this.end(read, 0);
      return;
    }
    this.#context.localFailed('read', errno);
    const { app, readLength } = read;
    if (!this.#host.isDiskless) this.#context.tracker.setLocalStale(app.offset, readLength);
    this.ask(read);
  }

  end(request: RemoteRequest, errno: number, data: Buffer | null = null): void {
    if (request.isOver) return;
    this.#active.delete(request);
    const { measures } = this.#context;
    measures.tick();
    measures.answered(request.app.op, request.app.length, request.since, errno);
    request.answer(errno, data);
    this.#maybeEmpty();
  }

  /** The stream, unless its session is just ending: what is put into it then would be lost. */
  get #open(): PeerStream | null {
    return this.#stream?.ended === false ? this.#stream : null;
  }

  #add<R extends RemoteRequest>(request: R, since: number): R {
    request.since = since;
    this.#active.add(request);
    return request;
  }

  #read(read: RemoteRead): void {
    const { disk, dataOffset, tracker, statistics } = this.#context;
    const { app } = read;
    const isHere = !this.#host.isDiskless && this.#host.isMapKnown && read.held === null &&
      !tracker.isLocalStale(app.offset, app.length);
    if (!isHere) {
      this.ask(read);
      return;
    }
    read.local = true;
    statistics.queueLocal++;
    disk.read(dataOffset + app.offset, app.buffer, app.bufferOffset, app.length, read.onLocal);
  }

  #writeLocally(write: RemoteWrite): void {
    const { disk, dataOffset, statistics } = this.#context;
    write.localStarted = true;
    const [from, to] = this.#localRange(write);
    if (from >= to) return;
    const { app } = write;
    write.local = true;
    statistics.queueLocal++;
    if (app.op === AppOp.write) {
      const at = app.bufferOffset + from - write.from;
      disk.write(dataOffset + from, app.buffer, at, to - from, write.onLocal);
    } else {
      disk.zero(dataOffset + from, to - from, app.op === AppOp.discard, write.onLocal);
    }
  }

  /** The piece without the parts of blocks that are stale here. */
  #localRange(write: RemoteWrite): [number, number] {
    const { tracker } = this.#context;
    let { pieceFrom: from, pieceTo: to } = write;
    if (from % limits.blockSize !== 0 && tracker.isLocalStale(from, 1)) {
      from = alignUp(from, limits.blockSize);
    }
    if (to % limits.blockSize !== 0 && tracker.isLocalStale(to - 1, 1)) {
      to = alignDown(to, limits.blockSize);
    }
    return [from, to];
  }

  #flushed(covered: readonly RemoteRequest[]): void {
    for (const one of covered) {
      if (one.isOver) continue;
      if (one instanceof RemoteFlush) {
        one.peerDone = true;
        if (!one.local) this.end(one, 0);
      } else if (one instanceof RemoteWrite) {
        one.durable = true;
        this.#advance(one);
      }
    }
  }

  /** A flush of the application covers the local copy too, where there is one. */
  #flushLocal(request: RemoteFlush): void {
    if (this.#host.isDiskless || request.local) return;
    const { disk, tracker } = this.#context;
    request.local = true;
    const flush = tracker.localFlushBegins();
    disk.flush((errno) => {
      if (!request.local || request.isOver) return;
      request.local = false;
      if (errno !== 0) {
        this.#context.localFailed('flush', errno);
        return;
      }
      tracker.localFlushDone(flush);
      if (request.peerDone) this.end(request, 0);
    });
  }

  #advance(write: RemoteWrite): void {
    if (write.isOver || !write.durable || write.local) return;
    if (write.marked) this.#context.tracker.unmark(write);
    write.marked = false;
    if (write.pieceTo < write.to) {
      this.nextPiece(write);
      return;
    }
    this.#unlock(write);
    this.end(write, 0);
  }

  #failOne(request: RemoteRequest): void {
    if (request.isOver) return;
    const isBusy = request.local;
    request.localGone();
    if (request instanceof RemoteWrite) this.#giveUp(request, isBusy);
    this.end(request, errnoIo);
  }

  /** The write may be on one of the copies, on both or on neither: the peer's counts. */
  #giveUp(write: RemoteWrite, isBusy: boolean): void {
    const { tracker, locks } = this.#context;
    if (!write.locked) locks.withdraw(write);
    if (!this.#host.isDiskless && write.localStarted) {
      tracker.setLocalStale(write.pieceFrom, write.pieceTo - write.pieceFrom);
    }
    write.onReturned = () => {
      // With the copy that was given up meanwhile its marks and locks are gone.
      if (locks !== this.#context.locks) return;
      if (write.marked) tracker.unmark(write);
      write.marked = false;
      this.#unlock(write);
    };
    // What is still on its way to the disk must not land on what is fetched later.
    if (!isBusy) write.onReturned();
  }

  #unlock(write: RemoteWrite): void {
    if (!write.locked) return;
    write.locked = false;
    this.#context.locks.release(write);
  }

  #maybeEmpty(): void {
    const gate = this.#gate;
    if (gate === null || gate.onEmpty === null || this.#active.size > 0) return;
    const { onEmpty } = gate;
    gate.onEmpty = null;
    onEmpty();
  }
}

/** A piece must fit the hot extents several times over, and one frame. */
export function pieceBytesMax(context: CoreContext): number {
  const { extentSize, keepDirty } = context.store.value;
  const extents = Math.max(1, Math.min(64, Math.floor(keepDirty / 4)));
  return Math.min(extents * extentSize, limits.rangeBytesMax);
}
