/**
 * HOT PATH. The memory that the reader threads and the engine share: slots for requests, the
 * pool of free slots, and one ring per reader that hands filled slots to the engine.
 * `npm run bench` without an io_uring: see direct-frontend.ts.
 *
 * A slot, page aligned:
 *
 *     0      reply header, 24 bytes (fuse_out_header, fuse_write_out); `unique` since the read
 *     32     what the request asks for: op, offset, length
 *     4016   the request as read: 80 bytes of headers before a WRITE's payload
 *     4096   payload, up to 1 MiB, page aligned
 *     +1 MiB tail, so that a request longer than promised is read whole and refused
 *
 * - A slot belongs to exactly one side: free (the pool), filling (its reader), lent (the
 *   engine). The hand-overs are Atomics operations, which order the plain accesses before them.
 * - The lowest free slot is taken first: memory that was never used is never resident, so the
 *   resident size follows the depth of the queue, not the number of slots.
 * - Reader number r owns the extra slot `slots + r`, used only to go on reading (for the wake
 *   request) while the front end stops and no slot is free.
 */
import { assert } from '../base/assert.ts';
import { fuseInHeader, fuseOutHeader, fuseWriteIn, fuseWriteOut } from './abi.ts';
import { alignedMemory } from './memory.ts';
import { TRANSFER_SIZE_MAX } from './session.ts';

const PAGE_SIZE = 4096;
export const REQUEST_HEAD_SIZE = fuseInHeader.size + fuseWriteIn.size;
export const PAYLOAD_AT = PAGE_SIZE;
export const REQUEST_AT = PAYLOAD_AT - REQUEST_HEAD_SIZE;
export const SLOT_SIZE = PAYLOAD_AT + TRANSFER_SIZE_MAX + PAGE_SIZE;
/** What one read of /dev/fuse may fill. */
export const REQUEST_SIZE_MAX = SLOT_SIZE - REQUEST_AT;
export const REPLY_HEADER_SIZE = fuseOutHeader.size;
export const WRITE_REPLY_SIZE = fuseOutHeader.size + fuseWriteOut.size;

/** Where a READ's reply starts: its header ends where the payload begins. */
export const READ_REPLY_AT = PAYLOAD_AT - fuseOutHeader.size;

/** Offsets of the work record in a slot, behind the reply header. */
const WORK_OP_AT = 32;
const WORK_OFFSET_AT = 40;
const WORK_LENGTH_AT = 48;

export const StopMode = { none: 0, keepServing: 1, failRequests: 2 } as const;
export type StopMode = (typeof StopMode)[keyof typeof StopMode];

/** Words of the control memory; the bitmap of free slots and the rings follow. */
const STOP = 0;
const ENGINE_SLEEPS = 1;
const FREED = 2;
const WAITERS = 3;
const BITMAP = 4;

/** What both sides need to build their view of the memory; can be sent to a thread. */
export interface SharedSlots {
  memory: SharedArrayBuffer;
  control: SharedArrayBuffer;
  slots: number;
  readers: number;
}

function bitmapWords(slots: number): number {
  return Math.ceil(slots / 32);
}

/** Entries of a ring: a power of two, so that its counters may wrap around. */
function ringSize(slots: number, readers: number): number {
  return 2 ** Math.ceil(Math.log2(slots + readers));
}

export function createSharedSlots(slots: number, readers: number): SharedSlots {
  assert(slots > 0 && readers > 0, 'no slots or no readers');
  const words = BITMAP + bitmapWords(slots) + readers * (2 + ringSize(slots, readers));
  const shared = {
    memory: alignedMemory((slots + readers) * SLOT_SIZE),
    control: new SharedArrayBuffer(words * 4),
    slots,
    readers,
  };
  const control = new Int32Array(shared.control);
  control[ENGINE_SLEEPS] = 1;
  for (let slot = 0; slot < slots; slot++) {
    const word = BITMAP + (slot >>> 5);
    control[word] = (control[word] ?? 0) | (1 << (slot & 31));
  }
  return shared;
}

