/**
 * A primary that relies on the peer's copy: its own one does not count, the peer's is the truth,
 * and what it answers is durable there at that moment.
 */
import { PeerState, SuperblockFlag } from '../../lib/format/superblock.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import type { Entry } from './copy-view.ts';
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';

/** The peer was primary meanwhile, or this copy took its place: called at each step. */
export class RemoteWatch {
  readonly #run: SimRun;

  constructor(run: SimRun) {
    this.#run = run;
  }

  observe(machine: Machine): void {
    const { node } = machine;
    const isRemote = node.resource?.remote.isActive ?? false;
    if (isRemote !== machine.isRemote) {
      machine.isRemote = isRemote;
      if (isRemote) this.#begins(machine);
      else this.#ends(machine);
    }
    if (isRemote && !machine.wasServed && node.phase === 'remote') this.#served(machine);
  }

  /** What the peer holds durably, where it is the copy that counts. */
  acknowledged(node: SimNode, entry: Entry): void {
    const run = this.#run;
    const peer = run.other(run.machine(node));
    const view = run.ledger.view(peer.node);
    const problem = run.ledger.sectorProblem(
      view, peer.node.disk.durable, peer.dataOffset, entry.first, entry.last,
    );
    if (problem !== null) run.fail(`${node.name}: answered, not durable on the peer: ${problem}`);
    run.counts.acksRemote++;
  }

  /** A crash of the copy that counts: what is not answered is sent again. */
  crashed(machine: Machine): void {
    const other = this.#run.other(machine);
    if (other.isRemote && other.node.resource !== null) this.#run.ledger.pushOpen(other.node);
  }

  /** What is wrong with the peer's record at an acknowledgement, or null. */
  recordProblem(machine: Machine): string | null {
    const block = this.#run.other(machine).meta.superblock();
    const isKept = block !== null && block.peerState === PeerState.behind &&
      (block.flags & SuperblockFlag.keeper) !== 0;
    if (!isKept) return 'answered by a copy that has no durable record of being the only one';
    const relied = machine.node.running.remote.lineage?.generation;
    return block.generation === relied ? null : 'answered under a generation not the peer\'s';
  }

  #begins(machine: Machine): void {
    const { ledger, trace, counts } = this.#run;
    trace.line(machine.name, 'relies on the peer');
    counts.remote++;
    this.#run.lastPrimary.forget();
    machine.wasServed = machine.isOrphaned = false;
    ledger.view(machine.node).leader = null;
    const peer = ledger.view(this.#run.other(machine).node);
    if (peer.leader === machine.name) peer.leader = null;
    if (peer.kind !== 'stream') ledger.pushOpen(machine.node);
  }

  /** The peer drained and flushed what it had; nothing was sent since. */
  #served(machine: Machine): void {
    const { ledger, trace } = this.#run;
    const peer = this.#run.other(machine);
    const view = ledger.view(peer.node);
    const { disk } = peer.node;
    machine.wasServed = true;
    // Before this moment nothing was answered: whoever starts again has all there was.
    const own = ledger.view(machine.node);
    own.kind = 'mixed';
    own.isTainted = false;
    trace.line(machine.name, `is served by a copy that is ${view.kind}`);
    if (view.kind === 'mixed' && !view.isTainted) {
      this.#run.fail(`${machine.name} relies on a half-finished copy`);
    }
    const problem = ledger.problem(peer.node, disk.cache, peer.dataOffset, false);
    if (problem !== null) this.#run.fail(`served: ${problem}`);
    const end = peer.dataOffset + this.#run.options.mediaSize;
    if (disk.cache.compare(disk.durable, peer.dataOffset, end, peer.dataOffset, end) !== 0) {
      this.#run.fail(`${peer.name} serves and has not flushed what it had`);
    }
    ledger.streams[peer.name] = null;
    view.adopt(disk.cache, peer.dataOffset);
    view.kind = 'exact';
    view.isTainted = false;
    ledger.pushOpen(machine.node);
  }

  /** The own copy counts again; or the promotion came to nothing. */
  #ends(machine: Machine): void {
    const run = this.#run;
    const { node } = machine;
    const peer = run.other(machine);
    if (node.resource === null || node.resource.role !== 'primary') return;
    run.trace.line(node.name, 'relies on its own copy again');
    const view = run.ledger.view(node);
    if (machine.isOrphaned) {
      view.adopt(node.disk.cache, machine.dataOffset);
      view.kind = 'exact';
      return;
    }
    if (node.phase === 'complete' && peer.node.phase === 'complete') {
      run.mustBeEqual('when the own copy counts again');
    }
    run.counts.completions++;
    view.cloneFrom(run.ledger.view(peer.node));
    run.syncs.follow(peer, machine);
  }
}
