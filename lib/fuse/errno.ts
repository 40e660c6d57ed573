/**
 * The one mapping from errors of this program to numbers the kernel understands.
 *
 * Two answers are forbidden, whatever the volume says (Linux fs/fuse/file.c):
 * - ENOSYS to FSYNC or FALLOCATE: the kernel remembers it for the life of the mount; every
 *   later fsync then succeeds without a request, which loses data silently.
 * - a number outside 1..511: the kernel refuses the whole reply and the request hangs.
 */
import * as os from 'node:os';
import { errnoName, HastError, type ErrorCode } from '../base/errors.ts';

const { errno } = os.constants;

export const EPERM = errno.EPERM;
export const ENOENT = errno.ENOENT;
export const EIO = errno.EIO;
export const ENOTDIR = errno.ENOTDIR;
export const EINVAL = errno.EINVAL;
export const ENOSPC = errno.ENOSPC;
export const ENOSYS = errno.ENOSYS;
export const EPROTO = errno.EPROTO;
export const EOPNOTSUPP = errno.EOPNOTSUPP;

const ERRNO_MAX = 511;

/** Codes that mean something better than EIO to whoever uses the file. */
const byCode: Partial<Record<ErrorCode, number>> = {
  HAST_E_BUSY: errno.EBUSY,
  HAST_E_DEVICE_IN_USE: errno.EBUSY,
  HAST_E_ROLE: errno.EROFS,
  HAST_E_UNSUPPORTED: errno.EOPNOTSUPP,
};

/** errno for any thrown value: its own errno if it carries one, else by code, else EIO. */
export function errnoOf(error: unknown): number {
  const name = error instanceof HastError ? error.errno : errnoName(error);
  const known: Record<string, number> = errno;
  if (name !== undefined && known[name] !== undefined) return replyErrno(known[name]);
  if (error instanceof HastError) return byCode[error.code] ?? EIO;
  return EIO;
}

/** What may be told the kernel about a request that ended with `value` (0 is success). */
export function replyErrno(value: number): number {
  if (value === 0) return 0;
  if (value === ENOSYS) return EOPNOTSUPP;
  return Number.isInteger(value) && value > 0 && value <= ERRNO_MAX ? value : EIO;
}
