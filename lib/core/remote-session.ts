/**
 * Sessions in which the peer's copy is the one that counts: the primary has no local copy, or one
 * that it fetches from the peer. docs/replication.md tells the states; docs/wire-protocol.md the
 * frames.
 *
 * Invariants
 * - the primary sends no request before the peer holds, durably, everything received so far, the
 *   generation, and that the primary's copy is stale (`keeper`);
 * - marks go from the peer to the primary: durable here before the peer drops them;
 * - the peer withdraws `keeper` durably before the primary records its copy as consistent.
 */
import { HastError } from '../base/errors.ts';
import {
  bodyFrame, bodyOf, DetachKeep, FrameType, plainFrame, type Frame,
} from '../format/frame.ts';
import { decodeLineage, encodeLineage, type Hello, type Lineage } from '../format/hello.ts';
import { regionBitBytes } from '../format/map-pages.ts';
import { DataState, PeerState, SuperblockFlag } from '../format/superblock.ts';
import type { CoreContext } from './context.ts';
import { ResyncPull } from './resync-pull.ts';
import type { Session } from './session.ts';
import type { SessionHost } from './session-host.ts';
import { isWholeVolume, sendMaps } from './sync-target.ts';

/** The primary's side. */
export class RemotePrimary {
  pull: ResyncPull | null = null;

  readonly #session: Session;
  readonly #context: CoreContext;
  readonly #host: SessionHost;
  #lineage: Lineage;

  constructor(session: Session, context: CoreContext, host: SessionHost, lineage: Lineage) {
    this.#session = session;
    this.#context = context;
    this.#host = host;
    this.#lineage = lineage;
  }

  /** One region of what the peer's map says is stale here. */
  takeMap(frame: Frame): void {
    const { tracker } = this.#context;
    const region = frame.offset;
    if (region >= tracker.localStale.regionCount) {
      throw new HastError('HAST_E_PROTOCOL', 'a map of a region that does not exist');
    }
    if (frame.arg === 1) tracker.setLocalStaleRegion(region, null);
    else if (frame.size === regionBitBytes) tracker.setLocalStaleRegion(region, bodyOf(frame));
    else throw new HastError('HAST_E_PROTOCOL', 'a map of wrong size');
  }

  /** The peer's map has arrived: what this copy's own map names may differ as well. */
  endMap(end: Frame): void {
    const session = this.#session;
    const { tracker, store, clock } = this.#context;
    const peer = session.peer as Hello;
    if (isWholeVolume(end)) tracker.setAllLocalStale();
    tracker.mergeLocalStale(tracker.peerStale);
    this.#host.mapKnown();
    tracker.persistAll(() => {
      if (session.phase !== 'taking') return;
      store.update({
        ...session.numbers.raised,
        dataState: DataState.inconsistent, syncGeneration: this.#lineage.generation,
        flags: store.value.flags & ~(SuperblockFlag.createdZeroed | SuperblockFlag.assumeClean),
        peerCopyId: peer.copyId, peerGeneration: peer.generation, peerNode: peer.node,
        peerSessionNumber: peer.sessionNumber, contactAt: clock.wallSeconds(),
      }, (errno) => {
        if (session.phase !== 'taking') return;
        if (errno !== 0) {
          this.#context.localFailed('metadata', errno);
          return;
        }
        tracker.clearPeerStale(() => undefined);
        this.claim(DetachKeep.primary);
      });
    });
  }

