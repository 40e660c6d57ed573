/**
 * The receiving side of a stream: executes the peer's writes, discards and flushes on the local
 * copy.
 *
 * - Overlapping ranges run in stream order; others as they come.
 * - A flush starts when every earlier frame was executed. With the barrier flag (async) no later
 *   frame starts before it is done, so the stable image is always a past moment.
 * - A session that ends leaves whole received frames to be executed: in memsync they are
 *   acknowledged already. `drained` tells when the last one is.
 */
import { HastError } from '../base/errors.ts';
import { FrameFlag, FrameType, type Frame } from '../format/frame.ts';
import { limits } from '../format/limits.ts';
import type { CoreContext, LocalOp } from './context.ts';
import { Kind } from './latencies.ts';
import { regionsOf } from './region-set.ts';
import { RangeLocks, type RangeLock } from './range-lock.ts';

/** Where acknowledgements go; ignored once the session has ended. */
export interface AckSink {
  written(seq: number): void;
  flushed(seq: number): void;
  failed(seq: number, errno: number): void;
  received(seq: number): void;
  /** What a read frame asked for; `data` begins at `at`. */
  readDone(frame: Frame, errno: number, data: Buffer, at: number): void;
}

/** One range frame on its way; pooled. */
class ReplicaItem implements RangeLock {
  frame: Frame;
  batch: Batch;
  from = 0;
  to = 0;
  readonly #replica: Replica;

  constructor(replica: Replica, frame: Frame, batch: Batch) {
    this.#replica = replica;
    this.frame = frame;
    this.batch = batch;
  }

  onGranted(): void {
    this.#replica.execute(this);
  }

  readonly onDone = (errno: number): void => this.#replica.executed(this, errno);
  readonly onMarked = (): void => this.#replica.marked(this);
  /** Of a read: what it found. */
  data: Buffer | null = null;
}

/** Data frames between two flushes; the flush at the end of the batch runs when they are done. */
interface Batch {
  flush: Frame | null;
  /** Frames of this batch not yet executed. */
  open: number;
  /** Frames that wait because an earlier barrier is not done. */
  held: ReplicaItem[];
}

export class Replica {
  /** This node keeps the map of what the sender's copy lacks: writes are marked before they run. */
  keepsMap = false;
  readonly #context: CoreContext;
  readonly #locks = new RangeLocks();
  readonly #windowFrames: number;
  readonly #windowBytes: number;
  readonly #batches: Batch[] = [{ flush: null, open: 0, held: [] }];
  readonly #pool: ReplicaItem[] = [];
  #sink: AckSink | null;
  #nextSeq = 1;
  #frames = 0;
  #bytes = 0;
  #flushing = 0;
  #failed = false;
  #onDrained: (() => void)[] = [];

  constructor(
    context: CoreContext, sink: AckSink, windowFrames: number, windowBytes: number,
  ) {
    this.#context = context;
    this.#sink = sink;
    this.#windowFrames = windowFrames;
    this.#windowBytes = windowBytes;
  }

  /** Frames received and not yet executed. */
  get pending(): number {
    return this.#frames;
  }

