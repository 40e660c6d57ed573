/**
 * The pidfile and its lock. The lock is flock(2) on our open file description: the kernel
 * drops it when the daemon ends, however it ends, so a file left behind never blocks a start and
 * a recycled pid never does either.
 */
import { constants as fsConstants } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import { HastError } from '../base/errors.ts';
import { flockExclusive } from '../base/libc.ts';
import { openOwn } from './safe-files.ts';

const { O_RDWR, O_CREAT } = fsConstants;
const retryMax = 5;
const openHint = 'run hastd as root, or name another file with -P PIDFILE';

export interface Pidfile {
  /** Removes the file and gives the lock up. */
  release(): Promise<void>;
}

/** Throws HAST_E_BUSY, naming the pid, where another daemon holds the file. */
export async function takePidfile(path: string): Promise<Pidfile> {
  for (let attempt = 0; attempt < retryMax; attempt++) {
    const file = await openOwn(path, O_RDWR | O_CREAT, 0o644, 'the pidfile', openHint);
    try {
      if (!lock(file)) throw await heldError(path);
      // The former holder may have removed the file between our open and our lock.
      if (await isAt(file, path)) {
        await file.truncate(0);
        await file.write(`${process.pid}\n`, 0);
        return { release: () => release(file, path) };
      }
    } catch (error) {
      await file.close();
      throw error;
    }
    await file.close();
  }
  throw new HastError('HAST_E_BUSY', `the pidfile ${path} keeps being replaced`, {
    hint: 'several hastd are being started: start one',
  });
}

/** False where somebody else holds the lock. */
function lock(file: fs.FileHandle): boolean {
  const errno = flockExclusive(file.fd);
  if (errno === 0) return true;
  if (errno === os.constants.errno.EAGAIN) return false;
  throw new HastError('HAST_E_DEVICE', `cannot lock the pidfile (errno ${errno})`, {
    hint: 'put it on a local file system, and check that the koffi package is installed',
  });
}

async function heldError(path: string): Promise<HastError> {
  const pid = (await fs.readFile(path, 'utf8').catch(() => '')).trim();
  const who = /^\d+$/.test(pid) ? `pid ${pid}` : 'unknown pid';
  return new HastError('HAST_E_BUSY', `hastd runs already (${who} holds ${path})`, {
    hint: 'stop it first, or name another node, rundir or -P PIDFILE',
  });
}

async function isAt(file: fs.FileHandle, path: string): Promise<boolean> {
  const ours = await file.stat();
  try {
    const there = await fs.stat(path);
    return there.ino === ours.ino && there.dev === ours.dev;
  } catch {
    return false;
  }
}

async function release(file: fs.FileHandle, path: string): Promise<void> {
  try {
    if (await isAt(file, path)) await fs.unlink(path);
  } finally {
    await file.close();
  }
}
