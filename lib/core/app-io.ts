/**
 * The primary's data path: requests of the application from arrival to answer.
 *
 * A write: take the range, mark its extents durably, wait for room in the peer's window, start
 * the local write and put the frame into the stream in the same step, answer when the truth table
 * of lib/core/completion.ts says so. The range is free again when the local write returned: a later
 * overlapping write is later in the stream too.
 *
 * Hot path: submit() to complete(); records are pooled.
 * `npm run bench`, write-32 on fullsync: all JavaScript is 7 % of the processors' time.
 */
import { AppOp, type AppRequest, type Volume } from './ports.ts';
import { FrameFlag, FrameType } from '../format/frame.ts';
import type { AppIoHost } from './app-io-host.ts';
import { flushComplete, PeerStage, writeComplete } from './completion.ts';
import { AppRecord } from './app-record.ts';
import type { CoreContext } from './context.ts';
import { CopyPool, copyLead } from './copy-pool.ts';
import { Held, type Pending } from './held.ts';
import type { PeerStream } from './peer-stream.ts';
import { ReadRepair } from './read-repair.ts';
import { pieceBytesMax } from './remote-io.ts';

const errnoIo = 5;
const errnoInvalid = 22;

export class AppIo implements Volume {
  readonly size: number;
  readonly #context: CoreContext;
  readonly #host: AppIoHost;
  #pool: AppRecord[] = [];
  readonly #active = new Set<AppRecord>();
  #arrivals = 0;
  /** Requests that wait for a person: neither copy can serve. */
  #stalled: Pending[] = [];
  #stream: PeerStream | null = null;
  readonly #copies = new CopyPool();
  /** Acknowledged with one copy since the peer was last complete. */
  singleCopyWrites = 0;
  /** Monotonic milliseconds when the first of these was; else undefined. */
  singleCopySince = 0;

  constructor(context: CoreContext, host: AppIoHost) {
    this.#context = context;
    this.#host = host;
    this.size = context.mediaSize;
  }

  get activeCount(): number {
    return this.#active.size + this.#stalled.length;
  }

