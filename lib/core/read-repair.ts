/**
 * A range that the local disk cannot read, while the peer is complete: its data answer the
 * request and are written over the bad blocks.
 *
 * The blocks are held, and marked, from the question to the end of the local write: no write of
 * the application is passed, and a crash in between leaves a mark.
 */
import { alignDown, alignUp, limits } from '../format/limits.ts';
import type { CoreContext } from './context.ts';
import type { MarkRequest } from './dirty-tracker.ts';
import type { PeerStream, ReadItem } from './peer-stream.ts';
import type { RangeLock } from './range-lock.ts';

const errnoIo = 5;
/** Blocks one repair reads at most beyond the request's own: its two edges. */
const readMax = limits.payloadBytesMax;

/** What becomes of the request. `data` is the range asked for. */
export type RepairDone = (errno: number, data: Buffer | null) => void;

export class ReadRepair implements RangeLock, MarkRequest, ReadItem {
  readonly from: number;
  readonly to: number;
  firstExtent = 0;
  lastExtent = 0;
  begins = false;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  readonly #context: CoreContext;
  readonly #stream: PeerStream;
  readonly #done: RepairDone;
  readonly #locks;
  readonly #offset: number;
  readonly #length: number;
  #isAnswered = false;

  /** Of a range of at most 1 MiB; starts at once. `done` is called exactly once. */
  constructor(
    context: CoreContext, stream: PeerStream, offset: number, length: number, done: RepairDone,
  ) {
    this.#context = context;
    this.#stream = stream;
    this.#done = done;
    this.#locks = context.locks;
    this.#offset = offset;
    this.#length = length;
    const wide = alignUp(offset + length, limits.blockSize) - alignDown(offset, limits.blockSize);
    // A request of the largest size off the block grid is answered, and repaired in part.
    const isWide = wide <= readMax;
    this.from = isWide ? alignDown(offset, limits.blockSize) : offset;
    this.to = isWide ? alignUp(offset + length, limits.blockSize) : offset + length;
    context.tracker.aim(this, this.from, this.to);
  }

  get readLength(): number {
    return this.to - this.from;
  }

  start(): void {
    if (this.#locks.acquire(this)) this.onGranted();
  }

  onGranted(): void {
    if (this.#isGone()) this.#answer(errnoIo, null);
    else if (this.#context.tracker.mark(this)) this.onMarked();
  }

  onMarked(): void {
    if (this.#isGone()) this.#end(errnoIo);
    else this.#stream.ask(this, this.from);
  }

  peerReceived(): void {
    // A read is answered once.
  }

  peerData(payload: Buffer, at: number): void {
    const from = at + this.#offset - this.from;
    this.#answer(0, payload.subarray(from, from + this.#length));
    if (this.#isGone()) return;
    const { disk, dataOffset } = this.#context;
    disk.write(dataOffset + this.from, payload, at, this.readLength, (errno) => {
      if (this.#locks !== this.#context.locks) return;
      if (errno === 0) {
        this.#context.log.warn({ offset: this.from, bytes: this.readLength },
          'a bad block was rewritten with the data of the peer');
        if (this.#stream.ended) this.#context.tracker.setStale(this.from, this.readLength);
        else this.#stream.written(this.from, this.readLength);
      }
      this.#end(errnoIo);
      if (errno !== 0) this.#context.localFailed('write', errno);
    });
  }

  peerDone(errno: number): void {
    this.#end(errno);
  }

  peerLost(): void {
    this.#end(errnoIo);
  }

  /** The local copy was given up meanwhile, or the peer is. */
  #isGone(): boolean {
    return this.#locks !== this.#context.locks || this.#stream.ended;
  }

  #end(errno: number): void {
    if (this.#locks === this.#context.locks) {
      this.#context.tracker.unmark(this);
      this.#locks.release(this);
    }
    this.#answer(errno, null);
  }

  #answer(errno: number, data: Buffer | null): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    this.#done(errno, data);
  }
}
