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
import * as fs from 'node:fs';
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
/** Yama's: who besides ancestors may take descriptors of this process: all with its rights. */
const PR_SET_PTRACER = 0x5961_6d61;
const PR_SET_PTRACER_ANY = -1;
/** Numbers of system calls since the tables were unified (asm-generic/unistd.h, x86 as well). */
const SYS_pidfd_send_signal = 424;
const SYS_pidfd_open = 434;
const SYS_pidfd_getfd = 438;
const WNOHANG = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const F_DUPFD_CLOEXEC = 1030;
const SHUT_WR = 1;
const SHUT_RDWR = 2;
/** sizeof(struct io_uring_getevents_arg). */
const RING_ARGUMENT_SIZE = 24;
const SYS_io_uring_setup = 425;
const SYS_io_uring_enter = 426;
/** linux/io_uring.h: one mapping holds both rings, the other the submission entries. */
const IORING_OFF_SQ_RING = 0;
const IORING_OFF_SQES = 0x1000_0000;
/** stdin, stdout, stderr: Node marks them to be closed at exec. */
const stdio = [0, 1, 2];
/** PROT_READ | PROT_WRITE, MAP_SHARED, MAP_POPULATE, MAP_FAILED. */
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_POPULATE = 0x8000;
const POSIX_FADV_RANDOM = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

type Call = (...values: unknown[]) => number;
type AsyncDone = (error: unknown, result: number) => void;
type AsyncCall = Call & { async: (...valuesThenDone: [...unknown[], AsyncDone]) => void };

interface Libc {
  errno: () => number;
  fallocate: AsyncCall;
  flock: Call;
  fadvise: Call;
  ioctl: Call;
  prctl: Call;
  madvise: Call;
  mlock: Call;
  syscall: Call;
  waitpid: Call;
  execve: Call;
  fcntl: Call;
  shutdown: Call;
  ringSetup: Call;
  ringEnter: Call;
  pwrite: Call;
  address: (memory: Buffer) => number;
  mmap: (...values: unknown[]) => bigint;
  view: (pointer: bigint, length: number) => ArrayBuffer;
}

/** sd_pid_notify_with_fds(3). */
let notify: Call | null | undefined;
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
      fadvise: declare('int posix_fadvise(int fd, int64 offset, int64 length, int advice)'),
      ioctl: declare('int ioctl(int fd, unsigned long request, void *argument)'),
      prctl: declare('int prctl(int option, unsigned long a, unsigned long b, ' +
        'unsigned long c, unsigned long d)'),
      madvise: declare('int madvise(void *start, size_t length, int advice)'),
      mlock: declare('int mlock(void *start, size_t length)'),
      syscall: declare('long syscall(long number, long a, long b, long c, long d)'),
      waitpid: declare('int waitpid(int pid, int *status, int options)'),
      fcntl: declare('int fcntl(int fd, int command, long argument)'),
      execve: declare('int execve(const char *path, const char **argv, const char **envp)'),
      shutdown: declare('int shutdown(int fd, int how)'),
      ringSetup: library.func('syscall', 'long', ['long', 'long', 'void *']) as Call,
      ringEnter: library.func('syscall', 'long',
        ['long', 'long', 'long', 'long', 'long', 'uintptr_t', 'long']) as Call,
      pwrite: declare('long pwrite(int fd, uintptr_t from, size_t length, int64 offset)'),
      address: (memory) => Number(koffi.address(memory)),
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

/**
 * posix_fadvise(2), POSIX_FADV_RANDOM: reads through this description bring into the page cache
 * what they ask for, page by page, and nothing ahead of it. Its errno.
 */
export function adviseRandom(fd: number): number {
  const library = libc();
  // Unlike the others it returns its errno.
  return library === null ? ENOSYS : library.fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
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
 * Another process as a descriptor, which never means a later process of the same pid: see
 * pidfd_open(2), Linux 5.3. To be closed by the caller.
 */
export function openProcess(pid: number): { errno: number; fd: number } {
  return descriptorOf((library) => library.syscall(SYS_pidfd_open, pid, 0, 0, 0));
}

/** Sends a signal to the process behind a descriptor of openProcess(); ESRCH where it is gone. */
export function signalProcess(processFd: number, signal: number): number {
  return errnoOf((library) => library.syscall(SYS_pidfd_send_signal, processFd, signal, 0, 0));
}

/**
 * A copy of another process's descriptor `fd`: the same open file description. pidfd_getfd(2),
 * Linux 5.6; EPERM where this process may not trace the other. To be closed by the caller.
 */
export function takeDescriptor(processFd: number, fd: number): { errno: number; fd: number } {
  return descriptorOf((library) => library.syscall(SYS_pidfd_getfd, processFd, fd, 0, 0));
}

/**
 * Processes with the same rights may take descriptors of this one, also where the Yama module
 * reserves that for ancestors (EINVAL where there is no Yama, and nothing to be allowed).
 */
export function allowTaking(): number {
  return errnoOf((library) => library.prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0));
}

/** Takes note of the end of a child that Node does not know; nothing where it is none. */
export function reapChild(pid: number): void {
  errnoOf((library) => library.waitpid(pid, Buffer.alloc(4), WNOHANG));
}

