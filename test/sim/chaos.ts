/** The faults: which one comes next, when, and what it does. */
import { limits } from '../../lib/format/limits.ts';
import { layoutFor, tailOffset } from '../../lib/format/superblock.ts';
import type { SimRandom } from '../fixtures/sim-world.ts';
import { OperatorFaults } from './chaos-operator.ts';
import type { Cluster } from './cluster.ts';
import { faultKinds, type FaultKind } from './fault-kinds.ts';
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';

export class Chaos {
  readonly #run: SimRun;
  readonly #random: SimRandom;
  readonly #cluster: Cluster;
  readonly #acts: Record<FaultKind, () => void>;
  readonly #bag: FaultKind[] = [];
  #left: number;
  #nextStep = Infinity;
  #nextMs = Infinity;

  constructor(run: SimRun) {
    this.#run = run;
    this.#random = run.world.random;
    this.#cluster = run.cluster;
    this.#left = run.options.faultCount + 1;
    for (const kind of faultKinds) {
      for (let n = run.options.faults[kind] ?? 0; n > 0; n--) this.#bag.push(kind);
    }
    this.#acts = {
      ...this.#crashes(), ...this.#network(), ...this.#disks(), ...this.#people(),
      ...new OperatorFaults(run).acts(),
    };
    this.#plan();
  }

  get isOver(): boolean {
    return this.#left === 0;
  }

  /** Called between any two steps. */
  poll(): void {
    const { world } = this.#run;
    if (world.steps < this.#nextStep && world.now() < this.#nextMs) return;
    this.#left--;
    if (this.#left > 0 && this.#bag.length > 0) {
      const kind = this.#random.pick(this.#bag);
      this.#run.trace.line('', `fault: ${kind}`);
      this.#acts[kind]();
    }
    this.#plan();
  }

  /** By time, or by steps: the latter falls between any two of a burst. */
  #plan(): void {
    const { world, options } = this.#run;
    this.#nextStep = this.#nextMs = Infinity;
    const start = world.steps === 0 ? 300 : 0;
    if (this.#random.chance(0.5)) {
      const [low, high] = options.gapSteps;
      this.#nextStep = world.steps + start + low + this.#random.int(high - low + 1);
    } else {
      const [low, high] = options.gapMs;
      this.#nextMs = world.now() + (start > 0 ? 100 : 0) + low + this.#random.unit() * (high - low);
    }
  }

  #any(): Machine {
    return this.#random.pick(this.#run.machines);
  }

  #backMs(): number {
    return this.#random.unit() * this.#random.pick([0.5, 5, 300, 3000]);
  }

  #later(ms: number, run: () => void): void {
    this.#run.world.after(ms, () => {
      if (!this.#cluster.isHealing) run();
    });
  }

  #both(power: boolean): void {
    for (const machine of this.#run.machines) this.#cluster.crash(machine, power, this.#backMs());
  }

  #crashes(): Pick<Record<FaultKind, () => void>,
    'kill' | 'power' | 'kill-both' | 'power-both' | 'crash-in-start' | 'pair-crash' |
    'kill-resume'> {
    return {
      kill: () => this.#cluster.crash(this.#any(), false, this.#backMs()),
      power: () => this.#cluster.crash(this.#any(), true, this.#backMs()),
      'kill-both': () => this.#both(false),
      'power-both': () => this.#both(true),
      'crash-in-start': () => {
        const machine = this.#any();
        const power = this.#random.chance(0.5);
        this.#cluster.crash(machine, power, 0);
        this.#crashAgain(machine, power);
      },
      // The second one dies in what the loss of the first one sets off.
      'pair-crash': () => {
        const machine = this.#any();
        this.#cluster.crash(machine, this.#random.chance(0.5), this.#backMs());
        const other = this.#run.other(machine);
        const power = this.#random.chance(0.5);
        this.#later(this.#random.unit() * this.#random.pick([0.5, 20, 1500]), () =>
          this.#cluster.crash(other, power, this.#backMs()));
      },
      'kill-resume': () => this.#killPrimary(),
    };
  }

  /** A successor takes over; perhaps it dies too, or the peer does meanwhile. */
  #killPrimary(): void {
    const { succession } = this.#run;
    const machine = succession.candidate;
    if (machine === undefined) return;
    // Whoever gave a copy up may be replacing it: no successor takes it up again.
    if (machine.node.resource?.isDiskless === true) {
      this.#cluster.crash(machine, false, this.#backMs());
      return;
    }
    succession.kill(machine, this.#backMs(), this.#random.chance(0.3));
    const kind = this.#random.int(10);
    const ms = this.#random.unit() * this.#random.pick([1, 10, 60, 1000]);
    if (kind < 4) this.#later(ms, () => this.#killPrimary());
    else if (kind === 4) {
      const other = this.#run.other(machine);
      const power = this.#random.chance(0.5);
      this.#later(ms, () => this.#cluster.crash(other, power, this.#backMs()));
    } else if (kind === 5) {
      this.#later(ms, () => this.#run.pair.link?.cut());
    }
  }

  /** At some moment of a start, or while it writes metadata; perhaps several times. */
  #crashAgain(machine: Machine, before: boolean): void {
    const { disk } = machine.node;
    // What a killed process left in the cache, the next power cut takes away.
    const power = this.#random.chance(before ? 0.3 : 0.7);
    const strike = (): void => {
      this.#cluster.crash(machine, power, this.#random.unit() * 2);
      if (this.#random.chance(0.6)) this.#crashAgain(machine, power);
    };
    if (this.#random.chance(0.5)) {
      this.#later(0.01 + this.#random.unit() * this.#random.pick([2, 8, 60]), strike);
      return;
    }
    disk.watch = ({ kind }) => {
      if (kind !== 'durable') return;
      disk.watch = () => undefined;
      this.#later(this.#random.unit() * 0.3, strike);
    };
  }

  #network(): Pick<Record<FaultKind, () => void>,
    'cut' | 'stall' | 'one-way' | 'partition' | 'refuse' | 'flip'> {
    const { pair, taps: { links }, counts, options } = this.#run;
    const outage = (): number =>
      this.#random.unit() * this.#random.pick([20, options.timeoutMs * 3]);
    const resume = (): void => {
      for (const link of links) if (this.#random.chance(0.8)) link.resume();
    };
    const reach = (ms: number): void => {
      pair.connected = false;
      this.#later(ms, () => {
        pair.connected = true;
      });
    };
    return {
      cut: () => {
        counts.linkCuts++;
        pair.link?.cut();
      },
      stall: () => {
        counts.stalls++;
        pair.link?.stall();
        this.#later(outage(), resume);
      },
      'one-way': () => {
        counts.stalls++;
        pair.link?.stall(this.#random.int(2) as 0 | 1);
        this.#later(outage(), resume);
      },
      partition: () => {
        counts.linkCuts++;
        reach(outage());
        if (this.#random.chance(0.5)) pair.link?.cut();
        else {
          pair.link?.stall();
          this.#later(outage(), resume);
        }
      },
      refuse: () => reach(outage()),
      flip: () => {
        const end = pair.link?.ends[this.#random.int(2)];
        if (end !== undefined) end.flipNext = true;
      },
    };
  }

  #disks(): Pick<Record<FaultKind, () => void>,
    'slow-disk' | 'hang-disk' | 'eio-write' | 'eio-flush' | 'eio-metadata' | 'latent' |
    'flip-superblock' | 'flip-map' | 'flip-index' | 'flip-hot'> {
    const fail = (kinds: string[]): void => {
      const machine = this.#any();
      const other = this.#run.other(machine);
      // The last good copy does not fail: nothing could be promised then.
      if (other.error !== null || !this.#cluster.mayLose(machine)) return;
      machine.error = { kinds, left: this.#random.chance(0.7) ? 1 : Infinity };
      machine.node.disk.dropsOnFlushError = this.#random.chance(0.5);
    };
    return {
      'slow-disk': () => {
        const { disk } = this.#any().node;
        disk.latency = this.#random.pick<[number, number]>([[20, 400], [0.02, 2000]]);
        this.#later(this.#random.unit() * 4000, () => {
          disk.latency = [0.02, 0.6];
        });
      },
      'hang-disk': () => {
        const { disk } = this.#any().node;
        const only = this.#random.pick(['', 'flush', 'write', 'durable']);
        disk.holds = (op) => only === '' || op.kind === only;
        const ms = this.#random.unit() * this.#random.pick([200, 5000, 20_000]);
        this.#later(ms, () => disk.release());
      },
      'eio-write': () => fail(['write', 'zero']),
      'eio-flush': () => fail(['flush']),
      'eio-metadata': () => fail(['durable']),
      latent: () => this.#latent(),
      'flip-superblock': () => this.#flip('superblock'),
      'flip-map': () => this.#flip('map'),
      'flip-index': () => this.#flip('index'),
      'flip-hot': () => this.#flip('hot'),
    };
  }

  #latent(): void {
    const machine = this.#any();
    const first = machine.dataOffset / 512 + this.#random.int(this.#run.options.mediaSize / 512);
    this.#run.counts.diskFaults++;
    machine.readErrors = true;
    for (let at = 0; at < this.#random.pick([1, 8]); at++) {
      if (first + at < machine.node.disk.size / 512) machine.node.disk.latent.add(first + at);
    }
  }

  /** A stopped node's metadata lose a bit in one of their copies. */
  #flip(what: 'superblock' | 'map' | 'index' | 'hot'): void {
    const machine = this.#any();
    const { node } = machine;
    const { mediaSize, keepDirty } = node.image;
    const layout = layoutFor(mediaSize, keepDirty);
    // Nothing torn beside it: an update in flight at a crash may be in one copy only.
    const isBusy = machine.isDown || machine.isStopping || machine.isPromoting;
    if (isBusy || node.resource === null) return;
    this.#cluster.demote(machine, this.#random.chance(0.3));
    const wait = (): void => {
      if (this.#cluster.isHealing) return;
      if (!machine.isDown) {
        if (machine.isStopping) this.#run.world.after(1, wait);
        return;
      }
      if (node.disk.isBusy) {
        this.#run.world.after(1, wait);
        return;
      }
      // Every update that counted is in both copies, also after a power cut.
      if (this.#random.chance(0.5)) this.#cluster.crash(machine, true, 50);
      const tail = tailOffset(node.disk.size);
      const page = limits.mapPageSize;
      const [at, length] = {
        superblock: [this.#random.pick([0, tail]), limits.superblockSize],
        map: [layout.mapOffset, layout.regionCount * page],
        index: [layout.indexOffset, 2 * layout.indexPageCount * page],
        hot: [layout.hotOffset, layout.hotSlotCount * layout.hotSlotSize],
      }[what] as [number, number];
      const offset = at + this.#random.int(length);
      const value = (node.disk.cache[offset] as number) ^ (1 << this.#random.int(8));
      this.#run.counts.metadataFlips++;
      this.#run.trace.line(machine.name, `a bit of the ${what} flips at ${offset}`);
      node.disk.place(offset, Uint8Array.of(value));
      machine.metadataFlipped(offset);
    };
    this.#run.world.after(1, wait);
  }

  #people(): Pick<Record<FaultKind, () => void>,
    'rollback' | 'recreate' | 'clone' | 'swap' | 'demote' | 'demote-force' | 'promote-other' |
    'force-other' | 'force-both' | 'clock'> {
    const { world } = this.#run;
    const primary = (): Machine =>
      this.#run.machines.find((one) => one.isWorking) ?? this.#any();
    return {
      rollback: () => this.#rollBack(this.#any()),
      recreate: () => {
        const machine = this.#any();
        if (this.#cluster.mayLose(machine)) this.#cluster.replace(machine);
      },
      clone: () => {
        const machine = this.#any();
        const other = this.#run.other(machine);
        if (!this.#cluster.mayLose(machine)) return;
        this.#cluster.crash(machine, true, this.#backMs());
        machine.node.disk.place(0, other.node.disk.cache);
        machine.watchDisk();
        this.#run.rolledBack(machine, 'a clone of the other disk', -1);
      },
      swap: () => {
        const machine = primary();
        this.#cluster.demote(machine, false);
        this.#later(this.#random.unit() * 1000, () =>
          this.#cluster.promote(this.#run.other(machine), false));
      },
      demote: () => this.#cluster.demote(primary(), false),
      'demote-force': () => this.#cluster.demote(primary(), true),
      'promote-other': () => this.#cluster.promote(this.#run.other(primary()), false),
      'force-other': () => this.#cluster.promote(this.#run.other(primary()), true),
      'force-both': () => {
        for (const machine of this.#run.machines) this.#cluster.promote(machine, true);
      },
      clock: () => {
        world.wallOffset = Math.round((this.#random.unit() - 0.5) * 20 * 365 * 86_400);
      },
    };
  }

  /** Takes an image of a stopped disk now, and puts an earlier one back another time. */
  #rollBack(machine: Machine): void {
    if (machine.image === null) {
      this.#cluster.crash(machine, true, this.#backMs());
      machine.image = Buffer.from(machine.node.disk.cache);
      const { ledger } = this.#run;
      machine.imageWrites = ledger.view(machine.node).kind === 'mixed' ? -1 : ledger.writes;
      return;
    }
    if (!this.#cluster.mayLose(machine)) return;
    this.#cluster.crash(machine, true, this.#backMs());
    machine.node.disk.place(0, machine.image);
    machine.image = null;
    machine.watchDisk();
    this.#run.rolledBack(machine, 'an older image of the disk', machine.imageWrites);
  }
}
