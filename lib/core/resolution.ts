/**
 * One decision of an operator that ends a split brain, on the node where it was made: shakes hands
 * with both ids named, compares the maps, keeps what will be overwritten, and lets the copying
 * begin. docs/split-brain.md.
 *
 * Invariants
 * - no byte is overwritten before the undo file is whole and durable;
 * - the decision holds for the two generations the operator was shown, and for no others.
 */
import { Resolve } from '../format/hello.ts';
import { limits } from '../format/limits.ts';
import { BlockMap } from './block-map.ts';
import {
  DiscardSide, type Refusal, type ResolveRequest, type ResolveResult, type SideWrites,
} from './operator.ts';
import type { ReadItem } from './peer-stream.ts';
import type { Resource } from './resource.ts';
import type { Session } from './session.ts';

/** Ranges that one side lists at most. */
const rangesMax = 1000;
/** What one step of keeping reads. */
const keepBytes = 64 * limits.blockSize;
const watchMs = 20;
/** Beyond the resource's timeout, until the peer has shaken hands. */
const extraMs = 5000;

const lostRefusal: Refusal = {
  message: 'the connection to the peer was lost; nothing was overwritten',
  hint: 'run the command again when hastctl status shows split-brain',
};

class KeepRead implements ReadItem {
  readonly readLength: number;
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  readonly #done: (errno: number, data: Buffer | null, at: number) => void;

  constructor(length: number, done: (errno: number, data: Buffer | null, at: number) => void) {
    this.readLength = length;
    this.#done = done;
  }

  peerReceived(): void {
    // A read is answered once.
  }

  peerData(payload: Buffer, at: number): void {
    this.#done(0, payload, at);
  }

  peerDone(errno: number): void {
    this.#done(errno, null, 0);
  }

  peerLost(): void {
    // The end of the session ends the resolution.
  }
}

export class Resolution {
  readonly #resource: Resource;
  readonly #request: ResolveRequest;
  readonly #done: (result: ResolveResult) => void;
  #isOver = false;
  #isDecided = false;
  /** Ids named in the hello; 0 before the peer was seen. */
  #localGeneration = 0n;
  #peerGeneration = 0n;
  #session: Session | null = null;
  #result: ResolveResult | null = null;
  /** An add or a seal of the undo file is under way: the answer waits for it. */
  #isKeeping = false;
  #failure: Refusal | null = null;