  /** Asks the peer to be the copy that counts. */
  claim(keep: number): void {
    const session = this.#session;
    this.pull?.stop();
    this.pull = null;
    session.phase = 'claiming';
    session.send(bodyFrame(FrameType.detach, encodeLineage(this.#lineage), keep));
  }

  /** The peer is. */
  claimed(): void {
    const session = this.#session;
    session.phase = 'remote';
    this.#host.remoteReady(session, session.newStream());
    if (session.phase === 'remote' && !this.#host.isDiskless) this.#fetch();
  }

  /** Everything stale here was fetched, and flushed: the peer may let go. */
  rejoined(): void {
    const session = this.#session;
    const peer = session.peer as Hello;
    const { store, clock, events } = this.#context;
    if (session.phase !== 'rejoining') return;
    const wasCopying = (this.pull?.total ?? 0) > 0;
    const { forced, forcedIneligible, keeper, primaryActive } = SuperblockFlag;
    // From here on there is no way back, also where the session ends first.
    this.#host.remoteCommits();
    store.update({
      ...this.#lineage, dataState: DataState.consistent, syncGeneration: 0n,
      flags: (store.value.flags & ~(forced | forcedIneligible | keeper)) | primaryActive,
      peerState: PeerState.complete, peerGeneration: this.#lineage.generation,
      peerCopyId: peer.copyId, contactAt: clock.wallSeconds(),
    }, (errno) => {
      if (errno !== 0) {
        this.#context.localFailed('metadata', errno);
        return;
      }
      this.#host.remoteEnds();
      if (session.phase !== 'rejoining') return;
      this.pull = null;
      session.phase = 'complete';
      if (wasCopying) events.event({ kind: 'syncdone' });
      this.#host.sessionComplete(session);
    });
  }

  #fetch(): void {
    const session = this.#session;
    const { tracker, events } = this.#context;
    if (!tracker.localStale.isEmpty) events.event({ kind: 'syncstart' });
    this.pull = new ResyncPull(
      this.#context, session.newStream(), this.#host.newPace(), () => this.#fetched(),
    );
    this.pull.start();
  }

  #fetched(): void {
    const session = this.#session;
    if (session.phase !== 'remote') return;
    // The last requests end and new ones wait, so that none is on neither path.
    session.phase = 'rejoining';
    this.#host.closeRemote(() => {
      if (session.phase !== 'rejoining') return;
      const { tracker, disk } = this.#context;
      if (!tracker.localStale.isEmpty) {
        // A read found a bad block meanwhile.
        session.phase = 'remote';
        this.#host.remoteReady(session, session.newStream());
        this.pull?.pump();
        return;
      }
      disk.flush((errno) => {
        if (session.phase !== 'rejoining') return;
        if (errno !== 0) this.#context.localFailed('flush', errno);
        else tracker.clearAll(() => this.#unmarked());
      });
    });
  }

  #unmarked(): void {
    if (this.#session.phase !== 'rejoining') return;
    this.#session.send(plainFrame(FrameType.pullDone));
  }
}

/** The peer's side. */
export class RemoteServer {
  readonly #session: Session;
  readonly #context: CoreContext;
  readonly #host: SessionHost;

  constructor(session: Session, context: CoreContext, host: SessionHost) {
    this.#session = session;
    this.#context = context;
    this.#host = host;
  }

  /** Hands the map over to a primary that has a local copy. */
  begin(full: boolean, diskless: boolean): void {
    const session = this.#session;
    session.phase = 'handing';
    if (diskless) return;
    session.numbers.raise(() => {
      if (session.phase !== 'handing') return;
      sendMaps(session, [this.#context.tracker.peerStale], full);
    });
  }

  /** The primary's copy is stale: this one counts, as soon as that is durable. */
  take(frame: Frame): void {
    const session = this.#session;
    const lineage = decodeLineage(bodyOf(frame));
    const keep = frame.arg;
    if (keep !== DetachKeep.peer && keep !== DetachKeep.primary) {
      throw new HastError('HAST_E_PROTOCOL', 'a detach that nobody keeps the map of');
    }
    if (session.phase !== 'handing' && session.phase !== 'complete' &&
        session.phase !== 'serving') {
      throw new HastError('HAST_E_PROTOCOL', `a detach in phase ${session.phase}`);
    }
    if (this.#host.isPrimary) {
      throw new HastError('HAST_E_PROTOCOL', 'the peer relies on the copy of a primary');
    }
    session.phase = 'serving';
    // What follows is marked from here on, or the primary keeps the map.
    session.replica.keepsMap = keep === DetachKeep.peer;
    session.replica.drained(() => this.#context.disk.flush((errno) => {
      if (session.phase !== 'serving') return;
      if (errno !== 0) this.#context.localFailed('flush', errno);
      else this.#record(lineage, keep);
    }));
  }

  /** The primary's copy is equal again. */
  release(): void {
    const session = this.#session;
    const { store } = this.#context;
    store.update({
      flags: store.value.flags & ~SuperblockFlag.keeper, peerState: PeerState.unknown,
    }, (errno) => {
      if (session.phase !== 'serving') return;
      if (errno !== 0) {
        this.#context.localFailed('metadata', errno);
        return;
      }
      session.phase = 'complete';
      session.send(plainFrame(FrameType.pullDoneAck));
      this.#host.sessionComplete(session);
    });
  }

  #record(lineage: Lineage, keep: number): void {
    const session = this.#session;
    const peer = session.peer as Hello;
    const { store, tracker, clock } = this.#context;
    // Handed over: the primary holds them durably.
    if (keep === DetachKeep.primary) tracker.clearPeerStale(() => undefined);
    // The map speaks of another copy of the peer only once the peer has all of it.
    const pairing = keep === DetachKeep.primary
      ? { peerCopyId: peer.copyId, peerSessionNumber: peer.sessionNumber }
      : {};
    store.update({
      ...lineage, ...pairing, peerState: PeerState.behind, peerNode: peer.node,
      flags: store.value.flags | SuperblockFlag.keeper, contactAt: clock.wallSeconds(),
    }, (errno) => {
      if (session.phase !== 'serving') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else session.send(plainFrame(FrameType.detachAck));
    });
  }
}
