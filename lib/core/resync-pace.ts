/**
 * When the next chunk of a resync may start. Pure: every call takes the time.
 *
 * Without a rate there is no knob: full speed while the application is idle; while it works, as
 * many chunks in flight as leave its latency near what it is without them. Every 100 ms the mean
 * latency of the interval is compared with a baseline: additive increase, multiplicative decrease.
 * Below one chunk in flight the chunks are spaced, at most `spacingMaxMs` apart, so that there is
 * always progress.
 *
 * The baseline is learned from requests that ran wholly while no chunk was in flight. Where there
 * are none for a while, no chunk is started for a moment (a probe). Without any, it follows the
 * lowest latency seen and rises slowly.
 *
 * Hot path: requestDone() runs once per application request. `npm run bench`, resync: 0.8 to 1.0 of
 * the sequential rate.
 */
import { assert } from '../base/assert.ts';
import { limits } from '../format/limits.ts';

export const chunkBytes = 64 * limits.blockSize;
export const chunksMax = 16;

const intervalMs = 100;
/** 1.25 MiB/s: more than 1 MiB/s also where probes take their part. */
const spacingMaxMs = 200;
/** Latency aimed at: baseline * ratio + slack; the slack is less than anybody notices. */
const targetRatio = 1.4;
const targetSlackMs = 0.05;
/** Without a request for so long, or three times the latest latency, the application is idle. */
const idleMinMs = 300;
const idleMaxMs = 2000;
const probeEveryMs = 5000;
/** The baseline is unknown, or may be of another load. */
const firstProbeMs = 300;
/** From the last chunk's end, and in all. */
const probeQuietMs = 150;
const probeMaxMs = 400;
const probeRequests = 8;
/** A pause ends by a call: how soon to ask again otherwise. */
const pausedPollMs = 1000;
/** What a late timer may be made up for with a fixed rate. */
const rateCatchUpMs = 2;
const bucketMs = 500;
const bucketCount = 10;

export class ResyncPace {
  /** No chunk may start. */
  paused = false;

  /** Chunks in flight aimed at; below 1 the part of the time with one in flight. */
  #window = 2;
  #inFlight = 0;
  #startedAt = -Infinity;
  /** From start to end of a chunk when one is in flight alone, ms. */
  #chunkMs = 20;
  #quietSince: number;

  #intervalAt: number;
  #sumMs = 0;
  #count = 0;
  #quietSumMs = 0;
  #quietCount = 0;
  #latestMs = 0;
  #requestAt = -Infinity;
  #baselineMs = 0;
  /** When requests without any chunk were last seen, and since when it is asked for. */
  #learnedAt: number;
  #probeAt = -1;

  #rate = 0;
  #rateAt: number;

  readonly #begun: number;
  readonly #buckets = new Float64Array(bucketCount);
  #bucket = 0;

  constructor(now: number) {
    this.#begun = now;
    this.#intervalAt = now;
    this.#quietSince = now;
    this.#learnedAt = now - probeEveryMs + firstProbeMs;
    this.#rateAt = now;
  }

  /** Bytes per second; 0: automatic. Over any second at most one chunk and 0.2 % more. */
  get rate(): number {
    return this.#rate;
  }

