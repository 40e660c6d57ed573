/**
 * A resync: the cable is pulled, the primary goes on alone, the cable is back. Once everything was
 * rewritten meanwhile, once 4 KiB blocks here and there.
 */
import { sleep } from '../../cli/lab-run.ts';
import { sentBytes } from '../fixtures/e2e-lab.ts';
import type { Bench } from './bench.ts';
import { runFio } from './fio.ts';
import { jobs, metadataBytes, regionBytes, type Job } from './jobs.ts';
import { openPair, type RunningOurs } from './subject-ours.ts';

const MiB = 1024 * 1024;
const name = 'resync';
/** Each look takes 3 ms of the processors that the resync needs. */
const pollMs = 100;
const degradedMs = 60_000;
const resyncMs = 180_000;
const roundMs = 90_000;

export async function measureResync(bench: Bench): Promise<void> {
  const { quick, directory } = bench.options;
  const bytes = quick ? regionBytes : 8 * regionBytes;
  const subject = await bench.open(name, 'fullsync, two network namespaces', () => openPair(
    name, [], { bytes: bytes + metadataBytes, directory, sparse: false, signal: bench.signal },
    'namespaces',
  ));
  if (subject === null) return;
  try {
    await bench.fill(subject, bytes);
    const rounds = quick ? 1 : bench.options.rounds;
    for (let round = 1; round <= rounds; round++) {
      if (bench.leftMs < (quick ? roundMs / 2 : roundMs)) {
        bench.problem(`round ${round}: resync: left out: the time was up`);
        break;
      }
      await measureRound(bench, subject, round, bytes);
    }
  } catch (error) {
    if (bench.signal.aborted) throw error;
    bench.failed(name, String(error));
  } finally {
    await bench.close(subject);
  }
}

async function measureRound(
  bench: Bench, subject: RunningOurs, round: number, bytes: number,
): Promise<void> {
  const write = jobs.find((job) => job.name === 'seqwrite') as Job;
  await bench.measure(subject, write, round, Math.min(bytes, regionBytes));
  const all = ['--rw=write', '--bs=1m', '--iodepth=8', `--size=${bytes}`];
  await resyncAfter(bench, subject, round, 'resync', all, bytes);
  // Each block once: fio remembers where it was.
  const few = bytes / 16;
  const some = ['--rw=randwrite', '--bs=4k', '--iodepth=32', `--size=${bytes}`, `--io_size=${few}`];
  await resyncAfter(bench, subject, round, 'resync-random', some, few);
}

async function resyncAfter(
  bench: Bench, subject: RunningOurs, round: number, job: string, fio: readonly string[],
  bytesDirtied: number,
): Promise<void> {
  const { lab, device } = subject;
  await lab.settle();
  await lab.cut();
  await lab.h1.untilStatus('degraded', ({ status }) => status === 'degraded', degradedMs);
  await runFio(device, fio, bench.settings, resyncMs / 1000);
  await bench.settle();
  const bytesMarked = (await lab.h1.status()).dirtyBytes;
  const sentBefore = await sentBytes(lab, lab.h1);
  const began = performance.now();
  await lab.heal();
  const syncing = await timeSync(subject, bench.signal);
  const seconds = (performance.now() - began) / 1000;
  const bytesResynced = await sentBytes(lab, lab.h1) - sentBefore;
  const mib = bytesDirtied / MiB / syncing;
  bench.measurements.push({
    subject: name, job, round,
    values: { seconds, mib, bytesDirtied, bytesResynced, bytesMarked },
  });
  const text = `${mib.toFixed(0)} MiB/s, ${seconds.toFixed(1)} s after the cable was back`;
  bench.say(`round ${round}: ${job}: ${text}`);
}

/** Seconds from the beginning of the sync until the pair is complete. */
async function timeSync({ lab }: RunningOurs, signal: AbortSignal): Promise<number> {
  const bound = performance.now() + resyncMs;
  let began: number | null = null;
  while (performance.now() < bound) {
    if (signal.aborted) throw new Error('interrupted');
    const { status } = await lab.h1.status();
    if (status === 'syncing') began ??= performance.now();
    if (status === 'complete') return (performance.now() - (began ?? performance.now())) / 1000;
    await sleep(pollMs);
  }
  throw new Error(`the resync is not complete after ${resyncMs / 1000} s`);
}
