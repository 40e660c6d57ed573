/**
 * The source's side of a sync that pushes: takes the target's marks, makes them and the pairing
 * durable, copies, and hands the generation over.
 *
 * Invariants
 * - marks handed over are durable here before anything is copied;
 * - the target takes the generation only after a flush of both copies that covers all of it.
 */
import { HastError } from '../base/errors.ts';
import { bodyFrame, bodyOf, FrameType, type Frame } from '../format/frame.ts';
import { encodeLineage, type Hello } from '../format/hello.ts';
import { regionBitBytes } from '../format/map-pages.ts';
import { PeerState, SuperblockFlag } from '../format/superblock.ts';
import type { CoreContext } from './context.ts';
import type { PeerStream } from './peer-stream.ts';
import { ResyncSource } from './resync-source.ts';
import type { Session } from './session.ts';
import type { SessionHost } from './session-host.ts';

export class SyncSource {
  resync: ResyncSource | null = null;

  readonly #session: Session;
  readonly #context: CoreContext;
  readonly #host: SessionHost;

  constructor(session: Session, context: CoreContext, host: SessionHost) {
    this.#session = session;
    this.#context = context;
    this.#host = host;
  }

  /** One region of the target's map. Throws HAST_E_PROTOCOL where it cannot be one. */
  takeMap(frame: Frame): void {
    const { tracker } = this.#context;
    const region = frame.offset;
    if (region >= tracker.peerStale.regionCount) {
      throw new HastError('HAST_E_PROTOCOL', 'a map of a region that does not exist');
    }
    if (frame.arg === 1) tracker.setRegionStale(region, null);
    else if (frame.size === regionBitBytes) tracker.setRegionStale(region, bodyOf(frame));
    else throw new HastError('HAST_E_PROTOCOL', 'a map of wrong size');
  }

  endMap(): void {
    const session = this.#session;
    const { tracker, store, clock } = this.#context;
    const { verdict } = session;
    const peer = session.peer as Hello;
    if (verdict?.kind === 'source' && verdict.full) {
      this.#context.inflight.lose();
      tracker.setAllStale();
    }
    // First the marks, then the pairing: once the peer is recorded, the map speaks of its copy.
    tracker.persistAll(() => {
      if (session.phase !== 'map') return;
      const pairing = {
        peerCopyId: peer.copyId, peerGeneration: peer.generation, peerNode: peer.node,
        peerSessionNumber: peer.sessionNumber, contactAt: clock.wallSeconds(),
        ...session.numbers.raised,
      };
      store.update(pairing, (errno) => {
        if (session.phase !== 'map') return;
        if (errno !== 0) this.#context.localFailed('metadata', errno);
        else this.#start();
      });
    });
  }

  /** The target is durably inconsistent. */
  copy(): void {
    const session = this.#session;
    session.phase = 'copying';
    const stream = this.#open();
    const { events, tracker } = this.#context;
    if (!tracker.peerStale.isEmpty) events.event({ kind: 'syncstart' });
    this.resync = new ResyncSource(
      this.#context, stream, this.#host.newPace(), () => this.#copied(stream),
    );
    this.resync.start();
  }

  /** The target holds the generation: it is a copy now. */
  targetComplete(): void {
    const { store, clock, events } = this.#context;
    const wasCopying = this.resync !== null && this.resync.total > 0;
    this.resync = null;
    this.#session.phase = 'complete';
    const { generation, flags } = store.value;
    const { forced, forcedIneligible, keeper, asyncPrimary } = SuperblockFlag;
    // What it has, the peer has too; a primary goes on to have more.
    const ended = forced | forcedIneligible | keeper |
      (this.#host.isPrimary ? 0 : asyncPrimary);
    store.update({
      peerState: PeerState.complete, peerGeneration: generation,
      flags: flags & ~ended, contactAt: clock.wallSeconds(),
    }, (errno) => {
      if (errno !== 0) this.#context.localFailed('metadata', errno);
    });
    if (wasCopying) events.event({ kind: 'syncdone' });
    this.#host.sessionComplete(this.#session);
  }

  /** The stream, with what was executed at the peer before contact broke and needs only a flush. */
  #open(): PeerStream {
    const stream = this.#session.newStream();
    const { instance } = this.#session.peer as Hello;
    stream.takeOver(this.#context.tracker.takeExecuted(instance));
    this.#host.useStream(stream);
    return stream;
  }

  #start(): void {
    const session = this.#session;
    const { tracker, store } = this.#context;
    // Writes may follow at once: a target of another generation must not look like what it was.
    const isOther = (session.peer as Hello).generation !== store.value.generation;
    const mayWrite = isOther && this.#host.isPrimary;
    const { instance } = session.peer as Hello;
    const isEqual = tracker.peerStale.count === tracker.executedCount(instance);
    if (isEqual && this.#host.strayWrites(null) === 0 && !mayWrite) {
      this.#finish(this.#open());
      return;
    }
    session.phase = 'starting';
    this.#host.recordAlone(() => {
      if (session.phase !== 'starting') return;
      // The generation may be newer than the one in the hello.
      const { generation, history } = store.value;
      session.send(bodyFrame(FrameType.syncStart, encodeLineage({ generation, history })));
    });
  }

  /** Nothing is stale at this moment; writes that went nowhere may still make it so. */
  #copied(stream: PeerStream): void {
    if (this.#session.phase !== 'copying' || this.#host.strayWrites(stream) > 0) return;
    this.resync?.stop();
    this.#finish(stream);
  }

  #finish(stream: PeerStream): void {
    const session = this.#session;
    session.phase = 'finishing';
    stream.counts = true;
    this.#host.flushBoth(stream, () => {
      if (session.phase !== 'finishing') return;
      // The peer may be promoted as soon as it holds this generation.
      this.#host.aloneEnds(() => this.#name(() => {
        if (session.phase !== 'finishing') return;
        const { generation, history } = this.#context.store.value;
        session.send(bodyFrame(FrameType.syncDone, encodeLineage({ generation, history })));
      }));
    });
  }

  /** A fresh pair gets its first generation: what both go on from is known by it. */
  #name(done: () => void): void {
    const { store, random } = this.#context;
    if (store.value.generation !== 0n) {
      done();
      return;
    }
    store.update({ generation: random.id64() }, (errno) => {
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else done();
    });
  }
}
