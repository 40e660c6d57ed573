/** What is mounted where, from /proc/self/mountinfo: the directories themselves are not touched. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { readText } from '../loop/sysfs.ts';
import { unescapeField } from '../loop/holders.ts';

export interface Mount {
  mountPoint: string;
  /** `major:minor`; some file systems (btrfs) have one of their own. */
  number: string;
  type: string;
  source: string;
}

/** In the order of mounting: of several on one directory the last one is seen. */
export function parseMounts(mountinfo: string): Mount[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [front = '', back = ''] = line.split(' - ');
    const [, , number, , mountPoint] = front.split(' ');
    const [type, source] = back.split(' ');
    if (number === undefined || mountPoint === undefined) return [];
    return [{
      mountPoint: unescapeField(mountPoint), number, type: type ?? '',
      source: unescapeField(source ?? ''),
    }];
  });
}

export async function mounts(): Promise<Mount[]> {
  return parseMounts(await readText('/proc/self/mountinfo') ?? '');
}

/** What is seen on this directory; undefined where nothing is mounted on it. */
export function mountOn(all: readonly Mount[], directory: string): Mount | undefined {
  return all.filter((one) => one.mountPoint === directory).at(-1);
}

/** The directory without symbolic links, as mountinfo names it, whether it exists or not. */
export async function realDirectory(directory: string): Promise<string> {
  const parent = path.dirname(directory);
  const real = path.join(
    await fs.promises.realpath(parent).catch(() => parent), path.basename(directory),
  );
  // Asked of the name only: what is mounted there may not answer.
  const link = await fs.promises.readlink(real).catch(() => null);
  if (link === null) return real;
  return await fs.promises.realpath(real).catch(() => real);
}

/** A device of this resource, also one that was taken away while it was mounted. */
export async function isOnVolume(mount: Mount, volume: string): Promise<boolean> {
  const name = /^\/dev\/(loop\d+)$/.exec(mount.source)?.[1];
  if (name === undefined) return false;
  const backing = await readText(`/sys/block/${name}/loop/backing_file`);
  // The kernel names only what is left of the path once the FUSE mount around it is gone.
  const known = [volume, `/${path.basename(volume)}`];
  return backing !== null && known.includes(backing.replace(/ \(deleted\)$/, ''));
}
