/**
 * One run: a pair of real cores in a simulated world, driven by a seed through a phase of load and
 * faults, then healed, and watched at every step.
 */
import { DataState, SuperblockFlag } from '../../lib/format/superblock.ts';
import { AppOp } from '../../lib/core/ports.ts';
import type { SimNode, SimRequest } from '../fixtures/sim-node.ts';
import { SimPair } from '../fixtures/sim-pair.ts';
import type { SimWorld } from '../fixtures/sim-world.ts';
import { Chaos } from './chaos.ts';
import { boundsProblem } from './checks/bounds.ts';
import { GenerationCheck } from './checks/generations.ts';
import { keeperProblem } from './checks/keeper.ts';
import { LastPrimaryCheck } from './checks/last-primary.ts';
import { MarksCheck } from './checks/marks.ts';
import { ForkCheck } from './checks/forks.ts';
import { Cluster } from './cluster.ts';
import type { Entry } from './copy-view.ts';
import { noCounts, type Counts } from './counts.ts';
import { Ledger, type LedgerHost } from './ledger.ts';
import { Machine } from './machine.ts';
import { describeOptions, type SimOptions } from './options.ts';
import { finish } from './finish.ts';
import { LinkTaps } from './link-taps.ts';
import { RemoteWatch } from './remote.ts';
import { Resolver } from './resolver.ts';
import { Succession } from './succession.ts';
import { SyncWatch, targetPhases } from './syncs.ts';
import { Trace } from './trace.ts';

const stepsMax = 400_000;

export interface RunResult {
  counts: Counts;
  hash: string;
}

export interface RunSettings {
  print: ((line: string) => void) | null;
  /** Every frame and every request too. */
  verbose: boolean;
}

export class SimRun implements LedgerHost {
  readonly options: SimOptions;
  readonly pair: SimPair;
  readonly world: SimWorld;
  readonly trace: Trace;
  readonly ledger: Ledger;
  readonly marks: MarksCheck;
  readonly forks: ForkCheck;
  readonly lastPrimary = new LastPrimaryCheck(this);
  readonly machines: readonly [Machine, Machine];
  readonly cluster: Cluster;
  readonly counts: Counts = noCounts();
  readonly taps: LinkTaps;
  readonly syncs: SyncWatch;
  readonly remote: RemoteWatch;
  readonly resolver: Resolver;
  readonly succession = new Succession(this);
  requestsLeft: number;
  readonly #generations = new GenerationCheck();
  readonly #verbose: boolean;
  #reigns = 0;
  #era = 0;

  constructor(options: SimOptions, settings: RunSettings) {
    this.options = options;
    this.#verbose = settings.verbose;
    const { seed, mode, mediaSize, extentSize, keepDirty, zeroed, checksum, compression } = options;
    const { timeoutMs, diskTimeoutMs, onNoData, asyncLagBytes, asyncLagMs, resyncRate } = options;
    this.pair = new SimPair({
      seed, mode, mediaSize, extentSize, keepDirty, zeroed, timeoutMs, linkDelay: options.linkMs,
      wire: { checksum, compression, compressor: null },
      core: { diskTimeoutMs, onNoData, asyncLagBytes, asyncLagMs, resyncRate },
    });
    this.world = this.pair.world;
    this.trace = new Trace(() => this.world.now(), settings.print);
    this.requestsLeft = options.app.count;
    const initial = { a: initialId('a', zeroed), b: initialId('b', zeroed) };
    this.ledger = new Ledger(mediaSize, initial, mode === 'async', this);
    this.marks = new MarksCheck(this.pair.a.geometry.dataOffset, mediaSize);
    this.machines = [new Machine(this, this.pair.a), new Machine(this, this.pair.b)];
    this.forks = new ForkCheck(this);
    this.cluster = new Cluster(this);
    for (const machine of this.machines) machine.listen();
    this.taps = new LinkTaps(this, settings.verbose);
    this.syncs = new SyncWatch(this);
    this.remote = new RemoteWatch(this);
    this.resolver = new Resolver(this);
  }

