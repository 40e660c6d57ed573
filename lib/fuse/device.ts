/**
 * Reading and writing /dev/fuse: which errors mean what (Linux fs/fuse/dev.c).
 *
 * - read: ENODEV is the end (unmounted or aborted), and so is ECONNABORTED, which a read gets
 *   that takes the last request while the connection ends; EINTR, EAGAIN and ENOENT (the request
 *   was withdrawn while being read) are tried again; EPERM says that nobody has mounted the
 *   description yet.
 * - write: ENOENT says that the request is gone; everybody who waited for it knows already.
 * - resend: a kernel before 6.9 does not know the message (EINVAL).
 */
import * as fs from 'node:fs';
import { errnoName, HastError } from '../base/errors.ts';
import { FUSE_NOTIFY_RESEND, fuseOutHeader } from './abi.ts';

/** Results of `readRequest` that are not a length. */
export const READ_AGAIN = -1;
export const READ_UNMOUNTED = -2;
export const READ_NOT_MOUNTED_YET = -3;

/** Blocks for the next request; its length or one of the constants above. */
export function readRequest(fd: number, buffer: Buffer, at: number, size: number): number {
  let length: number;
  try {
    length = fs.readSync(fd, buffer, at, size, null);
  } catch (cause) {
    switch (errnoName(cause)) {
      case 'EINTR':
      case 'EAGAIN':
      case 'ENOENT':
        return READ_AGAIN;
      case 'ENODEV':
      case 'ECONNABORTED':
        return READ_UNMOUNTED;
      case 'EPERM':
        return READ_NOT_MOUNTED_YET;
      default:
        throw new HastError('HAST_E_DEVICE', 'reading /dev/fuse failed', { cause });
    }
  }
  if (length === 0) throw new HastError('HAST_E_DEVICE', 'the descriptor is not /dev/fuse');
  return length;
}

/** Writes one whole reply. False where the kernel no longer waits for it. */
export function writeReply(fd: number, buffer: Buffer, at: number, size: number): boolean {
  try {
    fs.writeSync(fd, buffer, at, size);
    return true;
  } catch (cause) {
    return refusedReply(cause);
  }
}

/** As writeReply, gathered from several places into one write. */
export function writeReplyParts(fd: number, parts: readonly Buffer[]): boolean {
  try {
    fs.writevSync(fd, parts);
    return true;
  } catch (cause) {
    return refusedReply(cause);
  }
}

/**
 * Asks the kernel for every request again that was read and not answered: by a process that is
 * dead. Before the first read: requests of living readers would come twice. Throws
 * HAST_E_UNSUPPORTED where the kernel cannot do it, HAST_E_DEVICE where the connection is gone.
 */
export function requestResend(fd: number): void {
  const message = Buffer.alloc(fuseOutHeader.size);
  message.writeUInt32LE(message.length, fuseOutHeader.offset.len);
  message.writeInt32LE(FUSE_NOTIFY_RESEND, fuseOutHeader.offset.error);
  try {
    fs.writeSync(fd, message);
  } catch (cause) {
    if (errnoName(cause) === 'EINVAL') {
      throw new HastError('HAST_E_UNSUPPORTED', 'the kernel cannot send requests again', {
        cause, hint: 'Linux 6.9 or later is needed',
      });
    }
    throw new HastError('HAST_E_DEVICE', 'asking the kernel for requests again failed', { cause });
  }
}

function refusedReply(cause: unknown): false {
  switch (errnoName(cause)) {
    case 'ENOENT':
    case 'ENODEV':
    case 'ECONNABORTED':
      return false;
    default:
      throw new HastError('HAST_E_DEVICE', 'the kernel refused a FUSE reply', { cause });
  }
}
