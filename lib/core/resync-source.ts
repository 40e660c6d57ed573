/**
 * Copies the blocks the peer lacks, while writes go on.
 *
 * A chunk holds its range only from the local read to the moment its frame is in the stream:
 * a write that arrives later is later in the stream too. Its blocks then count as unflushed, so a
 * session that ends before the covering flush makes them stale again.
 */
import { FrameFlag, FrameType } from '../format/frame.ts';
import { limits } from '../format/limits.ts';
import type { CoreContext } from './context.ts';
import type { PeerStream, StreamItem } from './peer-stream.ts';
import type { ResyncPace } from './resync-pace.ts';
import { chunkBlocks, ResyncWalk, type Chunk } from './resync-walk.ts';

class PushChunk implements Chunk, StreamItem {
  from = 0;
  to = 0;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  readonly buffer = Buffer.allocUnsafeSlow(limits.blockSize + chunkBlocks * limits.blockSize);
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
    this.#sync.chunkLost();
  }
}

export class ResyncSource extends ResyncWalk<PushChunk> {
  constructor(context: CoreContext, stream: PeerStream, pace: ResyncPace, onIdle: () => void) {
    super(context, stream, pace, context.tracker.peerStale, onIdle);
  }

  wasRead(chunk: PushChunk, errno: number): void {
    const { tracker } = this.context;
    if (this.stopped || errno !== 0) {
      this.locks.release(chunk);
      if (this.stopped) {
        this.lost();
        return;
      }
      this.context.localFailed('read', errno);
      this.failed(chunk);
      return;
    }
    const length = chunk.to - chunk.from;
    tracker.clearStale(chunk.from, length);
    this.stream.written(chunk.from, length);
    this.stream.send(
      chunk, FrameType.write, FrameFlag.resync, chunk.from, length, chunk.buffer,
      limits.blockSize, limits.blockSize,
    );
    this.locks.release(chunk);
  }

  copied(chunk: PushChunk, errno: number): void {
    this.finished(chunk, errno === 0 ? chunk.to - chunk.from : 0);
  }

  chunkLost(): void {
    this.lost();
  }

  protected override newChunk(): PushChunk {
    return new PushChunk(this);
  }

  protected override copy(chunk: PushChunk): void {
    const { disk, dataOffset } = this.context;
    const length = chunk.to - chunk.from;
    disk.read(dataOffset + chunk.from, chunk.buffer, limits.blockSize, length, chunk.onRead);
  }
}
