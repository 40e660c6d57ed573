/**
 * HOT PATH. The disk port on a ring: an operation is begun by the thread that asks for it, and no
 * other thread of ours is woken. `npm run bench`, write-32: local 0.8 to 1.8 of a bare loop device;
 * docs/decisions/016-one-thread-and-a-ring.md has the reasons.
 *
 * What the kernel cannot do at once (a page that is not in memory, a file system that does not
 * support it, a flush) it does in threads of its own; so a disk that hangs does not stop the
 * thread of the ring. Small writes that only copy are done by that thread: see inline-writes.ts.
 *
 * The descriptors belong to this object, as with LocalDisk.
 */
import * as os from 'node:os';
import { assert } from '../base/assert.ts';
import { addressOf, writeAt } from '../base/libc.ts';
import type { Done, DurableWrite } from '../core/ports.ts';
import {
  type Reactor, type Ring, RingOpcode, type RingOp, type TurnEnd,
} from '../uring/reactor.ts';
import { IORING_FSYNC_DATASYNC } from '../uring/ring.ts';
import { isAligned, isWholeBlocks, AlignedPool, type AlignedMemory } from './aligned.ts';
import { DirtyMemory } from './dirty-memory.ts';
import { InlineWrites } from './inline-writes.ts';
import type { LocalFile } from './local.ts';
import {
  cannotDeallocate, DescriptorUse, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, type OpenDisk,
  writeEachDurable, writeWhole, writeZeros,
} from './open-disk.ts';
import { onlyCopies } from './page-cache.ts';

const { EIO, EINTR, EAGAIN } = os.constants.errno;

/**
 * Writes through the page cache go in slices: ext4 keeps what one call wrote in one folio, and from
 * then on goes through all blocks of the folio for each block that is written into it. After
 * writes of 1 MiB a write of 4 KiB took 17 us, after slices of 128 KiB 6 us. Slices of 32 KiB
 * gave 70,000 such writes a second where 128 KiB gave 58,000, and sequential writes no less.
 */
const sliceBytes = 32 * 1024;

/** Bytes: the length of a flush has 32 bits. */
const rangeMax = 2 ** 32 - 1;

/** One operation; pooled. A transfer that comes back short is continued. */
class DiskOp implements RingOp {
  opcode: RingOpcode = RingOpcode.read;
  fd = -1;
  offset = 0;
  /** Kept alive until the end: the kernel has its address. */
  buffer: Buffer | null = null;
  address = 0;
  left = 0;
  done: Done | null = null;
  /** Stands in for memory that is not aligned; of a read, where its bytes go at the end. */
  aligned: AlignedMemory | null = null;
  copyTo = 0;
  copyLength = 0;
  readonly #disk: RingDisk;

  constructor(disk: RingDisk) {
    this.#disk = disk;
  }

  completed(result: number): void {
    this.#disk.transferred(this, result);
  }
}

class OtherOp implements RingOp {
  readonly completed: (result: number) => void;

  constructor(completed: (result: number) => void) {
    this.completed = completed;
  }
}

export class RingDisk implements OpenDisk, TurnEnd {
  readonly #reactor: Reactor;
  readonly #ring: Ring;
  /** Begun at the end of the round. */
  #begun: DiskOp[] = [];
  readonly #fd: number;
  readonly #durableFd: number;
  readonly #directFd: number;
  readonly #aligned = new AlignedPool();
  readonly #pool: DiskOp[] = [];
  readonly #use: DescriptorUse;
  readonly #inline: InlineWrites;
  readonly #onlyCopies: boolean;
  /** Of one turn, used again. */
  readonly #atOnce: DiskOp[] = [];

  constructor(reactor: Reactor, local: LocalFile, memory = new DirtyMemory()) {
    this.#reactor = reactor;
    this.#ring = reactor.ring;
    this.#fd = local.fd;
    this.#durableFd = local.durableFd;
    this.#directFd = local.directFd;
    this.#use = new DescriptorUse([local.durableFd, local.fd, local.directFd]);
    this.#inline = new InlineWrites(memory);
    this.#onlyCopies = onlyCopies(local);
  }

