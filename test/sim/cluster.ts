/**
 * The operator and the machines' init system: starts what is down, keeps one node primary, mends
 * what the core says a person must mend. `heal` is a careful operator; before it, a human one.
 */
import type { SimRandom } from '../fixtures/sim-world.ts';
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';
import { targetPhases } from './syncs.ts';

export class Cluster {
  isHealing = false;
  /** Nobody acts: the run looks at an idle pair. */
  isIdle = false;
  readonly #run: SimRun;
  readonly #random: SimRandom;
  /** Simulated milliseconds since when the pair needs a person, by what for. */
  readonly #since = new Map<string, number>();
  #preferred = 0;
  #lastReason = '';
  #awayUntil = 0;

  constructor(run: SimRun) {
    this.#run = run;
    this.#random = run.world.random;
  }

  begin(): void {
    this.#tickLater();
  }

  /** The human operator does nothing for `ms`. */
  lookAway(ms: number): void {
    this.#awayUntil = this.#run.world.now() + ms;
  }

  start(machine: Machine): void {
    machine.isDown = false;
    if (machine.node.resource !== null || machine.node.isStarting) return;
    this.#endSuccession(machine);
    machine.node.start();
  }

  /** The process dies, or the machine; it comes back after `backMs`. */
  crash(machine: Machine, power: boolean, backMs: number): void {
    const { world, trace } = this.#run;
    trace.line(machine.name, power ? 'power cut' : 'killed');
    machine.node.crash(power, this.#random.chance(0.3));
    this.#run.crashed(machine, power);
    machine.isDown = true;
    world.after(backMs, () => {
      if (machine.isDown) this.start(machine);
    });
  }

  promote(machine: Machine, force: boolean): void {
    const { node } = machine;
    const { resource } = node;
    const busy = machine.isPromoting || machine.isStopping;
    if (resource === null || busy || resource.role === 'primary') return;
    this.#run.trace.line(node.name, `asked to be primary${force ? ', force' : ''}`);
    machine.isPromoting = true;
    machine.isForcing = force;
    resource.promote(force, this.#random.pick([300, 4000]), (refusal) => {
      if (node.resource !== resource) return;
      machine.isPromoting = false;
      if (refusal === null) this.#run.promoted(machine, force);
      else this.#run.trace.line(node.name, `refused: ${refusal.message}`);
    });
  }

