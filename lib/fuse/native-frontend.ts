/**
 * The second front end: fuse-native, which binds libfuse 2. For machines where only fusermount
 * may mount. The only file that knows fuse-native. What it cannot do:
 *
 * - no fallocate, so no discard and no zeroing;
 * - requests of at most 128 KiB, a fraction of the speed, and no recovery when the process dies.
 *
 * What must be so (fuse-native 2.2.6):
 * - `timeout: false`: by default an operation that takes 15 s is answered with an error, and its
 *   late callback touches memory that is in use again;
 * - `fsync` and `statfs` are implemented: without, fsync succeeds and nothing is flushed;
 * - direct_io, big_writes and max_write have no option; they travel behind a comma in `fsname`.
 * - It gives no alignment and no room before a payload, so payloads are copied into slots that
 *   look like those of the direct front end.
 * - A synchronous fs call on the own mount deadlocks the process.
 */
import { createRequire } from 'node:module';
import { assert } from '../base/assert.ts';
import { errorText, HastError } from '../base/errors.ts';
import { AppOp, type AppRequest, type Volume } from '../core/ports.ts';
import { EIO, EINVAL, ENOENT, ENOSPC, EPERM, replyErrno } from './errno.ts';
import type { Frontend, FrontendStats } from './frontend.ts';
import { alignedMemory } from './memory.ts';
import { isMounted } from './mount.ts';
import { VOLUME_NAME } from './session.ts';

const TRANSFER_SIZE_MAX = 128 * 1024;
const LEAD_SIZE = 4096;
const SLOT_SIZE = LEAD_SIZE + TRANSFER_SIZE_MAX;
const SLOTS = 64;
const HEADROOM = 80;
const BLOCK_SIZE = 4096;
/** libfuse's thread says nothing when the mount goes away, so it is looked at. */
const MOUNT_CHECK_MS = 1000;
const STOP_WAIT_MS = 10_000;

type Errno = (errno: number) => void;
type Result<T> = (errno: number, value?: T) => void;

/** The part of fuse-native that is used; it brings no types. */
interface NativeFuse {
  mount(done: (error: Error | null) => void): void;
  unmount(done: (error: Error | null) => void): void;
}

interface NativeStat {
  mtime: Date;
  atime: Date;
  ctime: Date;
  size: number;
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
}

interface NativeStatfs {
  bsize: number;
  frsize: number;
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  namemax: number;
}

type Transfer = (
  path: string, fd: number, buffer: Buffer, length: number, position: number, done: Errno,
) => void;

/** Errors are negative errno values; transfers answer with a negative errno or a length. */
interface NativeOperations {
  getattr(path: string, done: Result<NativeStat>): void;
  readdir(path: string, done: Result<string[]>): void;
  statfs(path: string, done: Result<NativeStatfs>): void;
  open(path: string, flags: number, done: Result<number>): void;
  release(path: string, fd: number, done: Errno): void;
  flush(path: string, fd: number, done: Errno): void;
  truncate(path: string, size: number, done: Errno): void;
  read: Transfer;
  write: Transfer;
  fsync(path: string, datasync: boolean, fd: number, done: Errno): void;
}

interface NativeModule {
  new (mountPoint: string, operations: NativeOperations, options: object): NativeFuse;
}

export interface NativeFrontendOptions {
  mountPoint: string;
}

/** What a request needs of its front end. */
interface RequestOwner {
  released(request: NativeRequest): void;
  /** The request is answered and not free: its release comes by `heldReleased`. */
  held(): void;
  heldReleased(request: NativeRequest): void;
}

/** A request of the pool, for one operation after the other. */
class NativeRequest implements AppRequest {
  op: AppOp = AppOp.read;
  offset = 0;
  length = 0;
  readonly buffer: Buffer;
  readonly bufferOffset: number;
  readonly headroom = HEADROOM;
  /** The waiting operation: called once with the result, then null. */
  #done: Errno | null = null;
  /** Where a read's payload goes. */
  #target: Buffer | null = null;
  /** Answered, and the slot still belongs to a disk operation. */
  #held = false;
  readonly #owner: RequestOwner;

  constructor(memory: Buffer, slot: number, owner: RequestOwner) {
    this.buffer = memory;
    this.bufferOffset = slot * SLOT_SIZE + LEAD_SIZE;
    this.#owner = owner;
  }

  load(work: Work): void {
    this.op = work.op;
    this.offset = work.offset;
    this.length = work.length;
    this.#done = work.done;
    this.#target = work.op === AppOp.read ? work.data : null;
    if (work.op === AppOp.write && work.data !== null) {
      work.data.copy(this.buffer, this.bufferOffset, 0, work.length);
    }
  }