/**
 * execve(2): this process goes on as another program, with its pid, stdin, stdout and stderr.
 * Returns only where that failed.
 */
export function replaceProgram(path: string, argv: string[], environment: string[]): number {
  const setFlags = (flags: number): void => {
    for (const fd of stdio) errnoOf((library) => library.fcntl(fd, F_SETFD, flags));
  };
  setFlags(0);
  const errno = errnoOf((library) => library.execve(path, [...argv, null], [...environment, null]));
  setFlags(FD_CLOEXEC);
  return errno;
}

/** The descriptor does not outlive an exec(2). */
export function closeAtExec(fd: number): number {
  return errnoOf((library) => library.fcntl(fd, F_SETFD, FD_CLOEXEC));
}

/**
 * Tells the service manager `state`, see sd_notify(3), with a descriptor where one is given. ENOSYS
 * without libsystemd.
 */
export function notifyService(state: string, fd: number | null): number {
  notify ??= loadNotify();
  if (notify === null) return ENOSYS;
  try {
    const fds = Buffer.alloc(4);
    fds.writeInt32LE(fd ?? -1);
    const result = notify(0, 0, state, fds, fd === null ? 0 : 1);
    return result < 0 ? -result : 0;
  } catch {
    return EIO;
  }
}

function loadNotify(): Call | null {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    return koffi.load('libsystemd.so.0').func('int sd_pid_notify_with_fds(int pid, ' +
      'int unset, const char *state, const void *fds, uint count)') as Call;
  } catch {
    return null;
  }
}

function descriptorOf(run: (library: Libc) => number): { errno: number; fd: number } {
  let fd = -1;
  const errno = errnoOf((library) => {
    fd = run(library);
    return fd;
  });
  return { errno, fd: errno === 0 ? fd : -1 };
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

/** Whether reads and writes of the open file description fail with EAGAIN instead of waiting. */
export function setNonBlocking(fd: number, on: boolean): number {
  let flags = 0;
  const errno = errnoOf((library) => {
    flags = library.fcntl(fd, F_GETFL, 0);
    return flags;
  });
  if (errno !== 0) return errno;
  const { O_NONBLOCK } = fs.constants;
  const wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  return errnoOf((library) => library.fcntl(fd, F_SETFL, wanted));
}

/** Another descriptor of the same open file description, to be closed by the caller. */
export function duplicateDescriptor(fd: number): { errno: number; fd: number } {
  return descriptorOf((library) => library.fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/** shutdown(2) of both directions: nothing more is sent or received, also by what is under way. */
export function shutdownSocket(fd: number): number {
  return errnoOf((library) => library.shutdown(fd, SHUT_RDWR));
}

/** shutdown(2): the other side reads what was sent, then the end. */
export function endSending(fd: number): number {
  return errnoOf((library) => library.shutdown(fd, SHUT_WR));
}

/**
 * Where memory begins, for structures that the kernel reads. It stays there while anything refers
 * to it. Only where libcAvailable().
 */
export function addressOf(memory: Buffer): number {
  return (libc() as Libc).address(memory);
}

/** io_uring_setup(2): fills `params` (struct io_uring_params). EPERM where it is forbidden. */
export function ringSetup(entries: number, params: Buffer): { errno: number; fd: number } {
  return descriptorOf((library) => library.ringSetup(SYS_io_uring_setup, entries, params));
}

/** The memory of a ring: both rings in one mapping (IORING_FEAT_SINGLE_MMAP), and the entries. */
export function mapRing(
  fd: number, ringBytes: number, entryBytes: number,
): { rings: ArrayBuffer; entries: ArrayBuffer } | null {
  const library = libc();
  if (library === null) return null;
  const map = (length: number, offset: number): ArrayBuffer | null => {
    const flags = MAP_SHARED | MAP_POPULATE;
    const start = library.mmap(null, length, PROT_READ_WRITE, flags, fd, offset);
    return start === MAP_FAILED ? null : library.view(start, length);
  };
  const rings = map(ringBytes, IORING_OFF_SQ_RING);
  const entries = map(entryBytes, IORING_OFF_SQES);
  return rings === null || entries === null ? null : { rings, entries };
}

/**
 * io_uring_enter(2); the number of entries taken, or -errno. `argument` is the address of a struct
 * io_uring_getevents_arg of 24 bytes, or 0.
 */
export function ringEnter(
  fd: number, submit: number, complete: number, flags: number, argument: number,
): number {
  const library = libc() as Libc;
  const size = argument === 0 ? 0 : RING_ARGUMENT_SIZE;
  const taken = library.ringEnter(
    SYS_io_uring_enter, fd, submit, complete, flags, argument, size,
  );
  return taken < 0 ? -library.errno() : taken;
}

/**
 * pwrite(2) of memory by its address, by this thread: the number of bytes, or -errno. The caller
 * keeps the memory, and knows that no disk makes this wait.
 */
export function writeAt(fd: number, address: number, length: number, offset: number): number {
  const library = libc();
  if (library === null) return -ENOSYS;
  const put = library.pwrite(fd, address, length, offset);
  return put < 0 ? -library.errno() : put;
}
