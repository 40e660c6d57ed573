/**
 * Random writes all over a large volume: every one meets an extent that is not hot, and waits for
 * a write of metadata first. The component is sparse, so the file system below has to allocate too;
 * what that alone costs shows on the bare loop device.
 */
import type { Bench } from './bench.ts';
import { jobs, metadataBytes, regionBytes, type Job } from './jobs.ts';
import { openSubject, type RunningSubject, type Subject } from './subjects.ts';

const coldBytes = 64 * 1024 ** 3;
/** Of a round. Each block lies alone: removing the file takes a third of a millisecond for it. */
const writtenMax = 32 * 1024 * 1024;
const closeMs = 25_000;

const sparse: readonly Subject[] = [
  { name: 'bare-sparse', what: 'as bare, a sparse file of 64 GiB', kind: 'bare', lines: [] },
  { name: 'fullsync-sparse', what: 'as fullsync, sparse files of 64 GiB', kind: 'pair', lines: [] },
];

export async function measureCold(bench: Bench): Promise<void> {
  const write = jobs.find(({ name }) => name === 'write-32') as Job;
  const running: RunningSubject[] = [];
  for (const subject of sparse) {
    const one = await bench.open(subject.name, subject.what, () => openSubject(subject, {
      bytes: coldBytes + 2 * metadataBytes, directory: bench.options.directory, sparse: true,
      signal: bench.signal,
    }));
    if (one === null) continue;
    running.push(one);
    await bench.fill(one, regionBytes);
  }
  for (let round = 1; round <= bench.options.rounds; round++) {
    if (bench.leftMs < 2 * running.length * bench.stepMs + closeMs) {
      bench.problem(`round ${round}: cold: left out: the time was up`);
      break;
    }
    const hot: Job = { ...write, name: 'hot' };
    const cold: Job = { ...write, name: 'cold', bytesMax: writtenMax };
    for (const one of running) await bench.measure(one, hot, round);
    for (const one of running) await bench.measure(one, cold, round, coldBytes);
  }
  await Promise.all(running.map((one) => bench.close(one)));
}
