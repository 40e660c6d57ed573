/**
 * Copies the blocks the peer lacks, lowest first, while writes go on.
 *
 * A chunk holds its range only from the local read to the moment its frame is in the stream:
 * a write that arrives later is later in the stream too. Its blocks then count as unflushed, so a
 * session that ends before the covering flush makes them stale again.
 */
import { FrameFlag, FrameType } from '../format/frame.ts';
import { limits } from '../format/limits.ts';
import type { CoreContext } from './context.ts';
import type { PeerStream, StreamItem } from './peer-stream.ts';
import type { RangeLock } from './range-lock.ts';

const chunksInFlight = 16;
const chunkBlocks = 64;

class Chunk implements RangeLock, StreamItem {
  from = 0;
  to = 0;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  readonly buffer = Buffer.alloc(limits.blockSize + chunkBlocks * limits.blockSize);
  readonly #sync: ResyncSource;

  constructor(sync: ResyncSource) {
    this.#sync = sync;
  }

  onGranted(): void {
    this.#sync.locked(this);
  }

  readonly onRead = (errno: number): void => this.#sync.wasRead(this, errno);

  peerReceived(): void {
    // Copying is paced by execution on the peer.
  }

  peerDone(errno: number): void {
    this.#sync.copied(this, errno);
  }

  peerLost(): void {
    this.#sync.lost();
  }
}

export class ResyncSource {
  /** Blocks to copy when it began, and copied since. */
  readonly total: number;
  copiedBlocks = 0;

  readonly #context: CoreContext;
  readonly #stream: PeerStream;
  readonly #onIdle: () => void;
  readonly #idle: Chunk[] = [];
  #inFlight = 0;
  #cursor = 0;
  /** A block cannot be read: it stays stale until it is written, or the next session tries. */
  #isUnreadable = false;
  #stopped = false;

  /** `onIdle` is called when nothing is stale and no chunk is in flight; perhaps repeatedly. */
  constructor(context: CoreContext, stream: PeerStream, onIdle: () => void) {
    this.#context = context;
    this.#stream = stream;
    this.#onIdle = onIdle;
    this.total = context.tracker.peerStale.count;
  }

  start(): void {
    for (let index = 0; index < chunksInFlight; index++) this.#idle.push(new Chunk(this));
    this.pump();
  }

  stop(): void {
    this.#stopped = true;
  }

  get isIdle(): boolean {
    return this.#inFlight === 0 && this.#context.tracker.peerStale.isEmpty;
  }

  /** Starts as many chunks as fit. Called again when the window has room. */
  pump(): void {
    if (this.#stopped) return;
    while (this.#idle.length > 0 && this.#stream.hasRoom() && !this.#stream.hasWaiters) {
      const { peerStale } = this.#context.tracker;
      let block = peerStale.nextSet(this.#cursor);
      // Chunks in flight are still marked: going round with them would copy them twice.
      const isRoundOver = block < 0 && this.#inFlight === 0;
      if (isRoundOver && !this.#isUnreadable) block = peerStale.nextSet(0);
      if (block < 0) break;
      const count = peerStale.runLength(block, chunkBlocks);
      this.#cursor = block + count;
      this.#begin(block, count);
    }
    if (this.isIdle) this.#onIdle();
  }

  locked(chunk: Chunk): void {
    if (this.#stopped) {
      this.#drop(chunk);
      return;
    }
    const { disk, dataOffset, tracker } = this.#context;
    const length = chunk.to - chunk.from;
    const next = tracker.peerStale.nextSet(chunk.from / limits.blockSize);
    if (next < 0 || next * limits.blockSize >= chunk.to) {
      // Writes that waited before this chunk have carried all of it over.
      this.#drop(chunk);
      this.#idle.push(chunk);
      this.pump();
      return;
    }
    disk.read(dataOffset + chunk.from, chunk.buffer, limits.blockSize, length, chunk.onRead);
  }

  wasRead(chunk: Chunk, errno: number): void {
    const { tracker, locks } = this.#context;
    if (this.#stopped) {
      this.#drop(chunk);
      return;
    }
    if (errno !== 0) {
      this.#drop(chunk);
      this.#idle.push(chunk);
      this.#isUnreadable = true;
      this.#context.localFailed('read', errno);
      this.pump();
      return;
    }
    const length = chunk.to - chunk.from;
    tracker.clearStale(chunk.from, length);
    this.#stream.written(chunk.from, length);
    this.#stream.send(
      chunk, FrameType.write, FrameFlag.resync, chunk.from, length, chunk.buffer,
      limits.blockSize, limits.blockSize,
    );
    locks.release(chunk);
  }

  copied(chunk: Chunk, errno: number): void {
    if (errno === 0) this.copiedBlocks += Math.ceil((chunk.to - chunk.from) / limits.blockSize);
    this.#inFlight--;
    this.#idle.push(chunk);
    this.pump();
  }

  lost(): void {
    this.#inFlight--;
  }

  #begin(block: number, count: number): void {
    const chunk = this.#idle.pop() as Chunk;
    chunk.from = block * limits.blockSize;
    chunk.to = Math.min(chunk.from + count * limits.blockSize, this.#context.mediaSize);
    this.#inFlight++;
    if (this.#context.locks.acquire(chunk)) this.locked(chunk);
  }

  #drop(chunk: Chunk): void {
    this.#context.locks.release(chunk);
    this.#inFlight--;
  }
}
