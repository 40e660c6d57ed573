/**
 * Opening `local`: one daemon per copy. The description that does the I/O holds an exclusive flock,
 * and on a block device O_EXCL too (mounted, or claimed by another program: EBUSY). With direct I/O
 * it is the direct one: its transfers may outlive a killed process, and keep the lock as long. What
 * goes through the page cache is done by threads of the process, which the kernel waits for.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import { adviseRandom, blockDeviceSize, flockExclusive, libcAvailable } from '../base/libc.ts';
import { HastError, errnoName } from '../base/errors.ts';

const { ENOSYS } = os.constants.errno;
const { O_RDWR, O_RDONLY, O_EXCL, O_DSYNC, O_DIRECT } = fs.constants;

/** How data reach the disk: past the page cache, or through it. */
export type CacheMode = 'direct' | 'writeback';

export interface LocalFile {
  path: string;
  fd: number;
  /** The same file, every write durable when it returns; -1 where opened for reading. */
  durableFd: number;
  /**
   * The same file past the page cache; -1 where it is not asked for, or cannot be had. It holds the
   * lock then, and is to be closed last.
   */
  directFd: number;
  /** Bytes. */
  size: number;
  isBlock: boolean;
}

function openError(path: string, cause: unknown): HastError {
  const errno = errnoName(cause);
  switch (errno) {
    case 'ENOENT':
      return new HastError('HAST_E_DEVICE', `${path} does not exist`, {
        cause, hint: 'check the path of local in the configuration',
      });
    case 'EBUSY':
      return new HastError('HAST_E_BUSY', `${path} is in use: mounted, or claimed by a program`, {
        cause, hint: `see who holds it: findmnt ${path}; ls /sys/class/block/*/holders`,
      });
    case 'EACCES': case 'EPERM': case 'EROFS':
      return new HastError('HAST_E_DEVICE', `${path} cannot be opened for writing`, {
        cause, hint: 'run as root, and check that it is not read-only',
      });
    default:
      return new HastError('HAST_E_DEVICE', `${path} cannot be opened (${errno ?? 'unknown'})`, {
        cause, hint: 'see the kernel log: dmesg',
      });
  }
}

function statLocal(path: string): fs.Stats {
  let stat: fs.Stats;
  try {
    stat = fs.statSync(path);
  } catch (cause) {
    throw openError(path, cause);
  }
  if (!stat.isBlockDevice() && !stat.isFile()) {
    throw new HastError('HAST_E_DEVICE', `${path} is neither a block device nor a regular file`, {
      hint: 'local names a partition, a whole disk, or a regular file',
      errno: stat.isDirectory() ? 'EISDIR' : 'ENODEV',
    });
  }
  return stat;
}

/** Why `path` cannot be a local component, or null: for hastctl check. */
export function localProblem(path: string): string | null {
  try {
    statLocal(path);
    return null;
  } catch (error) {
    if (error instanceof HastError) return error.message;
    throw error;
  }
}

function sizeOf(fd: number, path: string, isBlock: boolean): number {
  if (!isBlock) return fs.fstatSync(fd).size;
  const { errno, size } = blockDeviceSize(fd);
  if (errno === 0) return size;
  throw new HastError('HAST_E_DEVICE', `the size of ${path} cannot be read (errno ${errno})`, {
    hint: 'see the kernel log: dmesg',
  });
}

/** Opens for the daemon or `create`. Throws HAST_E_BUSY where somebody else uses the copy. */
export function openLocal(path: string, cache: CacheMode = 'writeback'): LocalFile {
  const isBlock = statLocal(path).isBlockDevice();
  const { held, isDirect } = openHeld(path, isBlock, cache);
  let fd = held;
  try {
    const errno = flockExclusive(held);
    if (errno === ENOSYS) {
      throw new HastError('HAST_E_DEVICE', `${path} cannot be locked: koffi cannot be loaded`, {
        hint: 'run npm ci again; there must be a binary of koffi for this platform',
      });
    }
    if (errno !== 0) {
      throw new HastError('HAST_E_BUSY', `${path} is locked by another process`, {
        hint: `another hastd or hastctl uses this copy; find it with: fuser -v ${path}`,
      });
    }
    const loop = loopOver(path);
    if (loop !== null) {
      throw new HastError('HAST_E_BUSY', `${path} is attached to ${loop}`, {
        hint: `detach it first: losetup -d ${loop}`,
      });
    }
    // Through /proc: a second O_EXCL open of a block device would meet the first.
    if (isDirect) fd = fs.openSync(`/proc/self/fd/${held}`, O_RDWR);
    const durableFd = fs.openSync(`/proc/self/fd/${held}`, O_RDWR | O_DSYNC);
    // Who reads on end above reads ahead itself. What readahead brings lies in large folios, and
    // ext4 goes through all blocks of one for each block that is written into it: 4 KiB writes
    // were a third as many after the volume had been read.
    adviseRandom(fd);
    const directFd = isDirect ? held : -1;
    return { path, fd, durableFd, directFd, size: sizeOf(fd, path, isBlock), isBlock };
  } catch (error) {
    if (fd !== held) fs.closeSync(fd);
    fs.closeSync(held);
    throw error;
  }
}

/** The description that is to hold the lock; not direct where that cannot be had. */
function openHeld(
  path: string, isBlock: boolean, cache: CacheMode,
): { held: number; isDirect: boolean } {
  const flags = O_RDWR | (isBlock ? O_EXCL : 0);
  // Without the library there is no memory whose alignment is known.
  if (cache === 'direct' && libcAvailable()) {
    try {
      return { held: fs.openSync(path, flags | O_DIRECT), isDirect: true };
    } catch (cause) {
      if (errnoName(cause) !== 'EINVAL') throw openError(path, cause);
    }
  }
  try {
    return { held: fs.openSync(path, flags), isDirect: false };
  } catch (cause) {
    throw openError(path, cause);
  }
}

/** Opens for a look, without a lock. */
export function openLocalReadOnly(path: string): LocalFile {
  const isBlock = statLocal(path).isBlockDevice();
  let fd: number;
  try {
    fd = fs.openSync(path, O_RDONLY);
  } catch (cause) {
    throw openError(path, cause);
  }
  return { path, fd, durableFd: -1, directFd: -1, size: sizeOf(fd, path, isBlock), isBlock };
}

export function closeLocal(local: LocalFile): void {
  if (local.durableFd >= 0) fs.closeSync(local.durableFd);
  fs.closeSync(local.fd);
  if (local.directFd >= 0) fs.closeSync(local.directFd);
}

/** The loop device whose backing file is `path`, or null: flock does not see it. */
function loopOver(path: string): string | null {
  const real = fs.realpathSync(path);
  for (const name of fs.readdirSync('/sys/block')) {
    if (!name.startsWith('loop')) continue;
    try {
      const backing = fs.readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trimEnd();
      if (backing === real) return `/dev/${name}`;
    } catch (error) {
      if (errnoName(error) === undefined) throw error;
    }
  }
  return null;
}
