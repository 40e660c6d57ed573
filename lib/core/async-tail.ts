/**
 * What an async primary acknowledged and its peer may never have got. Such a copy, coming back as
 * the target of a sync, is not overwritten before every block its own map names is in an undo
 * file; how much that is, is counted and shown.
 *
 * Invariants
 * - nothing is answered as async before the superblock says that this node was such a primary;
 * - the record that this copy is inconsistent, after which the peer overwrites it, takes that mark
 *   away, and is written only when the undo file is whole and durable.
 */
import type { Hello } from '../format/hello.ts';
import { limits } from '../format/limits.ts';
import { SuperblockFlag } from '../format/superblock.ts';
import { UndoSide } from '../format/undo.ts';
import type { Mode } from './completion.ts';
import type { KeptSink } from './ports.ts';
import type { Resource } from './resource.ts';
import type { Session } from './session.ts';
import type { SuperblockStore } from './superblock-store.ts';

/** What one step reads and keeps. */
const stepBlocks = 64;
/** Blocks without data that are logged one by one. */
const lostLoggedMax = 10;

/** One per resource. */
export class AsyncTail {
  /** Why the latest attempt to keep it came to nothing, and what to do. */
  failure = '';
  /** Of what this worker kept last. */
  keptBytes = 0;
  keptFile: string | null = null;

  readonly #resource: Resource;
  /** Where it is durable that this node is an async primary. */
  #recordedIn: SuperblockStore | null = null;
  #recording: SuperblockStore | null = null;

  constructor(resource: Resource) {
    this.#resource = resource;
  }

  /**
   * How a primary's request that begins now completes: async only when that is on record, which
   * the first one sees to where the promotion did not (the mode or the local copy is another).
   */
  get mode(): Mode {
    const { mode } = this.#resource.context.options;
    if (mode !== 'async' || this.#isRecorded) return mode;
    this.#record();
    return this.#isRecorded ? mode : 'memsync';
  }

  /** The flag that a promotion in the present mode sets. */
  get flag(): number {
    const isAsync = this.#resource.context.options.mode === 'async';
    return isAsync ? SuperblockFlag.asyncPrimary : 0;
  }

  /** The copy may not be overwritten yet. An operator's decision between split copies may. */
  isOwed(session: Session): boolean {
    const { store, tracker } = this.#resource.context;
    return (store.value.flags & SuperblockFlag.asyncPrimary) !== 0 &&
      !tracker.peerStale.isEmpty && session.resolve === null;
  }

  /**
   * Keeps it, then calls `done`; where that fails the session ends, and is tried again later.
   * `source`: the generation that is to replace this copy's.
   */
  keep(session: Session, source: bigint, done: () => void): void {
    new TailKeeper(this.#resource, session, done).start(source);
  }

  #record(): void {
    const { context } = this.#resource;
    const { store } = context;
    const { flags } = store.value;
    if (this.#recording === store) return;
    if ((flags & SuperblockFlag.asyncPrimary) !== 0) {
      // By the promotion, which is answered only when its record is durable.
      this.#recordedIn = store;
      return;
    }
    this.#recording = store;
    store.update({ flags: flags | SuperblockFlag.asyncPrimary }, (errno) => {
      if (this.#recording === store) this.#recording = null;
      if (errno !== 0) context.localFailed('metadata', errno);
      else this.#recordedIn = store;
    });
  }

  get #isRecorded(): boolean {
    const { store } = this.#resource.context;
    return this.#recordedIn === store &&
      (store.value.flags & SuperblockFlag.asyncPrimary) !== 0;
  }
}

/** One attempt, for one session: it ends with the session. */
class TailKeeper {
  readonly #resource: Resource;
  readonly #session: Session;
  readonly #done: () => void;
  #sink: KeptSink | null = null;
  #bytes = 0;
  /** Blocks that cannot be read. */
  #lost = 0;

  constructor(resource: Resource, session: Session, done: () => void) {
    this.#resource = resource;
    this.#session = session;
    this.#done = done;
  }

  start(source: bigint): void {
    const { store, options, mediaSize, clock, undo, log } = this.#resource.context;
    const peer = this.#session.peer as Hello;
    const { copyId, generation } = store.value;
    this.#session.phase = 'keeping';
    log.info({}, 'what only this copy has is kept before it is overwritten');
    undo.create({
      copyId, generation, keptCopyId: peer.copyId, keptGeneration: source,
      resource: options.resource, mediaSize, createdAt: clock.wallSeconds(),
      discarded: UndoSide.local,
    }, (errno, sink) => {
      this.#sink = sink;
      if (this.#isOver()) return;
      if (sink === null) this.#fail(errno);
      else this.#next(0);
    });
  }

  /** Keeps what the map names from block `from` on. */
  #next(from: number): void {
    const { tracker } = this.#resource.context;
    const block = tracker.peerStale.nextSet(from);
    if (block < 0) {
      this.#sink?.seal((errno) => {
        if (this.#isOver()) return;
        if (errno !== 0) this.#fail(errno);
        else this.#kept();
      });
      return;
    }
    this.#keep(block, tracker.peerStale.runLength(block, stepBlocks), false);
  }

  /** `single`: a read of several failed, so each block is read alone. */
  #keep(block: number, count: number, single: boolean): void {
    const { disk, dataOffset, mediaSize } = this.#resource.context;
    const offset = block * limits.blockSize;
    const size = single ? 1 : count;
    const length = Math.min(size * limits.blockSize, mediaSize - offset);
    const on = (): void => {
      if (size < count) this.#keep(block + size, count - size, true);
      else this.#next(block + size);
    };
    const buffer = Buffer.allocUnsafe(length);
    disk.read(dataOffset + offset, buffer, 0, length, (errno) => {
      if (this.#isOver()) return;
      if (errno === 0) this.#add(offset, buffer, on);
      else if (size > 1) this.#keep(block, count, true);
      else {
        this.#noteLost(offset, errno);
        on();
      }
    });
  }

  #add(offset: number, data: Buffer, on: () => void): void {
    this.#sink?.add(offset, data, 0, data.length, (errno) => {
      if (this.#isOver()) return;
      if (errno !== 0) {
        this.#fail(errno);
        return;
      }
      this.#bytes += data.length;
      on();
    });
  }

  #noteLost(offset: number, errno: number): void {
    const { log, statistics } = this.#resource.context;
    statistics.localReadErrors++;
    this.#lost++;
    if (this.#lost > lostLoggedMax) return;
    log.error({ offset, errno }, 'a block that only this copy has cannot be read: it is not kept');
  }

  #kept(): void {
    const { context, tail } = this.#resource;
    const file = this.#sink?.name ?? '';
    tail.failure = '';
    tail.keptBytes = this.#bytes;
    tail.keptFile = file;
    context.log.warn(
      { file, bytes: this.#bytes, unreadableBlocks: this.#lost },
      'what this node acknowledged as async primary and the peer may lack is kept in a file',
    );
    this.#done();
  }

  #fail(errno: number): void {
    const { tail, linker, context } = this.#resource;
    tail.failure = `what only this copy has cannot be kept (errno ${errno}), and nothing was ` +
      'overwritten: make room in undo-directory, or set another one and reload; ' +
      'hastctl create makes this copy anew without it';
    context.log.error({ errno }, tail.failure);
    this.#sink?.abandon();
    this.#session.bye('the target cannot keep what only its copy has');
    linker.pause();
  }

  /** True where the session ended: what is kept so far is of no use. Nothing is under way. */
  #isOver(): boolean {
    if (this.#session.phase === 'keeping') return false;
    this.#sink?.abandon();
    return true;
  }
}