  close(closed: () => void): void {
    this.#use.close(closed);
  }

  read(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void {
    this.#transfer(RingOpcode.read, offset, buffer, bufferOffset, length, done);
  }

  write(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void {
    if (length <= sliceBytes || (this.#directFd >= 0 && isWholeBlocks(offset, length))) {
      this.#transfer(RingOpcode.write, offset, buffer, bufferOffset, length, done);
      return;
    }
    let left = Math.ceil(length / sliceBytes);
    let failed = 0;
    const sliceDone = (errno: number): void => {
      if (errno !== 0) failed = errno;
      if (--left === 0) done(failed);
    };
    for (let at = 0; at < length; at += sliceBytes) {
      const bytes = Math.min(sliceBytes, length - at);
      this.#transfer(RingOpcode.write, offset + at, buffer, bufferOffset + at, bytes, sliceDone);
    }
  }

  /**
   * On a thread of Node's pool: of regular files the kernel's threads do one buffered write at a
   * time, and the wait for the disk would keep back every write behind this one.
   */
  writeDurable(offset: number, buffer: Buffer, done: Done): void {
    if (!this.#begin(done)) return;
    writeWhole(this.#durableFd, offset, buffer, 0, buffer.length, (errno) => {
      this.#end();
      done(errno);
    });
  }

  /**
   * Into the page cache, and one flush of the range they lie in. That flush has a descriptor of its
   * own: the kernel tells each of an error once, and flush() might be told of theirs.
   */
  writeAllDurable(writes: readonly DurableWrite[], done: Done): void {
    let from = Infinity;
    let to = 0;
    for (const { offset, raw } of writes) {
      from = Math.min(from, offset);
      to = Math.max(to, offset + raw.length);
    }
    if (writes.length === 1 || to - from > rangeMax) {
      writeEachDurable(this, writes, done);
      return;
    }
    let left = writes.length;
    let failed = 0;
    const written = (errno: number): void => {
      if (errno !== 0) failed = errno;
      if (--left > 0) return;
      if (failed === 0) this.#flush(this.#durableFd, from, to - from, done);
      else done(failed);
    };
    for (const { offset, raw } of writes) {
      this.#transfer(RingOpcode.write, offset, raw, 0, raw.length, written, false);
    }
  }

  flush(done: Done): void {
    this.#flush(this.#fd, 0, 0, done);
  }

  /** `length` 0: to the end. */
  #flush(fd: number, offset: number, length: number, done: Done): void {
    if (!this.#begin(done)) return;
    const op = new OtherOp((result) => {
      this.#end();
      done(-result);
    });
    this.#ring.prepare(op, RingOpcode.fsync, fd, 0, length, offset, IORING_FSYNC_DATASYNC);
  }

  zero(offset: number, length: number, discard: boolean, done: Done): void {
    if (!this.#begin(done)) return;
    const mode = discard ? FALLOC_PUNCH_HOLE : FALLOC_ZERO_RANGE;
    const op = new OtherOp((result) => {
      this.#end();
      if (cannotDeallocate(-result)) writeZeros(this, offset, length, done);
      else done(-result);
    });
    // Of fallocate the entry's address is the length, and its length the mode.
    this.#ring.prepare(op, RingOpcode.fallocate, this.#fd, length, mode, offset);
  }

  /** Of the ring. */
  transferred(op: DiskOp, result: number): void {
    if (op.opcode === RingOpcode.write) this.#endElsewhere();
    this.#completed(op, result);
  }

  #completed(op: DiskOp, result: number): void {
    if (result === -EINTR || result === -EAGAIN) {
      this.#issue(op);
      return;
    }
    if (result > 0 && result < op.left) {
      // What is left may be no whole blocks.
      if (op.fd === this.#directFd) op.fd = this.#fd;
      op.offset += result;
      op.address += result;
      op.left -= result;
      this.#issue(op);
      return;
    }
    const done = op.done as Done;
    const isWhole = result === op.left;
    if (op.aligned !== null) this.#giveBack(op, op.aligned);
    op.done = null;
    op.buffer = null;
    this.#pool.push(op);
    this.#use.end();
    // Nothing at all: the file is shorter than its superblock says.
    done(isWhole ? 0 : result === 0 ? EIO : -result);
  }

  #transfer(
    opcode: RingOpcode, offset: number, buffer: Buffer, bufferOffset: number, length: number,
    done: Done, pastCache = this.#directFd >= 0,
  ): void {
    if (!this.#use.begin(done)) return;
    assert(bufferOffset + length <= buffer.length, 'a transfer beyond its memory');
    const op = this.#pool.pop() ?? new DiskOp(this);
    op.opcode = opcode;
    op.fd = this.#fd;
    op.offset = offset;
    op.buffer = buffer;
    op.address = addressOf(buffer) + bufferOffset;
    op.left = length;
    op.done = done;
    if (pastCache && isWholeBlocks(offset, length)) this.#goDirect(op, bufferOffset);
    this.#issue(op);
  }

  #goDirect(op: DiskOp, bufferOffset: number): void {
    op.fd = this.#directFd;
    if (isAligned(op.address)) return;
    const memory = this.#aligned.take(op.left);
    if (op.opcode === RingOpcode.write) {
      (op.buffer as Buffer).copy(memory.bytes, 0, bufferOffset, bufferOffset + op.left);
    } else {
      op.copyTo = bufferOffset;
      op.copyLength = op.left;
    }
    op.aligned = memory;
    op.address = memory.address;
  }

  #giveBack(op: DiskOp, memory: AlignedMemory): void {
    op.aligned = null;
    const { buffer, copyTo, copyLength } = op;
    if (op.opcode === RingOpcode.read) memory.bytes.copy(buffer as Buffer, copyTo, 0, copyLength);
    this.#aligned.giveBack(memory);
  }

  /** Behind what goes to the peer: to wake a thread of the kernel takes as long as to send it. */
  #issue(op: DiskOp): void {
    if (this.#begun.length === 0) this.#reactor.later(this);
    this.#begun.push(op);
  }

  turnEnd(): void {
    const begun = this.#begun;
    this.#begun = [];
    const now = performance.now();
    const isAtOnce = this.#mayWriteAtOnce(begun, now);
    for (const op of begun) {
      if (isAtOnce && op.opcode === RingOpcode.write) {
        this.#atOnce.push(op);
        continue;
      }
      if (op.opcode === RingOpcode.write) this.#beginElsewhere();
      this.#ring.prepare(op, op.opcode, op.fd, op.address, op.left, op.offset);
    }
    if (isAtOnce) this.#writeAtOnce(now);
  }

  #mayWriteAtOnce(ops: readonly DiskOp[], now: number): boolean {
    if (!this.#onlyCopies) return false;
    let bytes = 0;
    for (const op of ops) {
      if (op.opcode !== RingOpcode.write) continue;
      if (op.fd !== this.#fd || !isWholeBlocks(op.offset, op.left)) return false;
      bytes += op.left;
    }
    return bytes > 0 && this.#inline.allow(bytes, now);
  }

  #writeAtOnce(since: number): void {
    // What goes to the peer is on its way before the copy is made.
    if (this.#ring.prepared > 0) this.#ring.submit();
    const ops = this.#atOnce;
    for (const op of ops) this.#completed(op, writeAt(op.fd, op.address, op.left, op.offset));
    ops.length = 0;
    this.#inline.done(since, performance.now());
  }

  /** Of what may hold up a write: see InlineWrites. */
  #begin(done: Done): boolean {
    if (!this.#use.begin(done)) return false;
    this.#beginElsewhere();
    return true;
  }

  #end(): void {
    this.#endElsewhere();
    this.#use.end();
  }

  #beginElsewhere(): void {
    this.#inline.began();
    this.#reactor.busyPoll.began();
  }

  #endElsewhere(): void {
    this.#inline.ended();
    this.#reactor.busyPoll.ended();
  }
}
