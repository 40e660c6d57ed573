/**
 * Goal: a resync is fast while nobody works, and hardly felt while somebody does.
 * Method: properties over random events; two simulated disks with an application on them.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { chunkBytes, chunksMax, ResyncPace } from '../../lib/core/resync-pace.ts';
import { KiB, MiB } from '../../lib/format/limits.ts';

/** One server, first come first served, or one whose latency grows with the chunks in flight. */
type DiskModel =
  | { kind: 'queue'; appMs: number; chunkMs: number }
  | { kind: 'parallel'; appMs: number; chunkMs: number; growth: number };

interface Event {
  at: number;
  run: () => void;
}

/** Steps of 0.1 ms would hide nothing: events run at their exact time, in order. */
class World {
  now = 0;
  readonly pace = new ResyncPace(0);
  readonly starts: { at: number; bytes: number }[] = [];
  readonly latencies: { at: number; ms: number }[] = [];
  copied = 0;
  inFlight = 0;
  /** Threads of the application that go on asking. */
  appThreads = 0;
  appActive = 0;
  readonly disk: DiskModel;
  thinkMs = 1;
  #events: Event[] = [];
  #freeAt = 0;
  #timer = false;

  constructor(disk: DiskModel) {
    this.disk = disk;
  }

  later(ms: number, run: () => void): void {
    this.#events.push({ at: this.now + ms, run });
  }

  /** How long an operation begun now takes. */
  serve(ms: number): number {
    if (this.disk.kind === 'parallel') return ms * (1 + this.disk.growth * this.inFlight);
    this.#freeAt = Math.max(this.now, this.#freeAt) + ms;
    return this.#freeAt - this.now;
  }

  pump(): void {
    while (this.inFlight < this.pace.chunksAllowed(this.now) && this.pace.waitMs(this.now) === 0) {
      this.pace.chunkStarted(chunkBytes, this.now);
      this.starts.push({ at: this.now, bytes: chunkBytes });
      this.inFlight++;
      this.later(this.serve(this.disk.chunkMs), () => {
        this.inFlight--;
        this.copied += chunkBytes;
        this.pace.chunkDone(chunkBytes, this.now);
        this.pump();
      });
    }
    const wait = Math.max(1, Math.min(this.pace.waitMs(this.now), 100));
    if (this.#timer) return;
    this.#timer = true;
    this.later(wait, () => {
      this.#timer = false;
      this.pump();
    });
  }

  setThreads(count: number): void {
    this.appThreads = count;
    while (this.appActive < count) {
      this.appActive++;
      this.#ask();
    }
  }

  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      let first = -1;
      this.#events.forEach((one, index) => {
        if (one.at <= end && (first < 0 || one.at < (this.#events[first] as Event).at)) {
          first = index;
        }
      });
      if (first < 0) break;
      const [event] = this.#events.splice(first, 1);
      this.now = (event as Event).at;
      (event as Event).run();
    }
    this.now = end;
  }

  /** Mean latency and bytes per second of the next `ms`. */
  measure(ms: number): { latency: number; speed: number } {
    const [from, copied] = [this.now, this.copied];
    this.run(ms);
    const seen = this.latencies.filter((one) => one.at > from);
    const sum = seen.reduce((all, one) => all + one.ms, 0);
    return {
      latency: seen.length === 0 ? 0 : sum / seen.length,
      speed: (this.copied - copied) * 1000 / ms,
    };
  }

  #ask(): void {
    if (this.appActive > this.appThreads) {
      this.appActive--;
      return;
    }
    const ms = this.serve(this.disk.appMs);
    this.later(ms, () => {
      this.latencies.push({ at: this.now, ms });
      this.pace.requestDone(ms, this.now);
      this.later(this.thinkMs, () => this.#ask());
    });
  }
}

/** Most bytes started within any second. */
function busiestSecond(starts: readonly { at: number; bytes: number }[]): number {
  let most = 0;
  let sum = 0;
  let tail = 0;
  for (const one of starts) {
    sum += one.bytes;
    while ((starts[tail] as { at: number }).at <= one.at - 1000) {
      sum -= (starts[tail++] as { bytes: number }).bytes;
    }
    most = Math.max(most, sum);
  }
  return most;
}

