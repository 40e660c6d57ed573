/**
 * The target's side of a sync that pushes: hands its marks to the source, records itself
 * inconsistent before the first copied byte, and becomes a copy again after a flush, with the
 * source's generation durable.
 */
import {
  bodyFrame, bodyOf, FrameType, plainFrame, type Frame,
} from '../format/frame.ts';
import { decodeLineage, type Hello } from '../format/hello.ts';
import { DataState, PeerState, SuperblockFlag } from '../format/superblock.ts';
import type { BlockMap } from './block-map.ts';
import type { CoreContext } from './context.ts';
import type { Session } from './session.ts';
import type { SessionHost } from './session-host.ts';

/** `arg` of the end of a map: the map says nothing of this copy, all of it counts as marked. */
const wholeVolume = 1;

/** Sends `maps`, region by region and then the end; `full` instead of them where it is set. */
export function sendMaps(session: Session, maps: readonly BlockMap[], full: boolean): void {
  for (const map of full ? [] : maps) {
    for (const region of map.regions()) {
      const bits = map.bits(region);
      if (bits === null) session.send(bodyFrame(FrameType.map, Buffer.alloc(0), 1, region));
      else session.send(bodyFrame(FrameType.map, Buffer.from(bits), 0, region));
    }
  }
  session.send(plainFrame(FrameType.mapEnd, 0, full ? wholeVolume : 0));
}

export function isWholeVolume(end: Frame): boolean {
  return end.arg === wholeVolume;
}

export class SyncTarget {
  readonly #session: Session;
  readonly #context: CoreContext;
  readonly #host: SessionHost;

  constructor(session: Session, context: CoreContext, host: SessionHost) {
    this.#session = session;
    this.#context = context;
    this.#host = host;
  }

  /** Everything that may differ here: blocks the peer lacks, and blocks that are stale here. */
  sendMap(): void {
    if (this.#session.phase !== 'waiting') return;
    const { peerStale, localStale } = this.#context.tracker;
    sendMaps(this.#session, [peerStale, localStale], false);
  }

  /** The source would copy now; the frame tells of which lineage it is. */
  begin(frame: Frame): void {
    const session = this.#session;
    const { tail } = this.#host;
    const body = bodyOf(frame);
    const { generation, history } = body.length > 0 ? decodeLineage(body) : session.peer as Hello;
    session.sourceLineage = { generation, history };
    const go = (): void => this.#beInconsistent(generation);
    if (tail.isOwed(session)) tail.keep(session, generation, go);
    else go();
  }

  #beInconsistent(generation: bigint): void {
    const session = this.#session;
    const { store } = this.#context;
    const { createdZeroed, assumeClean, asyncPrimary } = SuperblockFlag;
    const patch = {
      ...session.numbers.raised, dataState: DataState.inconsistent, syncGeneration: generation,
      // What is copied now is in no map of this copy: it began with zeros no longer. What only
      // this copy had is kept.
      flags: store.value.flags & ~(createdZeroed | assumeClean | asyncPrimary),
    };
    session.phase = 'syncing';
    store.update(patch, (errno) => {
      if (session.phase !== 'syncing') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else session.send(plainFrame(FrameType.syncReady));
    });
  }

  /** All is copied. */
  adopt(frame: Frame): void {
    const session = this.#session;
    const lineage = decodeLineage(bodyOf(frame));
    const peer = session.peer as Hello;
    const { store, tracker, disk, clock } = this.#context;
    session.phase = 'adopting';
    const record = (errno: number): void => {
      if (errno !== 0) {
        this.#context.localFailed('flush', errno);
        return;
      }
      // A later session may have made this copy a target again: then it is not consistent.
      if (session.phase !== 'adopting') return;
      const { primaryActive, asyncPrimary, forced, forcedIneligible, keeper } = SuperblockFlag;
      const ended = primaryActive | asyncPrimary | forced | forcedIneligible | keeper;
      store.update({
        ...lineage, ...session.numbers.raised, dataState: DataState.consistent, syncGeneration: 0n,
        flags: store.value.flags & ~ended,
        peerState: PeerState.complete, peerCopyId: peer.copyId, peerNode: peer.node,
        peerGeneration: lineage.generation, peerSessionNumber: peer.sessionNumber,
        contactAt: clock.wallSeconds(),
      }, (error) => {
        if (error !== 0) this.#context.localFailed('metadata', error);
        else if (session.phase === 'adopting') tracker.clearAll(() => this.#adopted());
        // The session ended, so that its marks stay: of a copy that counts by now.
        else tracker.localCounts();
      });
    };
    // Everything copied was flushed here before the source said done; this covers the rest.
    disk.flush(record);
  }

  #adopted(): void {
    const session = this.#session;
    if (session.phase !== 'adopting') return;
    session.phase = 'complete';
    session.send(plainFrame(FrameType.syncDoneAck));
    this.#host.sessionComplete(session);
  }
}