  setRate(rate: number, now: number): void {
    if (rate === this.#rate) return;
    this.#rate = rate;
    this.#rateAt = now;
  }

  /** Latency that the application has without the resync as far as known, ms; 0: not known. */
  get baselineMs(): number {
    return this.#baselineMs;
  }

  /** A request of the application was answered after `latencyMs`. */
  requestDone(latencyMs: number, now: number): void {
    this.#sumMs += latencyMs;
    this.#count++;
    this.#requestAt = now;
    if (this.#inFlight === 0 && now - latencyMs >= this.#quietSince) {
      this.#quietSumMs += latencyMs;
      this.#quietCount++;
    }
  }

  chunkStarted(bytes: number, now: number): void {
    this.#inFlight++;
    this.#startedAt = now;
    if (this.#rate > 0) {
      this.#rateAt = Math.max(this.#rateAt, now - rateCatchUpMs) + bytes * 1000 / this.#rate;
    }
  }

  /** Of every chunk started, whatever became of it; `bytes` copied, 0 where it failed. */
  chunkDone(bytes: number, now: number): void {
    assert(this.#inFlight > 0, 'a chunk that ended was started');
    this.#advanceBuckets(now);
    const at = this.#bucket % bucketCount;
    this.#buckets[at] = (this.#buckets[at] as number) + bytes;
    if (this.#inFlight === 1) {
      const took = now - this.#startedAt;
      this.#chunkMs += (took - this.#chunkMs) / 4;
      this.#quietSince = now;
    }
    this.#inFlight--;
  }

  /** How many may be in flight, 1 to 16; 0 while paused. See waitMs() too. */
  chunksAllowed(now: number): number {
    if (this.paused) return 0;
    this.#advance(now);
    if (this.#rate > 0) return chunksMax;
    return Math.max(1, Math.floor(this.#window));
  }

  /** 0 where a chunk may start now; else in how many ms to ask again. */
  waitMs(now: number): number {
    if (this.paused) return pausedPollMs;
    this.#advance(now);
    if (this.#rate > 0) return Math.max(0, this.#rateAt - now);
    if (this.#probeAt >= 0) return this.#probeLeftMs(now);
    if (this.#window >= 1) return 0;
    return Math.max(0, this.#startedAt + this.#spacingMs() - now);
  }

  /** Bytes per second, over the last 5 s or since the beginning. */
  speed(now: number): number {
    this.#advanceBuckets(now);
    let sum = 0;
    for (const bytes of this.#buckets) sum += bytes;
    const since = (Math.floor((now - this.#begun) / bucketMs) - bucketCount + 1) * bucketMs;
    const spanMs = now - this.#begun - Math.max(0, since);
    return sum * 1000 / Math.max(bucketMs, spanMs);
  }

  /** Seconds until `bytesLeft` are copied at the present speed; null where there is none. */
  eta(now: number, bytesLeft: number): number | null {
    if (bytesLeft === 0) return 0;
    const speed = this.speed(now);
    return this.paused || speed < 1 ? null : bytesLeft / speed;
  }

  #spacingMs(): number {
    return Math.min(spacingMaxMs, this.#chunkMs / this.#window);
  }

  #probeLeftMs(now: number): number {
    const end = this.#probeAt + probeMaxMs;
    if (this.#inFlight > 0) return Math.min(10, end - now);
    return Math.min(end, this.#quietSince + probeQuietMs) - now;
  }

  #advanceBuckets(now: number): void {
    const bucket = Math.floor((now - this.#begun) / bucketMs);
    const from = Math.max(this.#bucket, bucket - bucketCount);
    for (let index = from + 1; index <= bucket; index++) this.#buckets[index % bucketCount] = 0;
    this.#bucket = Math.max(this.#bucket, bucket);
  }

  #advance(now: number): void {
    this.#endProbe(now);
    if (now - this.#intervalAt < intervalMs) return;
    this.#intervalAt = now;
    const idleMs = Math.min(idleMaxMs, Math.max(idleMinMs, 3 * this.#latestMs));
    if (this.#count === 0) {
      if (now - this.#requestAt < idleMs) return;
      this.#window = chunksMax;
      this.#probeAt = -1;
      return;
    }
    const mean = this.#sumMs / this.#count;
    this.#latestMs = mean;
    this.#learn(mean, now);
    this.#steer(mean);
    this.#sumMs = 0;
    this.#count = 0;
    this.#quietSumMs = 0;
    this.#quietCount = 0;
    const isDue = now - this.#learnedAt >= probeEveryMs;
    if (isDue && this.#probeAt < 0 && this.#rate === 0) this.#probeAt = now;
  }

  #endProbe(now: number): void {
    if (this.#probeAt < 0) return;
    if (this.#quietCount < probeRequests && this.#probeLeftMs(now) > 0) return;
    this.#probeAt = -1;
    // Also where nothing was learned: the next one comes in its turn.
    this.#learnedAt = now;
  }

  #learn(mean: number, now: number): void {
    const baseline = this.#baselineMs;
    if (this.#quietCount > 0) {
      const quiet = this.#quietSumMs / this.#quietCount;
      if (baseline === 0) this.#baselineMs = quiet;
      else this.#baselineMs += (quiet - baseline) * (quiet < baseline ? 0.5 : 0.25);
      if (this.#probeAt < 0) this.#learnedAt = now;
    } else if (baseline === 0) {
      this.#baselineMs = mean;
    } else {
      this.#baselineMs += (mean - baseline) * (mean < baseline ? 0.1 : 0.001);
    }
  }

  #steer(mean: number): void {
    const target = this.#baselineMs * targetRatio + targetSlackMs;
    if (mean > target) {
      const lowest = Math.min(1, Math.max(0.005, this.#chunkMs / spacingMaxMs));
      const next = this.#window * Math.min(0.8, Math.max(0.25, target / mean));
      this.#window = Math.max(lowest, next);
    } else {
      const next = this.#window < 1 ? this.#window * 1.1 : this.#window + 0.25;
      this.#window = Math.min(chunksMax, next);
    }
  }
}
