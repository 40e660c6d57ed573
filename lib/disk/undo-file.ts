/**
 * Undo files as the core's ports: written once, sealed, read back in order.
 *
 * - A file counts only with its trailer, written after everything else is durable.
 * - An existing file is never touched; a link is not followed.
 * - Every byte read is covered by a checksum; lengths are capped before memory is taken.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { assert } from '../base/assert.ts';
import { crc32 } from '../base/checksum.ts';
import { errnoName, HastError } from '../base/errors.ts';
import type { UndoSink, UndoSource } from '../core/ports.ts';
import { limits } from '../format/limits.ts';
import {
  decodeUndoHeader, decodeUndoRecord, decodeUndoTrailer, encodeUndoHeader, encodeUndoRecord,
  encodeUndoTrailer, undoHeaderChecksum, undoHeaderSize, undoRecordSize, undoTrailerSize,
  type UndoInfo, type UndoTrailer,
} from '../format/undo.ts';

const { EIO, EBADMSG } = os.constants.errno;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = fs.constants;

type Done = (errno: number) => void;
type NextDone = Parameters<UndoSource['next']>[0];

function errnoOf(error: NodeJS.ErrnoException): number {
  return error.errno === undefined || error.errno === 0 ? EIO : Math.abs(error.errno);
}

/** Writes all of `data` at `position`. */
function writeAll(
  fd: number, data: Buffer, from: number, length: number, position: number, done: Done,
): void {
  fs.write(fd, data, from, length, position, (error, put) => {
    if (error !== null) done(errnoOf(error));
    else if (put === length) done(0);
    else if (put === 0) done(EIO);
    else writeAll(fd, data, from + put, length - put, position + put, done);
  });
}

/** Reads `length` bytes into the front of `into`; a file that ends before is EBADMSG. */
function readAll(
  fd: number, into: Buffer, from: number, length: number, position: number, done: Done,
): void {
  fs.read(fd, into, from, length, position, (error, got) => {
    if (error !== null) done(errnoOf(error));
    else if (got === length) done(0);
    else if (got === 0) done(EBADMSG);
    else readAll(fd, into, from + got, length - got, position + got, done);
  });
}

const anotherFile = 'name a file of hastctl resolve --undo, or one that hastctl list calls kept';

function failure(what: string, file: string, errno: number): HastError {
  const name = Object.entries(os.constants.errno).find(([, value]) => value === errno)?.[0];
  const text = `the undo file ${file} cannot be ${what} (${name ?? errno})`;
  const hint = 'make room, or name a file elsewhere; see the kernel log if it is the disk';
  return new HastError('HAST_E_DEVICE', text, {
    hint, ...(name === undefined ? {} : { errno: name }),
  });
}

function open(file: string, flags: number, mode: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.open(file, flags, mode, (error, fd) => {
      if (error === null) resolve(fd);
      else reject(error);
    });
  });
}

/** The rest of an asynchronous step that can only fail with an errno. */
function step(what: string, file: string, run: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    run((errno) => {
      if (errno === 0) resolve();
      else reject(failure(what, file, errno));
    });
  });
}

export class UndoFileWriter implements UndoSink {
  readonly path: string;
  readonly #fd: number;
  readonly #mediaSize: number;
  readonly #headerChecksum: number;
  #position = undoHeaderSize;
  #count = 0;
  #bytes = 0;
  #recordsChecksum = 0;
  /** The first error: nothing after it counts. */
  #errno = 0;
  #busy = false;
  #closed = false;

  private constructor(file: string, fd: number, header: Buffer, mediaSize: number) {
    this.path = file;
    this.#fd = fd;
    this.#mediaSize = mediaSize;
    this.#headerChecksum = undoHeaderChecksum(header);
  }

