/**
 * `hastctl undo`: puts back, on this copy, what a resolution overwrote, and lets the peer follow.
 *
 * The copy is durably inconsistent while it is written, of the generation it had: a crash in
 * between, and the peer brings it back to where it was. Only at the end it gets a generation of
 * its own, with which the peer is brought up to date.
 */
import { DataState, PeerState } from '../format/superblock.ts';
import type { CommandDone, Refusal } from './operator.ts';
import { regionsOf } from './region-set.ts';
import type { UndoSource } from './ports.ts';
import type { Resource } from './resource.ts';
import { withAncestor } from './superblock-store.ts';

export class PutBack {
  readonly #resource: Resource;
  readonly #source: UndoSource;
  readonly #done: CommandDone;
  #isOver = false;

  constructor(resource: Resource, source: UndoSource, done: CommandDone) {
    this.#resource = resource;
    this.#source = source;
    this.#done = done;
  }

  start(): void {
    const { context, session, linker } = this.#resource;
    // The peer follows at the end, by an ordinary sync.
    linker.hold();
    session?.bye('an operator puts back what a resolution overwrote');
    this.#resource.drained(() => context.store.update({
      dataState: DataState.inconsistent, syncGeneration: context.store.value.generation,
    }, (errno) => {
      if (this.#failed(errno, 'the metadata cannot be written')) return;
      this.#next();
    }));
  }

  #next(): void {
    this.#source.next((errno, range) => {
      if (this.#failed(errno, 'the undo file cannot be read')) return;
      if (range === null) {
        this.#finish();
        return;
      }
      const { context } = this.#resource;
      const { offset, data } = range;
      if (data.length === 0 || offset + data.length > context.mediaSize) {
        this.#failed(22, 'the undo file names a range outside the volume');
        return;
      }
      context.tracker.setStale(offset, data.length);
      context.tracker.persist(regionsOf(offset, data.length), () => {
        const { disk, dataOffset } = context;
        disk.write(dataOffset + offset, data, 0, data.length, (problem) => {
          if (problem !== 0) context.localFailed('write', problem);
          if (!this.#failed(problem, 'the local copy cannot be written')) this.#next();
        });
      });
    });
  }

  #finish(): void {
    const { context } = this.#resource;
    const { store, random, disk } = context;
    disk.flush((errno) => {
      if (errno !== 0) context.localFailed('flush', errno);
      if (this.#failed(errno, 'the local copy cannot be flushed')) return;
      const { generation, history, peerGeneration } = store.value;
      store.update({
        generation: random.id64(), history: withAncestor(history, generation, peerGeneration),
        dataState: DataState.consistent, syncGeneration: 0n, peerState: PeerState.behind,
      }, (problem) => {
        if (this.#failed(problem, 'the metadata cannot be written')) return;
        this.#resource.aloneRecorded = true;
        this.#end(null);
      });
    });
  }

  #failed(errno: number, what: string): boolean {
    const { failed, failure } = this.#resource;
    if (errno === 0 && !failed) return this.#isOver;
    this.#end({
      message: `${what} (${failed ? failure : `errno ${errno}`})`,
      hint: 'the peer brings this copy back to where it was; then try again',
    });
    return true;
  }

  #end(refusal: Refusal | null): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#resource.linker.release();
    this.#done(refusal);
  }
}