t.test('pace: an idle application, full speed within a second', async (t) => {
  const world = new World({ kind: 'parallel', appMs: 1, chunkMs: 10, growth: 0 });
  world.pump();
  t.ok(world.pace.chunksAllowed(0) <= 2, 'begins gently');
  world.run(1000);
  t.equal(world.pace.chunksAllowed(world.now), chunksMax);
  t.equal(world.pace.waitMs(world.now), 0);
  t.equal(world.inFlight, chunksMax);
});

t.test('pace: a disk whose latency grows with the chunks in flight', async (t) => {
  for (const [disk, threads, leastMiB] of [
    [{ kind: 'parallel', appMs: 2, chunkMs: 8, growth: 0.1 }, 4, 30],
    [{ kind: 'parallel', appMs: 0.5, chunkMs: 2, growth: 1 }, 8, 20],
    [{ kind: 'queue', appMs: 1, chunkMs: 2 }, 1, 5],
    [{ kind: 'queue', appMs: 0.2, chunkMs: 1 }, 2, 5],
    [{ kind: 'queue', appMs: 5, chunkMs: 20 }, 1, 1],
  ] as [DiskModel, number, number][]) {
    const what = `${disk.kind} ${disk.appMs} ms`;
    const alone = new World(disk);
    alone.setThreads(threads);
    const baseline = alone.measure(10_000).latency;
    const world = new World(disk);
    world.pump();
    world.run(3000);
    world.setThreads(threads);
    world.run(20_000);
    const busy = world.measure(20_000);
    t.ok(busy.latency <= 2 * baseline, `${what}: ${busy.latency} of ${baseline}`);
    t.ok(busy.speed >= leastMiB * MiB, `${what}: ${busy.speed / MiB} MiB/s`);
    world.setThreads(0);
    world.run(3000);
    const idle = world.measure(3000);
    t.equal(world.pace.chunksAllowed(world.now), chunksMax, `${what}: recovers`);
    t.ok(idle.speed > busy.speed, `${what}: ${idle.speed / MiB} MiB/s`);
  }
});

t.test('pace: a changed load does not pin the baseline', async (t) => {
  const disk: DiskModel = { kind: 'parallel', appMs: 0.3, chunkMs: 8, growth: 0.05 };
  const world = new World(disk);
  world.pump();
  world.setThreads(4);
  world.run(20_000);
  const first = world.pace.baselineMs;
  t.ok(first < 0.5, `${first}`);
  // From cached reads to writes that reach the disk: slower without any resync.
  disk.appMs = 10;
  world.run(30_000);
  t.ok(world.pace.baselineMs > 8 && world.pace.baselineMs < 15, `${world.pace.baselineMs}`);
  t.ok(world.measure(10_000).speed > 20 * MiB, 'no longer slowed down for it');
  disk.appMs = 0.3;
  world.run(20_000);
  t.ok(world.pace.baselineMs < 0.6, `${world.pace.baselineMs}`);
});

t.test('pace: progress however much the application suffers', async (t) => {
  // Latency has nothing to do with the chunks: nothing this class does can mend it.
  let now = 0;
  const pace = new ResyncPace(0);
  let copied = 0;
  let inFlight = 0;
  for (let step = 0; step < 60_000; step++, now++) {
    const bad = Math.floor(now / 1000) % 2 === 0 ? 1 : 500;
    pace.requestDone(inFlight > 0 ? bad + 100 : bad, now);
    if (inFlight === 0 && pace.chunksAllowed(now) > 0 && pace.waitMs(now) === 0) {
      pace.chunkStarted(chunkBytes, now);
      inFlight++;
    } else if (inFlight > 0 && now % 10 === 0) {
      inFlight--;
      copied += chunkBytes;
      pace.chunkDone(chunkBytes, now);
    }
  }
  t.ok(copied / 60 >= MiB, `${copied / 60 / MiB} MiB/s`);
});

