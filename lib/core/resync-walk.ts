/**
 * Walks over the blocks of a map, lowest first, and has them copied chunk by chunk, several at a
 * time, as far as the pace and the stream's window allow, while writes go on. A chunk holds the
 * range lock of its blocks while it is copied.
 */
import { limits } from '../format/limits.ts';
import type { BlockMap } from './block-map.ts';
import type { CoreContext } from './context.ts';
import type { PeerStream } from './peer-stream.ts';
import type { RangeLock, RangeLocks } from './range-lock.ts';
import { chunkBytes, chunksMax, type ResyncPace } from './resync-pace.ts';

const retryMs = 30_000;
export const chunkBlocks = chunkBytes / limits.blockSize;

export interface Chunk extends RangeLock {
  from: number;
  to: number;
}

export abstract class ResyncWalk<C extends Chunk> {
  /** Blocks to copy when it began, and copied since. */
  readonly total: number;
  copiedBlocks = 0;

  protected readonly context: CoreContext;
  protected readonly stream: PeerStream;
  /** Those in force when it began: others follow when the local copy is given up. */
  protected readonly locks: RangeLocks;
  protected stopped = false;

  readonly #pace: ResyncPace;
  readonly #map: BlockMap;
  readonly #onIdle: () => void;
  readonly #idle: C[] = [];
  #inFlight = 0;
  #cursor = 0;
  /** A block cannot be copied: it stays marked until it is written, or the next session tries. */
  #hasBad = false;

  /** `onIdle` is called when nothing is marked and no chunk is in flight; perhaps repeatedly. */
  constructor(
    context: CoreContext, stream: PeerStream, pace: ResyncPace, map: BlockMap, onIdle: () => void,
  ) {
    this.context = context;
    this.locks = context.locks;
    this.stream = stream;
    this.#pace = pace;
    this.#map = map;
    this.#onIdle = onIdle;
    this.total = map.count;
  }

  start(): void {
    for (let index = 0; index < chunksMax; index++) this.#idle.push(this.newChunk());
    this.pump();
  }

  stop(): void {
    this.stopped = true;
    this.context.timers.clear('resync');
    this.context.timers.clear('resync-retry');
  }

  get isIdle(): boolean {
    return this.#inFlight === 0 && this.#map.isEmpty;
  }

  /** Block after the last that was begun: where it is now. */
  get cursor(): number {
    return this.#cursor;
  }

  /** Starts as many chunks as may run. Called again when the window has room. */
  pump(): void {
    if (this.stopped) return;
    while (this.#mayStart()) {
      let block = this.#map.nextSet(this.#cursor);
      // Chunks in flight are still marked: going round with them would copy them twice.
      const isRoundOver = block < 0 && this.#inFlight === 0;
      if (isRoundOver && !this.#hasBad) block = this.#map.nextSet(0);
      if (block < 0) break;
      const count = this.#map.runLength(block, chunkBlocks);
      this.#cursor = block + count;
      this.#begin(block, count);
    }
    if (!this.stopped && this.isIdle) this.#onIdle();
    else if (this.#hasBad && this.#inFlight === 0) this.#retryLater();
  }

  /** The range is held: copies it, or drops it where writes have carried all of it over. */
  locked(chunk: C): void {
    if (this.stopped) {
      this.#drop(chunk);
      return;
    }
    const next = this.#map.nextSet(chunk.from / limits.blockSize);
    if (next < 0 || next * limits.blockSize >= chunk.to) {
      this.locks.release(chunk);
      this.finished(chunk, 0);
      return;
    }
    this.copy(chunk);
  }

  protected abstract newChunk(): C;

  /** Copies the chunk, releases its lock, and ends with finished() or failed(). */
  protected abstract copy(chunk: C): void;

  /** The chunk is over; so many bytes of it were copied. */
  protected finished(chunk: C, bytes: number): void {
    this.copiedBlocks += Math.ceil(bytes / limits.blockSize);
    this.context.measures.resyncBytes += bytes;
    this.#pace.chunkDone(bytes, this.context.clock.now());
    this.#inFlight--;
    this.#idle.push(chunk);
    this.pump();
  }

  /** The chunk's blocks cannot be copied now. */
  protected failed(chunk: C): void {
    this.#hasBad = true;
    this.finished(chunk, 0);
  }

  /** The session is over, or this walk: nothing of the chunk is used any more. */
  protected lost(): void {
    this.#pace.chunkDone(0, this.context.clock.now());
    this.#inFlight--;
  }

  /** A block that could not be read may be written, or readable, by then. */
  #retryLater(): void {
    const { timers, clock } = this.context;
    if (this.stopped || timers.has('resync-retry')) return;
    timers.set('resync-retry', clock.now() + retryMs, () => {
      this.#hasBad = false;
      this.pump();
    });
  }

  #mayStart(): boolean {
    const { clock, timers } = this.context;
    if (this.#idle.length === 0 || !this.stream.hasRoom() || this.stream.hasWaiters) return false;
    const now = clock.now();
    if (this.#inFlight >= this.#pace.chunksAllowed(now)) return false;
    const wait = this.#pace.waitMs(now);
    if (wait > 0) timers.set('resync', now + wait, () => this.pump());
    return wait === 0;
  }

  #begin(block: number, count: number): void {
    const chunk = this.#idle.pop() as C;
    chunk.from = block * limits.blockSize;
    chunk.to = Math.min(chunk.from + count * limits.blockSize, this.context.mediaSize);
    this.#inFlight++;
    this.#pace.chunkStarted(chunk.to - chunk.from, this.context.clock.now());
    if (this.locks.acquire(chunk)) this.locked(chunk);
  }

  #drop(chunk: C): void {
    this.locks.release(chunk);
    this.lost();
  }
}