  constructor(
    resource: Resource, request: ResolveRequest, done: (result: ResolveResult) => void,
  ) {
    this.#resource = resource;
    this.#request = request;
    this.#done = done;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  start(): void {
    const { context, linker, session, refusedPeer } = this.#resource;
    const waitMs = context.options.timeoutMs + extraMs;
    context.timers.set('resolve', context.clock.now() + waitMs, () => this.#fail({
      message: 'the peer does not shake hands', hint: 'see hastctl status on both nodes',
    }));
    if (refusedPeer !== null) this.#name(refusedPeer);
    if (session === null) linker.probe();
    else session.end('an operator resolves the split brain');
  }

  /** What the next hello says of the decision. */
  get hello(): { resolve: number; resolveLocal: bigint; resolvePeer: bigint } {
    if (this.#peerGeneration === 0n) {
      return { resolve: Resolve.none, resolveLocal: 0n, resolvePeer: 0n };
    }
    const { discard, dryRun } = this.#request;
    const resolve = dryRun ? Resolve.dryRun
      : discard === DiscardSide.local ? Resolve.discardLocal : Resolve.discardPeer;
    return {
      resolve, resolveLocal: this.#localGeneration, resolvePeer: this.#peerGeneration,
    };
  }

  /** The handshake was refused. */
  refused(reason: string, text: string): void {
    const { refusedPeer } = this.#resource;
    const isNew = refusedPeer !== null && refusedPeer.generation !== this.#peerGeneration;
    if (reason !== 'split-brain' || refusedPeer === null) {
      this.#fail({ message: text, hint: 'see hastctl status on both nodes' });
    } else if (this.#peerGeneration === 0n) {
      this.#name(refusedPeer);
    } else if (isNew) {
      this.#fail({
        message: 'the peer was promoted or written to since it was looked at',
        hint: 'look again with --dry-run, then decide',
      });
    }
  }

  sessionEnded(session: Session): void {
    if (this.#isOver) return;
    // Once the decision was sent the copying may have begun, and goes on by itself: what was kept
    // stays kept.
    if (this.#isDecided && this.#result !== null) this.#end(this.#result);
    else if (this.#session === session) this.#fail(lostRefusal);
    else this.#resource.linker.probe();
  }

  /** A handshake succeeded that is not this resolution's: there is nothing to resolve. */
  connected(session: Session): void {
    if (this.#session === session) return;
    this.#fail({ message: 'the two copies are not split', hint: 'hastctl status tells the state' });
  }

  /** The peer's map is here: the session waits for the decision. */
  compare(session: Session, peerMap: BlockMap, full: boolean): void {
    const { context } = this.#resource;
    this.#session = session;
    context.timers.clear('resolve');
    const { tracker, mediaSize } = context;
    const union = new BlockMap(mediaSize);
    union.merge(tracker.peerStale);
    union.merge(peerMap);
    this.#result = {
      refusal: null,
      localGeneration: this.#localGeneration.toString(16),
      peerGeneration: this.#peerGeneration.toString(16),
      local: writesOf(tracker.peerStale, mediaSize),
      peer: writesOf(peerMap, mediaSize),
      copyBytes: full ? mediaSize : Math.min(union.count * limits.blockSize, mediaSize),
      full,
    };
    if (this.#request.dryRun) {
      this.#end(this.#result);
      session.bye('the copies were compared');
      return;
    }
    if (full) union.setAll();
    if (this.#request.undo === null) this.#go(session);
    else this.#keep(session, union, 0);
  }

  /** Keeps what the losing copy holds, from block `from` on; then lets the copying begin. */
  #keep(session: Session, union: BlockMap, from: number): void {
    const { undo } = this.#request;
    const { context } = this.#resource;
    const block = union.nextSet(from);
    const failed = (what: string, errno: number): void => {
      this.#fail({
        message: `${what} (errno ${errno}); nothing was overwritten`,
        hint: 'mend it, or resolve without --undo',
      });
    };
    if (block < 0) {
      this.#isKeeping = true;
      undo?.seal((errno) => {
        if (this.#kept()) return;
        if (errno !== 0) failed('the undo file cannot be written', errno);
        else this.#go(session);
      });
      return;
    }
    const count = union.runLength(block, keepBytes / limits.blockSize);
    const offset = block * limits.blockSize;
    const length = Math.min(count * limits.blockSize, context.mediaSize - offset);
    this.#read(session, offset, length, (errno, data, at) => {
      if (this.#isOver) return;
      if (errno !== 0 || data === null) {
        failed('what would be overwritten cannot be read', errno);
        return;
      }
      this.#isKeeping = true;
      undo?.add(offset, data, at, length, (problem) => {
        if (this.#kept()) return;
        if (problem !== 0) failed('the undo file cannot be written', problem);
        else this.#keep(session, union, block + count);
      });
    });
  }

  #read(
    session: Session, offset: number, length: number,
    done: (errno: number, data: Buffer | null, at: number) => void,
  ): void {
    const { disk, dataOffset } = this.#resource.context;
    if (this.#request.discard === DiscardSide.peer) {
      session.newStream().ask(new KeepRead(length, done), offset);
      return;
    }
    const buffer = Buffer.allocUnsafe(length);
    disk.read(dataOffset + offset, buffer, 0, length, (errno) => done(errno, buffer, 0));
  }

  #go(session: Session): void {
    this.#isDecided = true;
    session.resolve?.decide();
    this.#watch(session);
  }

  /** Answers when the losing copy is durably on record as a target, or the pair is complete. */
  #watch(session: Session): void {
    if (this.#isOver || this.#result === null) return;
    const { timers, clock } = this.#resource.context;
    const begun = ['copying', 'finishing', 'syncing', 'adopting', 'complete'];
    if (begun.includes(session.phase)) this.#end(this.#result);
    else timers.set('resolve', clock.now() + watchMs, () => this.#watch(session));
  }

  #name(peer: { generation: bigint }): void {
    this.#localGeneration = this.#resource.context.store.value.generation;
    this.#peerGeneration = peer.generation;
  }

  #fail(refusal: Refusal): void {
    if (this.#isOver) return;
    // The undo file's owner may put it away only when nothing is written to it.
    if (this.#isKeeping) this.#failure = refusal;
    else this.#end({ refusal });
  }

  /** A write to the undo file returned; true where the resolution ended meanwhile. */
  #kept(): boolean {
    this.#isKeeping = false;
    if (this.#failure !== null) this.#end({ refusal: this.#failure });
    return this.#isOver;
  }

  #end(result: ResolveResult): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#resource.context.timers.clear('resolve');
    this.#done(result);
  }
}

/** The ranges of a map, ascending and joined where they touch. */
export function writesOf(map: BlockMap, mediaSize: number): SideWrites {
  const ranges: SideWrites['ranges'] = [];
  let more = 0;
  let last = { offset: 0, length: 0 };
  const add = (offset: number, length: number): void => {
    if (ranges.length > 0 && more === 0 && last.offset + last.length === offset) {
      last.length += length;
    } else if (ranges.length < rangesMax) {
      last = { offset, length };
      ranges.push(last);
    } else {
      more++;
    }
  };
  const perRegion = limits.regionSize / limits.blockSize;
  for (const region of [...map.regions()].sort((one, other) => one - other)) {
    const first = region * perRegion;
    const end = first + map.regionBlocks(region);
    if (map.isFull(region)) {
      add(first * limits.blockSize, (end - first) * limits.blockSize);
      continue;
    }
    for (let at = map.nextSet(first); at >= 0 && at < end;) {
      const count = map.runLength(at, end - at);
      add(at * limits.blockSize, count * limits.blockSize);
      at = map.nextSet(at + count);
    }
  }
  const bytes = Math.min(map.count * limits.blockSize, mediaSize);
  return { bytes, ranges, more };
}