t.test('pace: a rate is never exceeded and nearly reached', async (t) => {
  const run = fc.record({
    rate: fc.integer({ min: 64 * KiB, max: 400 * MiB }),
    chunkMs: fc.integer({ min: 1, max: 30 }), threads: fc.integer({ min: 0, max: 4 }),
  });
  fc.assert(fc.property(run, ({ rate, chunkMs, threads }) => {
    const world = new World({ kind: 'parallel', appMs: 1, chunkMs, growth: 0 });
    world.pace.setRate(rate, 0);
    world.setThreads(threads);
    world.pump();
    world.run(5000);
    const most = busiestSecond(world.starts);
    if (most > rate * 1.002 + chunkBytes) throw new Error(`${most} of ${rate}`);
    const reachable = Math.min(rate, chunksMax * chunkBytes * 1000 / chunkMs);
    const sent = world.starts.length * chunkBytes / 5;
    if (sent < reachable * 0.9 - chunkBytes) throw new Error(`${sent} of ${reachable}`);
  }), { numRuns: 40 });
  const pace = new ResyncPace(0);
  pace.setRate(1, 0);
  pace.chunkStarted(chunkBytes, 0);
  t.equal(pace.waitMs(0), chunkBytes * 1000, 'slow, and says how long');
  pace.setRate(MiB, 5);
  t.equal(pace.rate, MiB);
  t.equal(pace.waitMs(5), 0, 'a new rate does not wait for the old one');
});

t.test('pace: any order of events keeps the bounds', async (t) => {
  const event = fc.record({
    what: fc.constantFrom('request', 'start', 'done', 'wait', 'pause', 'rate'),
    ms: fc.integer({ min: 0, max: 700 }), value: fc.nat(5000),
  });
  fc.assert(fc.property(fc.array(event, { maxLength: 300 }), (events) => {
    const pace = new ResyncPace(0);
    let now = 0;
    let inFlight = 0;
    for (const { what, ms, value } of events) {
      now += ms;
      if (what === 'request') pace.requestDone(value / 10, now);
      else if (what === 'pause') pace.paused = !pace.paused;
      else if (what === 'rate') pace.setRate(value % 3 === 0 ? 0 : value * KiB, now);
      else if (what === 'done' && inFlight > 0) {
        inFlight--;
        pace.chunkDone(chunkBytes, now);
      } else if (what === 'start' && pace.waitMs(now) === 0 &&
          inFlight < pace.chunksAllowed(now)) {
        inFlight++;
        pace.chunkStarted(chunkBytes, now);
      }
      const allowed = pace.chunksAllowed(now);
      const wait = pace.waitMs(now);
      if (pace.paused ? allowed !== 0 || wait <= 0 : allowed < 1 || allowed > chunksMax) {
        throw new Error(`${allowed} chunks`);
      }
      if (!(wait >= 0) || (pace.rate === 0 && wait > 1000)) throw new Error(`wait ${wait}`);
      if (!(pace.speed(now) >= 0)) throw new Error(`speed ${pace.speed(now)}`);
    }
    // A chunk may start within a bounded time, whatever happened.
    pace.paused = false;
    pace.setRate(0, now);
    for (; inFlight > 0; inFlight--) pace.chunkDone(0, now);
    const end = now + 2000;
    while (pace.waitMs(now) > 0) {
      now += pace.waitMs(now);
      if (now > end) throw new Error('no progress');
    }
  }), { numRuns: 300 });
  t.pass('held');
});

t.test('pace: pause, speed and what remains', async (t) => {
  const world = new World({ kind: 'parallel', appMs: 1, chunkMs: 16, growth: 0 });
  const { pace } = world;
  t.equal(pace.eta(0, MiB), null, 'nothing known yet');
  world.pump();
  world.run(10_000);
  const speed = 16 * chunkBytes * 1000 / 16;
  t.ok(Math.abs(pace.speed(world.now) - speed) < speed / 20, `${pace.speed(world.now)}`);
  const eta = pace.eta(world.now, 100 * speed) as number;
  t.ok(eta > 95 && eta < 105, `${eta}`);
  t.equal(pace.eta(world.now, 0), 0);
  pace.paused = true;
  t.equal(pace.chunksAllowed(world.now), 0);
  t.ok(pace.waitMs(world.now) > 0);
  t.equal(pace.eta(world.now, MiB), null);
  const before = world.starts.length;
  world.run(10_000);
  t.equal(world.starts.length, before, 'nothing starts');
  t.equal(pace.speed(world.now), 0);
  pace.paused = false;
  world.run(1000);
  t.ok(world.starts.length > before);
});