  /** Leaves the role and starts again as secondary. */
  demote(machine: Machine, force: boolean): void {
    const { node } = machine;
    const { resource } = node;
    if (resource === null || machine.isStopping || machine.isPromoting) return;
    this.#run.trace.line(node.name, `asked to be secondary${force ? ', force' : ''}`);
    machine.isStopping = true;
    machine.isForced = force;
    resource.stop(force, () => {
      if (node.resource !== resource) return;
      node.exit();
      this.#run.stopped(machine);
      machine.isDown = true;
      this.#run.world.between(0, 50, () => {
        if (machine.isDown) this.start(machine);
      });
    });
  }

  /** The other copy has all that this one has, and can stand alone. */
  mayLose(machine: Machine): boolean {
    const { ledger } = this.#run;
    const other = this.#run.other(machine);
    // A primary without its own copy has all it needs here, whatever its old disk holds.
    if (other.isRemote) return false;
    // A target counts as a copy no longer, also before a byte of it has changed.
    if (targetPhases.has(other.node.phase)) return false;
    return ledger.view(machine.node).unique === 0 && ledger.view(other.node).kind !== 'mixed';
  }

  /** A new disk, created anew. */
  replace(machine: Machine): void {
    const { node } = machine;
    this.#run.counts.replacements++;
    this.crash(machine, true, 1 + this.#random.int(200));
    this.#run.trace.line(node.name, 'a new disk, created anew');
    node.disk = node.newDisk({ ...node.image, copyId: this.#random.id64() });
    machine.watchDisk();
    machine.error = null;
    this.#run.recreated(machine);
  }

  /** The same disk, where nothing of it hangs, or a new one. */
  attach(machine: Machine): void {
    const { node } = machine;
    const { resource } = node;
    const isBusy = machine.isAttaching || machine.isStopping || machine.isPromoting;
    if (resource?.isDiskless !== true || isBusy) return;
    const { isConfirmed } = resource.remote;
    const isFresh = isConfirmed && (machine.isDiskBad || this.#random.chance(0.4));
    if (!isFresh && !node.disk.isIdle) return;
    if (isFresh) {
      node.exchange(node.newDisk({ ...node.image, copyId: this.#random.id64() }));
      machine.watchDisk();
      machine.error = null;
      machine.isDiskBad = machine.readErrors = false;
      this.#run.exchanged(machine);
      this.#run.counts.replacements++;
    } else if (isConfirmed && this.#random.chance(0.3)) {
      // Pulled out and put back: what it had not flushed is gone.
      this.#run.trace.line(node.name, 'its disk loses power');
      node.disk.crash(true);
    }
    this.#run.trace.line(node.name, `attaches ${isFresh ? 'a new' : 'its'} disk`);
    this.#run.counts.attaches++;
    machine.isAttaching = true;
    const answer = node.attach();
    const wait = (): void => {
      if (node.resource !== resource) return;
      if (!answer.done) {
        this.#run.world.after(5, wait);
        return;
      }
      machine.isAttaching = false;
      machine.isDiskBad = answer.refusal !== null && !answer.refusal.message.startsWith('the peer');
      this.#run.trace.line(node.name, `attach: ${answer.refusal?.message ?? 'done'}`);
    };
    wait();
  }

  #tickLater(): void {
    const [low, high] = this.isHealing ? [50, 300] : this.#run.options.operatorMs;
    this.#run.world.between(low, high, () => {
      if (!this.isIdle) {
        if (this.isHealing) this.#heal();
        else if (this.#run.world.now() >= this.#awayUntil) this.#look();
      }
      this.#tickLater();
    });
  }

  #look(): void {
    const { machines, options } = this.#run;
    for (const machine of machines) this.#mend(machine);
    if (machines.some((one) => one.role === 'primary' || one.isPromoting)) return;
    if (this.#random.chance(0.2)) this.#preferred = 1 - this.#preferred;
    const machine = machines[this.#preferred] as Machine;
    this.promote(machine, this.#random.chance(options.force));
    if (machine.node.resource === null) this.#preferred = 1 - this.#preferred;
  }

  /** A core that does not run, or says it failed. */
  #mend(machine: Machine): void {
    const { node } = machine;
    const { resource } = node;
    if (resource === null) {
      if (node.isStarting || machine.isDown) return;
      if (node.openError === null) this.start(machine);
      else this.#cannotStart(machine);
      return;
    }
    if (resource.isDiskless && !resource.failed) {
      if (this.isHealing || this.#random.chance(0.3)) this.attach(machine);
      return;
    }
    if (!resource.failed || machine.isStopping) return;
    if (!resource.failure.startsWith('the local copy failed')) {
      this.demote(machine, true);
      return;
    }
    if (this.#random.chance(0.5) && this.mayLose(machine)) this.replace(machine);
    else this.crash(machine, this.#random.chance(0.3), this.#random.int(300));
  }

  #cannotStart(machine: Machine): void {
    const { node } = machine;
    this.#run.trace.line(node.name, `cannot start: ${node.openError?.message}`);
    if (machine.error !== null || machine.diskErrors > 0) {
      machine.error = null;
      machine.diskErrors = 0;
      node.drop();
      node.openError = null;
      return;
    }
    this.replace(machine);
  }

  #heal(): void {
    const { machines, forks } = this.#run;
    for (const machine of machines) {
      this.#endWait(machine);
      this.#mend(machine);
    }
    const problem = forks.problem();
    if (problem !== null) this.#run.fail(problem);
    const isBusy = machines.some((one) => one.isStopping || one.isPromoting);
    if (isBusy || machines.some((one) => one.node.resource === null)) return;
    for (const { node } of machines) {
      if (node.resource?.resyncPaused === true) node.resource.operator.pauseResync(false);
    }
    if (this.#run.resolver.isBusy) return;
    if (this.#settleRefusal()) return;
    this.#keepPrimary();
    this.#retryResync();
  }

  /** A successor that waits for what does not come: a person gives the device up. */
  #endWait(machine: Machine): void {
    const what = `the successor on ${machine.name}`;
    if (!machine.isResuming) this.#since.delete(what);
    else if (this.#waited(what) > 20_000) this.crash(machine, false, 1);
  }

  #endSuccession(machine: Machine): void {
    if (!machine.isResuming) return;
    this.#run.succession.giveUp(machine);
    machine.isPromoting = false;
  }

  /** A block that could not be read is tried again by the next session only. */
  #retryResync(): void {
    const { machines, pair } = this.#run;
    const copying = machines.find((one) => one.node.phase === 'copying');
    const resync = copying?.node.resource?.session?.source.resync ?? null;
    const isStuck = resync !== null && !resync.isIdle && copying?.readErrors === true;
    if (!isStuck || this.#waited('a resync') < 20_000) return;
    this.#since.delete('a resync');
    copying.readErrors = false;
    pair.link?.cut();
  }

  /** True where the two nodes do not connect until a person acts. */
  #settleRefusal(): boolean {
    const reasons = this.#run.machines.map((one) => one.node.resource?.refusal?.reason ?? null);
    const reason = reasons.find((one) => one !== null) ?? null;
    if (reason === null) {
      this.#since.delete(this.#lastReason);
      return false;
    }
    this.#lastReason = reason;
    const waited = this.#waited(reason);
    // Both must have heard of it, each in a handshake of its own.
    const both = reasons.every((one) => one !== null);
    if (!both && waited < 40_000) return true;
    if (!both) this.#run.fail(`only one node reports "${reason}"`);
    if (waited < 100) return true;
    this.#since.clear();
    switch (reason) {
      case 'split-brain': case 'unrelated': case 'same-copy':
        this.#giveUpOne(reason);
        break;
      case 'both-primary': case 'primary-is-behind': this.#demoteOne(); break;
      default: this.#forceOne();
    }
    return true;
  }

  #waited(what: string): number {
    const now = this.#run.world.now();
    const since = this.#since.get(what) ?? now;
    this.#since.set(what, since);
    return now - since;
  }

  /** A person chooses; or the loser of a split brain is created anew. */
  #giveUpOne(reason: string): void {
    const { machines, ledger } = this.#run;
    const kinds = machines.map((one) => ledger.view(one.node));
    const exact = kinds.findIndex((view) => view.kind !== 'mixed');
    const winner = kinds.every((view) => view.kind !== 'mixed')
      ? this.#random.int(2) : Math.max(0, exact);
    const loser = machines[1 - winner] as Machine;
    const resolves = reason === 'split-brain' && this.#random.chance(0.8);
    if (resolves && this.#run.resolver.begin(loser)) return;
    // What only the loser has is given up by a person.
    ledger.view(loser.node).unique = 0;
    this.replace(loser);
  }

  #demoteOne(): void {
    const { machines, ledger } = this.#run;
    const primaries = machines.filter((one) => one.node.resource?.role === 'primary');
    const idle = primaries.find((one) => ledger.view(one.node).unique === 0);
    const machine = idle ?? primaries[0];
    if (machine !== undefined) this.demote(machine, true);
  }

  #forceOne(): void {
    const machine = this.#random.pick(this.#run.machines);
    if (machine.node.resource?.role === 'primary') this.demote(machine, true);
    else this.promote(machine, true);
  }

  #keepPrimary(): void {
    const { machines } = this.#run;
    const primaries = machines.filter((one) => one.node.resource?.role === 'primary');
    if (primaries.length > 1 && this.#waited('two primaries') > 15_000) this.#demoteOne();
    if (primaries.length > 0) return;
    this.#preferred = 1 - this.#preferred;
    this.promote(machines[this.#preferred] as Machine, false);
  }
}
