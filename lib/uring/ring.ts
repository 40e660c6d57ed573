/**
 * HOT PATH. One io_uring of this thread: entries are prepared in memory that the kernel shares, and
 * one system call submits all of them and waits. `npm run bench`, read-32: 6 us of this thread a
 * request; docs/decisions/016-one-thread-and-a-ring.md has the reasons.
 *
 * - The ring belongs to one thread (IORING_SETUP_SINGLE_ISSUER), and completions are made when
 *   that thread asks (IORING_SETUP_DEFER_TASKRUN, Linux 6.1): nothing interrupts it in between.
 * - Memory named in an entry is lent to the kernel until its completion; so is everything that an
 *   operation refers to by address. The caller keeps references.
 * - Each entry has one completion. Its operation is called from `reap`, never from `prepare`.
 *
 * Layout: linux/io_uring.h, struct io_uring_sqe (64 bytes), struct io_uring_cqe (16 bytes).
 */
import { assert } from '../base/assert.ts';
import { HastError } from '../base/errors.ts';
import { addressOf, libcAvailable, mapRing, ringEnter, ringSetup } from '../base/libc.ts';

/** Who hears of a completion: bytes done, or -errno. */
export interface RingOp {
  completed(result: number): void;
}

/** enum io_uring_op. */
export const RingOpcode = {
  fsync: 3, pollAdd: 6, sendmsg: 9, asyncCancel: 14, fallocate: 17, read: 22, write: 23, recv: 27,
} as const;
export type RingOpcode = (typeof RingOpcode)[keyof typeof RingOpcode];

/** The next entry begins when this one has succeeded, and is cancelled where it fails. */
export const IOSQE_IO_LINK = 4;
/** `more` of an fsync: as fdatasync(2). */
export const IORING_FSYNC_DATASYNC = 1;

const IORING_SETUP_CQSIZE = 1 << 3;
const IORING_SETUP_CLAMP = 1 << 4;
const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
const IORING_SETUP_DEFER_TASKRUN = 1 << 13;
const IORING_FEAT_SINGLE_MMAP = 1;
const IORING_FEAT_NODROP = 2;
const IORING_FEAT_EXT_ARG = 1 << 8;
const IORING_ENTER_GETEVENTS = 1;
const IORING_ENTER_EXT_ARG = 8;

const EINTR = 4;
const EAGAIN = 11;
const EBUSY = 16;
const ETIME = 62;

const paramsSize = 120;
/** Offsets in struct io_uring_params. */
const param = { sqEntries: 0, cqEntries: 4, flags: 8, features: 20, sqOff: 40, cqOff: 80 } as const;
/** Offsets in struct io_sqring_offsets and io_cqring_offsets. */
const sqOff = { head: 0, tail: 4, flags: 16, array: 24 } as const;
const cqOff = { head: 0, tail: 4, cqes: 20 } as const;

const sqEntries = 1024;
const cqEntries = 8192;
const sqeWords = 16;
const cqeWords = 4;
const twoTo32 = 2 ** 32;

/** Word offsets in the memory for the argument of a wait. */
const argument = { sigmaskSize: 2, timeLow: 4, timeHigh: 5, seconds: 8, nanoseconds: 10 } as const;
const argumentBytes = 64;
const timespecAt = 32;

export class Ring {
  readonly #fd: number;
  readonly #words: Int32Array;
  readonly #entries: Int32Array;
  readonly #argument: Int32Array;
  readonly #argumentAddress: number;
  /** Word indices of what the kernel shares. */
  readonly #sqHead: number;
  readonly #sqTail: number;
  readonly #sqFlags: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqes: number;
  /** Next entry to be prepared, and how many the kernel has not been told of. */
  #tail: number;
  #prepared = 0;
  #head: number;
  readonly #ops: (RingOp | null)[] = [];
  readonly #freeIds: number[] = [];

  private constructor(fd: number, params: Buffer, rings: ArrayBuffer, entries: ArrayBuffer) {
    this.#fd = fd;
    this.#words = new Int32Array(rings);
    this.#entries = new Int32Array(entries);
    const sq = (at: number): number => params.readUInt32LE(param.sqOff + at) >> 2;
    const cq = (at: number): number => params.readUInt32LE(param.cqOff + at) >> 2;
    this.#sqHead = sq(sqOff.head);
    this.#sqTail = sq(sqOff.tail);
    this.#sqFlags = sq(sqOff.flags);
    this.#cqHead = cq(cqOff.head);
    this.#cqTail = cq(cqOff.tail);
    this.#cqes = cq(cqOff.cqes);
    // Entry n of the array names submission entry n for ever.
    const array = sq(sqOff.array);
    for (let index = 0; index < sqEntries; index++) this.#words[array + index] = index;
    this.#tail = Atomics.load(this.#words, this.#sqTail);
    this.#head = Atomics.load(this.#words, this.#cqHead);
    const memory = Buffer.alloc(argumentBytes);
    this.#argument = new Int32Array(memory.buffer, memory.byteOffset, argumentBytes / 4);
    this.#argumentAddress = addressOf(memory);
    const timespec = this.#argumentAddress + timespecAt;
    this.#argument[argument.sigmaskSize] = 8;
    this.#argument[argument.timeLow] = timespec | 0;
    this.#argument[argument.timeHigh] = Math.floor(timespec / twoTo32);
  }

