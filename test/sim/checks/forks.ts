/**
 * Split brain: flagged by both where both copies hold acknowledged writes that the other lacks,
 * and flagged only where both copies went ways of their own.
 */
import type { Machine } from '../machine.ts';
import type { SimRun } from '../run.ts';

export class ForkCheck {
  readonly #run: SimRun;

  constructor(run: SimRun) {
    this.#run = run;
  }

  /** The copy took a generation that the other one lacks. */
  forked(machine: Machine): void {
    this.#run.ledger.view(machine.node).hasForked = true;
  }

  /** Both copies are equal. */
  joined(): void {
    for (const { node, meta } of this.#run.machines) {
      const view = this.#run.ledger.view(node);
      view.hasForked = false;
      // Two new copies become equal without a generation that both could remember.
      view.isRelated = meta.superblock()?.generation !== 0n;
    }
  }

  /** The core of `machine` reports a split brain. */
  flagged(machine: Machine): void {
    this.#run.trace.line(machine.name, 'split brain flagged');
  }

  /** Both copies hold what the other one lacks. */
  get isSplit(): boolean {
    return this.#run.machines.every(({ node }) => this.#run.ledger.view(node).unique > 0);
  }

  /** What is wrong with a refusal that stands, or null. */
  problem(): string | null {
    const { machines } = this.#run;
    if (!this.isSplit) return null;
    // A new copy, promoted before it was ever equal to the other one, shares no history with it,
    // and is refused for whatever comes first.
    if (!machines.every(({ node }) => this.#run.ledger.view(node).isRelated)) return null;
    for (const { node } of machines) {
      const reason = node.resource?.refusal?.reason;
      if (reason === 'both-primary' && machines.some((one) => one.isRemote)) return null;
      if (reason != null && reason !== 'split-brain' && reason !== 'same-copy') {
        return `${node.name} calls a split brain ${reason}`;
      }
    }
    return null;
  }
}