  /** Throws HAST_E_USAGE where `file` exists, HAST_E_DEVICE where it cannot be written. */
  static async create(file: string, info: UndoInfo): Promise<UndoFileWriter> {
    const header = encodeUndoHeader(info);
    let fd: number;
    try {
      fd = await open(file, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
    } catch (cause) {
      if (errnoName(cause) !== 'EEXIST') {
        throw failure('created', file, errnoOf(cause as NodeJS.ErrnoException));
      }
      throw new HastError('HAST_E_USAGE', `${file} exists: an undo file is never overwritten`, {
        cause, hint: 'name a file that does not exist',
      });
    }
    const writer = new UndoFileWriter(file, fd, header, info.mediaSize);
    try {
      await step('written', file, (done) => writeAll(fd, header, 0, header.length, 0, done));
    } catch (error) {
      writer.abandon();
      throw error;
    }
    return writer;
  }

  /** Bytes of the volume kept so far. */
  get bytes(): number {
    return this.#bytes;
  }

  add(offset: number, data: Buffer, dataOffset: number, length: number, done: Done): void {
    assert(!this.#busy && !this.#closed, 'one range at a time, before the seal');
    assert(length > 0 && length <= limits.payloadBytesMax && offset >= 0 &&
      offset + length <= this.#mediaSize, 'a range of the volume');
    this.#busy = true;
    const payload = data.subarray(dataOffset, dataOffset + length);
    const head = encodeUndoRecord({
      offset, number: this.#count, length, dataChecksum: crc32(payload),
    });
    const finish = this.#finisher(done);
    if (this.#errno !== 0) {
      process.nextTick(finish, this.#errno);
      return;
    }
    writeAll(this.#fd, head, 0, head.length, this.#position, (headError) => {
      if (headError !== 0) {
        finish(headError);
        return;
      }
      writeAll(this.#fd, payload, 0, length, this.#position + head.length, (errno) => {
        if (errno === 0) {
          this.#position += head.length + length;
          this.#count++;
          this.#bytes += length;
          this.#recordsChecksum = crc32(head, this.#recordsChecksum);
        }
        finish(errno);
      });
    });
  }

  /** Also closes the file. After an error the file is not sealed and stays as it is. */
  seal(done: Done): void {
    assert(!this.#busy && !this.#closed, 'sealed once, after the last range');
    this.#busy = true;
    const finish = this.#finisher((errno) => {
      this.#close(() => done(errno));
    });
    if (this.#errno !== 0) {
      process.nextTick(finish, this.#errno);
      return;
    }
    const sync = (next: Done): void =>
      fs.fsync(this.#fd, (error) => next(error === null ? 0 : errnoOf(error)));
    // First what the trailer vouches for.
    sync((errno) => {
      if (errno !== 0) {
        finish(errno);
        return;
      }
      const trailer = encodeUndoTrailer({
        count: this.#count, bytes: this.#bytes, headerChecksum: this.#headerChecksum,
        recordsChecksum: this.#recordsChecksum,
      });
      writeAll(this.#fd, trailer, 0, trailer.length, this.#position, (error) => {
        if (error !== 0) finish(error);
        else sync((late) => {
          if (late !== 0) finish(late);
          else syncFolder(path.dirname(this.path), finish);
        });
      });
    });
  }

  /** Gives an unsealed file up and removes it. */
  abandon(): void {
    if (this.#closed) return;
    assert(!this.#busy, 'no write is under way');
    this.#close(() => undefined);
    fs.unlink(this.path, () => undefined);
  }

  #finisher(done: Done): Done {
    return (errno) => {
      this.#busy = false;
      if (errno !== 0) this.#errno = errno;
      done(errno);
    };
  }

  #close(done: () => void): void {
    this.#closed = true;
    fs.close(this.#fd, done);
  }
}

/** Makes the name of a new file durable. */
function syncFolder(folder: string, done: Done): void {
  fs.open(folder, O_RDONLY | O_DIRECTORY, (error, fd) => {
    if (error !== null) {
      done(errnoOf(error));
      return;
    }
    fs.fsync(fd, (failed) => {
      fs.close(fd, () => done(failed === null ? 0 : errnoOf(failed)));
    });
  });
}

export class UndoFileReader implements UndoSource {
  readonly path: string;
  readonly info: UndoInfo;
  /** Why next() failed, for the operator; empty before. */
  problem = '';
  readonly #fd: number;
  readonly #trailer: UndoTrailer;
  /** Where the trailer begins. */
  readonly #end: number;
  readonly #head = Buffer.alloc(undoRecordSize);
  #position = undoHeaderSize;
  #count = 0;
  #bytes = 0;
  #recordsChecksum = 0;

  private constructor(
    file: string, fd: number, info: UndoInfo, trailer: UndoTrailer, end: number,
  ) {
    this.path = file;
    this.info = info;
    this.#fd = fd;
    this.#trailer = trailer;
    this.#end = end;
  }

  /** Throws HAST_E_DEVICE, HAST_E_UNSUPPORTED or HAST_E_CORRUPT ("not sealed" among them). */
  static async open(file: string): Promise<UndoFileReader> {
    let fd: number;
    try {
      // Without O_NONBLOCK a pipe would wait for a writer.
      fd = await open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    } catch (cause) {
      throw failure('opened', file, errnoOf(cause as NodeJS.ErrnoException));
    }
    try {
      return await UndoFileReader.#read(file, fd);
    } catch (error) {
      fs.close(fd, () => undefined);
      throw error;
    }
  }

  static async #read(file: string, fd: number): Promise<UndoFileReader> {
    const stat = fs.fstatSync(fd);
    const end = stat.size - undoTrailerSize;
    if (!stat.isFile()) {
      throw new HastError('HAST_E_CORRUPT', `${file} is not an undo file`, { hint: anotherFile });
    }
    const header = Buffer.alloc(undoHeaderSize);
    const part = Math.min(stat.size, header.length);
    await step('read', file, (done) => readAll(fd, header, 0, part, 0, done));
    const info = decodeUndoHeader(header);
    const raw = Buffer.alloc(undoTrailerSize);
    if (end >= undoHeaderSize) {
      await step('read', file, (done) => readAll(fd, raw, 0, raw.length, end, done));
    }
    const trailer = decodeUndoTrailer(raw);
    if (trailer.headerChecksum !== undoHeaderChecksum(header) ||
        end !== undoHeaderSize + trailer.count * undoRecordSize + trailer.bytes) {
      throw new HastError('HAST_E_CORRUPT', 'head and end of the undo file do not fit', {
        hint: anotherFile,
      });
    }
    return new UndoFileReader(file, fd, info, trailer, end);
  }

  /** Ranges and bytes of the volume in the file. */
  get count(): number {
    return this.#trailer.count;
  }

  get bytes(): number {
    return this.#trailer.bytes;
  }

  /** EBADMSG where a checksum or a count does not hold: see `problem`. */
  next(done: NextDone): void {
    if (this.#position === this.#end) {
      process.nextTick(() => this.#atEnd(done));
      return;
    }
    if (this.#end - this.#position < undoRecordSize) {
      process.nextTick(() => this.#fail(done, EBADMSG, 'a record is cut off'));
      return;
    }
    readAll(this.#fd, this.#head, 0, undoRecordSize, this.#position, (errno) => {
      if (errno !== 0) this.#fail(done, errno, 'it cannot be read');
      else this.#readData(done);
    });
  }

  /** Reads all of it, gives nothing out and starts anew: before the first range is put back. */
  verify(done: Done): void {
    this.next((errno, range) => {
      if (errno === 0 && range !== null) {
        this.verify(done);
        return;
      }
      if (errno === 0) this.#rewind();
      done(errno);
    });
  }

  close(): void {
    fs.close(this.#fd, () => undefined);
  }

  #rewind(): void {
    this.#position = undoHeaderSize;
    this.#count = 0;
    this.#bytes = 0;
    this.#recordsChecksum = 0;
  }

  #readData(done: NextDone): void {
    let record: ReturnType<typeof decodeUndoRecord>;
    try {
      record = decodeUndoRecord(this.#head, this.info.mediaSize);
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      this.#fail(done, EBADMSG, error.message);
      return;
    }
    const { offset, number, length, dataChecksum } = record;
    const from = this.#position + undoRecordSize;
    if (number !== this.#count || from + length > this.#end) {
      this.#fail(done, EBADMSG, 'a record is missing or cut off');
      return;
    }
    const data = Buffer.allocUnsafe(length);
    readAll(this.#fd, data, 0, length, from, (errno) => {
      if (errno !== 0) this.#fail(done, errno, 'it cannot be read');
      else if (crc32(data) !== dataChecksum) this.#fail(done, EBADMSG, 'data are damaged');
      else {
        this.#recordsChecksum = crc32(this.#head, this.#recordsChecksum);
        this.#position = from + length;
        this.#count++;
        this.#bytes += length;
        done(0, { offset, data });
      }
    });
  }

  #atEnd(done: NextDone): void {
    const { count, bytes, recordsChecksum } = this.#trailer;
    if (count !== this.#count || bytes !== this.#bytes ||
        recordsChecksum !== this.#recordsChecksum) {
      this.#fail(done, EBADMSG, 'its records are not those it was sealed with');
    } else {
      done(0, null);
    }
  }

  #fail(done: NextDone, errno: number, problem: string): void {
    this.problem = `the undo file ${this.path}: ${problem}`;
    done(errno, null);
  }
}
