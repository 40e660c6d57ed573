/** What the two ways to a real disk have in common: LocalDisk and RingDisk. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import { assert } from '../base/assert.ts';
import type { DiskPort, Done, DurableWrite } from '../core/ports.ts';

const { EIO, EOPNOTSUPP, EINVAL } = os.constants.errno;

/** linux/falloc.h: both keep the size. */
export const FALLOC_PUNCH_HOLE = 0x3;
export const FALLOC_ZERO_RANGE = 0x11;

const zeroBlock = Buffer.alloc(1 << 20);

export interface OpenDisk extends DiskPort {
  /**
   * Ends the use of the disk: later operations fail with EIO. `closed` is called once the
   * descriptors, and with them the lock, are given back: not before a disk that hangs lets go.
   */
  close(closed: () => void): void;
}

/** The descriptors of a disk: who uses them, and their end when nobody does. */
export class DescriptorUse {
  readonly #fds: readonly number[];
  /** Operations that have not returned. */
  #busy = 0;
  #closed = false;
  #onIdle: (() => void) | null = null;

  /** Closed in this order: the one that holds the lock is last. */
  constructor(fds: readonly number[]) {
    this.#fds = fds;
  }

  /** See OpenDisk. */
  close(closed: () => void): void {
    assert(!this.#closed, 'a disk was closed twice');
    this.#closed = true;
    this.#onIdle = () => closeAll(this.#fds, closed);
    if (this.#busy === 0) this.#onIdle();
  }

  /** Whether an operation may begin; it then ends with `end`. Otherwise `done` hears of EIO. */
  begin(done: Done): boolean {
    if (this.#closed) {
      setImmediate(done, EIO);
      return false;
    }
    this.#busy++;
    return true;
  }

  end(): void {
    this.#busy--;
    if (this.#busy === 0) this.#onIdle?.();
  }
}

/** What the file system or the device cannot do is written: the range must read as zeros. */
export function cannotDeallocate(errno: number): boolean {
  return errno === EOPNOTSUPP || errno === EINVAL;
}

export function writeZeros(disk: DiskPort, offset: number, length: number, done: Done): void {
  if (length === 0) {
    done(0);
    return;
  }
  const piece = Math.min(length, zeroBlock.length);
  disk.write(offset, zeroBlock, 0, piece, (errno) => {
    if (errno !== 0) done(errno);
    else writeZeros(disk, offset + piece, length - piece, done);
  });
}

/** Each by itself, with a flush of its own. */
export function writeEachDurable(
  disk: Pick<DiskPort, 'writeDurable'>, writes: readonly DurableWrite[], done: Done,
): void {
  let left = writes.length;
  let failed = 0;
  for (const { offset, raw } of writes) {
    disk.writeDurable(offset, raw, (errno) => {
      if (errno !== 0) failed = errno;
      if (--left === 0) done(failed);
    });
  }
}

/** Writes all of it, on a thread of Node's pool. */
export function writeWhole(
  fd: number, offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done,
): void {
  fs.write(fd, buffer, bufferOffset, length, offset, (error, put) => {
    if (error !== null) done(errnoOf(error));
    else if (put === length) done(0);
    else if (put === 0) done(EIO);
    else writeWhole(fd, offset + put, buffer, bufferOffset + put, length - put, done);
  });
}

/** One after the other; -1 stands for none. */
function closeAll(fds: readonly number[], closed: () => void): void {
  const [fd, ...rest] = fds;
  if (fd === undefined) closed();
  else if (fd < 0) closeAll(rest, closed);
  else fs.close(fd, () => closeAll(rest, closed));
}

export function errnoOf(error: NodeJS.ErrnoException | null): number {
  if (error === null) return 0;
  return error.errno === undefined || error.errno === 0 ? EIO : Math.abs(error.errno);
}
