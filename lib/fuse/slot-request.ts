/**
 * HOT PATH. A request of the kernel in its slot, as the volume sees it; one object per slot, made
 * once. What the two direct front ends have in common. Figures: ring-frontend.ts.
 */
import { assert } from '../base/assert.ts';
import { AppOp, type AppRequest, type Volume } from '../core/ports.ts';
import { EIO, replyErrno } from './errno.ts';
import {
  PAYLOAD_AT, READ_REPLY_AT, REQUEST_HEAD_SIZE, SLOT_SIZE, type SlotMemory,
} from './slots.ts';

/** The contract's limit for one range operation; larger ones are made of several. */
const RANGE_SIZE_MAX = 4 * 1024 ** 3;

/** What a request needs of its front end. */
export interface SlotOwner {
  readonly memory: SlotMemory;
  readonly volume: Volume;
  /** Sends the `size` bytes at `at` of the memory as the reply of `slot`. */
  reply(slot: number, at: number, size: number): void;
  /** As reply, with `data` behind them. */
  replyWith(slot: number, at: number, size: number, data: Buffer): void;
  /** Answered, and the volume is done with it: free once the reply has left. */
  released(slot: number): void;
  /** The slot is answered and not free: its release comes by `heldReleased`. */
  held(): void;
  heldReleased(slot: number): void;
}

export class SlotRequest implements AppRequest {
  op: AppOp = AppOp.read;
  offset = 0;
  length = 0;
  readonly buffer: Buffer;
  readonly bufferOffset: number;
  readonly headroom = REQUEST_HEAD_SIZE;
  /** Lent to the volume. */
  busy = false;
  /** The kernel has its answer although the volume has not finished. */
  #answered = false;
  /** Answered, and the slot still belongs to a disk operation. */
  #held = false;
  /** Bytes of a range operation that follow the piece in flight. */
  #rest = 0;
  readonly #slot: number;
  readonly #owner: SlotOwner;

  constructor(slot: number, owner: SlotOwner) {
    this.#slot = slot;
    this.#owner = owner;
    this.buffer = owner.memory.bytes;
    this.bufferOffset = slot * SLOT_SIZE + PAYLOAD_AT;
  }

  /** Takes up what the reader left in the slot. */
  load(): void {
    const memory = this.#owner.memory;
    const slot = this.#slot;
    assert(!this.busy, 'a slot was handed over twice');
    this.busy = true;
    this.#answered = false;
    this.op = memory.workOp(slot) as AppOp;
    this.offset = memory.workOffset(slot);
    const length = memory.workLength(slot);
    this.length = Math.min(length, RANGE_SIZE_MAX);
    this.#rest = length - this.length;
  }

  /** Bound once, so that the volume may pass it on as a function. */
  readonly complete = (errno: number): void => {
    assert(this.busy && !this.#held, 'a request completed twice');
    if (errno === 0 && this.#rest > 0 && !this.#answered) {
      setImmediate(() => this.#continueRange());
      return;
    }
    if (!this.#answered) this.#reply(replyErrno(errno));
    this.busy = false;
    this.#owner.released(this.#slot);
  };

  /**
   * See AppRequest. Of a range operation in several pieces the rest was not begun: without an
   * errno of its own it ends with EIO, as nothing may say that the whole range is done.
   */
  completeHeld(errno: number, data: Buffer | null): () => void {
    assert(this.busy && !this.#held, 'a request completed twice');
    this.#held = true;
    if (!this.#answered) this.#replyHeld(errno === 0 && this.#rest > 0 ? EIO : errno, data);
    this.#answered = true;
    this.#rest = 0;
    this.#owner.held();
    let released = false;
    return () => {
      assert(!released, 'a held request was released twice');
      released = true;
      this.busy = false;
      this.#held = false;
      this.#owner.heldReleased(this.#slot);
    };
  }

  /** Answers now; the volume goes on owning the slot until it completes. */
  failNow(): void {
    if (!this.busy || this.#answered) return;
    this.#reply(EIO);
    this.#answered = true;
  }

  #continueRange(): void {
    this.offset += this.length;
    this.length = Math.min(this.#rest, RANGE_SIZE_MAX);
    this.#rest -= this.length;
    this.#owner.volume.submit(this);
  }

  /** The payload comes from elsewhere: a disk may be writing into the slot at this moment. */
  #replyHeld(errno: number, data: Buffer | null): void {
    if (this.op !== AppOp.read || errno !== 0) {
      this.#reply(replyErrno(errno));
      return;
    }
    assert(data !== null && data.length >= this.length, 'a read without its data');
    const at = this.#slot * SLOT_SIZE;
    const size = this.#owner.memory.encodeReplyBefore(this.#slot, this.length);
    this.#owner.replyWith(this.#slot, at, size, data.subarray(0, this.length));
  }

  #reply(errno: number): void {
    const { memory } = this.#owner;
    const slot = this.#slot;
    const base = slot * SLOT_SIZE;
    if (this.op === AppOp.read && errno === 0) {
      const size = memory.encodeReadReply(slot, this.length);
      this.#owner.reply(slot, base + READ_REPLY_AT, size);
    } else {
      const written = this.op === AppOp.write && errno === 0 ? this.length : 0;
      this.#owner.reply(slot, base, memory.encodeReply(slot, errno, written));
    }
  }
}
