/**
 * The in-flight table of a resource in a file that is mapped into memory: RUNDIR/.workers/
 * NAME.inflight. Who writes to it pays no system call, and a killed process leaves it as it was.
 * RUNDIR is a memory file system; on another one it works too, at the price of write-back.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { errorText, HastError } from '../base/errors.ts';
import { mapShared, mlock } from '../base/libc.ts';
import type { Logger } from '../base/log.ts';
import type { SurvivingMemory } from '../core/ports.ts';
import { bootIdBytes, inflightBytes } from '../format/inflight.ts';

const bootIdFile = '/proc/sys/kernel/random/boot_id';
const directoryMode = 0o700;
const fileMode = 0o600;
const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;

/**
 * Maps the table for the life of this process, which holds the lock of the copy. `inherits`: what
 * the process before left in it counts; else it begins anew, with zeros. Where that cannot be, the
 * log says why, nothing is left that a later process could take for its own, and null is returned:
 * this process leaves no table then.
 */
export function openInflight(
  file: string, inherits: boolean, log: Logger,
): SurvivingMemory | null {
  try {
    const boot = bootId();
    const kept = inherits ? openKept(file) : null;
    const fd = kept ?? create(file);
    try {
      const { errno, bytes } = mapShared(fd, inflightBytes);
      if (bytes === null) {
        throw new HastError('HAST_E_IO', `the table cannot be mapped (errno ${errno})`, {
          hint: `make room in ${path.dirname(file)}`,
        });
      }
      // As with the buffers: where the limit does not allow it, it may be swapped out.
      mlock(bytes);
      return { bytes, boot, inherited: kept !== null };
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    removeInflight(file);
    log.warn({ file, error: errorText(error) },
      'no in-flight table: if this worker is killed, its successor copies all that is marked');
    return null;
  }
}

/** After a clean end: nobody takes over. Throws nothing: one that stays fits nothing later. */
export function removeInflight(file: string): void {
  try {
    fs.unlinkSync(file);
  } catch {
    // It is not there, or the directory cannot be written to.
  }
}

/** This boot of the machine. */
function bootId(): Uint8Array {
  const hex = fs.readFileSync(bootIdFile, 'latin1').trim().replaceAll('-', '');
  const boot = Buffer.from(hex, 'hex');
  if (boot.length === bootIdBytes) return boot;
  throw new HastError('HAST_E_IO', `${bootIdFile} holds no boot id`, { hint: 'mount /proc' });
}

/** What the process before left, or null where that is not a file of the right size. */
function openKept(file: string): number | null {
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDWR | O_NOFOLLOW);
  } catch {
    return null;
  }
  const stat = fs.fstatSync(fd);
  if (stat.isFile() && stat.size === inflightBytes) return fd;
  fs.closeSync(fd);
  return null;
}

function create(file: string): number {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: directoryMode });
  removeInflight(file);
  const fd = fs.openSync(file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, fileMode);
  // Written, not only made so long: a store to a page that has no place ends the process.
  fs.writeSync(fd, Buffer.alloc(inflightBytes), 0, inflightBytes, 0);
  return fd;
}
