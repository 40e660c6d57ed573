/**
 * What a worker may do: it speaks to the network, and needs little of what root can. The rights
 * are taken away by setpriv(1) before its program begins, for all its threads and for good.
 */
import * as fs from 'node:fs';

/** Part of util-linux, as mount(8) and losetup(8) are. */
const program = '/usr/bin/setpriv';
/** To take rights out of the bounding set. */
const setpcapBit = 8n;
/**
 * - dac_override: disks and files that are not root's
 * - sys_ptrace: connections that the next hastd has accepted, see pidfd_getfd(2)
 * - sys_resource, ipc_lock: memory that is not swapped, and does not wait for its own writeback
 * - net_bind_service: a `source` with a port below 1024
 */
const kept = ['dac_override', 'dac_read_search', 'sys_ptrace', 'sys_resource', 'ipc_lock',
  'net_bind_service'];
const dumpFilter = '/proc/self/coredump_filter';

/** Whether rights can be taken away here: not in every container. */
export function canGiveUpRights(): boolean {
  try {
    fs.accessSync(program, fs.constants.X_OK);
    const status = fs.readFileSync('/proc/self/status', 'latin1');
    const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
    return (BigInt(`0x${effective ?? '0'}`) >> setpcapBit & 1n) === 1n;
  } catch {
    return false;
  }
}

/** The command line that runs `command` with those rights alone; itself where that cannot be. */
export function withFewRights(
  command: string, args: readonly string[],
): { command: string; args: string[] } {
  if (!canGiveUpRights()) return { command, args: [...args] };
  const set = ['-all', ...kept.map((name) => `+${name}`)].join(',');
  const options = ['--no-new-privs', '--inh-caps=-all', `--bounding-set=${set}`];
  return { command: program, args: [...options, '--', command, ...args] };
}

/** A dump of this process holds no data of the volume. Never fails. */
export function leaveMemoryOutOfDumps(): void {
  try {
    fs.writeFileSync(dumpFilter, '0');
  } catch {
    // A kernel without core dumps.
  }
}
