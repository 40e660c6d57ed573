/**
 * The few system calls that Node does not offer, through koffi. The only file that knows koffi.
 *
 * - The library is loaded at the first call. Where it cannot be loaded (no binary for this
 *   platform), every function reports a failure: `fallocate` EOPNOTSUPP, so that discard is
 *   answered as not supported, the others ENOSYS. Nothing throws.
 * - Results are errno values: 0 is success.
 * - ioctl and prctl are declared without an ellipsis: Linux on x86-64, arm64 and riscv64 passes
 *   the arguments of both the same way, and koffi offers no asynchronous variadic calls.
 */
import { createRequire } from 'node:module';
import * as os from 'node:os';

const { ENOSYS, EOPNOTSUPP, EIO } = os.constants.errno;

/** Values of `advice`, from asm-generic/mman-common.h. */
export const MADV_DONTFORK = 10;
export const MADV_NOHUGEPAGE = 15;
export const MADV_POPULATE_WRITE = 23;

const LOCK_EX_NB = 2 | 4;
const LOCK_UN = 8;
/** _IOR(0x12, 114, size_t) where size_t has 8 bytes and reading is 2 (x86, arm, riscv). */
const BLKGETSIZE64 = 0x8008_1272;
const PR_SET_IO_FLUSHER = 57;
/** PROT_READ | PROT_WRITE, MAP_SHARED, MAP_FAILED. */
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

type Call = (...values: unknown[]) => number;
type AsyncDone = (error: unknown, result: number) => void;
type AsyncCall = Call & { async: (...valuesThenDone: [...unknown[], AsyncDone]) => void };

interface Libc {
  errno: () => number;
  fallocate: AsyncCall;
  flock: Call;
  ioctl: Call;
  prctl: Call;
  madvise: Call;
  mlock: Call;
  mmap: (...values: unknown[]) => bigint;
  view: (pointer: bigint, length: number) => ArrayBuffer;
}

/** undefined: not tried yet; null: cannot be loaded. */
let loaded: Libc | null | undefined;

function load(): Libc | null {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const library = koffi.load(null);
    const declare = (definition: string): AsyncCall => library.func(definition) as AsyncCall;
    return {
      errno: () => koffi.errno(),
      fallocate: declare('int fallocate(int fd, int mode, int64 offset, int64 length)'),
      flock: declare('int flock(int fd, int operation)'),
      ioctl: declare('int ioctl(int fd, unsigned long request, void *argument)'),
      prctl: declare('int prctl(int option, unsigned long a, unsigned long b, ' +
        'unsigned long c, unsigned long d)'),
      madvise: declare('int madvise(void *start, size_t length, int advice)'),
      mlock: declare('int mlock(void *start, size_t length)'),
      mmap: library.func('void *mmap(void *start, size_t length, int protection, int flags, ' +
        'int fd, int64 offset)') as Libc['mmap'],
      view: (pointer, length) => koffi.view(pointer, length),
    };
  } catch {
    return null;
  }
}

function libc(): Libc | null {
  loaded ??= load();
  return loaded;
}

/** Whether the calls below can work at all. */
export function libcAvailable(): boolean {
  return libc() !== null;
}

/** Runs one synchronous call; its errno. */
function errnoOf(run: (library: Libc) => number): number {
  const library = libc();
  if (library === null) return ENOSYS;
  try {
    return run(library) < 0 ? library.errno() : 0;
  } catch {
    return EIO;
  }
}

/**
 * fallocate(2) on a thread of the pool; `done` is never called before this returned. `mode` is a
 * set of FALLOC_FL flags; the offset may be any, but a block device wants whole sectors.
 */
export function fallocate(
  fd: number,
  mode: number,
  offset: number,
  length: number,
  done: (errno: number) => void,
): void {
  const library = libc();
  if (library === null) {
    setImmediate(done, EOPNOTSUPP);
    return;
  }
  try {
    library.fallocate.async(fd, mode, offset, length, (error, result) => {
      // koffi restores the errno of the call that has ended.
      const errno = result < 0 ? library.errno() : 0;
      done(error === null || error === undefined ? errno : EIO);
    });
  } catch {
    // Its queue (256 calls) is full, or the arguments are no integers.
    setImmediate(done, EIO);
  }
}

/** Exclusive flock(2) on the open file description, without waiting: EAGAIN if it is taken. */
export function flockExclusive(fd: number): number {
  return errnoOf((library) => library.flock(fd, LOCK_EX_NB));
}

export function flockRelease(fd: number): number {
  return errnoOf((library) => library.flock(fd, LOCK_UN));
}

/** Size in bytes of an open block device (fstat says 0 there). */
export function blockDeviceSize(fd: number): { errno: number; size: number } {
  const answer = Buffer.alloc(8);
  const errno = errnoOf((library) => library.ioctl(fd, BLKGETSIZE64, answer));
  return { errno, size: errno === 0 ? Number(answer.readBigUInt64LE(0)) : 0 };
}

/**
 * PR_SET_IO_FLUSHER for this thread and what it creates from now on, threads and processes: their
 * memory allocations do not wait for writeback that waits for them. Call it first thing, in the
 * process that starts the workers. Needs CAP_SYS_RESOURCE; EPERM without.
 */
export function setIoFlusher(): number {
  return errnoOf((library) => library.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0));
}

/** madvise(2) for a page-aligned range. MADV_POPULATE_WRITE needs Linux 5.14: EINVAL before. */
export function madvise(range: Buffer, advice: number): number {
  return errnoOf((library) => library.madvise(range, range.length, advice));
}

/**
 * mlock(2): the range stays in memory. ENOMEM above RLIMIT_MEMLOCK. (mlockall is not offered: V8
 * aborts the process when it cannot give pages back.)
 */
export function mlock(range: Buffer): number {
  return errnoOf((library) => library.mlock(range, range.length));
}

/**
 * mmap(2) of the first `length` bytes of a file, shared, to read and write, until the process ends;
 * the descriptor may be closed. `bytes` is null where `errno` is not 0. A store beyond the end of
 * the file, or to a page without a place on its file system, ends the process (SIGBUS).
 */
export function mapShared(fd: number, length: number): { errno: number; bytes: Buffer | null } {
  const library = libc();
  if (library === null) return { errno: ENOSYS, bytes: null };
  try {
    const start = library.mmap(null, length, PROT_READ_WRITE, MAP_SHARED, fd, 0);
    if (start === MAP_FAILED) return { errno: library.errno(), bytes: null };
    return { errno: 0, bytes: Buffer.from(library.view(start, length)) };
  } catch {
    return { errno: EIO, bytes: null };
  }
}
