/** Faults of the operator's commands, at the wrong moment: disks, resyncs, split brains. */
import type { SimRandom } from '../fixtures/sim-world.ts';
import type { Cluster } from './cluster.ts';
import type { FaultKind } from './fault-kinds.ts';
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';

type OperatorKind = Extract<FaultKind,
  'detach' | 'detach-crash' | 'attach' | 'pause' | 'peer-gone' | 'promote-filling' | 'split' |
  'resolve' | 'handover'>;

/** How long one waits for the former primary to be a complete copy again. */
const handoverMs = 1500;

export class OperatorFaults {
  readonly #run: SimRun;
  readonly #random: SimRandom;
  readonly #cluster: Cluster;
  #isHandingOver = false;

  constructor(run: SimRun) {
    this.#run = run;
    this.#random = run.world.random;
    this.#cluster = run.cluster;
  }

  acts(): Record<OperatorKind, () => void> {
    return {
      detach: () => this.#detach(this.#random.chance(0.8) ? this.#primary() : this.#any()),
      // What the loss of the disk sets off is cut short.
      'detach-crash': () => {
        const machine = this.#primary();
        this.#detach(machine);
        const other = this.#run.other(machine);
        const kind = this.#random.int(4);
        this.#later(this.#random.unit() * this.#random.pick([1, 20, 500]), () => {
          if (kind === 0) this.#run.pair.link?.cut();
          else if (kind === 1) this.#crash(machine);
          else this.#crash(other);
        });
      },
      attach: () => {
        for (const machine of this.#run.machines) this.#cluster.attach(machine);
      },
      pause: () => {
        const { resource } = this.#any().node;
        resource?.operator.pauseResync(true);
        this.#later(this.#random.unit() * 2000, () => resource?.operator.pauseResync(false));
      },
      'peer-gone': () => this.#peerGone(this.#any()),
      'promote-filling': () => this.#promoteFilling(),
      split: () => this.#split(),
      resolve: () => {
        this.#run.resolver.begin(this.#any());
      },
      handover: () => this.#handOver(),
    };
  }

  #primary(): Machine {
    return this.#run.machines.find((one) => one.isWorking) ?? this.#any();
  }

  #any(): Machine {
    return this.#random.pick(this.#run.machines);
  }

  #later(ms: number, run: () => void): void {
    this.#run.world.after(ms, () => {
      if (!this.#cluster.isHealing) run();
    });
  }

  #crash(machine: Machine): void {
    const back = this.#random.unit() * this.#random.pick([5, 300, 3000]);
    this.#cluster.crash(machine, this.#random.chance(0.5), back);
  }

  #detach(machine: Machine): void {
    const { resource, name } = machine.node;
    if (resource === null || machine.isStopping || machine.isPromoting) return;
    // The last good copy is not given up.
    if (resource.role !== 'primary' && !this.#cluster.mayLose(machine)) return;
    this.#run.counts.detaches++;
    resource.operator.detach((refusal) => {
      this.#run.trace.line(name, `detach: ${refusal?.message ?? 'done'}`);
    });
  }

  /** True as a person sees it: the other machine is off, and has nothing of its own. */
  #peerGone(machine: Machine): void {
    const other = this.#run.other(machine);
    const { resource } = machine.node;
    if (resource === null || !other.isDown || !this.#cluster.mayLose(other)) return;
    resource.operator.peerGone((refusal) => {
      this.#run.trace.line(machine.name, `peer-gone: ${refusal?.message ?? 'done'}`);
    });
  }

  /** The target of a sync is to become primary before it is whole. */
  #promoteFilling(): void {
    const isFilling = ({ node }: Machine): boolean =>
      node.phase === 'syncing' || node.phase === 'waiting';
    const target = this.#run.machines.find(isFilling);
    if (target === undefined) {
      // A target is made: the other one misses some writes.
      this.#crash(this.#run.other(this.#primary()));
    }
    let left = 300;
    const look = (): void => {
      const machine = this.#run.machines.find(isFilling);
      if (machine !== undefined) {
        const source = this.#run.other(machine);
        source.node.resource?.operator.pauseResync(true);
        if (source.role === 'primary') this.#cluster.demote(source, false);
        else {
          this.#cluster.promote(machine, false);
          this.#later(500, () => source.node.resource?.operator.pauseResync(false));
          return;
        }
      }
      if (left-- > 0) this.#later(5, look);
    };
    look();
  }

  /** The primary dies and comes back, the other one takes over, and what that sets off breaks. */
  #handOver(): void {
    const former = this.#run.machines.find((one) => one.isWorking);
    if (former === undefined || this.#isHandingOver) return;
    const next = this.#run.other(former);
    this.#isHandingOver = true;
    this.#cluster.lookAway(handoverMs);
    this.#cluster.crash(former, this.#random.chance(0.3), this.#random.unit() * 50);
    const end = this.#run.world.now() + handoverMs;
    const look = (): void => {
      const isReady = this.#run.machines.every((one) => one.node.phase === 'complete');
      if (isReady) {
        this.#cluster.promote(next, false);
        const ms = this.#random.unit() * this.#random.pick([1, 20, 200, 1000]);
        this.#later(ms, () => this.#breakHandover(former, next));
      } else if (this.#run.world.now() < end) {
        this.#later(5, look);
        return;
      }
      this.#isHandingOver = false;
    };
    look();
  }

  #breakHandover(former: Machine, next: Machine): void {
    const kind = this.#random.int(4);
    if (kind < 2) this.#run.pair.link?.cut();
    else this.#crash(former);
    if (kind === 3) this.#later(this.#random.unit() * 20, () => this.#crash(next));
  }

  /** Both are primary for a while, each on its own; then a person decides. */
  #split(): void {
    const { pair, machines, counts } = this.#run;
    counts.linkCuts++;
    pair.connected = false;
    pair.link?.cut();
    this.#later(20 + this.#random.unit() * 600, () => {
      for (const machine of machines) this.#cluster.promote(machine, true);
    });
    this.#later(800 + this.#random.unit() * 2000, () => {
      pair.connected = true;
      for (const machine of machines) {
        if (this.#random.chance(0.7)) this.#cluster.demote(machine, false);
      }
    });
    const tries = this.#random.int(12);
    for (let at = 0; at < tries; at++) {
      this.#later(1500 + this.#random.unit() * 12_000, () => {
        this.#run.resolver.begin(this.#any());
      });
    }
  }
}