  /** Throws what is wrong. */
  run(): RunResult {
    this.trace.note('', describeOptions(this.options));
    for (const machine of this.machines) this.cluster.start(machine);
    this.cluster.begin();
    const chaos = new Chaos(this);
    const end = this.world.now() + 120_000;
    while (!chaos.isOver && this.world.now() < end) {
      this.step();
      chaos.poll();
    }
    finish(this);
    const { counts, ledger, world } = this;
    counts.writes = ledger.writes;
    counts.flushes = ledger.flushes;
    counts.reads = ledger.reads;
    counts.errors = ledger.failed;
    counts.markChecks = this.marks.checks;
    counts.steps = world.steps;
    counts.simulatedMs = Math.round(world.now());
    this.trace.mix(world.steps);
    this.trace.mix(world.random.next32());
    return { counts, hash: this.trace.hash };
  }

  other(machine: Machine): Machine {
    return this.machines[0] === machine ? this.machines[1] : this.machines[0];
  }

  machine(node: SimNode): Machine {
    return this.machines[0].node === node ? this.machines[0] : this.machines[1];
  }

  fail(text: string): never {
    throw new Error(text);
  }

  step(): void {
    const { world, machines, marks } = this;
    if (!world.step()) this.fail('nothing is left to happen');
    if (world.steps > stepsMax) this.fail(`more than ${stepsMax} steps`);
    for (const machine of machines) this.#observe(machine);
    const [one, other] = machines;
    const problem = marks.problem(
      { disk: one.node.disk, meta: one.meta }, { disk: other.node.disk, meta: other.meta },
    );
    if (problem !== null) this.fail(`marks: ${problem}`);
    if ((world.steps & 63) === 0) this.#checkBounds();
  }

  pass(ms: number): void {
    let over = false;
    this.world.after(ms, () => {
      over = true;
    });
    while (!over) this.step();
  }

  until(done: () => boolean, maxMs: number): boolean {
    const end = this.world.now() + maxMs;
    while (!done()) {
      if (this.world.now() > end) return false;
      this.step();
    }
    return true;
  }

  // LedgerHost

  mayFail(node: SimNode, request: SimRequest, era: number): boolean {
    const machine = this.machine(node);
    const { failed, remote, context } = node.running;
    if (failed || machine.isForced) return true;
    const isServed = node.phase === 'remote' || node.phase === 'rejoining';
    if (remote.isActive && context.options.onNoData === 'fail' && !isServed) return true;
    if (request.op !== AppOp.read) return false;
    const isBad = ({ diskErrors, readErrors }: Machine): boolean => diskErrors > 0 || readErrors;
    const other = this.other(machine);
    // The peer's data answer, where there is a complete peer all the time.
    const hasPeer = era === this.#era && (isServed || node.phase === 'complete');
    return isBad(other) || (!hasPeer && isBad(machine));
  }

  era(): number {
    return this.#era;
  }

  mayBeOld(node: SimNode): boolean {
    return this.machine(node).isOrphaned;
  }

  acknowledgedRemotely(node: SimNode, entry: Entry): void {
    this.remote.acknowledged(node, entry);
  }

