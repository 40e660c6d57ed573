/**
 * A person ends a split brain: looks first (sometimes), keeps what goes (sometimes), and decides.
 * Also takes the decision back. What the core says of it is checked on the spot.
 */
import { limits } from '../../lib/format/limits.ts';
import { DiscardSide, type ResolveResult } from '../../lib/core/operator.ts';
import type { UndoSink, UndoSource } from '../../lib/core/ports.ts';
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';

interface Kept {
  offset: number;
  data: Buffer;
}

const { blockSize } = limits;

/** What a resolution overwrites, in memory. */
class MemoryUndo implements UndoSink {
  readonly kept: Kept[] = [];
  isSealed = false;
  readonly #run: SimRun;
  readonly #onSeal: () => void;
  #isBusy = false;

  constructor(run: SimRun, onSeal: () => void) {
    this.#run = run;
    this.#onSeal = onSeal;
  }

  add(offset: number, data: Buffer, at: number, length: number, done: (errno: number) => void):
  void {
    this.#turn();
    this.kept.push({ offset, data: Buffer.from(data.subarray(at, at + length)) });
    this.#later(() => done(0));
  }

  seal(done: (errno: number) => void): void {
    this.#turn();
    this.#later(() => {
      this.isSealed = true;
      this.#onSeal();
      done(0);
    });
  }

  #turn(): void {
    if (this.isSealed || this.#isBusy) this.#run.fail('the undo file is written out of turn');
  }

  #later(then: () => void): void {
    this.#isBusy = true;
    this.#run.world.between(0.1, 5, () => {
      this.#isBusy = false;
      then();
    });
  }
}

export class Resolver {
  /** What the latest decision overwrote. */
  kept: Kept[] | null = null;
  readonly #run: SimRun;
  /** The core that was asked, while it has not answered. */
  #asked: { machine: Machine; core: object } | null = null;

  constructor(run: SimRun) {
    this.#run = run;
  }

  get isBusy(): boolean {
    return this.#asked !== null && this.#asked.machine.node.resource === this.#asked.core;
  }

  /** Both copies are equal: what a decision forbade that was never answered holds no longer. */
  joined(): void {
    for (const machine of this.#run.machines) machine.guard = () => undefined;
  }

  /** True where something was begun. */
  begin(loser: Machine): boolean {
    const { world: { random }, cluster } = this.#run;
    const winner = this.#run.other(loser);
    const areSplit = [loser, winner].every(({ node, isStopping, isPromoting }) =>
      node.resource?.refusal?.reason === 'split-brain' && !isStopping && !isPromoting &&
      !node.resource.failed && !node.resource.isDiskless);
    if (this.isBusy || !areSplit) return false;
    if (loser.node.resource?.role === 'primary') {
      cluster.demote(loser, true);
      return true;
    }
    const asking = random.pick([loser, winner]);
    this.#ask(asking, loser, random.chance(0.5));
    return true;
  }

  /** Puts back what was overwritten, on `machine`; both are secondary and complete. */
  undo(machine: Machine, done: (refusal: string | null) => void): void {
    const kept = this.kept ?? [];
    const run = this.#run;
    const { node, dataOffset } = machine;
    const wanted = Buffer.from(node.data());
    for (const { offset, data } of kept) data.copy(wanted, offset);
    let at = 0;
    const source: UndoSource = {
      next: (then) => run.world.between(0.1, 1, () => then(0, kept[at++] ?? null)),
    };
    run.trace.line(node.name, 'puts back what was overwritten');
    run.lastPrimary.forget();
    node.running.operator.undo(source, (refusal) => {
      if (refusal === null) {
        if (!wanted.equals(node.data())) run.fail('what was put back is not what was kept');
        const view = run.ledger.view(node);
        const other = run.ledger.view(run.other(machine).node);
        view.adopt(node.disk.cache, dataOffset);
        view.kind = 'exact';
        view.leader = other.leader = null;
        view.unique++;
        other.unique = 0;
        run.counts.undone++;
        this.kept = null;
      }
      done(refusal?.message ?? null);
    });
  }

  #ask(asking: Machine, loser: Machine, dryRun: boolean): void {
    const run = this.#run;
    const { random } = run.world;
    const core = asking.node.running;
    const view = run.ledger.view(loser.node);
    const winner = run.other(loser);
    const before = [Buffer.from(loser.node.data()), Buffer.from(winner.node.data())] as const;
    const loserCore = loser.node.resource;
    let isGuarded = true;
    const mayWrite = (): boolean =>
      !isGuarded || loser.node.resource !== loserCore || loser.role === 'primary';
    const undo = !dryRun && random.chance(0.7) ? new MemoryUndo(run, () => {
      if (loser.node.resource === loserCore && loser.role !== 'primary') {
        this.#checkKept(undo as MemoryUndo, loser, before[1]);
      }
      isGuarded = false;
    }) : null;
    if (undo === null && !dryRun) isGuarded = false;
    loser.guard = () => {
      if (!mayWrite()) run.fail(`${loser.name} is overwritten before it is decided, or kept`);
    };
    run.trace.line(asking.name, `resolves: ${loser.name} gives up, ` +
      `${dryRun ? 'dry run' : undo === null ? 'nothing kept' : 'kept'}`);
    if (!dryRun) {
      view.isGivenUp = true;
      run.lastPrimary.forget();
    }
    this.#asked = { machine: asking, core };
    core.operator.resolve({
      discard: asking === loser ? DiscardSide.local : DiscardSide.peer, dryRun, undo,
    }, (result) => {
      if (asking.node.resource !== core) return;
      this.#asked = null;
      isGuarded = false;
      this.#answered(asking, loser, dryRun, undo, result);
    });
  }

  #answered(
    asking: Machine, loser: Machine, dryRun: boolean, undo: MemoryUndo | null,
    result: ResolveResult,
  ): void {
    const run = this.#run;
    run.trace.line(asking.name, `resolved: ${result.refusal?.message ?? 'yes'}`);
    if (result.refusal !== null) {
      // Whoever hears this believes that the loser's writes are still there.
      run.ledger.view(loser.node).isGivenUp = false;
      return;
    }
    if (dryRun) {
      const maps = run.machines.map(({ node }) => node.resource?.context.tracker.peerStale.count);
      run.trace.line(asking.name, `would copy ${result.copyBytes} bytes (${maps.join(', ')})`);
      return;
    }
    run.counts.resolutions++;
    if (undo !== null && !undo.isSealed) run.fail('resolved with an undo file that is not whole');
    this.kept = undo?.kept ?? null;
  }

  /** Every block in which the copies differed is kept, as the loser has it. */
  #checkKept(undo: MemoryUndo, loser: Machine, winner: Buffer): void {
    const image = loser.node.data();
    const restored = Buffer.from(winner);
    for (const { offset, data } of undo.kept) {
      if (!data.equals(image.subarray(offset, offset + data.length))) {
        this.#run.fail(`what is kept at ${offset} is not what ${loser.name} holds`);
      }
      data.copy(restored, offset);
    }
    for (let at = 0; at < image.length; at += blockSize) {
      if (image.compare(restored, at, at + blockSize, at, at + blockSize) !== 0) {
        this.#run.fail(`block ${at / blockSize} of ${loser.name} is overwritten and not kept`);
      }
    }
  }
}
