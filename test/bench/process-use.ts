/** What processes used, from /proc. */
import * as fs from 'node:fs';

/** USER_HZ, the same on all Linux platforms that Node runs on. */
const ticksPerSecond = 100;

/** utime and stime of a stat file; the name of the process may hold blanks and parentheses. */
export function parseStat(text: string): number {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

export function parsePeak(text: string): number {
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(text)?.[1];
  return kib === undefined ? 0 : Number(kib) * 1024;
}

export function processorSeconds(pids: readonly number[]): number {
  return sum(pids, (pid) => parseStat(fs.readFileSync(`/proc/${pid}/stat`, 'utf8')));
}

export function memoryPeak(pids: readonly number[]): number {
  return sum(pids, (pid) => parsePeak(fs.readFileSync(`/proc/${pid}/status`, 'utf8')));
}

function sum(pids: readonly number[], each: (pid: number) => number): number {
  return pids.reduce((total, pid) => total + each(pid), 0);
}
