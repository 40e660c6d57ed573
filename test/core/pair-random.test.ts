/**
 * Goal: whatever happens in whatever order, the promises hold and the pair ends equal.
 * Method: each seed draws a volume, a mode and a list of disasters; a ledger knows what every
 * sector may hold. At every disaster the difference of the two stable images must be covered by
 * what is durably marked. A failure prints its seed: SIM_SEED=n runs that one alone,
 * SIM_SEEDS and SIM_SECONDS bound a longer search.
 */
import t from 'tap';
import { limits, MiB } from '../../lib/format/limits.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { blocksOf, imageMap } from '../fixtures/sim-image.ts';
import { SimLedger } from '../fixtures/sim-ledger.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import { SimPair } from '../fixtures/sim-pair.ts';
import type { SimRandom } from '../fixtures/sim-world.ts';

const seedCount = Number(process.env['SIM_SEEDS'] ?? 200);
const secondsMax = Number(process.env['SIM_SECONDS'] ?? 6);

type Latency = [number, number];

function pickLatency(random: SimRandom): Latency {
  return random.pick([[0.02, 0.6], [0.02, 0.6], [0.5, 20], [0.02, 200]] as Latency[]);
}

class RandomRun {
  readonly pair: SimPair;
  readonly ledger: SimLedger;
  readonly trace: string[] = [];
  primary: SimNode;
  readonly #latencies: [Latency, Latency];
  #paused = true;

  constructor(seed: number) {
    const random = new SimPair({ seed }).world.random;
    const mode = random.pick(['fullsync', 'memsync', 'async'] as const);
    const mediaSize = random.pick([1, 3, 4]) * MiB;
    const checksum = random.pick(['crc32', 'sha256'] as const);
    this.pair = new SimPair({
      seed, mode, mediaSize, timeoutMs: 1000,
      wire: { checksum, compression: random.pick(['none', 'hole'] as const), compressor: null },
    });
    this.ledger = new SimLedger(mediaSize);
    this.primary = this.pair.a;
    // Slow disks beside a fast link, and the other way round, give different races.
    this.#latencies = [pickLatency(random), pickLatency(random)];
    this.trace.push(`${mode}, ${mediaSize / MiB} MiB`);
  }

  run(): void {
    const { pair } = this;
    pair.primary();
    pair.a.disk.latency = this.#latencies[0];
    pair.b.disk.latency = this.#latencies[1];
    const { random } = pair.world;
    this.#work(1 + random.int(12));
    const rounds = 1 + random.int(4);
    for (let round = 0; round < rounds; round++) {
      this.#resume();
      pair.pass(random.unit() * 40);
      this.#disaster();
      this.#checkMarks();
      if (random.chance(0.3)) pair.pass(random.unit() * 2500);
    }
    this.#end();
  }

  get secondary(): SimNode {
    return this.pair.other(this.primary);
  }