/** Taking and giving back slots, stopping, and the sleep of the engine. */
export class SlotPool {
  readonly #control: Int32Array;
  readonly #words: number;
  readonly #slots: number;

  constructor(shared: SharedSlots) {
    this.#control = new Int32Array(shared.control);
    this.#words = bitmapWords(shared.slots);
    this.#slots = shared.slots;
  }

  /** The lowest free slot, now taken, or -1. */
  tryTake(): number {
    for (let word = 0; word < this.#words; word++) {
      let bits = Atomics.load(this.#control, BITMAP + word);
      while (bits !== 0) {
        const lowest = bits & -bits;
        bits = Atomics.and(this.#control, BITMAP + word, ~lowest);
        // Another reader may have been faster; `bits` is what it left.
        if ((bits & lowest) !== 0) return word * 32 + 31 - Math.clz32(lowest);
      }
    }
    return -1;
  }

  /** Blocks until a slot is free (taken, returned) or the front end stops (-1). */
  take(waitMs: number): number {
    for (;;) {
      const seen = Atomics.load(this.#control, FREED);
      const slot = this.tryTake();
      if (slot >= 0) return slot;
      if (this.stopMode !== StopMode.none) return -1;
      Atomics.add(this.#control, WAITERS, 1);
      Atomics.wait(this.#control, FREED, seen, waitMs);
      Atomics.sub(this.#control, WAITERS, 1);
    }
  }

  /** Gives a slot back; the extra slots of the readers are never in the pool. */
  release(slot: number): void {
    if (slot >= this.#slots) return;
    const bit = 1 << (slot & 31);
    const before = Atomics.or(this.#control, BITMAP + (slot >>> 5), bit);
    assert((before & bit) === 0, `slot ${slot} is free already`);
    Atomics.add(this.#control, FREED, 1);
    if (Atomics.load(this.#control, WAITERS) !== 0) Atomics.notify(this.#control, FREED);
  }

  get freeCount(): number {
    let count = 0;
    for (let word = 0; word < this.#words; word++) {
      let bits = Atomics.load(this.#control, BITMAP + word);
      for (; bits !== 0; bits &= bits - 1) count++;
    }
    return count;
  }

  get stopMode(): StopMode {
    return Atomics.load(this.#control, STOP) as StopMode;
  }

  stop(mode: StopMode): void {
    Atomics.store(this.#control, STOP, mode);
    Atomics.add(this.#control, FREED, 1);
    Atomics.notify(this.#control, FREED);
  }

  /** The engine goes to sleep; it must look at the rings once more after this. */
  engineSleeps(): void {
    Atomics.store(this.#control, ENGINE_SLEEPS, 1);
  }

  /** The engine found work after all. A message may be on its way; it finds nothing. */
  engineWakes(): void {
    Atomics.store(this.#control, ENGINE_SLEEPS, 0);
  }

  /** True for exactly one caller: the one who has to send the message that wakes it. */
  claimWake(): boolean {
    return Atomics.load(this.#control, ENGINE_SLEEPS) === 1 &&
      Atomics.compareExchange(this.#control, ENGINE_SLEEPS, 1, 0) === 1;
  }
}

/** Filled slots on their way from one reader (push) to the engine (pop), in order. */
export class SlotRing {
  readonly #control: Int32Array;
  readonly #head: number;
  readonly #tail: number;
  readonly #entries: number;
  readonly #mask: number;

  constructor(shared: SharedSlots, reader: number) {
    this.#control = new Int32Array(shared.control);
    const size = ringSize(shared.slots, shared.readers);
    this.#head = BITMAP + bitmapWords(shared.slots) + reader * (2 + size);
    this.#tail = this.#head + 1;
    this.#entries = this.#head + 2;
    this.#mask = size - 1;
  }

  /** There is an entry for every slot, so there is always room. */
  push(slot: number): void {
    const control = this.#control;
    const head = Atomics.load(control, this.#head);
    control[this.#entries + (head & this.#mask)] = slot;
    Atomics.store(control, this.#head, (head + 1) | 0);
  }

  /** The oldest slot, or -1. */
  pop(): number {
    const control = this.#control;
    const tail = Atomics.load(control, this.#tail);
    if (Atomics.load(control, this.#head) === tail) return -1;
    const slot = control[this.#entries + (tail & this.#mask)];
    Atomics.store(control, this.#tail, (tail + 1) | 0);
    assert(slot !== undefined, 'ring outside its memory');
    return slot;
  }

  get isEmpty(): boolean {
    return Atomics.load(this.#control, this.#head) === Atomics.load(this.#control, this.#tail);
  }
}

/** Reads and writes the fixed fields of slots. */
export class SlotMemory {
  readonly bytes: Buffer;
  readonly view: DataView;

  constructor(shared: Pick<SharedSlots, 'memory'>) {
    this.bytes = Buffer.from(shared.memory);
    this.view = new DataView(shared.memory);
  }

  /** Where `unique` is kept from the read to the reply. */
  static uniqueAt(slot: number): number {
    return slot * SLOT_SIZE + fuseOutHeader.offset.unique;
  }

  setWork(slot: number, op: number, offset: number, length: number): void {
    const at = slot * SLOT_SIZE;
    this.view.setUint32(at + WORK_OP_AT, op, true);
    this.view.setFloat64(at + WORK_OFFSET_AT, offset, true);
    this.view.setFloat64(at + WORK_LENGTH_AT, length, true);
  }

  workOp(slot: number): number {
    return this.view.getUint32(slot * SLOT_SIZE + WORK_OP_AT, true);
  }

  workOffset(slot: number): number {
    return this.view.getFloat64(slot * SLOT_SIZE + WORK_OFFSET_AT, true);
  }

  workLength(slot: number): number {
    return this.view.getFloat64(slot * SLOT_SIZE + WORK_LENGTH_AT, true);
  }

  /** A reply without a body, or with the 8 bytes of fuse_write_out; its size. */
  encodeReply(slot: number, errno: number, written: number): number {
    const at = slot * SLOT_SIZE;
    const size = written > 0 ? WRITE_REPLY_SIZE : REPLY_HEADER_SIZE;
    this.view.setUint32(at + fuseOutHeader.offset.len, size, true);
    this.view.setInt32(at + fuseOutHeader.offset.error, -errno, true);
    this.view.setUint32(at + fuseOutHeader.size + fuseWriteOut.offset.size, written, true);
    this.view.setUint32(at + fuseOutHeader.size + fuseWriteOut.offset.reserved, 0, true);
    return size;
  }

  /** A READ's header at the start of the slot, for a payload that is not in it; its size. */
  encodeReplyBefore(slot: number, length: number): number {
    const at = slot * SLOT_SIZE;
    this.view.setUint32(at + fuseOutHeader.offset.len, REPLY_HEADER_SIZE + length, true);
    this.view.setInt32(at + fuseOutHeader.offset.error, 0, true);
    return REPLY_HEADER_SIZE;
  }

  /** The header right before a READ's payload; size of header and payload together. */
  encodeReadReply(slot: number, length: number): number {
    const from = SlotMemory.uniqueAt(slot);
    const at = slot * SLOT_SIZE + READ_REPLY_AT;
    const size = REPLY_HEADER_SIZE + length;
    this.view.setUint32(at + fuseOutHeader.offset.len, size, true);
    this.view.setInt32(at + fuseOutHeader.offset.error, 0, true);
    const unique = at + fuseOutHeader.offset.unique;
    this.view.setUint32(unique, this.view.getUint32(from, true), true);
    this.view.setUint32(unique + 4, this.view.getUint32(from + 4, true), true);
    return size;
  }
}
