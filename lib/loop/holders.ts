/**
 * Who uses a block device, in words for the operator: what has to end before it can be detached.
 *
 * Only /proc and /sys are read, and links there are read, not followed: what they lead to may be
 * a file system that does not answer. Processes and mounts come and go while this looks; what
 * vanished is left out.
 */
import * as path from 'node:path';
import { listNames, readLink, readText } from './sysfs.ts';

/** The device itself or one of its partitions. */
interface Node {
  name: string;
  /** `major:minor`. */
  number: string;
}

/**
 * Strings such as `mounted on /data` and `fio (pid 123) has it open`; none where it is unused.
 * `device` is a path below /dev.
 */
export async function holders(device: string): Promise<string[]> {
  const nodes = await deviceNodes(path.basename(device));
  const names = new Set(nodes.map((node) => `/dev/${node.name}`));
  const found = await Promise.all([
    mountHolders(nodes),
    blockHolders(nodes),
    swapHolders(names),
    loopHolders(names),
    processHolders(names),
  ]);
  return [...new Set(found.flat())];
}

async function deviceNodes(name: string): Promise<Node[]> {
  const nodes: Node[] = [];
  const number = await readText(`/sys/block/${name}/dev`);
  if (number !== null) nodes.push({ name, number });
  for (const part of await listNames(`/sys/block/${name}`)) {
    if (!part.startsWith(`${name}p`)) continue;
    const partNumber = await readText(`/sys/block/${name}/${part}/dev`);
    if (partNumber !== null) nodes.push({ name: part, number: partNumber });
  }
  return nodes;
}

async function processIds(): Promise<string[]> {
  return (await listNames('/proc')).filter((name) => /^\d+$/.test(name));
}

async function processName(pid: string): Promise<string> {
  return (await readText(`/proc/${pid}/comm`)) ?? '?';
}

/** Every mount namespace that a process lives in is looked at once. */
async function mountHolders(nodes: Node[]): Promise<string[]> {
  const own = await readLink('/proc/self/ns/mnt');
  const seen = new Set<string>();
  const found: string[] = [];
  for (const pid of ['self', ...(await processIds())]) {
    const namespace = await readLink(`/proc/${pid}/ns/mnt`);
    if (namespace === null || seen.has(namespace)) continue;
    seen.add(namespace);
    const text = await readText(`/proc/${pid}/mountinfo`);
    const where = namespace === own ? '' :
      ` in the mount namespace of ${await processName(pid)} (pid ${pid})`;
    for (const mountPoint of mountPointsOf(text ?? '', nodes)) {
      found.push(`mounted on ${mountPoint}${where}`);
    }
  }
  return found;
}

/** By device number or, for file systems with a number of their own (btrfs), by source. */
export function mountPointsOf(mountinfo: string, nodes: readonly Node[]): string[] {
  const found: string[] = [];
  for (const line of mountinfo.split('\n')) {
    const [front = '', back = ''] = line.split(' - ');
    const [, , number, , mountPoint] = front.split(' ');
    const source = back.split(' ')[1];
    if (mountPoint === undefined) continue;
    if (nodes.some((node) => node.number === number || `/dev/${node.name}` === source)) {
      found.push(unescapeField(mountPoint));
    }
  }
  return found;
}

/** Blanks and backslashes are written in octal. */
export function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Device mapper, md, bcache: whoever holds it as a block device. */
async function blockHolders(nodes: Node[]): Promise<string[]> {
  const found: string[] = [];
  for (const node of nodes) {
    for (const holder of await listNames(`/sys/class/block/${node.name}/holders`)) {
      const label = await readText(`/sys/class/block/${holder}/dm/name`);
      found.push(`used by ${holder}${label === null ? '' : ` (${label})`}`);
    }
  }
  return found;
}

async function swapHolders(names: ReadonlySet<string>): Promise<string[]> {
  const lines = ((await readText('/proc/swaps')) ?? '').split('\n').slice(1);
  const paths = lines.map((line) => unescapeField(line.split(/\s/)[0] ?? ''));
  return paths.filter((name) => names.has(name)).map((name) => `swap on ${name}`);
}

async function loopHolders(names: ReadonlySet<string>): Promise<string[]> {
  const found: string[] = [];
  for (const loop of await listNames('/sys/block')) {
    const backing = await readText(`/sys/block/${loop}/loop/backing_file`);
    if (backing !== null && names.has(backing)) found.push(`/dev/${loop} is attached on top of it`);
  }
  return found;
}

async function processHolders(names: ReadonlySet<string>): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await processIds()) {
    for (const fd of await listNames(`/proc/${pid}/fd`)) {
      const target = await readLink(`/proc/${pid}/fd/${fd}`);
      if (target === null || !names.has(target)) continue;
      found.push(`${await processName(pid)} (pid ${pid}) has it open`);
      break;
    }
  }
  return found;
}
