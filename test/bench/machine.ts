/** Facts about the machine and the programs, for the JSON file. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import { run } from '../../cli/lab-run.ts';
import type { Machine } from './result.ts';

export async function describeMachine(directory: string, engine: string): Promise<Machine> {
  const { version } = JSON.parse(fs.readFileSync('package.json', 'utf8')) as { version: string };
  return {
    cores: os.availableParallelism(),
    processor: os.cpus()[0]?.model ?? 'unknown',
    memoryBytes: os.totalmem(),
    kernel: os.release(),
    node: process.version,
    release: version,
    fio: await firstLine(['fio', '--version']),
    qemu: await firstLine(['qemu-storage-daemon', '--version']),
    postgresql: await firstLine(['pgbench', '--version']),
    filesystem: await firstLine(['findmnt', '-n', '-o', 'FSTYPE,OPTIONS', '-T', directory]) ?? '',
    engine,
  };
}

async function firstLine(argv: readonly string[]): Promise<string | null> {
  const result = await run(argv).catch(() => null);
  return result?.code === 0 ? (result.stdout.trim().split('\n')[0] ?? '') : null;
}
