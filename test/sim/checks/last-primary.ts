/**
 * The last primary: promoted without force, nobody was since, and neither a person nor a disk error
 * took its copy away. The other copy must not pass for the newer one:
 *
 * - this one is not told that it is behind;
 * - it is not overwritten with a copy that lost some of what it acknowledged and still holds. That
 *   both copies had it once is why the ledger does not count it as held by one of them only.
 */
import { idReader } from '../copy-view.ts';
import type { Machine } from '../machine.ts';
import type { SimRun } from '../run.ts';

export class LastPrimaryCheck {
  readonly #run: SimRun;
  #last: Machine | null = null;

  constructor(run: SimRun) {
    this.#run = run;
  }

  /** Its promotion was answered. Whoever was forced may be the older one. */
  promoted(machine: Machine, forced: boolean): void {
    this.#last = forced ? null : machine;
  }

  /** The role alone may already show in the other one's metadata. */
  takesRole(machine: Machine): void {
    if (this.#last !== machine) this.#last = null;
  }

  /** A person, or the loss of a copy, decides what counts: until the next promotion. */
  forget(): void {
    this.#last = null;
  }

  /** Called at each step. */
  observe(machine: Machine): void {
    const isLast = this.#last === machine;
    const { resource } = machine.node;
    if (resource?.failed !== true) return;
    const isTold = resource.role === 'primary' && resource.refusal?.reason === 'primary-is-behind';
    if (isTold && (isLast || this.#isNext(machine))) {
      this.#run.fail(
        `${machine.name} was promoted last and gives up: it is told that the peer is ahead`,
      );
    }
    if (isLast) this.#last = null;
  }

  /** It is being promoted, on a copy that nobody went on from. */
  #isNext(machine: Machine): boolean {
    const other = this.#run.other(machine);
    const [own, theirs] = [machine, other].map(({ meta }) => meta.superblock()?.generation ?? 0n);
    const isKnown = [machine, other].every(({ node }) => !this.#run.ledger.view(node).isTainted);
    return machine.isPromoting && !machine.isForcing && other.role !== 'primary' && isKnown &&
      own !== 0n && own === theirs;
  }

  /** `machine` is about to be made equal to the other one. */
  becomesTarget(machine: Machine): void {
    if (this.#last !== machine) return;
    const { ledger } = this.#run;
    const source = this.#run.other(machine);
    const view = ledger.view(machine.node);
    if (view.kind !== 'exact' || source.node.resource === null) return;
    const read = idReader(source.node.disk.cache, source.dataOffset);
    for (const [at, { list, hidden }] of view.open) {
      const acknowledged = list[hidden];
      if (acknowledged === undefined || acknowledged.acked === 0) continue;
      if (list.slice(hidden).some(({ id }) => id === read(at))) continue;
      this.#run.fail(`${machine.name} was primary last and is about to be overwritten: sector ` +
        `${at} held write ${acknowledged.id}, acknowledged, and ${source.name} has ${read(at)}`);
    }
  }
}