  /** Arrival of the oldest unanswered request, monotonic milliseconds; Infinity for none. */
  get oldestSince(): number {
    let oldest = Infinity;
    for (const { app, since } of this.#active) if (app !== null) oldest = Math.min(oldest, since);
    for (const { since } of this.#stalled) oldest = Math.min(oldest, since);
    return oldest;
  }

  /** Gives every request away; what still comes for them here is ignored. */
  surrender(): Pending[] {
    const pending: Pending[] = [];
    // A range that goes on in another record is late in the set, and was early.
    for (const record of [...this.#active].sort((one, other) => one.order - other.order)) {
      const { app, op, since } = record;
      record.isLate = true;
      // A flush lends no memory.
      const isBusy = record.launched && !record.localDone && op !== AppOp.flush;
      if (isBusy) record.held = new Held();
      record.app = null;
      if (app !== null) pending.push({ app, held: record.held, since });
    }
    this.#active.clear();
    this.#pool = [];
    this.useStream(null);
    return pending;
  }

  /** Keeps every request until failStalled(): neither copy can serve. */
  stall(): void {
    this.#stalled.push(...this.surrender());
  }

  failStalled(): void {
    const stalled = this.#stalled;
    this.#stalled = [];
    for (const { app, held } of stalled) {
      if (held === null) app.complete(errnoIo);
      else held.answer(app, errnoIo, null);
    }
  }

  useStream(stream: PeerStream | null): void {
    this.#stream = stream;
    const { inflight, store, tracker } = this.#context;
    if (stream === null) inflight.lose();
    else if (stream.counts && tracker.peerStale.isEmpty) {
      inflight.trust(store.value, stream.instance);
    }
  }

  /** The peer has executed the piece of `record` that is under way, or it returned here. */
  left(record: AppRecord): void {
    this.#context.inflight.leave(record.entry);
  }

  /** The peer has executed it: nobody reads what was sent any more. */
  executed(record: AppRecord): void {
    this.left(record);
    const { copy } = record;
    if (copy === null) return;
    record.copy = null;
    this.#copies.giveBack(copy);
  }

  /** Launched pieces whose local write runs and that `stream` does not carry. */
  strayWrites(stream: PeerStream | null): number {
    let count = 0;
    for (const record of this.#active) {
      if (record.launched && !record.localDone && isWrite(record.op) &&
          (stream === null || record.stream !== stream)) count++;
    }
    return count;
  }

  submit(app: AppRequest): void {
    const { offset, length } = app;
    if (offset < 0 || length < 0 || offset + length > this.size) {
      app.complete(errnoInvalid);
      return;
    }
    if (this.#host.failed) {
      if (this.#host.stalls) {
        this.#stalled.push({ app, held: null, since: this.#context.measures.tick() });
      } else app.complete(errnoIo);
      return;
    }
    if (length === 0 && app.op !== AppOp.flush) {
      app.complete(0);
      return;
    }
    this.#count(app.op);
    const { remoteIo } = this.#host;
    if (remoteIo !== null) {
      remoteIo.submit(app);
      return;
    }
    const record = this.#pool.pop() ?? new AppRecord(this);
    record.app = app;
    record.order = ++this.#arrivals;
    record.entry = -1;
    record.since = this.#context.measures.tick();
    record.op = app.op;
    record.from = offset;
    record.to = offset + length;
    record.pieceTo = offset;
    record.mode = this.#host.tail.mode;
    this.#active.add(record);
    if (app.op === AppOp.read) this.#read(record, app);
    else if (app.op === AppOp.flush) this.#flush(record);
    else if (this.#context.locks.acquire(record)) {
      record.locked = true;
      this.nextPiece(record);
    }
  }

  /** Takes the next piece of the range through marking; the range is held. */
  nextPiece(record: AppRecord): void {
    if (this.#abandoned(record)) return;
    record.pieceFrom = record.pieceTo;
    record.pieceTo = record.op === AppOp.write
      ? record.to
      : Math.min(record.to, record.pieceFrom + pieceBytesMax(this.#context));
    const { tracker } = this.#context;
    tracker.aim(record, record.pieceFrom, record.pieceTo);
    record.launched = false;
    record.localDone = false;
    record.stage = PeerStage.none;
    if (tracker.mark(record)) {
      record.marked = true;
      this.launch(record);
    }
  }

  /** Starts the piece on both copies; waits first where the peer's window is full. */
  launch(record: AppRecord): void {
    if (this.#abandoned(record)) return;
    if (record.op === AppOp.flush) {
      this.#flush(record);
      return;
    }
    const stream = this.#stream;
    if (stream !== null && !stream.hasRoom()) {
      stream.whenRoom(record);
      return;
    }
    const app = record.app as AppRequest;
    const { disk, dataOffset, statistics, inflight } = this.#context;
    const { pieceFrom } = record;
    const length = record.pieceTo - pieceFrom;
    record.launched = true;
    record.stream = stream;
    record.counts = stream !== null && stream.counts;
    statistics.queueLocal++;
    if (stream === null) inflight.lose();
    else {
      record.entry = inflight.enter(pieceFrom, length);
      this.#send(record, app, stream, length);
    }
    if (record.op === AppOp.write) {
      disk.write(dataOffset + pieceFrom, app.buffer, app.bufferOffset, length, record.onLocal);
    } else {
      disk.zero(dataOffset + pieceFrom, length, record.op === AppOp.discard, record.onLocal);
    }
  }

  localDone(record: AppRecord, errno: number): void {
    const { statistics, tracker } = this.#context;
    statistics.queueLocal--;
    if (record.isLate) {
      record.held?.over();
      return;
    }
    const length = record.pieceTo - record.pieceFrom;
    // Also after an error: part of the range may be on the disk.
    if (record.stream?.ended === true) record.stream = null;
    if (record.stream !== null) {
      if (errno === 0 && !tracker.peerStale.isEmpty) tracker.clearStale(record.pieceFrom, length);
      record.stream.written(record.pieceFrom, length);
      if (errno === 0) this.left(record);
    } else {
      tracker.setStale(record.pieceFrom, length);
    }
    record.localDone = true;
    tracker.unmark(record);
    record.marked = false;
    if (errno !== 0) {
      this.#context.localFailed(record.op === AppOp.write ? 'write' : 'delete', errno);
      if (record.isLate) return;
    }
    if (errno !== 0 || this.#host.failed) {
      if (record.app !== null) this.#fail(record);
      return;
    }
    const isStray = record.stream === null;
    if (record.pieceTo === record.to) this.#unlock(record);
    this.advance(record);
    if (isStray) this.#host.strayEnded();
  }

  /** Answers the request if it may be answered now. */
  advance(record: AppRecord): void {
    const { app } = record;
    if (app === null) {
      this.#recycle(record);
      return;
    }
    if (!record.localDone) return;
    if (this.#host.failed) {
      this.#fail(record);
      return;
    }
    const { mode, counts, stage } = record;
    const alone = record.stream !== null || this.#host.aloneRecorded;
    const ready = record.op === AppOp.flush
      // A pair becomes complete by a flush of both copies, which covers this one as well.
      ? flushComplete(mode, true, counts, stage, alone || this.#host.isComplete)
      : writeComplete(mode, true, counts, stage, alone);
    if (!ready) {
      if (!counts) this.#host.requireAlone();
      return;
    }
    if (record.pieceTo < record.to && record.op !== AppOp.flush) {
      // The stream may still refer to this piece (async): the rest needs a record of its own.
      if (record.atPeer) this.#continueElsewhere(record);
      else this.nextPiece(record);
      return;
    }
    if (!counts && isWrite(record.op)) this.#countAlone();
    this.#answer(record, 0);
  }

  readDone(record: AppRecord, errno: number): void {
    this.#context.statistics.queueLocal--;
    if (record.isLate) {
      record.held?.over();
      return;
    }
    record.localDone = true;
    if (errno === 0) {
      if (record.app !== null) this.#answer(record, 0);
      return;
    }
    this.#context.localFailed('read', errno);
    const stream = this.#stream;
    if (stream === null || !stream.counts || record.app === null) {
      if (record.app !== null) this.#answer(record, errnoIo);
      return;
    }
    const length = record.to - record.from;
    new ReadRepair(this.#context, stream, record.from, length, (result, data) => {
      const { app } = record;
      if (app === null) return;
      data?.copy(app.buffer, app.bufferOffset);
      this.#answer(record, result);
    }).start();
  }

  /** The conditions for answering changed. */
  recheck(): void {
    this.#context.measures.tick();
    for (const record of [...this.#active]) {
      if (record.app === null || (record.launched && !record.localDone)) continue;
      if (this.#host.failed) this.#fail(record);
      else if (record.localDone) this.advance(record);
    }
  }

  /**
   * Flush of both copies without a request: a checkpoint, or the end of a resync. `localDone`: that
   * of this copy returned.
   */
  flushBoth(stream: PeerStream, done: () => void, localDone?: () => void): void {
    let left = 2;
    const one = (): void => {
      if (--left === 0) done();
    };
    const epoch = stream.flush(0, (lost) => {
      if (!lost) one();
    });
    const { disk } = this.#context;
    disk.flush((errno) => {
      // The copy was given up meanwhile: its flush says nothing.
      if (disk !== this.#context.disk) return;
      if (errno !== 0) {
        this.#context.localFailed('flush', errno);
        return;
      }
      localDone?.();
      epoch.localFlushed();
      one();
    });
  }

  #count(op: AppOp): void {
    const { statistics } = this.#context;
    switch (op) {
      case AppOp.read: statistics.reads++; return;
      case AppOp.flush: statistics.flushes++; return;
      case AppOp.write: statistics.writes++; return;
      default: statistics.deletes++;
    }
  }

  #countAlone(): void {
    if (this.singleCopyWrites++ === 0) this.singleCopySince = this.#context.measures.now;
  }

  #read(record: AppRecord, app: AppRequest): void {
    const { disk, dataOffset, statistics } = this.#context;
    statistics.queueLocal++;
    record.launched = true;
    disk.read(dataOffset + record.from, app.buffer, app.bufferOffset, app.length, record.onRead);
  }

  #send(record: AppRecord, app: AppRequest, stream: PeerStream, length: number): void {
    const flags = record.mode === 'memsync' ? FrameFlag.wantRecvAck : 0;
    record.atPeer = true;
    if (record.op !== AppOp.write) {
      const type = record.op === AppOp.discard ? FrameType.discard : FrameType.zero;
      stream.send(record, type, flags, record.pieceFrom, length, null, 0, 0);
      return;
    }
    if (record.counts && record.mode !== 'async') {
      stream.send(
        record, FrameType.write, flags, record.pieceFrom, length, app.buffer, app.bufferOffset,
        app.headroom,
      );
      return;
    }
    // The request may be answered, and its memory used again, before the frame has left.
    const copy = this.#copies.take(app.buffer, app.bufferOffset, length);
    record.copy = copy;
    stream.send(record, FrameType.write, flags, record.pieceFrom, length, copy, copyLead, copyLead);
  }

  #flush(record: AppRecord): void {
    const stream = this.#stream;
    record.stage = PeerStage.none;
    record.localDone = false;
    record.launched = false;
    if (stream !== null && !stream.hasFlushRoom()) {
      stream.whenRoom(record);
      return;
    }
    record.stream = stream;
    record.counts = stream !== null && stream.counts;
    record.launched = true;
    const barrier = record.mode === 'async' ? FrameFlag.barrier : 0;
    const epoch = stream === null ? null : stream.flush(barrier, (lost) => {
      if (lost) record.peerLost();
      else record.peerDone();
    });
    record.atPeer = epoch !== null;
    this.#context.statistics.queueLocal++;
    this.#context.disk.flush((errno) => {
      this.#context.statistics.queueLocal--;
      if (record.isLate) return;
      record.localDone = true;
      if (errno !== 0) {
        this.#context.localFailed('flush', errno);
        if (record.app !== null) this.#fail(record);
        return;
      }
      epoch?.localFlushed();
      if (this.#host.failed && record.app !== null) this.#fail(record);
      else this.advance(record);
    });
  }

  #continueElsewhere(record: AppRecord): void {
    const next = this.#pool.pop() ?? new AppRecord(this);
    next.app = record.app;
    next.op = record.op;
    next.from = record.from;
    next.to = record.to;
    next.pieceTo = record.pieceTo;
    next.mode = record.mode;
    next.since = record.since;
    next.order = record.order;
    record.app = null;
    this.#active.delete(record);
    this.#active.add(next);
    // The range passes from one record to the other without a gap.
    this.#context.locks.replace(record, next);
    record.locked = false;
    next.locked = true;
    this.nextPiece(next);
  }

  /** True where the request is over, or ends now because nothing is served any more. */
  #abandoned(record: AppRecord): boolean {
    if (record.app !== null && !this.#host.failed) return false;
    if (record.app !== null) {
      this.#fail(record);
      return true;
    }
    this.#unlock(record);
    if (record.marked) this.#context.tracker.unmark(record);
    record.marked = false;
    return true;
  }

  #fail(record: AppRecord): void {
    this.#unlock(record);
    if (record.marked && (!record.launched || record.localDone)) {
      this.#context.tracker.unmark(record);
      record.marked = false;
    }
    this.#answer(record, errnoIo);
  }

  #unlock(record: AppRecord): void {
    if (!record.locked) return;
    record.locked = false;
    this.#context.locks.release(record);
  }

  #answer(record: AppRecord, errno: number): void {
    const app = record.app as AppRequest;
    record.app = null;
    this.#active.delete(record);
    const { measures } = this.#context;
    measures.answered(record.op, record.to - record.from, record.since, errno);
    if (this.#host.isSyncing) this.#host.requestDone(measures.now - record.since);
    this.#recycle(record);
    app.complete(errno);
  }

  #recycle(record: AppRecord): void {
    if (record.atPeer || !record.localDone || record.marked || record.locked) return;
    record.stream = null;
    record.stage = PeerStage.none;
    record.launched = false;
    record.localDone = false;
    this.#pool.push(record);
  }
}

function isWrite(op: AppOp): boolean {
  return op === AppOp.write || op === AppOp.zero || op === AppOp.discard;
}
