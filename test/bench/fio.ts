/** Runs fio on a block device, and what its servers used meanwhile. */
import * as fs from 'node:fs';
import { run, succeed } from '../../cli/lab-run.ts';
import { isAlive } from '../../lib/daemon/process-state.ts';
import { parseFio } from './fio-output.ts';
import type { Job } from './jobs.ts';
import { processorSeconds } from './process-use.ts';
import type { Measurement } from './result.ts';
import type { RunningSubject } from './subjects.ts';

const GiB = 1024 ** 3;
const sectorBytes = 512;
/** For the start and the end of fio; a device that hangs is given up after that. */
const graceMs = 30_000;
const fillMs = 180_000;

export interface FioSettings {
  engine: string;
  seconds: number;
  /** Before it counts: extents become hot, code becomes compiled. */
  warmMs: number;
  signal: AbortSignal;
}

/** io_uring where fio and the kernel have it. */
export async function chooseEngine(file: string): Promise<string> {
  fs.writeFileSync(file, '');
  const { code } = await run(['fio', '--name=probe', `--filename=${file}`, '--size=64k',
    '--rw=write', '--ioengine=io_uring', '--output-format=json']).catch(() => ({ code: 1 }));
  fs.rmSync(file, { force: true });
  return code === 0 ? 'io_uring' : 'libaio';
}

/** fio writes random bytes: zeros would be left out on the way to the peer. */
function fioArgs(device: string, engine: string, more: readonly string[]): string[] {
  return ['fio', '--name=bench', `--filename=${device}`, `--ioengine=${engine}`, '--direct=1',
    '--group_reporting', '--output-format=json', '--percentile_list=50:99:99.9',
    '--randrepeat=0', ...more];
}

/** Writes the first bytes of the device once. */
export async function fill(
  device: string, bytes: number, settings: FioSettings,
): Promise<void> {
  const { engine, signal } = settings;
  await succeed(fioArgs(device, engine, [
    '--rw=write', '--bs=1m', '--iodepth=8', `--size=${bytes}`, '--end_fsync=1',
  ]), { boundMs: fillMs, signal });
}

/** fio, to its end; gives what it printed. */
export async function runFio(
  device: string, more: readonly string[], settings: FioSettings, seconds: number,
): Promise<string> {
  const { engine, signal } = settings;
  const boundMs = seconds * 1000 + settings.warmMs + graceMs;
  return await succeed(fioArgs(device, engine, more), { boundMs, signal });
}

/** Bytes that went through the loop device since it was attached. */
function bytesThrough(device: string): number {
  const name = fs.realpathSync(device).slice('/dev/'.length);
  const fields = fs.readFileSync(`/sys/block/${name}/stat`, 'utf8').trim().split(/\s+/);
  return (Number(fields[2]) + Number(fields[6])) * sectorBytes;
}

export interface Order {
  job: Job;
  round: number;
  /** Of the device, from its start. */
  bytes: number;
}

export async function measure(
  subject: RunningSubject, { job, round, bytes }: Order, settings: FioSettings,
): Promise<Measurement> {
  const { device } = subject;
  const pids = await subject.serving();
  const dead = pids.find((pid) => !isAlive(pid));
  if (dead !== undefined) throw new Error(`its process ${dead} has ended`);
  const before = { cpu: processorSeconds(pids), bytes: bytesThrough(device) };
  const bound = job.bytesMax === undefined
    ? ['--time_based', `--ramp_time=${settings.warmMs}ms`] : [`--io_size=${job.bytesMax}`];
  const text = await runFio(device, [
    ...job.fio, `--size=${bytes}`, `--runtime=${settings.seconds}`, ...bound,
  ], settings, settings.seconds);
  const values = parseFio(text, job.latencyOf);
  const gib = (bytesThrough(device) - before.bytes) / GiB;
  if (pids.length > 0 && gib > 0) values.cpu = (processorSeconds(pids) - before.cpu) / gib;
  return { subject: subject.name, job: job.name, round, values };
}
