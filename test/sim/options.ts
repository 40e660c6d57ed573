/**
 * What one run is made of, drawn from its seed alone. Every kind of fault has a weight of its own,
 * often none: a run with three kinds finds what a run with all of them hides.
 */
import { limits, KiB, MiB } from '../../lib/format/limits.ts';
import type { Mode } from '../../lib/core/completion.ts';
import { SimRandom } from '../fixtures/sim-world.ts';
import { faultKinds, lateKinds, type FaultKind } from './fault-kinds.ts';

type Range = [number, number];

export interface AppMix {
  /** Requests in flight on each primary. */
  depth: number;
  /** Requests of the whole run. */
  count: number;
  /** Relative weights. */
  write: number;
  read: number;
  flush: number;
  zero: number;
  discard: number;
  bytesMax: number;
  /** Part of the requests that is aligned to 4 KiB. */
  aligned: number;
  /** Part of the requests that goes to a small range, so that they overlap. */
  crowded: number;
  /** Milliseconds between an answer and the next request. */
  thinkMs: Range;
}

export interface SimOptions {
  seed: number;
  mode: Mode;
  mediaSize: number;
  extentSize: number;
  keepDirty: number;
  zeroed: boolean;
  checksum: 'crc32' | 'sha256' | 'none';
  compression: 'none' | 'hole';
  diskMs: [Range, Range];
  linkMs: Range;
  timeoutMs: number;
  diskTimeoutMs: number;
  onNoData: 'stall' | 'fail';
  asyncLagBytes: number;
  asyncLagMs: number;
  /** How often bytes not flushed become durable before they are overwritten. */
  earlyRate: number;
  app: AppMix;
  /** How many faults, and how many milliseconds or steps lie between two of them. */
  faultCount: number;
  gapMs: Range;
  gapSteps: Range;
  /** Weight of each kind that may happen. */
  faults: Partial<Record<FaultKind, number>>;
  /** Chance that the operator forces a promotion that was refused. */
  force: number;
  /** Milliseconds the operator looks away. */
  operatorMs: Range;
  /** Bytes a second; 0: as fast as it goes. */
  resyncRate: number;
}

function latency(random: SimRandom): Range {
  return random.pick<Range>([
    [0.02, 0.6], [0.02, 0.6], [0.02, 0.6], [0.5, 20], [0.02, 60], [0.02, 200],
  ]);
}

function drawApp(random: SimRandom): AppMix {
  const readers = random.chance(0.3);
  return {
    depth: 1 + random.int(random.pick([2, 8, 16])),
    count: random.pick([20, 60, 120, 120, 240]),
    write: 10,
    read: readers ? 10 : 1,
    flush: random.pick([0, 0.5, 1, 4]),
    zero: random.pick([0, 0, 1]),
    discard: random.pick([0, 0, 1]),
    bytesMax: random.pick([
      512, 4 * KiB, 16 * KiB, 16 * KiB, 64 * KiB, random.chance(0.2) ? MiB : KiB,
    ]),
    aligned: random.pick([0, 0.5, 1]),
    crowded: random.pick([0, 0.2, 0.9]),
    thinkMs: random.pick<Range>([[0, 0.2], [0, 2], [0, 2], [1, 40], [1, 300]]),
  };
}

