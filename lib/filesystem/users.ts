/**
 * Who keeps a file system from being unmounted, in words for the operator. Only links in /proc are
 * read, not followed: what they lead to may not answer. What vanishes meanwhile is left out.
 */
import { listNames, readLink, readText } from '../loop/sysfs.ts';
import { mounts } from './mounts.ts';

const shownMax = 12;

/** Strings such as `bash (pid 12) works in it`; `mountPoint` as mountinfo names it. */
export async function usersOf(mountPoint: string): Promise<string[]> {
  const found = [
    ...await processUsers(mountPoint), ...await mountUsers(mountPoint),
    ...await loopUsers(mountPoint), ...await swapUsers(mountPoint),
  ];
  const more = found.length - shownMax;
  return more > 0 ? [...found.slice(0, shownMax), `and ${more} more`] : found;
}

function isBelow(file: string | null, directory: string): file is string {
  return file !== null && (file === directory || file.startsWith(`${directory}/`));
}

async function processUsers(mountPoint: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await listNames('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const how = await useOf(pid, mountPoint);
    if (how === null) continue;
    const command = await readText(`/proc/${pid}/comm`) ?? '?';
    found.push(`${command} (pid ${pid}) ${how}`);
  }
  return found;
}

async function useOf(pid: string, mountPoint: string): Promise<string | null> {
  const link = async (name: string): Promise<boolean> =>
    isBelow(await readLink(`/proc/${pid}/${name}`), mountPoint);
  if (await link('cwd')) return 'works in it';
  if (await link('root')) return 'has it as its root';
  if (await link('exe')) return 'is a program in it';
  for (const fd of await listNames(`/proc/${pid}/fd`)) {
    const target = await readLink(`/proc/${pid}/fd/${fd}`);
    if (isBelow(target, mountPoint)) return `has ${target} open`;
  }
  const maps = await readText(`/proc/${pid}/maps`) ?? '';
  for (const line of maps.split('\n')) {
    const at = line.indexOf('/');
    const file = at < 0 ? null : line.slice(at);
    if (isBelow(file, mountPoint)) return `has ${file} mapped`;
  }
  return null;
}

async function mountUsers(mountPoint: string): Promise<string[]> {
  const below = (await mounts()).filter((one) => one.mountPoint.startsWith(`${mountPoint}/`));
  return below.map((one) => `${one.type} is mounted on ${one.mountPoint}`);
}

async function loopUsers(mountPoint: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await listNames('/sys/block')) {
    const backing = await readText(`/sys/block/${name}/loop/backing_file`);
    if (isBelow(backing, mountPoint)) found.push(`/dev/${name} is attached to ${backing}`);
  }
  return found;
}

async function swapUsers(mountPoint: string): Promise<string[]> {
  const lines = ((await readText('/proc/swaps')) ?? '').split('\n').slice(1);
  const files = lines.map((line) => line.split(/\s/)[0] ?? '');
  return files.filter((file) => isBelow(file, mountPoint)).map((file) => `swap on ${file}`);
}
