/**
 * The nodes of loop devices in /dev, and what to do where there are none. The kernel makes them in
 * the machine's /dev only: a container has its own, in which those of later devices are missing.
 */
import * as fs from 'node:fs';
import { errnoName, errorText, HastError } from '../base/errors.ts';
import { run } from './run.ts';
import { listNames, readText } from './sysfs.ts';

const control = '/dev/loop-control';

/** Makes the nodes that are missing in /dev, and gives their paths. Throws HAST_E_DEVICE. */
export async function makeLoopNodes(): Promise<string[]> {
  const made: string[] = [];
  for (const name of await listNames('/sys/block')) {
    const node = `/dev/${name}`;
    if (!/^loop\d+$/.test(name) || fs.existsSync(node)) continue;
    const [major, minor] = ((await readText(`/sys/block/${name}/dev`)) ?? '').split(':');
    // One that is gone again.
    if (major === undefined || minor === undefined) continue;
    try {
      await run('mknod', ['-m', '660', node, 'b', major, minor], `cannot make ${node}`);
    } catch (error) {
      // Another worker's promotion may have been faster.
      if (fs.existsSync(node)) continue;
      throw new HastError('HAST_E_DEVICE', errorText(error), {
        cause: error,
        hint: 'the container needs CAP_MKNOD, or the /dev of its machine (-v /dev:/dev)',
      });
    }
    made.push(node);
  }
  return made;
}

/** What to do about a loop device that could not be had; undefined where nothing here says it. */
export async function loopHint(): Promise<string | undefined> {
  switch (openError(control)) {
    case undefined:
      break;
    case 'ENOENT': case 'ENODEV': case 'ENXIO':
      return `there is no ${control}: modprobe loop, and for a container --device ${control}`;
    default:
      return `${control} cannot be opened: run as root; a container needs --device ${control}`;
  }
  const [first] = (await listNames('/sys/block')).filter((name) => /^loop\d+$/.test(name));
  if (first === undefined || openError(`/dev/${first}`) !== 'EPERM') return undefined;
  return `/dev/${first} cannot be opened: a container needs --device-cgroup-rule 'b 7:* rmw'`;
}

function openError(node: string): string | undefined {
  try {
    fs.closeSync(fs.openSync(node, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK));
    return undefined;
  } catch (error) {
    return errnoName(error) ?? 'EIO';
  }
}
