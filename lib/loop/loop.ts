/**
 * Attaching a file to a loop device and taking it off again. Runs in the parent: the process
 * that serves the file must not wait for what its own answers make possible.
 *
 * - Direct I/O always: without, each loop worker handles one request at a time.
 * - `losetup -d` on a device in use succeeds and takes effect when the last user has gone, so
 *   detached is only what /sys says is detached.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { errorText, HastError } from '../base/errors.ts';
import { holders } from './holders.ts';
import { loopHint, makeLoopNodes } from './nodes.ts';
import { run } from './run.ts';
import { listNames, readText } from './sysfs.ts';

/** Requests as large as the front end takes; the default of 1280 cuts them in two, unequally. */
const REQUEST_KIB = '1024';
const ATTACH_TRIES_MAX = 5;
const DETACH_WAIT_MS = 10_000;
const DETACH_POLL_MS = 20;
const DELETED = ' (deleted)';

export interface AttachOptions {
  readonly?: boolean;
  /** Logical sector size of the device; the default is 512. */
  sectorSize?: number;
}

/** The name of the new device, such as `/dev/loop3`. */
export async function attachLoop(file: string, options: AttachOptions = {}): Promise<string> {
  const args = ['--find', '--show', '--direct-io=on'];
  if (options.readonly === true) args.push('--read-only');
  if (options.sectorSize !== undefined) args.push('--sector-size', String(options.sectorSize));
  const device = await losetup([...args, file], `cannot attach ${file}`);
  const queue = `/sys/block/${loopName(device)}/queue/max_sectors_kb`;
  // Best effort: it costs speed only.
  await fs.promises.writeFile(queue, REQUEST_KIB).catch(() => undefined);
  return device;
}

/**
 * The kernel makes a new device where none is free, and in a container losetup then lacks its node.
 * What is made here may be taken by somebody else before the next try.
 */
async function losetup(args: string[], failure: string): Promise<string> {
  for (let tries = 1; ; tries++) {
    try {
      return await run('losetup', args, failure);
    } catch (cause) {
      if (tries < ATTACH_TRIES_MAX && (await missingNodesMade(cause))) continue;
      const hint = await loopHint();
      if (!(cause instanceof HastError) || hint === undefined) throw cause;
      throw new HastError(cause.code, cause.message, { cause, hint });
    }
  }
}

/** Whether another try may go better. */
async function missingNodesMade(failure: unknown): Promise<boolean> {
  try {
    return (await makeLoopNodes()).length > 0;
  } catch (cause) {
    if (!(cause instanceof HastError) || cause.hint === undefined) throw cause;
    const message = `${errorText(failure)}; ${cause.message}`;
    throw new HastError(cause.code, message, { cause, hint: cause.hint });
  }
}

export interface DetachOptions {
  /** How long to wait for the last user. */
  waitMs?: number;
  /** Detach only what is on this file: a device that went free may be somebody else's by now. */
  file?: string;
}

/** Returns when the device is free again; HAST_E_DEVICE_IN_USE names who keeps it. */
export async function detachLoop(device: string, options: DetachOptions = {}): Promise<void> {
  const waitMs = options.waitMs ?? DETACH_WAIT_MS;
  if (!(await isAttached(device))) return;
  const { file } = options;
  if (file !== undefined && !(await findLoops(file)).includes(device)) return;
  try {
    await run('losetup', ['--detach', device], `cannot detach ${device}`);
  } catch (error) {
    // Somebody else may have been faster.
    if (await isAttached(device)) throw error;
  }
  for (let waitedMs = 0; await isAttached(device); waitedMs += DETACH_POLL_MS) {
    if (waitedMs >= waitMs) throw await stillInUse(device);
    await new Promise((resolve) => setTimeout(resolve, DETACH_POLL_MS));
  }
}

async function stillInUse(device: string): Promise<HastError> {
  const users = (await holders(device)).join(', ') || 'something unknown';
  return new HastError('HAST_E_DEVICE_IN_USE', `${device} is still in use: ${users}`, {
    hint: 'it detaches by itself when the last user has gone',
  });
}

export async function isAttached(device: string): Promise<boolean> {
  return (await readText(`/sys/block/${loopName(device)}/loop/backing_file`)) !== null;
}

/**
 * Loop devices on that file, also where it was unlinked since. The file and its directory are
 * not followed or looked at: they may belong to a dead server. Ask before unmounting the file
 * system lazily: from then on the kernel names only the path inside it.
 */
export async function findLoops(backingFile: string): Promise<string[]> {
  const wanted = await resolveFar(backingFile);
  const devices: string[] = [];
  for (const name of await listNames('/sys/block')) {
    if (!name.startsWith('loop')) continue;
    const backing = await readText(`/sys/block/${name}/loop/backing_file`);
    if (backing === null) continue;
    const live = backing.endsWith(DELETED) ? backing.slice(0, -DELETED.length) : backing;
    if (live === wanted || live === path.resolve(backingFile)) devices.push(`/dev/${name}`);
  }
  return devices;
}

/** Follows the links in all but the last two parts of the path. */
async function resolveFar(file: string): Promise<string> {
  const absolute = path.resolve(file);
  const directory = path.dirname(absolute);
  const far = path.dirname(directory);
  const resolved = await fs.promises.realpath(far).catch(() => far);
  return path.join(resolved, path.basename(directory), path.basename(absolute));
}

export function loopName(device: string): string {
  const name = path.basename(device);
  if (path.dirname(device) !== '/dev' || !/^loop\d+$/.test(name)) {
    throw new HastError('HAST_E_DEVICE', `not a loop device: ${device}`, { hint: 'losetup -a' });
  }
  return name;
}