  readonly complete = (errno: number): void => {
    assert(!this.#held, 'a request completed twice');
    this.#answer(replyErrno(errno), null);
    this.#owner.released(this);
  };

  completeHeld(errno: number, data: Buffer | null): () => void {
    assert(!this.#held, 'a request completed twice');
    this.#held = true;
    this.#owner.held();
    this.#answer(replyErrno(errno), data);
    let released = false;
    return () => {
      assert(!released, 'a held request was released twice');
      released = true;
      this.#held = false;
      this.#owner.heldReleased(this);
    };
  }

  failNow(): void {
    this.#answer(EIO, null);
  }

  /** A held read is answered from `data`: a disk may be writing into the slot at this moment. */
  #answer(errno: number, data: Buffer | null): void {
    const done = this.#done;
    if (done === null) return;
    if (errno === 0 && this.#target !== null) {
      assert(!this.#held || (data !== null && data.length >= this.length), 'a read without data');
      const at = data === null ? this.bufferOffset : 0;
      (data ?? this.buffer).copy(this.#target, 0, at, at + this.length);
    }
    this.#done = null;
    this.#target = null;
    done(errno === 0 ? this.length : -errno);
  }
}

/** An operation on its way to the volume. */
interface Work {
  op: AppOp;
  offset: number;
  length: number;
  data: Buffer | null;
  done: Errno;
}

class NativeFrontend implements Frontend, RequestOwner {
  readonly stats: FrontendStats = { inFlight: 0, idle: SLOTS };
  readonly negotiated = null;
  readonly #mountPoint: string;
  readonly #requests: NativeRequest[] = [];
  readonly #free: NativeRequest[] = [];
  /** One to replace each that is held, so that others are still served: SLOTS at most. */
  readonly #reserve: NativeRequest[] = [];
  /** Held requests for which the reserve had none. */
  #unreplaced = 0;
  /** Operations beyond the pool; libfuse limits them by its number of threads. */
  readonly #waiting: Work[] = [];
  #fuse: NativeFuse | null = null;
  #volume: Volume | null = null;
  #endListener: ((error: Error | null) => void) | null = null;
  #mountCheck: NodeJS.Timeout | null = null;
  #failing = false;
  #stopped = false;

  constructor(options: NativeFrontendOptions) {
    this.#mountPoint = options.mountPoint;
  }

  start(volume: Volume, ready: (error: Error | null) => void): void {
    assert(this.#volume === null, 'the front end was started twice');
    this.#volume = volume;
    const memory = Buffer.from(alignedMemory(2 * SLOTS * SLOT_SIZE));
    for (let slot = 0; slot < 2 * SLOTS; slot++) {
      this.#requests.push(new NativeRequest(memory, slot, this));
    }
    // The lowest slot is on top: memory never used is never resident.
    this.#free.push(...this.#requests.slice(0, SLOTS).reverse());
    this.#reserve.push(...this.#requests.slice(SLOTS));
    try {
      // fuse-native unmounts through a shell, the path in double quotes.
      if (/["$`\\\n]/.test(this.#mountPoint)) throw new Error('unsafe name of the mount point');
      const Fuse = createRequire(import.meta.url)('fuse-native') as NativeModule;
      this.#fuse = new Fuse(this.#mountPoint, operations(this, volume.size), {
        timeout: false,
        allowOther: true,
        defaultPermissions: true,
        fsname: `hast,big_writes,direct_io,max_write=${TRANSFER_SIZE_MAX}`,
      });
      this.#fuse.mount((error) => this.#mounted(error, ready));
    } catch (cause) {
      const error = new HastError('HAST_E_DEVICE', `fuse-native: ${errorText(cause)}`, {
        cause,
        hint: 'install libfuse2, or use the direct front end',
      });
      setImmediate(ready, error);
    }
  }

  onEnd(listener: (error: Error | null) => void): void {
    this.#endListener = listener;
  }

  stop(done: (ended: boolean) => void, fail = false): void {
    assert(!this.#stopped, 'the front end was stopped twice');
    this.#stopped = true;
    this.#stopMountCheck();
    if (fail) {
      this.#failing = true;
      for (const request of this.#requests) request.failNow();
      for (const work of this.#waiting.splice(0)) work.done(-EIO);
    }
    let called = false;
    const finish = (ended: boolean): void => {
      if (called) return;
      called = true;
      clearTimeout(timer);
      done(ended);
    };
    const timer = setTimeout(finish, STOP_WAIT_MS, false);
    if (this.#fuse === null) setImmediate(finish, true);
    else this.#fuse.unmount((error) => finish(error === null));
  }

  /** Takes an operation; its result is a length or a negative errno. */
  submit(work: Work): void {
    if (this.#failing) {
      work.done(-EIO);
      return;
    }
    const request = this.#free.pop();
    if (request === undefined) {
      this.#waiting.push(work);
      return;
    }
    this.stats.inFlight++;
    this.stats.idle--;
    request.load(work);
    assert(this.#volume !== null, 'an operation before the start');
    this.#volume.submit(request);
  }

  released(request: NativeRequest): void {
    this.stats.inFlight--;
    this.#nowFree(request);
  }

  held(): void {
    const request = this.#reserve.pop();
    if (request === undefined) this.#unreplaced++;
    else this.#nowFree(request);
  }

  heldReleased(request: NativeRequest): void {
    this.stats.inFlight--;
    if (this.#unreplaced > 0) {
      this.#unreplaced--;
      this.#nowFree(request);
    } else {
      this.#reserve.push(request);
    }
  }

  #nowFree(request: NativeRequest): void {
    this.stats.idle++;
    this.#free.push(request);
    const next = this.#waiting.shift();
    // Not from within the volume's own call.
    if (next !== undefined) setImmediate(() => this.submit(next));
  }

  #mounted(error: Error | null, ready: (error: Error | null) => void): void {
    if (error) {
      const text = `fuse-native cannot mount ${this.#mountPoint}: ${errorText(error)}`;
      ready(new HastError('HAST_E_DEVICE', text, { cause: error }));
      return;
    }
    this.#mountCheck = setTimeout(() => void this.#checkMount(), MOUNT_CHECK_MS);
    ready(null);
  }

  async #checkMount(): Promise<void> {
    const mounted = await isMounted(this.#mountPoint).catch(() => true);
    if (this.#stopped) return;
    if (mounted) {
      this.#mountCheck = setTimeout(() => void this.#checkMount(), MOUNT_CHECK_MS);
      return;
    }
    this.#endListener?.(null);
  }

  #stopMountCheck(): void {
    if (this.#mountCheck !== null) clearTimeout(this.#mountCheck);
    this.#mountCheck = null;
  }
}

const VOLUME_PATH = `/${VOLUME_NAME}`;

/** The file system of session.ts once more, in terms of paths. */
function operations(frontend: NativeFrontend, size: number): NativeOperations {
  const epoch = new Date(0);
  const times = { mtime: epoch, atime: epoch, ctime: epoch, uid: 0, gid: 0 };
  return {
    getattr(path, done) {
      if (path === '/') return done(0, { ...times, size: 4096, mode: 0o040755, nlink: 2 });
      if (path === VOLUME_PATH) return done(0, { ...times, size, mode: 0o100600, nlink: 1 });
      done(-ENOENT);
    },
    readdir: (path, done) => (path === '/' ? done(0, [VOLUME_NAME]) : done(-ENOENT)),
    statfs(_path, done) {
      const blocks = Math.floor(size / BLOCK_SIZE);
      const sizes = { bsize: BLOCK_SIZE, frsize: BLOCK_SIZE, blocks, namemax: 255 };
      done(0, { ...sizes, bfree: 0, bavail: 0, files: 1, ffree: 0 });
    },
    open: (path, _flags, done) => (path === VOLUME_PATH ? done(0, 0) : done(-ENOENT)),
    release: (_path, _fd, done) => done(0),
    flush: (_path, _fd, done) => done(0),
    truncate: (path, to, done) => done(path === VOLUME_PATH && to === size ? 0 : -EPERM),
    read(_path, _fd, data, asked, offset, done) {
      const length = Math.min(asked, size - offset);
      if (length <= 0) return done(0);
      if (length > TRANSFER_SIZE_MAX) return done(-EINVAL);
      frontend.submit({ op: AppOp.read, offset, length, data, done });
    },
    write(_path, _fd, data, length, offset, done) {
      if (length > TRANSFER_SIZE_MAX) return done(-EINVAL);
      if (offset + length > size) return done(-ENOSPC);
      frontend.submit({ op: AppOp.write, offset, length, data, done });
    },
    fsync(_path, _datasync, _fd, done) {
      frontend.submit({ op: AppOp.flush, offset: 0, length: 0, data: null, done });
    },
  };
}

export function createNativeFrontend(options: NativeFrontendOptions): Frontend {
  return new NativeFrontend(options);
}
