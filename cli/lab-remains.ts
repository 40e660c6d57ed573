/**
 * Taking away what a lab left, whoever made it and however it ended: everything is found by the
 * lab's folder (mounts, loop devices, processes by the variable they carry, namespaces).
 *
 * Order: file systems, processes, loop devices, FUSE, namespaces, files. A process that serves
 * FUSE is killed before its mount is touched, so that nothing waits for its answers.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { isAlive } from '../lib/daemon/process-state.ts';
import { removeNamespaces } from './lab-network.ts';
import { run, sleep } from './lab-run.ts';

/** In the environment of every process of a lab: its folder. */
export const labVariable = 'HAST_LAB';

const umountMs = 5000;
/** 20 s: one that waits for the disk ends when that answers. */
const killRounds = 400;

interface MountEntry {
  mountPoint: string;
  type: string;
  source: string;
}

/** Mounts below the folder, the latest first. */
function mountsBelow(directory: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [front = '', back = ''] = line.split(' - ');
    const mountPoint = front.split(' ')[4] ?? '';
    const [type = '', source = ''] = back.split(' ');
    if (mountPoint.startsWith(`${directory}/`)) entries.push({ mountPoint, type, source });
  }
  return entries.reverse();
}

/** Loop devices whose file lies below the folder. */
export function loopsBelow(directory: string): string[] {
  const loops: string[] = [];
  for (const name of fs.readdirSync('/sys/block')) {
    if (!name.startsWith('loop')) continue;
    try {
      const file = fs.readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8');
      if (file.startsWith(`${directory}/`)) loops.push(`/dev/${name}`);
    } catch {
      // Not attached.
    }
  }
  return loops;
}

/** Processes of the lab, of one node where it is named; never this one. */
export function processesOf(directory: string, node?: string): number[] {
  const wanted = [`${labVariable}=${directory}`];
  if (node !== undefined) wanted.push(`HAST_NODE=${node}`);
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    if (pid === process.pid) return false;
    try {
      const environment = fs.readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      return wanted.every((one) => environment.includes(one)) && isAlive(pid);
    } catch {
      return false;
    }
  });
}

/** SIGKILL, until none is left; those that are stuck in the kernel are given back. */
export async function killAll(find: () => number[]): Promise<number[]> {
  // One that is killed cannot be found by its environment any more.
  const killed = new Set<number>();
  const left = (): number[] => [...new Set([...find(), ...killed])].filter(isAlive);
  for (let round = 0; round < killRounds; round++) {
    const pids = left();
    if (pids.length === 0) return [];
    for (const pid of pids) {
      killed.add(pid);
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
    await sleep(50);
  }
  return left();
}

async function unmount(mountPoint: string): Promise<void> {
  const plain = await run(['umount', mountPoint], { boundMs: umountMs }).catch(() => undefined);
  if (plain?.code === 0) return;
  await run(['umount', '-l', mountPoint], { boundMs: umountMs }).catch(() => undefined);
}

const isFuse = ({ type }: MountEntry): boolean => type.startsWith('fuse');

/** File systems below the folder, not FUSE. */
export async function clearFilesystems(directory: string): Promise<void> {
  for (const mount of mountsBelow(directory)) {
    if (!isFuse(mount)) await unmount(mount.mountPoint);
  }
}

/** What a killed node leaves on the machine: file system on a loop device on a dead FUSE mount. */
export async function clearDevices(directory: string): Promise<void> {
  await clearFilesystems(directory);
  // While FUSE is mounted: afterwards a loop device does not show the path of its file any more.
  const loops = loopsBelow(directory);
  for (const loop of loops) {
    await run(['losetup', '-d', loop], { boundMs: umountMs }).catch(() => undefined);
  }
  for (let wait = 0; wait < 40 && loopsBelow(directory).length > 0; wait++) await sleep(50);
  for (const mount of mountsBelow(directory)) {
    await run(['umount', '-l', mount.mountPoint], { boundMs: umountMs }).catch(() => undefined);
  }
}

/** Ends the connections of dead servers: who waits for an answer in the kernel gets an error. */
async function abortFuse(directory: string): Promise<void> {
  for (const mount of mountsBelow(directory)) {
    if (!isFuse(mount)) continue;
    await run(['umount', '-f', mount.mountPoint], { boundMs: umountMs }).catch(() => undefined);
  }
}

/** Removes a lab whole. May be repeated; gives what it could not remove. */
export async function removeLab(directory: string): Promise<string[]> {
  const problems: string[] = [];
  if (!path.basename(directory).startsWith('hast-')) throw new Error(`not a lab: ${directory}`);
  await clearFilesystems(directory);
  let stuck = await killAll(() => processesOf(directory));
  await abortFuse(directory);
  if (stuck.length > 0) stuck = await killAll(() => stuck);
  if (stuck.length > 0) problems.push(`stuck processes: ${stuck.join(' ')}`);
  await clearDevices(directory);
  await removeNamespaces(directory);
  problems.push(...loopsBelow(directory).map((loop) => `${loop} is attached`));
  const mounts = mountsBelow(directory).map(({ mountPoint }) => `${mountPoint} is mounted`);
  problems.push(...mounts);
  if (mounts.length > 0) return problems;
  try {
    fs.rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  } catch (error) {
    problems.push(`${directory}: ${String(error)}`);
  }
  return problems;
}
