/**
 * The stream of writes to the peer over one session: numbers, window, acknowledgements, and the
 * blocks that are not yet flushed on both copies.
 *
 * Invariants
 * - a data frame has its number before its request is answered;
 * - `open` holds the blocks of writes that returned locally and whose frames are in the stream;
 *   an epoch holds those of them that precede one flush frame. They are forgotten only when that
 *   flush was acknowledged by the peer *and* a local flush begun at the same time returned;
 *   everything else becomes stale at the peer when the session ends;
 * - what was flushed stays marked until the peer has a durable number of a later date: an older
 *   image of its disk then shows by a lower number, and its marks are not missed.
 *
 * Hot path: send() and the acknowledgements run once per write.
 * `npm run bench`, write-32 on fullsync: all JavaScript is 7 % of the processors' time.
 */
import { assert } from '../base/assert.ts';
import { HastError } from '../base/errors.ts';
import { FrameFlag, FrameType, type Frame, type FrameType as Type } from '../format/frame.ts';
import { limits } from '../format/limits.ts';
import { BlockMap } from './block-map.ts';
import type { CoreContext } from './context.ts';
import type { UnflushedBlocks } from './dirty-tracker.ts';
import { Kind, Stage } from './latencies.ts';
import type { LinkPort } from './ports.ts';

/** One data frame that waits for its acknowledgements. */
export interface StreamItem {
  /** Set by send(). */
  seq: number;
  /** Set by send(): bytes that count for the window. */
  windowBytes: number;
  /** Set by send(): monotonic milliseconds. */
  sentAt: number;
  peerReceived(): void;
  /** errno 0: the peer executed it. */
  peerDone(errno: number): void;
  /** The session ended first. */
  peerLost(): void;
}

/** A read that the peer answers; its place in the stream is its order among the writes. */
export interface ReadItem extends StreamItem {
  readonly readLength: number;
  /** The data asked for; the memory is the frame's. `peerDone` is called only on an error. */
  peerData(payload: Buffer, at: number): void;
}

export interface RoomWaiter {
  onRoom(): void;
}

/** One flush on its way on both sides. */
export class Epoch implements StreamItem {
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  localDone = false;
  acked = false;
  readonly blocks: BlockMap;
  readonly #stream: PeerStream;
  readonly #onPeer: (lost: boolean) => void;

  constructor(stream: PeerStream, blocks: BlockMap, onPeer: (lost: boolean) => void) {
    this.#stream = stream;
    this.blocks = blocks;
    this.#onPeer = onPeer;
  }

  /** The local flush that began together with this epoch returned. */
  localFlushed(): void {
    this.localDone = true;
    this.#stream.retire();
  }

  peerReceived(): void {
    // A flush is answered once, when it is done.
  }

  peerDone(): void {
    this.acked = true;
    this.#stream.retire();
    this.#onPeer(false);
  }

  peerLost(): void {
    this.#onPeer(true);
  }
}

const ringSize = 2 * limits.windowFrames;
assert(Number.isInteger(Math.log2(ringSize)), 'the ring index is a mask');

/** Flush frames pass the window; so many may be in flight besides the data. */
const flushesMax = 256;
/** Of these, for flushes nobody asked for: a checkpoint, the end of a resync, a stop. */
const flushesReserved = 16;

/**
 * Of one data frame in so many the peer is asked, whatever the mode, to say that it has it: so is
 * told what the network takes and what the peer's disk. A prime: a rhythm of the application is
 * not met at the same point each time.
 */
const sampleEvery = 17;
/** In the ring of kinds: a frame of a resync, which is not measured. */
const notMeasured = 255;
/** In `receivedAt`. */
const notSampled = -1;
const notReceived = 0;

/** What a data frame takes of the window beyond its payload. */
const frameCost = 512;

export class PeerStream implements UnflushedBlocks {
  /** The peer is complete: it is the second copy of what is sent from now on. */
  counts = false;

  readonly #context: CoreContext;
  readonly #link: LinkPort;
  readonly #windowFrames: number;
  readonly #windowBytes: number;
  readonly #ring = new Array<StreamItem | null>(ringSize).fill(null);
  /** The range of each frame in the ring, in bytes. */
  readonly #offsets = new Float64Array(ringSize);
  readonly #lengths = new Float64Array(ringSize);
  readonly #kinds = new Uint8Array(ringSize);
  /** Of a sampled frame: when the peer said that it has it. */
  readonly #receivedAt = new Float64Array(ringSize);
  #untilSample = sampleEvery;
  /** Process of the peer that executes this stream; 0 where what it executed is not relied on. */
  #instance: bigint;
  #nextSeq = 1;
  /** Every item below is answered. */
  #oldest = 1;
  #received = 0;
  #frames = 0;
  #bytes = 0;
  #waiting: RoomWaiter[] = [];
  #open: BlockMap;
  #epochs: Epoch[] = [];
  /** Flushed on both copies; before, and while, the peer is asked for a number. */
  #settled: BlockMap;
  #numbering: BlockMap | null = null;
  readonly #takesNumbers: boolean;
  #ended = false;

