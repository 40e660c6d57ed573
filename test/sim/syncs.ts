/** A copy that is made equal to the other one: from the target's first mark to its generation. */
import { DataState } from '../../lib/format/superblock.ts';
import { CopyView, idAt } from './copy-view.ts';
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';

export const targetPhases: ReadonlySet<string> = new Set(
  ['waiting', 'keeping', 'syncing', 'adopting', 'taking'],
);

export class SyncWatch {
  readonly #run: SimRun;

  constructor(run: SimRun) {
    this.#run = run;
  }

  /** The phase of `machine` was `before` one step ago. */
  observe(machine: Machine, before: string): void {
    const { phase } = machine;
    if (targetPhases.has(phase) && !targetPhases.has(before)) this.#becomesTarget(machine);
    if (phase === 'syncing') {
      this.#checkLoss(machine);
      this.#isFilled(machine);
    }
    if (phase === 'adopting') this.#adopts(machine);
    if (phase === 'complete' && before === 'adopting') this.#adopted(machine);
    // The other one fetched all of it, and will say so on its disk whether or not it is heard of.
    if (phase === 'complete' && before === 'serving') this.#adopts(this.#run.other(machine));
  }

  /** What `machine` holds is about to shrink: the other one may be equal to what it was. */
  losesPower(machine: Machine): void {
    const target = this.#run.other(machine);
    // A second power cut of a machine that is off says nothing of what the target took.
    if (!targetPhases.has(target.phase) || target.sourceBefore !== null) return;
    const { views } = this.#run.ledger;
    const view = views[machine.name] as CopyView;
    target.sourceBefore = new CopyView(this.#run.options.mediaSize, 0);
    target.sourceBefore.cloneFrom(view);
  }

  /** The copy of `machine` is equal to the one of `leader`, as `source` says, from here on. */
  follow(
    machine: Machine, leader: Machine, source: CopyView = this.#run.ledger.view(leader.node),
  ): void {
    const run = this.#run;
    const { ledger } = run;
    this.adoptedUnheard(leader);
    machine.adopting = null;
    const view = ledger.view(machine.node);
    if (source.kind === 'mixed' && !source.isTainted) {
      run.fail(`${machine.name} was made equal to a half-finished copy`);
    }
    view.cloneFrom(source);
    view.leader = leader.name;
    for (const one of [view, ledger.view(leader.node)]) {
      one.unique = 0;
      one.isGivenUp = false;
    }
    run.forks.joined();
    run.resolver.joined();
    ledger.streams[machine.name] = null;
    if (run.options.mode === 'async' && view.kind === 'exact') this.#streams(machine, leader);
    if (!run.marks.isMeaningful) run.marks.start();
  }

  /** It may have taken the generation although nobody heard of it. */
  adoptedUnheard(machine: Machine): void {
    const { adopting } = machine;
    if (adopting === null) return;
    const block = machine.meta.superblock();
    const { generation } = adopting;
    const has = block !== null && block.dataState === DataState.consistent &&
      (block.generation === generation || block.history.includes(generation));
    if (!has) return;
    machine.adopting = null;
    const { ledger } = this.#run;
    const source = ledger.view(this.#run.other(machine).node);
    source.unique = Math.max(0, source.unique - adopting.unique);
    const view = ledger.view(machine.node);
    if (view.kind === 'mixed') view.isTainted = true;
  }

  #streams(machine: Machine, leader: Machine): void {
    const { ledger, taps } = this.#run;
    const view = ledger.view(machine.node);
    const log = taps.logs[leader.name];
    const { disk } = machine.node;
    const { dataOffset } = machine;
    const ids = Array.from({ length: view.sectors }, (_, at) =>
      idAt(disk.cache, dataOffset + at * 512));
    log?.setBase((at) => ids[at] as number);
    ledger.streams[machine.name] = log ?? null;
    view.kind = 'stream';
  }

  /** The copy takes the source's generation: durably at some moment from now on. */
  #adopts(machine: Machine): void {
    const source = this.#run.other(machine);
    const generation = source.node.resource?.context.store.value.generation ?? 0n;
    machine.adopting = { generation, unique: this.#run.ledger.view(source.node).unique };
    machine.isSourceLost = false;
  }

  /** The source's bytes come in from here on. Two copies nobody ever wrote stay equal. */
  #isFilled(machine: Machine): void {
    const { ledger } = this.#run;
    if (ledger.hasBegun) ledger.view(machine.node).kind = 'mixed';
  }

  #checkLoss(machine: Machine): void {
    const run = this.#run;
    const view = run.ledger.view(machine.node);
    if (view.unique > 0 && view.isGivenUp) view.unique = 0;
    if (view.unique === 0) return;
    run.fail(`${machine.name} is about to be overwritten and holds ` +
      `${view.unique} acknowledged writes that nobody else has`);
  }

  #becomesTarget(machine: Machine): void {
    const run = this.#run;
    const other = run.other(machine);
    this.adoptedUnheard(other);
    const view = run.ledger.view(machine.node);
    // A source that is gone meanwhile overwrites nothing any more.
    if (other.node.resource !== null) this.#checkLoss(machine);
    run.lastPrimary.becomesTarget(machine);
    // What waits only is what it was, unless writes are under way; see also SimRun.writing().
    if (other.node.open.size > 0) this.#isFilled(machine);
    view.leader = null;
    machine.sourceBefore = null;
  }

  #adopted(machine: Machine): void {
    this.#run.counts.completions++;
    machine.adopting = null;
    const source = machine.sourceBefore ?? undefined;
    machine.sourceBefore = null;
    // Equal to a copy that is no more: what it holds is what it held.
    if (!machine.isSourceLost) this.follow(machine, this.#run.other(machine), source);
  }
}