  /** A ring for this thread, or null where this kernel, or who guards it, allows none. */
  static open(): Ring | null {
    if (!libcAvailable()) return null;
    const params = Buffer.alloc(paramsSize);
    params.writeUInt32LE(IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_TASKRUN_FLAG |
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, param.flags);
    params.writeUInt32LE(cqEntries, param.cqEntries);
    const { errno, fd } = ringSetup(sqEntries, params);
    if (errno !== 0) return null;
    const features = params.readUInt32LE(param.features);
    const needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    // CLAMP may give less than was asked for, but only above 32768.
    if ((features & needed) !== needed || params.readUInt32LE(param.sqEntries) !== sqEntries) {
      return null;
    }
    const array = params.readUInt32LE(param.sqOff + sqOff.array) + sqEntries * 4;
    const cqes = params.readUInt32LE(param.cqOff + cqOff.cqes) +
      params.readUInt32LE(param.cqEntries) * 16;
    const memory = mapRing(fd, Math.max(array, cqes), sqEntries * sqeWords * 4);
    return memory === null ? null : new Ring(fd, params, memory.rings, memory.entries);
  }

  /** Prepared and not submitted. */
  get prepared(): number {
    return this.#prepared;
  }

  /**
   * Prepares one operation; its number, for `cancel`. `more` is the operation's own flags word,
   * `flags` the entry's.
   */
  prepare(
    op: RingOp, opcode: RingOpcode, fd: number, address: number, length: number, offset: number,
    more = 0, flags = 0,
  ): number {
    // A chain ends with the submission that holds its first entry.
    const room = flags === IOSQE_IO_LINK ? 2 : 1;
    if (this.#prepared > sqEntries - room) this.#makeRoom(room);
    const id = this.#freeIds.pop() ?? this.#ops.length;
    this.#ops[id] = op;
    const entries = this.#entries;
    const at = (this.#tail & (sqEntries - 1)) * sqeWords;
    entries[at] = opcode | (flags << 8);
    entries[at + 1] = fd;
    entries[at + 2] = offset | 0;
    entries[at + 3] = Math.floor(offset / twoTo32);
    entries[at + 4] = address | 0;
    entries[at + 5] = Math.floor(address / twoTo32);
    entries[at + 6] = length;
    entries[at + 7] = more;
    entries[at + 8] = id;
    entries[at + 9] = 0;
    entries[at + 10] = 0;
    entries[at + 11] = 0;
    entries[at + 12] = 0;
    entries[at + 13] = 0;
    this.#tail = (this.#tail + 1) | 0;
    this.#prepared++;
    return id;
  }

  /** Ends the operation with that number early, if it can be; `op` hears whether. */
  cancel(op: RingOp, id: number): void {
    this.prepare(op, RingOpcode.asyncCancel, -1, id, 0, 0);
  }

  /** Hands everything prepared to the kernel, which begins it, and lets it make completions. */
  submit(): void {
    this.#enter(0, IORING_ENTER_GETEVENTS, 0);
  }

  /** As submit, and sleeps until a completion is there, `milliseconds` have passed or a signal. */
  submitAndWait(milliseconds: number): void {
    const whole = Math.floor(milliseconds / 1000);
    this.#argument[argument.seconds] = whole;
    this.#argument[argument.nanoseconds] = Math.floor((milliseconds - whole * 1000) * 1e6);
    this.#enter(1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, this.#argumentAddress);
  }

  /**
   * Something is there for reap(), or would be after submit(): IORING_SQ_TASKRUN or CQ_OVERFLOW
   * is set.
   */
  get hasNews(): boolean {
    const words = this.#words;
    return Atomics.load(words, this.#cqTail) !== this.#head ||
      Atomics.load(words, this.#sqFlags) !== 0;
  }

  /** Calls the operations whose completions are there; how many. */
  reap(): number {
    const words = this.#words;
    const tail = Atomics.load(words, this.#cqTail);
    const first = this.#head;
    let head = first;
    while (head !== tail) {
      const at = this.#cqes + (head & (cqEntries - 1)) * cqeWords;
      const id = words[at] as number;
      const result = words[at + 2] as number;
      const op = this.#ops[id];
      assert(op !== null && op !== undefined, 'a completion nobody waits for');
      this.#ops[id] = null;
      this.#freeIds.push(id);
      head = (head + 1) | 0;
      this.#head = head;
      op.completed(result);
    }
    Atomics.store(words, this.#cqHead, head);
    return (head - first) | 0;
  }

  #makeRoom(room: number): void {
    this.submit();
    if (this.#prepared <= sqEntries - room) return;
    // The kernel takes nothing: an entry more would overwrite one.
    throw new HastError('HAST_E_INTERNAL', 'the ring is full, and the kernel takes nothing of it');
  }

  #enter(complete: number, flags: number, argumentAddress: number): void {
    const words = this.#words;
    Atomics.store(words, this.#sqTail, this.#tail);
    const taken = ringEnter(this.#fd, this.#prepared, complete, flags, argumentAddress);
    this.#prepared = (this.#tail - Atomics.load(words, this.#sqHead)) | 0;
    if (taken >= 0) return;
    // Of what was submitted nothing is lost: it stays prepared.
    if (taken === -EINTR || taken === -ETIME || taken === -EAGAIN || taken === -EBUSY) return;
    throw new HastError('HAST_E_INTERNAL', `io_uring_enter failed (errno ${-taken})`);
  }
}
