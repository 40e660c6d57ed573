/**
 * HOT PATH. Where received bytes lie: in chunks, and the payloads of frames are views of them. A
 * chunk is used again when all who got a payload have given it back; else the next one is, and the
 * collector takes it. `npm run bench`, seqwrite: fullsync-tls has 0.65 to 0.74 of the rate without
 * TLS, and had 0.48 with memory of its own for each record.
 */
import { addressOf } from '../base/libc.ts';
import type { FrameMemory } from '../format/frame.ts';
import type { FrameReader } from '../format/wire.ts';

/** Holds three of the largest frames, so that few have to be moved to the next chunk. */
const chunkSize = 4 << 20;
/** A chunk with less room is not filled further. */
const roomMin = 1 << 16;
const spareChunksMax = 4;

class Chunk implements FrameMemory {
  /** Written to, and so resident: who receives must not have to wait for memory. */
  readonly bytes = Buffer.alloc(chunkSize, 0xff);
  readonly address = addressOf(this.bytes);
  /** Payloads that somebody uses. */
  users = 0;
  readonly #free: (chunk: Chunk) => void;

  constructor(free: (chunk: Chunk) => void) {
    this.#free = free;
  }

  retain(): void {
    this.users++;
  }

  release(): void {
    if (--this.users === 0) this.#free(this);
  }
}

export class ReceiveMemory {
  readonly #reader: FrameReader;
  readonly #spare: Chunk[] = [];
  #chunk: Chunk;
  /** What the reader has not taken yet lies between. */
  #from = 0;
  #fill = 0;
  readonly #onFree = (chunk: Chunk): void => {
    if (chunk === this.#chunk || this.#spare.length === spareChunksMax) return;
    this.#spare.push(chunk);
  };

  constructor(reader: FrameReader) {
    this.#reader = reader;
    this.#chunk = new Chunk(this.#onFree);
  }

  /** Where the next bytes go; `filled` tells how many came. */
  makeRoom(): { address: number; room: number } {
    this.#makeRoom();
    return { address: this.#chunk.address + this.#fill, room: chunkSize - this.#fill };
  }

  /** The same as a view. */
  room(): Buffer {
    this.#makeRoom();
    return this.#chunk.bytes.subarray(this.#fill);
  }

  filled(bytes: number): void {
    this.#fill += bytes;
  }

  /** Bytes that lie elsewhere, as many as there are: all of them are taken. */
  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      this.#makeRoom();
      const copied = bytes.copy(this.#chunk.bytes, this.#fill, at);
      this.#fill += copied;
      at += copied;
      this.take();
    }
  }

  /** Bytes that came with the preface: there are few. */
  keep(rest: Buffer): void {
    this.#fill += rest.copy(this.#chunk.bytes, this.#fill);
  }

  /** Passes whole frames on. Throws what FrameReader throws. */
  take(): void {
    const chunk = this.#chunk;
    this.#from = this.#reader.pull(chunk.bytes, this.#from, this.#fill, chunk);
  }

  drop(): void {
    this.#from = this.#fill;
  }

  /** In the chunk at hand: after it was used up, from its beginning again. */
  #makeRoom(): void {
    const chunk = this.#chunk;
    const left = this.#fill - this.#from;
    if (left === 0 && chunk.users === 0) {
      this.#from = 0;
      this.#fill = 0;
      return;
    }
    const room = chunkSize - this.#from;
    if (room >= this.#reader.needs && chunkSize - this.#fill >= roomMin) return;
    const next = this.#spare.pop() ?? new Chunk(this.#onFree);
    chunk.bytes.copy(next.bytes, 0, this.#from, this.#fill);
    this.#chunk = next;
    this.#from = 0;
    this.#fill = left;
    // Nobody gives back what nobody uses.
    if (chunk.users === 0) this.#onFree(chunk);
  }
}
