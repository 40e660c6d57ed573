/**
 * Getting /dev/fuse mounted and unmounted. Runs in the parent, never in the process that serves
 * the file system: starting a program forks, and a fork makes the serving process slow and its
 * buffers copy-on-write.
 *
 * - Nothing here stats a mount point: with a dead or frozen server that blocks. What is mounted
 *   is read from /proc/self/mountinfo.
 * - `umount -f` is never used: it aborts the connection even where it then fails with EBUSY.
 */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { errnoName, errorText, HastError } from '../base/errors.ts';
import { TRANSFER_SIZE_MAX } from './session.ts';

const COMMAND_TIMEOUT_MS = 15_000;
const OUTPUT_SIZE_MAX = 64 * 1024;
const MOUNT_SOURCE = 'hast';

export interface MountEntry {
  mountPoint: string;
  type: string;
  source: string;
  /** `major:minor` of the file system. */
  device: string;
}

/** Opens a new FUSE connection; unmounted until its descriptor is mounted. */
export function openFuseDevice(): number {
  try {
    return fs.openSync('/dev/fuse', fs.constants.O_RDWR);
  } catch (cause) {
    const missing = errnoName(cause) === 'ENOENT' || errnoName(cause) === 'ENODEV';
    throw new HastError('HAST_E_DEVICE', `cannot open /dev/fuse: ${errorText(cause)}`, {
      cause,
      hint: missing ? 'load the kernel module: modprobe fuse' : 'run as root, with /dev/fuse',
    });
  }
}

/** Mounts the connection `fuseFd` at a directory that exists. */
export async function mountFuse(fuseFd: number, mountPoint: string): Promise<void> {
  if (await isMounted(mountPoint)) {
    throw new HastError('HAST_E_BUSY', `something is mounted on ${mountPoint} already`, {
      hint: `umount -l ${mountPoint}`,
    });
  }
  // Permissions are checked by the kernel (default_permissions): this server checks none, and
  // allow_other lets in whoever the file's mode lets in.
  const options = [
    'fd=3', 'rootmode=40000', 'user_id=0', 'group_id=0', 'allow_other', 'default_permissions',
    `max_read=${TRANSFER_SIZE_MAX}`,
  ].join(',');
  const args = ['-i', '-t', 'fuse', '-o', options, MOUNT_SOURCE, mountPoint];
  await run('mount', args, `cannot mount ${mountPoint}`, fuseFd);
}

export interface UnmountOptions {
  /** Vanishes now, ends when unused. */
  lazy?: boolean;
  /**
   * Ends the connection too: whatever its users ask for, or wait for, fails. Without it they would
   * wait for ever for a server that is dead and that the kernel cannot let go of.
   */
  abort?: boolean;
}

/** Unmounts; nothing to do where nothing is mounted. */
export async function unmountFuse(mountPoint: string, options: UnmountOptions = {}) {
  if (!(await isMounted(mountPoint))) return;
  const args = ['-i'];
  if (options.lazy === true) args.push('-l');
  if (options.abort === true) args.push('-f');
  await run('umount', [...args, mountPoint], `cannot unmount ${mountPoint}`, null);
}

export async function isMounted(mountPoint: string): Promise<boolean> {
  return (await mountsAt(mountPoint)).length > 0;
}

/**
 * What is mounted exactly there, the topmost last. A FUSE entry found by a process that has no
 * server for it is stale: left by a killed one, to be unmounted with `lazy`.
 */
export async function mountsAt(mountPoint: string): Promise<MountEntry[]> {
  const wanted = await resolveMountPoint(mountPoint);
  const text = await fs.promises.readFile('/proc/self/mountinfo', 'utf8');
  return parseMountinfo(text).filter((entry) => entry.mountPoint === wanted);
}

/** Follows the links of everything but the mount point itself. */
async function resolveMountPoint(mountPoint: string): Promise<string> {
  const absolute = path.resolve(mountPoint);
  try {
    return path.join(await fs.promises.realpath(path.dirname(absolute)), path.basename(absolute));
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return absolute;
    throw new HastError('HAST_E_DEVICE', `cannot resolve ${mountPoint}`, { cause: error });
  }
}

/** The text of a mountinfo file, see proc_pid_mountinfo(5). */
export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [front, back] = line.split(' - ');
    const [, , device, , mountPoint] = (front ?? '').split(' ');
    const [type, source] = (back ?? '').split(' ');
    if (device === undefined || mountPoint === undefined || type === undefined) continue;
    entries.push({ device, mountPoint: unescape(mountPoint), type, source: source ?? '' });
  }
  return entries;
}

/** Blanks and backslashes are written in octal. */
function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)));
}

/**
 * A kernel setting that would abort the connection when a request takes long (a disk that
 * stalls, a stopped peer), or null: fs.fuse.*_request_timeout, Linux 6.15.
 */
export async function requestTimeoutProblem(): Promise<string | null> {
  for (const name of ['default_request_timeout', 'max_request_timeout']) {
    const value = await fs.promises.readFile(`/proc/sys/fs/fuse/${name}`, 'utf8').catch(() => '0');
    const seconds = Number(value.trim());
    if (seconds !== 0) {
      return `fs.fuse.${name} is ${seconds} s: a longer stall ends in I/O errors; set it to 0`;
    }
  }
  return null;
}

/** Runs a program to its end, `fd` as its descriptor 3; what it says is the error. */
function run(command: string, args: string[], failure: string, fd: number | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'ignore', 'pipe', ...(fd === null ? [] : [fd])],
      timeout: COMMAND_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => {
      if (said.length < OUTPUT_SIZE_MAX) said += chunk.toString();
    });
    child.on('error', (cause) => {
      reject(new HastError('HAST_E_DEVICE', `${failure}: ${errorText(cause)}`, { cause }));
    });
    child.on('exit', (code, signal) => {
      if (code === 0) return resolve();
      const why = said.trim() || (signal === null ? `${command} ended with ${code}` :
        `${command} did not end within ${COMMAND_TIMEOUT_MS / 1000} s`);
      const busy = /busy/.test(why);
      reject(new HastError(busy ? 'HAST_E_DEVICE_IN_USE' : 'HAST_E_DEVICE', `${failure}: ${why}`));
    });
  });
}