  /** Takes the next frame of the stream. Throws HAST_E_PROTOCOL where it cannot be. */
  receive(frame: Frame): void {
    if (frame.seq !== this.#nextSeq) {
      throw new HastError('HAST_E_PROTOCOL', `frame ${frame.seq} where ${this.#nextSeq} is due`);
    }
    this.#nextSeq++;
    if (frame.type === FrameType.flush) {
      this.#frames++;
      this.#receiveFlush(frame);
      return;
    }
    if (frame.size === 0 || frame.offset + frame.size > this.#context.mediaSize ||
        (frame.type === FrameType.write && frame.payload === null)) {
      throw new HastError('HAST_E_PROTOCOL', 'a range frame outside the volume or without data');
    }
    const bytes = this.#bytes + memoryOf(frame);
    // The sender keeps to the window it was told, with one largest payload of grace.
    if (this.#frames >= 2 * this.#windowFrames + limits.windowFrames ||
        bytes > this.#windowBytes + 2 * limits.payloadBytesMax) {
      throw new HastError('HAST_E_PROTOCOL', 'the peer sends more than the window allows');
    }
    // Counted once it is certain to be executed: drained() waits for every frame that counts.
    this.#frames++;
    this.#bytes = bytes;
    if ((frame.flags & FrameFlag.wantRecvAck) !== 0) this.#sink?.received(frame.seq);
    const batch = this.#batches[this.#batches.length - 1] as Batch;
    const item = this.#item(frame, batch);
    batch.open++;
    if (this.#isHeld()) batch.held.push(item);
    else this.#start(item);
  }

  /** The session ended: nothing is acknowledged any more. */
  detach(): void {
    this.#sink = null;
  }

  /** Calls `done` when every received frame was executed; perhaps at once. */
  drained(done: () => void): void {
    if (this.#frames === 0 || this.#failed) done();
    else this.#onDrained.push(done);
  }

  execute(item: ReplicaItem): void {
    // A failed copy takes nothing more; the session that sent this is about to end.
    if (this.#failed) return;
    const { tracker } = this.#context;
    const { offset, size, type } = item.frame;
    if (!this.keepsMap || type === FrameType.read || tracker.isDurablyStale(offset, size)) {
      this.marked(item);
      return;
    }
    tracker.setStale(offset, size);
    tracker.persist(regionsOf(offset, size), item.onMarked);
  }

  /** The range may run: nothing has to be marked before, or it is. */
  marked(item: ReplicaItem): void {
    const { disk, dataOffset, statistics, measures } = this.#context;
    const { frame } = item;
    statistics.queueLocal++;
    if (frame.type === FrameType.read) {
      statistics.reads++;
      measures.executes(Kind.read, frame.size);
      item.data = Buffer.allocUnsafe(limits.blockSize + frame.size);
      disk.read(dataOffset + frame.offset, item.data, limits.blockSize, frame.size, item.onDone);
    } else if (frame.type === FrameType.write) {
      statistics.writes++;
      if ((frame.flags & FrameFlag.resync) !== 0) measures.resyncBytes += frame.size;
      else measures.executes(Kind.write, frame.size);
      const { payload, payloadOffset, size } = frame;
      disk.write(dataOffset + frame.offset, payload as Buffer, payloadOffset, size, item.onDone);
    } else {
      statistics.deletes++;
      measures.executes(Kind.discard, frame.size);
      const discard = frame.type === FrameType.discard;
      disk.zero(dataOffset + frame.offset, frame.size, discard, item.onDone);
    }
  }

  executed(item: ReplicaItem, errno: number): void {
    this.#context.statistics.queueLocal--;
    const { frame } = item;
    this.#bytes -= memoryOf(frame);
    item.batch.open--;
    if (item.data !== null) {
      if (!this.#failed) this.#sink?.readDone(frame, errno, item.data, limits.blockSize);
      if (errno !== 0) this.#context.localFailed('read', errno);
    } else if (errno !== 0) {
      this.#fail(frame.type === FrameType.write ? 'write' : 'delete', frame, errno);
    } else if (!this.#failed) {
      this.#sink?.written(frame.seq);
    }
    this.#locks.release(item);
    item.data = null;
    this.#pool.push(item);
    frame.memory?.release();
    this.#finishFrame();
    this.#advance();
  }

  #item(frame: Frame, batch: Batch): ReplicaItem {
    const item = this.#pool.pop() ?? new ReplicaItem(this, frame, batch);
    item.frame = frame;
    item.batch = batch;
    item.from = frame.offset;
    item.to = frame.offset + frame.size;
    return item;
  }

  #receiveFlush(frame: Frame): void {
    const batch = this.#batches[this.#batches.length - 1] as Batch;
    batch.flush = frame;
    this.#batches.push({ flush: null, open: 0, held: [] });
    this.#advance();
  }

  /** True while an earlier flush with the barrier flag is not done. */
  #isHeld(): boolean {
    for (const batch of this.#batches) {
      if (batch.flush !== null && (batch.flush.flags & FrameFlag.barrier) !== 0) return true;
    }
    return false;
  }

  #start(item: ReplicaItem): void {
    if (this.#locks.acquire(item)) this.execute(item);
  }

  /** Starts the flush of the oldest batch when all before it was executed. */
  #advance(): void {
    const batch = this.#batches[0] as Batch;
    if (batch.flush === null || batch.open > 0 || this.#flushing > 0) return;
    if (this.#failed) return;
    this.#flushing = 1;
    const flush = batch.flush;
    this.#context.statistics.flushes++;
    this.#context.measures.executes(Kind.flush, 0);
    this.#context.disk.flush((errno) => this.#flushed(flush, errno));
  }

  #flushed(flush: Frame, errno: number): void {
    this.#flushing = 0;
    this.#batches.shift();
    if (errno !== 0) this.#fail('flush', flush, errno);
    else this.#sink?.flushed(flush.seq);
    this.#finishFrame();
    this.#release();
    this.#advance();
  }

  /** Lets frames go that waited for a barrier, up to the next one. */
  #release(): void {
    for (const batch of this.#batches) {
      const held = batch.held;
      batch.held = [];
      for (const item of held) this.#start(item);
      if (batch.flush !== null && (batch.flush.flags & FrameFlag.barrier) !== 0) return;
    }
  }

  #finishFrame(): void {
    this.#frames--;
    if (this.#frames > 0) return;
    const waiting = this.#onDrained;
    this.#onDrained = [];
    for (const done of waiting) done();
  }

  #fail(op: LocalOp, frame: Frame, errno: number): void {
    if (!this.#failed) {
      this.#failed = true;
      this.#sink?.failed(frame.seq, errno);
      this.#context.localFailed(op, errno);
    }
    const waiting = this.#onDrained;
    this.#onDrained = [];
    for (const done of waiting) done();
  }
}

/** Bytes a frame holds in memory until it was executed. */
function memoryOf(frame: Frame): number {
  return frame.payload === null && frame.type !== FrameType.read ? 0 : frame.size;
}