  acknowledged(node: SimNode, alone: boolean): void {
    const machine = this.machine(node);
    const other = this.other(machine);
    if (alone) this.counts.acksAlone++;
    const isRemote = node.running.remote.isActive;
    const record = isRemote ? this.remote.recordProblem(machine) : null;
    if (record !== null) this.fail(`${node.name}: ${record}`);
    this.#checkKeeper(machine);
    const problem = machine.reign === 0
      ? 'acknowledged by a node that was not promoted'
      : this.#generations.problem(
          machine.reign, machine.before, (isRemote ? other : machine).meta.superblock(),
          // A clone shares everything, which is what makes it one.
          this.ledger.view(other.node).isTainted ? null : other.meta.superblock(), alone,
        );
    if (problem !== null) this.fail(`${node.name}: ${problem}`);
  }

  #checkKeeper(machine: Machine): void {
    const other = this.other(machine);
    // By force anybody acknowledges; and an older image knows nothing of what it is.
    const isExempt = machine.isForcing || machine.node.running.remote.isActive ||
      [machine, other].some((one) => this.ledger.view(one.node).isTainted);
    if (isExempt) return;
    const problem = keeperProblem(machine.meta.superblock(), other.meta.superblock());
    if (problem !== null) this.fail(`${machine.name}: ${problem}`);
  }

  writing(node: SimNode): void {
    const other = this.other(this.machine(node));
    if (targetPhases.has(other.phase)) this.ledger.view(other.node).kind = 'mixed';
  }

  answered(node: SimNode, request: SimRequest): void {
    if (!this.#verbose) return;
    const { op, offset, length, errno } = request;
    this.trace.note(node.name, `answer op=${op} ${offset}+${length} errno=${errno}`);
  }

  // What happened to roles and copies

  /** The answer to a promotion that was not refused; `kept`: what the kernel sends again. */
  promoted(machine: Machine, forced: boolean, kept: readonly SimRequest[] = []): void {
    const { ledger, trace, counts } = this;
    const { node } = machine;
    const other = this.other(machine);
    const view = ledger.view(node);
    const follower = ledger.view(other.node);
    this.syncs.adoptedUnheard(machine);
    trace.line(node.name, `promoted${forced ? ' by force' : ''}, copy ${view.kind}`);
    counts.promotions++;
    if (forced) counts.forced++;
    if (view.leader === other.name) counts.failovers++;
    if (machine.isRemote || node.running.remote.isActive) {
      machine.reign = ++this.#reigns;
      machine.app.begin(kept);
      return;
    }
    if (other.isRemote) other.isOrphaned = true;
    // Who says that the peer is gone takes what is there.
    const isGone = (machine.meta.superblock()?.flags ?? 0) & SuperblockFlag.peerGone;
    const isStale = view.kind === 'mixed' && !view.isTainted && isGone === 0;
    if (isStale && !forced) {
      this.fail(`${node.name}: a half-finished copy was promoted without force`);
    }
    // A rolled back copy, forced: a person gave up what was written since.
    if (forced && view.isTainted) follower.unique = 0;
    this.lastPrimary.promoted(machine, forced);
    const problem = ledger.problem(node, node.disk.cache, machine.dataOffset, false);
    if (problem !== null) this.fail(`promotion: ${problem}`);
    view.adopt(node.disk.cache, machine.dataOffset);
    view.kind = 'exact';
    view.isTainted = false;
    view.leader = null;
    if (node.phase === 'complete' && other.node.phase === 'complete') {
      this.mustBeEqual('at a promotion');
      this.syncs.follow(other, machine);
    } else {
      this.forks.forked(machine);
      // What it holds of the other one's tail is another history now.
      if (follower.leader === node.name && !node.running.aloneRecorded) follower.leader = null;
    }
    machine.reign = ++this.#reigns;
    machine.app.begin(kept);
  }

  /** The process of a node ended; with `power` the machine. */
  crashed(machine: Machine, power: boolean): void {
    const { ledger, counts } = this;
    const { node } = machine;
    this.#ended(machine, !power);
    if (power) {
      counts.powerCuts++;
      this.syncs.losesPower(machine);
      ledger.collapse(node, node.disk.durable, machine.dataOffset);
    } else {
      counts.kills++;
    }
    this.remote.crashed(machine);
  }

  /** The process is gone; with `lossy` what it had received and not executed is too. */
  #ended(machine: Machine, lossy: boolean): void {
    const view = this.ledger.view(machine.node);
    const mayLack = lossy && machine.role !== 'primary' && this.options.mode === 'memsync';
    machine.reign = 0;
    machine.role = 'none';
    machine.phase = 'none';
    machine.isPromoting = machine.isStopping = machine.isForced = machine.isAttaching = false;
    machine.isRemote = machine.isOrphaned = false;
    this.succession.giveUp(machine);
    this.ledger.forgetOpen(machine.node);
    machine.diskErrors = 0;
    if (mayLack) view.rollBackAll();
    view.leader = null;
    this.#forgetContact(machine);
  }

  /** What it was told and did not record, the next process does not know: still a new copy. */
  #forgetContact(machine: Machine): void {
    const view = this.ledger.view(machine.node);
    const block = machine.meta.superblock();
    const isNew = block !== null && block.generation === 0n && block.peerCopyId === 0n &&
      block.dataState === DataState.consistent;
    if (view.kind !== 'mixed' || view.isTainted || !isNew) return;
    view.adopt(machine.node.disk.cache, machine.dataOffset);
    view.kind = 'exact';
  }

  /** The core of a node ended cleanly. */
  stopped(machine: Machine): void {
    // A frame that comes in the last moment is received and never written.
    this.#ended(machine, true);
    this.trace.line(machine.name, 'stopped');
  }

  /** A new copy on a new disk. */
  recreated(machine: Machine): void {
    const { ledger } = this;
    const view = ledger.view(machine.node);
    view.adopt(machine.node.disk.cache, machine.dataOffset);
    view.kind = 'exact';
    view.isTainted = false;
    view.leader = null;
    view.isRelated = false;
    this.#lost(machine);
  }

  /** A running primary without a copy gets a new disk. */
  exchanged(machine: Machine): void {
    this.ledger.view(machine.node).isRelated = false;
    this.#lost(machine);
  }

  /** The disk holds what it held earlier, or what another one holds. */
  rolledBack(machine: Machine, what: string, writes: number): void {
    this.trace.line(machine.name, what);
    const { ledger, marks } = this;
    const { node, dataOffset } = machine;
    const view = ledger.view(node);
    const other = this.other(machine).node;
    marks.isMeaningful = false;
    this.lastPrimary.forget();
    // Put back what was taken away before, and nothing happened since: nobody lacks anything.
    const isLatest = writes === ledger.writes || node.data().equals(other.data());
    if (isLatest) ledger.view(other).unique = 0;
    const wasExact = view.kind === 'exact' && view.unique === 0;
    view.isTainted = true;
    view.isRelated = false;
    // Nothing was written since: nothing is lost.
    if (wasExact && ledger.problem(node, node.disk.cache, dataOffset, false) === null) return;
    view.kind = 'mixed';
    view.leader = null;
    if (!isLatest) this.#lost(machine);
  }

  /** What this copy held is gone: the other one is the only one that has it. */
  #lost(machine: Machine): void {
    this.lastPrimary.forget();
    machine.adopting = null;
    this.other(machine).isSourceLost = true;
    const { ledger, marks } = this;
    const view = ledger.view(machine.node);
    view.unique = 0;
    view.hasForked = true;
    marks.isMeaningful = false;
    const other = ledger.view(this.other(machine).node);
    if (other.leader === machine.name) other.leader = null;
    if (ledger.hasData(other) && other.kind !== 'mixed') other.unique++;
  }

  /** The core of a node runs again. */
  started(machine: Machine): void {
    // What a crash left of its metadata may have become unreadable since.
    this.#forgetContact(machine);
    const problem = this.ledger.problem(
      machine.node, machine.node.disk.cache, machine.dataOffset, false,
    );
    if (problem !== null) this.fail(`after a start: ${problem}`);
  }

  describe(): string {
    const views = this.machines.map((machine) => {
      const { kind, unique, leader, hasForked } = this.ledger.view(machine.node);
      return `${machine.name}: view ${kind} unique=${unique} leader=${leader} forked=${hasForked}`;
    });
    return `${this.pair.describe()}\n${views.join('\n')}`;
  }

  #observe(machine: Machine): void {
    const { node } = machine;
    const { phase } = node;
    if (phase !== machine.phase) {
      const before = machine.phase;
      machine.phase = phase;
      this.#era++;
      this.trace.line(node.name, `${before} -> ${phase}`);
      this.syncs.observe(machine, before);
    }
    this.remote.observe(machine);
    this.lastPrimary.observe(machine);
    const role = node.resource?.role ?? 'none';
    if (role !== machine.role) {
      if (machine.role === 'none') this.started(machine);
      if (role === 'primary') this.#takesRole(machine);
      machine.role = role;
      this.trace.line(node.name, `role ${role}`);
    }
  }

  /** Durable soon, whether or not the promotion is ever answered. */
  #takesRole(machine: Machine): void {
    this.lastPrimary.takesRole(machine);
    machine.before = machine.meta.superblock()?.generation ?? 0n;
    const view = this.ledger.view(machine.node);
    if (machine.isForcing && view.kind === 'mixed') view.isTainted = true;
  }

  mustBeEqual(when: string): void {
    const difference = this.pair.difference();
    if (difference !== -1) this.fail(`${when} block ${difference} differs`);
  }

  #checkBounds(): void {
    for (const { node } of this.machines) {
      const problem = boundsProblem(node, this.options.app.depth);
      if (problem !== null) this.fail(`bounds: ${problem}`);
    }
  }
}

function initialId(name: string, zeroed: boolean): number {
  return zeroed ? 0 : Buffer.alloc(4, name).readUInt32LE(0);
}