export function drawOptions(seed: number, enabled: readonly FaultKind[]): SimOptions {
  const random = new SimRandom(Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995);
  const faults: Partial<Record<FaultKind, number>> = {};
  const few = random.chance(0.3);
  for (const kind of faultKinds) {
    if (lateKinds.includes(kind)) continue;
    const weight = random.chance(few ? 0.15 : 0.5) ? 1 + random.int(4) : 0;
    if (weight > 0 && enabled.includes(kind)) faults[kind] = weight;
  }
  const checksum = random.pick(['crc32', 'crc32', 'crc32', 'sha256', 'none'] as const);
  // Without a checksum of the payload, bytes changed on the way are not found, and not promised.
  if (checksum === 'none') delete faults.flip;
  const calm = random.chance(0.05);
  const options: SimOptions = {
    seed,
    mode: random.pick(['fullsync', 'memsync', 'async'] as const),
    mediaSize: MiB * random.pick([1, 1, 1, 1, 2, 3, random.chance(0.1) ? 40 : 1]),
    extentSize: random.pick([limits.extentBytesMin, limits.extentBytesMin, 256 * KiB, MiB]),
    keepDirty: random.pick([limits.keepDirtyMin, limits.keepDirtyMin, 64]),
    zeroed: random.chance(0.85),
    checksum,
    compression: random.pick(['none', 'hole'] as const),
    diskMs: [latency(random), latency(random)],
    linkMs: random.pick<Range>([[0.01, 0.2], [0.01, 0.2], [0.01, 5], [5, 20]]),
    timeoutMs: random.pick([500, 1000, 1000, 5000]),
    diskTimeoutMs: random.pick([0, 2000, 30_000]),
    onNoData: random.pick(['stall', 'fail'] as const),
    asyncLagBytes: random.pick([64 * KiB, MiB, 64 * MiB]),
    asyncLagMs: random.pick([1000, 10_000]),
    earlyRate: random.pick([0, 0.1, 0.5]),
    app: drawApp(random),
    faultCount: calm ? 0 : 1 + random.int(random.pick([3, 8, 14])),
    gapMs: random.pick<Range>([[0, 30], [0, 300], [0, 2500]]),
    gapSteps: random.pick<Range>([[1, 40], [1, 300]]),
    faults: calm ? {} : faults,
    force: random.pick([0, 0, 0, 0.1, 0.5]),
    operatorMs: random.pick<Range>([[1, 20], [20, 400], [200, 3000]]),
    resyncRate: 0,
  };
  drawPace(random, options);
  scatter(options);
  if (!calm) drawLate(options, enabled);
  return options;
}

function drawLate(options: SimOptions, enabled: readonly FaultKind[]): void {
  const random = new SimRandom(Math.imul(options.seed, 0x85ebca6b) ^ 0x27d4eb2f);
  for (const kind of lateKinds) {
    const weight = random.chance(0.4) ? 1 + random.int(4) : 0;
    if (weight > 0 && enabled.includes(kind)) options.faults[kind] = weight;
  }
}

/** Now and then writes all over far more extents than may be hot: each has to wait for its own. */
function scatter(options: SimOptions): void {
  const random = new SimRandom(Math.imul(options.seed, 0xc2b2ae35) ^ 0x165667b1);
  if (!random.chance(0.06)) return;
  options.mediaSize = 16 * MiB;
  options.extentSize = limits.extentBytesMin;
  options.keepDirty = limits.keepDirtyMin;
  Object.assign(options.app, { crowded: 0, depth: 16, count: 600, thinkMs: [0, 5] });
}

/** How the faults, the load and a resync lie to each other in time. */
function drawPace(random: SimRandom, options: SimOptions): void {
  const { app } = options;
  // A fault that lasts over some checkpoints, or waits for what they do.
  if (random.chance(0.1)) options.gapMs = [500, 12_000];
  const [low, high] = options.gapMs;
  const faultsMs = options.faultCount * (low + high) / 2;
  // Spread over all that the faults lead to: most loads are over long before.
  const thinkMs = 2 * faultsMs * app.depth / app.count;
  if (random.chance(0.3) && thinkMs > app.thinkMs[1]) app.thinkMs = [0, thinkMs];
  // Most copies last a few milliseconds, in which hardly anything else happens.
  const seconds = random.pick([0, 0, 0, 0.1, 0.5, 3]);
  if (seconds > 0) options.resyncRate = Math.round(options.mediaSize / seconds);
}

export function describeOptions(options: SimOptions): string {
  const { faults, app, ...rest } = options;
  const text = (value: unknown): string =>
    Array.isArray(value) ? `[${value.map(text).join('-')}]` : String(value);
  const flat = Object.entries(rest).map(([key, value]) => `${key}=${text(value)}`).join(' ');
  const mix = Object.entries(app).map(([key, value]) => `${key}=${text(value)}`).join(' ');
  const kinds = Object.entries(faults).map(([key, value]) => `${key}:${value}`).join(' ');
  return `${flat}\n  app: ${mix}\n  faults: ${kinds === '' ? 'none' : kinds}`;
}
