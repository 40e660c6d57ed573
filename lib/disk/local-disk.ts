/**
 * The disk port on a real file or block device, through the page cache and libuv's thread pool:
 * the event loop never waits for a disk.
 *
 * Hot path: read() and write() run once per request.
 * `npm run bench`, write-32 without a ring: local 0.3 to 0.4 of a bare loop device.
 *
 * The descriptors belong to this object: they are closed when no operation uses them any more.
 * Sooner, an operation that still waits for its thread could meet another file under the number.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import { fallocate } from '../base/libc.ts';
import type { Done, DurableWrite } from '../core/ports.ts';
import { AlignedPool, isWholeBlocks } from './aligned.ts';
import type { LocalFile } from './local.ts';
import {
  cannotDeallocate, DescriptorUse, errnoOf, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, type OpenDisk,
  writeEachDurable, writeWhole, writeZeros,
} from './open-disk.ts';

const { EIO } = os.constants.errno;

export class LocalDisk implements OpenDisk {
  readonly #fd: number;
  readonly #durableFd: number;
  readonly #directFd: number;
  readonly #aligned = new AlignedPool();
  readonly #use: DescriptorUse;

  constructor(local: LocalFile) {
    this.#fd = local.fd;
    this.#durableFd = local.durableFd;
    this.#directFd = local.directFd;
    this.#use = new DescriptorUse([local.durableFd, local.fd, local.directFd]);
  }

  close(closed: () => void): void {
    this.#use.close(closed);
  }

  read(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void {
    if (this.#isDirect(offset, length)) {
      const memory = this.#aligned.take(length);
      this.#read(this.#directFd, offset, memory.bytes, 0, length, (errno) => {
        memory.bytes.copy(buffer, bufferOffset, 0, length);
        this.#aligned.giveBack(memory);
        done(errno);
      });
      return;
    }
    this.#read(this.#fd, offset, buffer, bufferOffset, length, done);
  }

  #read(
    fd: number, offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done,
  ): void {
    if (!this.#use.begin(done)) return;
    fs.read(fd, buffer, bufferOffset, length, offset, (error, got) => {
      this.#use.end();
      if (error !== null) done(errnoOf(error));
      else if (got === length) done(0);
      // Nothing more to read: the file is shorter than its superblock says.
      else if (got === 0) done(EIO);
      // What is left may be no whole blocks, which a direct read would refuse.
      else this.#read(this.#fd, offset + got, buffer, bufferOffset + got, length - got, done);
    });
  }

  write(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void {
    if (this.#isDirect(offset, length)) {
      const memory = this.#aligned.take(length);
      buffer.copy(memory.bytes, 0, bufferOffset, bufferOffset + length);
      this.#write(this.#directFd, offset, memory.bytes, 0, length, (errno) => {
        this.#aligned.giveBack(memory);
        done(errno);
      });
      return;
    }
    this.#write(this.#fd, offset, buffer, bufferOffset, length, done);
  }

  #isDirect(offset: number, length: number): boolean {
    return this.#directFd >= 0 && isWholeBlocks(offset, length);
  }

  writeDurable(offset: number, buffer: Buffer, done: Done): void {
    this.#write(this.#durableFd, offset, buffer, 0, buffer.length, done);
  }

  writeAllDurable(writes: readonly DurableWrite[], done: Done): void {
    writeEachDurable(this, writes, done);
  }

  flush(done: Done): void {
    if (!this.#use.begin(done)) return;
    fs.fdatasync(this.#fd, (error) => {
      this.#use.end();
      done(errnoOf(error));
    });
  }

  zero(offset: number, length: number, discard: boolean, done: Done): void {
    const mode = discard ? FALLOC_PUNCH_HOLE : FALLOC_ZERO_RANGE;
    if (!this.#use.begin(done)) return;
    fallocate(this.#fd, mode, offset, length, (errno) => {
      this.#use.end();
      if (cannotDeallocate(errno)) writeZeros(this, offset, length, done);
      else done(errno);
    });
  }

  #write(
    fd: number, offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done,
  ): void {
    if (!this.#use.begin(done)) return;
    writeWhole(fd, offset, buffer, bufferOffset, length, (errno) => {
      this.#use.end();
      done(errno);
    });
  }
}