  /** Requests of all kinds on whoever is primary, `depth` at a time. */
  #work(depth: number): void {
    const { world } = this.pair;
    const next = (): void => {
      const node = this.primary;
      if (this.#paused || node.resource?.role !== 'primary') {
        world.between(1, 3, next);
        return;
      }
      const life = node.resource;
      const request = this.#request(node);
      const wait = (): void => {
        if (request.isDone || node.resource !== life) next();
        else world.between(0.2, world.random.pick([1, 20, 400]), wait);
      };
      wait();
    };
    for (let index = 0; index < depth; index++) next();
  }

  #request(node: SimNode): { isDone: boolean } {
    const { random } = this.pair.world;
    const size = node.running.volume.size;
    const large = random.chance(0.02);
    const sectors = 1 + random.int(large ? 1024 : random.pick([1, 8, 64]));
    const aligned = random.chance(0.5);
    let offset = 512 * random.int((size - sectors * 512) / 512 + 1);
    if (aligned) offset -= offset % 4096;
    const kind = random.unit();
    if (kind < 0.75) return this.ledger.write(node, offset, sectors * 512);
    if (kind < 0.83) {
      const op = random.pick([AppOp.zero, AppOp.discard]);
      return this.ledger.zero(node, op, offset, sectors * 512);
    }
    if (kind < 0.9) return this.ledger.flush(node);
    this.ledger.read(node, offset, sectors * 512);
    return { isDone: true };
  }

  #resume(): void {
    const { pair } = this;
    this.#paused = true;
    const node = this.primary;
    let answer = node.promote();
    pair.until('a primary works', () => {
      if (answer.done && answer.refusal !== null) answer = node.promote();
      return answer.done && answer.refusal === null;
    }, 30_000);
    this.#paused = false;
  }

  #disaster(): void {
    const { pair, trace } = this;
    const { random } = pair.world;
    const kinds = {
      cut: () => pair.link?.cut(),
      flip: () => {
        const end = pair.link?.ends[random.int(2)];
        if (end !== undefined) end.flipNext = true;
      },
      partition: () => {
        pair.partition(random.chance(0.4));
        pair.pass(random.unit() * 2500);
        pair.heal();
      },
      secondary: () => this.#crash(this.secondary, random.chance(0.5), true),
      primary: () => this.#crash(this.primary, random.chance(0.5), true),
      both: () => {
        const power = random.chance(0.5);
        this.#crash(this.primary, power, false);
        this.#crash(this.secondary, power, false);
        for (const node of random.chance(0.5) ? [pair.a, pair.b] : [pair.b, pair.a]) {
          this.#boot(node);
        }
      },
      phase: () => this.#inPhase(),
      failover: () => this.#failover(),
      swap: () => this.#swap(),
      idle: () => {
        this.#paused = true;
        pair.pass(random.unit() * 9000);
      },
    };
    const kind = random.pick(Object.keys(kinds) as (keyof typeof kinds)[]);
    trace.push(`${kind} at ${Math.round(pair.world.now())}`);
    kinds[kind]();
  }

  /** A break, and another disaster in the middle of what follows. */
  #inPhase(): void {
    const { pair } = this;
    const { random } = pair.world;
    pair.link?.cut();
    const phase = random.pick(['hello', 'map', 'starting', 'copying', 'finishing', 'syncing',
      'waiting', 'keeping', 'adopting']);
    const node = random.pick([pair.a, pair.b]);
    pair.world.until(() => node.phase === phase, 400);
    this.trace.push(`${node.name} in ${node.phase}`);
    if (random.chance(0.4)) pair.link?.cut();
    else this.#crash(random.pick([pair.a, pair.b]), random.chance(0.5), true);
  }

  #crash(node: SimNode, power: boolean, boot: boolean): void {
    const { random } = this.pair.world;
    this.trace.push(`${power ? 'power' : 'kill'} ${node.name}`);
    node.crash(power, random.chance(0.3));
    if (power && node === this.primary) this.ledger.powerCut();
    this.#checkMarks();
    this.pair.pass(random.pick([0, 1, 300]) * random.unit());
    if (boot) this.#boot(node);
  }

  /** Starting may be interrupted too. */
  #boot(node: SimNode): void {
    const { world } = this.pair;
    while (world.random.chance(0.3)) {
      node.start();
      this.pair.pass(world.random.unit() * 4);
      const power = world.random.chance(0.5);
      this.trace.push(`${power ? 'power' : 'kill'} ${node.name} at start`);
      node.crash(power);
      if (power && node === this.primary) this.ledger.powerCut();
      this.#checkMarks();
    }
    node.boot();
    if (node.openError !== null) throw node.openError;
  }

  /** The primary is lost while both copies are complete: the other one takes over. */
  #failover(): void {
    const { pair } = this;
    if (pair.a.options.mode === 'async') return;
    const isOpen = (): boolean => pair.link?.ends.every((end) => end.isOpen) === true;
    pair.until('complete', () => pair.isComplete && isOpen());
    if (this.primary.running.aloneRecorded) return;
    const lost = this.primary;
    this.#crash(lost, pair.world.random.chance(0.5), false);
    // The survivor holds all of it, whatever happened to the other one's disk.
    this.primary = this.secondary;
    const survivor = this.primary;
    pair.until('the loss is noticed', () => survivor.phase === 'none', 10_000);
    pair.mustPromote(survivor);
    pair.pass(pair.world.random.unit() * 50);
    this.#boot(lost);
  }

  #swap(): void {
    const { pair } = this;
    this.#paused = true;
    pair.until('complete', () => pair.isComplete);
    pair.answered(this.primary);
    pair.stop(this.primary);
    this.#boot(this.primary);
    this.primary = this.secondary;
  }

  /** Any block that differs on stable storage is durably marked on either side. */
  #checkMarks(): void {
    const [one, two] = [this.pair.a.disk.durable, this.pair.b.disk.durable];
    const { dataOffset, mediaSize } = this.pair.a.geometry;
    const isEqual = (from: number, length: number): boolean =>
      one.compare(two, from, from + length, from, from + length) === 0;
    if (isEqual(dataOffset, mediaSize)) return;
    const maps = [one, two].map((image) => blocksOf(imageMap(image).peerStale));
    const marked = new Set(maps.flat());
    for (let block = 0; block < mediaSize / limits.blockSize; block++) {
      const isCovered = marked.has(block) ||
        isEqual(dataOffset + block * limits.blockSize, limits.blockSize);
      if (!isCovered) throw new Error(`block ${block} differs and is not marked`);
    }
  }

  #end(): void {
    const { pair } = this;
    this.#resume();
    pair.pass(20);
    this.#paused = true;
    pair.heal();
    pair.a.disk.latency = pair.b.disk.latency = [0.02, 0.6];
    // A flip that is still to come breaks one more connection.
    for (const end of pair.link?.ends ?? []) end.flipNext = false;
    pair.pass(pair.world.random.pick([0, 1500, 9000]));
    pair.answered(this.primary);
    pair.complete();
    pair.until('the peer has it all', () =>
      this.primary.running.session?.stream?.unansweredFrames === 0);
    pair.pass(1);
    if (pair.difference() !== -1) throw new Error(`block ${pair.difference()} differs`);
    const problem = this.ledger.problem(pair.a.data());
    if (problem !== null) throw new Error(problem);
    const flush = this.ledger.flush(this.primary);
    pair.until('the last flush', () => flush.isDone);
    pair.pass(6500);
    this.#checkMarks();
    pair.a.disk.crash(true);
    pair.b.disk.crash(true);
    if (pair.difference() !== -1) throw new Error(`block ${pair.difference()} differs after a cut`);
    if (!pair.isUnmarked(this.primary)) throw new Error('an idle volume is marked');
  }
}

t.test('pair: random operations, cuts and crashes', async (t) => {
  const only = process.env['SIM_SEED'];
  const first = Number(only ?? 1);
  const end = performance.now() + secondsMax * 1000;
  let runs = 0;
  let reads = 0;
  for (let seed = first; seed < first + (only === undefined ? seedCount : 1); seed++) {
    const run = new RandomRun(seed);
    runs++;
    try {
      run.run();
    } catch (cause) {
      const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
      t.fail(`SIM_SEED=${seed}: ${text}\n${run.trace.join('; ')}\n${run.pair.describe()}`);
    }
    reads += run.ledger.reads;
    if (only === undefined && performance.now() > end) break;
  }
  t.comment(`${runs} runs, ${reads} reads checked`);
  t.ok(runs > 0);
});
