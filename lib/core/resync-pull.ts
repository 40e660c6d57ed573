/**
 * Fetches the blocks that are stale here from the peer, while the application works through it.
 *
 * A chunk holds its range from the question to the end of the local write: a write of the
 * application to these blocks is before the question in the stream, or after the local write.
 */
import { limits } from '../format/limits.ts';
import type { CoreContext } from './context.ts';
import type { PeerStream, ReadItem } from './peer-stream.ts';
import type { ResyncPace } from './resync-pace.ts';
import { ResyncWalk, type Chunk } from './resync-walk.ts';

class PullChunk implements Chunk, ReadItem {
  from = 0;
  to = 0;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  /** The bytes that are fetched: within the range that is held. */
  start = 0;
  end = 0;
  /** Keeps what the peer sent until it is on the disk. */
  data: Buffer | null = null;
  readonly #sync: ResyncPull;

  constructor(sync: ResyncPull) {
    this.#sync = sync;
  }

  get readLength(): number {
    return this.end - this.start;
  }

  onGranted(): void {
    this.#sync.locked(this);
  }

  readonly onWritten = (errno: number): void => this.#sync.written(this, errno);

  peerReceived(): void {
    // A read is answered once.
  }

  peerData(payload: Buffer, at: number): void {
    this.#sync.arrived(this, payload, at);
  }

  peerDone(): void {
    this.#sync.refused(this);
  }

  peerLost(): void {
    this.#sync.chunkLost(this);
  }
}

export class ResyncPull extends ResyncWalk<PullChunk> {
  constructor(context: CoreContext, stream: PeerStream, pace: ResyncPace, onIdle: () => void) {
    super(context, stream, pace, context.tracker.localStale, onIdle);
  }

  arrived(chunk: PullChunk, payload: Buffer, at: number): void {
    const { disk, dataOffset } = this.context;
    if (this.stopped) {
      this.chunkLost(chunk);
      return;
    }
    chunk.data = payload;
    disk.write(dataOffset + chunk.start, payload, at, chunk.readLength, chunk.onWritten);
  }

  written(chunk: PullChunk, errno: number): void {
    const { tracker } = this.context;
    chunk.data = null;
    if (this.locks !== this.context.locks) {
      // The copy was given up meanwhile.
      this.lost();
      return;
    }
    if (errno === 0) tracker.arrivedLocally(chunk.start, chunk.readLength);
    this.locks.release(chunk);
    if (errno !== 0) {
      this.lost();
      this.context.localFailed('write', errno);
    } else if (this.stopped) {
      this.lost();
    } else {
      this.finished(chunk, chunk.readLength);
    }
  }

  refused(chunk: PullChunk): void {
    this.locks.release(chunk);
    if (this.stopped) this.lost();
    else this.failed(chunk);
  }

  chunkLost(chunk: PullChunk): void {
    this.locks.release(chunk);
    this.lost();
  }

  protected override newChunk(): PullChunk {
    return new PullChunk(this);
  }

  protected override copy(chunk: PullChunk): void {
    // Only what is stale still: a block that is valid here by now has no mark that would cover a
    // write torn by a crash.
    const { localStale } = this.context.tracker;
    const first = localStale.nextSet(chunk.from / limits.blockSize);
    const count = localStale.runLength(first, chunk.to / limits.blockSize - first);
    chunk.start = first * limits.blockSize;
    chunk.end = Math.min(chunk.start + count * limits.blockSize, chunk.to);
    this.stream.ask(chunk, chunk.start);
  }
}