  /** `takesNumbers`: the peer knows `number` frames; without, what is flushed is clean at once. */
  constructor(
    context: CoreContext, link: LinkPort, windowFrames: number, windowBytes: number,
    takesNumbers: boolean, instance: bigint,
  ) {
    this.#context = context;
    this.#instance = instance;
    this.#takesNumbers = takesNumbers;
    this.#settled = new BlockMap(context.mediaSize);
    this.#link = link;
    this.#windowFrames = Math.min(windowFrames, limits.windowFrames);
    this.#windowBytes = windowBytes;
    this.#open = new BlockMap(context.mediaSize);
    context.tracker.unflushed = this;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Process of the peer; 0 where it is not relied on. */
  get instance(): bigint {
    return this.#instance;
  }

  get unansweredFrames(): number {
    return this.#frames;
  }

  get unansweredBytes(): number {
    return this.#bytes;
  }

  get hasUnflushed(): boolean {
    return !this.#open.isEmpty || this.#epochs.length > 0;
  }

  /** A write is on its way that the peer has not executed, as far as is known. */
  get hasUnansweredData(): boolean {
    return this.#ring.some((item) => item !== null && !(item instanceof Epoch) && !isRead(item));
  }

  /** Blocks wait for a number of the peer. */
  get hasSettled(): boolean {
    return !this.#settled.isEmpty && this.#numbering === null;
  }

  /** The peer is asked for a number now; what was flushed so far is clean when it is durable. */
  numberAsked(): void {
    this.#numbering = this.#settled;
    this.#settled = new BlockMap(this.#context.mediaSize);
  }

  /** The peer's number is durable there, and recorded durably here. */
  numbered(): void {
    const blocks = this.#numbering;
    this.#numbering = null;
    if (blocks !== null && !this.#ended) this.#context.tracker.covered(blocks.regions());
  }

  get epochsInFlight(): number {
    return this.#epochs.length;
  }

  /** Monotonic milliseconds when the oldest unanswered frame was sent; null where there is none. */
  get oldestSentAt(): number | null {
    return this.#ring[this.#oldest & (ringSize - 1)]?.sentAt ?? null;
  }

  hasRoom(): boolean {
    if (this.#frames === 0) return true;
    if (this.#frames >= this.#windowFrames) return false;
    if (this.#nextSeq - this.#oldest >= ringSize - flushesMax) return false;
    const { mode, asyncLagBytes, asyncLagMs } = this.#context.options;
    if (mode !== 'async') return this.#bytes < this.#windowBytes - limits.payloadBytesMax;
    if (this.#bytes >= Math.min(this.#windowBytes, asyncLagBytes)) return false;
    const oldest = this.#ring[this.#oldest & (ringSize - 1)];
    return oldest == null || this.#context.clock.now() - oldest.sentAt < asyncLagMs;
  }

  /** Flushes pass the window, but not without bound. False only where hasRoom() is. */
  hasFlushRoom(): boolean {
    return this.#nextSeq - this.#oldest < ringSize - flushesReserved;
  }

  /** Calls `onRoom` in order of arrival when the window has room again, or the session ends. */
  whenRoom(waiter: RoomWaiter): void {
    this.#waiting.push(waiter);
  }

  get hasWaiters(): boolean {
    return this.#waiting.length > 0;
  }

  /** Numbers and sends a data frame. `payload` is lent until the peer answers or the link ends. */
  send(
    item: StreamItem, type: Type, flags: number, offset: number, length: number,
    payload: Buffer | null, payloadOffset: number, headroom: number,
  ): void {
    const isResync = (flags & FrameFlag.resync) !== 0;
    const kind = isResync ? notMeasured : type === FrameType.write ? Kind.write : Kind.discard;
    const seq = this.#take(item, payload === null ? frameCost : length + frameCost, kind);
    const isSample = !isResync && this.#samples(seq);
    this.#offsets[seq & (ringSize - 1)] = offset;
    this.#lengths[seq & (ringSize - 1)] = length;
    const frame: Frame = {
      type, flags: isSample ? flags | FrameFlag.wantRecvAck : flags, seq, offset, size: length,
      arg: 0, payload, payloadOffset, headroom,
    };
    this.#link.send(frame);
  }

  /** Numbers and sends a read of at most one payload. */
  ask(item: ReadItem, offset: number): void {
    const seq = this.#take(item, item.readLength + frameCost, Kind.read);
    this.#link.send({
      type: FrameType.read, flags: 0, seq, offset, size: item.readLength, arg: 0, payload: null,
      payloadOffset: 0, headroom: 0,
    });
  }

  /** The answer to a read. Throws HAST_E_PROTOCOL where it was not asked for. */
  data(frame: Frame): void {
    const item = this.#ring[frame.seq & (ringSize - 1)];
    if (item == null || item.seq !== frame.seq || !isRead(item) || frame.payload === null ||
        frame.size !== item.readLength) {
      throw badAck(frame.seq);
    }
    this.#remove(item);
    this.#measure(item);
    item.peerData(frame.payload, frame.payloadOffset);
    if (!this.#ended) this.#advance();
  }

  /** The peer cannot read it. Throws HAST_E_PROTOCOL as data(). */
  readFailed(seq: number, errno: number): void {
    const item = this.#ring[seq & (ringSize - 1)];
    if (item == null || item.seq !== seq || !isRead(item) || errno === 0) throw badAck(seq);
    this.#answered(item, errno);
    if (!this.#ended) this.#advance();
  }

  /** A write whose frame is in the stream returned locally. */
  written(offset: number, length: number): void {
    this.#open.setRange(offset, length);
    this.#context.tracker.touch(offset, length);
  }

  /** The peer's disk failed: what was executed there may be lost. */
  distrust(): void {
    this.#instance = 0n;
  }

  /** Blocks that the peer has executed over an earlier stream: they need a flush of both copies. */
  takeOver(blocks: BlockMap): void {
    this.#open.merge(blocks);
  }

  /**
   * Sends a flush frame that covers everything sent so far. The caller starts the local flush
   * at the same time and reports it with `localFlushed`.
   */
  flush(flags: number, onPeer: (lost: boolean) => void): Epoch {
    const epoch = new Epoch(this, this.#open, onPeer);
    this.#open = new BlockMap(this.#context.mediaSize);
    this.#epochs.push(epoch);
    const seq = this.#take(epoch, frameCost, Kind.flush);
    this.#link.send({
      type: FrameType.flush, flags, seq, offset: 0, size: 0, arg: 0, payload: null,
      payloadOffset: 0, headroom: 0,
    });
    return epoch;
  }

  /** Throws HAST_E_PROTOCOL where the peer acknowledges what was never sent. */
  received(upTo: number): void {
    if (upTo >= this.#nextSeq) throw badAck(upTo);
    for (let seq = Math.max(this.#received + 1, this.#oldest); seq <= upTo; seq++) {
      const item = this.#ring[seq & (ringSize - 1)];
      if (item == null || item.seq !== seq) continue;
      if (this.#receivedAt[seq & (ringSize - 1)] === notReceived) this.#sampleReceived(item);
      item.peerReceived();
    }
    this.#received = Math.max(this.#received, upTo);
  }

  /** The data frames `first`..`last` were executed. Throws HAST_E_PROTOCOL as received(). */
  done(first: number, last: number, errno: number): void {
    if (first > last || last >= this.#nextSeq || last - first >= ringSize) throw badAck(last);
    for (let seq = first; seq <= last; seq++) {
      const item = this.#ring[seq & (ringSize - 1)];
      if (item == null || item.seq !== seq || item instanceof Epoch || isRead(item)) {
        throw badAck(seq);
      }
      this.#answered(item, errno);
      if (this.#ended) return;
    }
    this.#advance();
  }

  /** The flush `seq` is done; every frame before it was answered before. */
  flushed(seq: number): void {
    const item = this.#ring[seq & (ringSize - 1)];
    if (seq !== this.#oldest || !(item instanceof Epoch) || item.seq !== seq) throw badAck(seq);
    this.#answered(item, 0);
    if (!this.#ended) this.#advance();
  }

  /** Lets waiters go on while there is room. */
  wake(): void {
    while (this.#waiting.length > 0 && this.hasRoom()) {
      (this.#waiting.shift() as RoomWaiter).onRoom();
    }
  }

  /** Forgets epochs that both copies have flushed. */
  retire(): void {
    if (this.#ended) return;
    const kept: Epoch[] = [];
    for (const epoch of this.#epochs) {
      if (!epoch.localDone || !epoch.acked) kept.push(epoch);
      else if (this.#takesNumbers) this.#settled.merge(epoch.blocks);
      else this.#context.tracker.covered(epoch.blocks.regions());
    }
    this.#epochs = kept;
  }

  /** The session ended: what is not flushed on both sides is stale at the peer. */
  end(): void {
    this.#ended = true;
    this.counts = false;
    const { tracker } = this.#context;
    const blocks = this.#open;
    for (const epoch of this.#epochs) blocks.merge(epoch.blocks);
    blocks.merge(this.#settled);
    if (this.#numbering !== null) blocks.merge(this.#numbering);
    tracker.streamEnded(blocks, this.#unanswered(), this.#instance);
    if (tracker.unflushed === this) tracker.forgetUnflushed();
    const items = this.#ring.filter((item) => item !== null);
    items.sort((one, other) => one.seq - other.seq);
    this.#ring.fill(null);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const item of items) item.peerLost();
    for (const waiter of waiting) waiter.onRoom();
  }

  collect(region: number, target: Uint8Array): boolean {
    let found = orBits(this.#open.bits(region), target);
    if (orBits(this.#settled.bits(region), target)) found = true;
    if (this.#numbering !== null && orBits(this.#numbering.bits(region), target)) found = true;
    for (const epoch of this.#epochs) {
      if (orBits(epoch.blocks.bits(region), target)) found = true;
    }
    return found;
  }

  hasFull(region: number): boolean {
    return this.#open.isFull(region) || this.#settled.isFull(region) ||
      this.#numbering?.isFull(region) === true ||
      this.#epochs.some((epoch) => epoch.blocks.isFull(region));
  }

  /** What the peer may not have executed. */
  #unanswered(): BlockMap {
    const blocks = new BlockMap(this.#context.mediaSize);
    this.#ring.forEach((item, at) => {
      const carries = item !== null && !(item instanceof Epoch) && !isRead(item);
      if (carries) blocks.setRange(this.#offsets[at] as number, this.#lengths[at] as number);
    });
    return blocks;
  }

  #answered(item: StreamItem, errno: number): void {
    this.#remove(item);
    if (errno === 0) this.#measure(item);
    item.peerDone(errno);
  }

  #remove(item: StreamItem): void {
    this.#ring[item.seq & (ringSize - 1)] = null;
    this.#frames--;
    this.#bytes -= item.windowBytes;
  }

  #advance(): void {
    while (this.#oldest < this.#nextSeq && this.#ring[this.#oldest & (ringSize - 1)] === null) {
      this.#oldest++;
    }
    this.wake();
  }

  #samples(seq: number): boolean {
    if (--this.#untilSample > 0) return false;
    this.#untilSample = sampleEvery;
    this.#receivedAt[seq & (ringSize - 1)] = notReceived;
    return true;
  }

  #sampleReceived({ seq, sentAt }: StreamItem): void {
    const { now, latencies } = this.#context.measures;
    const kind = this.#kinds[seq & (ringSize - 1)] as Kind;
    latencies.record(Stage.network, kind, now - sentAt);
    this.#receivedAt[seq & (ringSize - 1)] = now;
  }

  /** The peer has executed it. */
  #measure({ seq, sentAt }: StreamItem): void {
    const kind = this.#kinds[seq & (ringSize - 1)] as Kind | typeof notMeasured;
    if (kind === notMeasured) return;
    const { now, latencies } = this.#context.measures;
    latencies.record(Stage.peer, kind, now - sentAt);
    const receivedAt = this.#receivedAt[seq & (ringSize - 1)] as number;
    if (receivedAt > 0) latencies.record(Stage.peerDisk, kind, now - receivedAt);
  }

  #take(item: StreamItem, windowBytes: number, kind: Kind | typeof notMeasured): number {
    const seq = this.#nextSeq++;
    assert(this.#ring[seq & (ringSize - 1)] === null, 'the stream window was respected');
    item.seq = seq;
    item.windowBytes = windowBytes;
    item.sentAt = this.#context.clock.now();
    this.#ring[seq & (ringSize - 1)] = item;
    this.#kinds[seq & (ringSize - 1)] = kind;
    this.#receivedAt[seq & (ringSize - 1)] = notSampled;
    this.#frames++;
    this.#bytes += windowBytes;
    return seq;
  }
}

function isRead(item: StreamItem): item is ReadItem {
  return 'readLength' in item;
}

function orBits(bits: Uint8Array | null, target: Uint8Array): boolean {
  if (bits === null) return false;
  for (let at = 0; at < target.length; at++) target[at] = (target[at] ?? 0) | (bits[at] ?? 0);
  return true;
}

function badAck(seq: number): HastError {
  return new HastError('HAST_E_PROTOCOL', `the peer acknowledged frame ${seq}, which is not open`);
}
