/** Whether a process still does something, from /proc. */
import * as fs from 'node:fs';

/** Also of a killed process with a thread that does not leave the kernel: its files are open. */
export function isAlive(pid: number): boolean {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    const isZombie = stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z');
    return !isZombie || fs.readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}
