/**
 * Of one resource: whether its own copy counts. Losing it, going on through the peer's copy,
 * taking a new one, and the watch over a disk that does not answer.
 *
 * Invariants
 * - a copy that was given up is never read or written again through this attachment, and none of
 *   its callbacks is waited for;
 * - from that moment on nothing is acknowledged before the peer holds, durably, everything
 *   acknowledged so far and the record that it alone counts.
 */
import { HastError } from '../base/errors.ts';
import type { Lineage } from '../format/hello.ts';
import { DataState } from '../format/superblock.ts';
import type { CoreContext, LocalOp } from './context.ts';
import type { PeerStream } from './peer-stream.ts';
import { RangeLocks } from './range-lock.ts';
import type { Pending } from './held.ts';
import { RemoteIo } from './remote-io.ts';
import type { Resource } from './resource.ts';
import type { Session } from './session.ts';
import { withAncestor } from './superblock-store.ts';
import { AbsentDisk, errnoNoDevice } from './watched-disk.ts';

/** Parts of a core that come with a disk. */
export interface Attachment
  extends Pick<CoreContext, 'disk' | 'store' | 'tracker' | 'dataOffset' | 'mediaSize'> {
  /** Hears of a metadata write that failed before the core uses this attachment. */
  onEarlyError: ((errno: number) => void) | null;
}

/** What a complete peer had of the writes that were answered. */
interface Contact {
  /** Process of the peer that holds in memory what it has not flushed. */
  instance: bigint;
  hasUnflushed: boolean;
  /** Async: something answered never reached it. */
  hasTail: boolean;
  /** What both had; this node's own may be another by the time the copy is lost. */
  lineage: Lineage;
}

function contactOf(session: Session, { generation, history }: Lineage): Contact {
  const { stream } = session;
  return {
    instance: session.peer?.instance ?? 0n,
    hasUnflushed: stream?.ended === false ? stream.hasUnflushed : session.hasUnflushed,
    hasTail: session.lostTail,
    lineage: { generation, history },
  };
}

const watchMsMax = 1000;

export class RemoteState {
  /** The local copy is detached: `localDisk` says as what. */
  isDiskless = false;
  /** What status shows of the local copy while it is detached. */
  localWord: 'detached' | 'failed' = 'failed';
  /** Why; for status. */
  reason = '';
  /** The lineage of the peer's copy that this primary relies on; null while its own copy counts. */
  lineage: Lineage | null = null;
  /**
   * Of a primary: what the complete peer had when contact broke; null once it is behind, and
   * where it could not serve.
   */
  lastContact: Contact | null = null;
  /** A lineage that the peer is asked to take in the place of the one it has; null for none. */
  #next: Lineage | null = null;
  /** The peer's map was taken: what is not local-stale here is as new as the peer's. */
  isMapKnown = false;
  /** The peer said that it holds the present lineage; before that it may hold the one before. */
  isConfirmed = false;
  /** The record that the own copy counts again is being written: no request is under way. */
  isCommitting = false;
  readonly io: RemoteIo;

  readonly #resource: Resource;
  /** Wait for the answer to a claim. */
  #onAnswered: (() => void)[] = [];
  /** What was not yet confirmed when the copy was lost. */
  #reliesOn: Contact | null = null;

  constructor(resource: Resource) {
    this.#resource = resource;
    this.io = new RemoteIo(resource.context, this);
  }

  /** What the peer is asked to hold. */
  get claim(): Lineage | null {
    return this.#next ?? this.lineage;
  }

  get isActive(): boolean {
    return this.lineage !== null;
  }

  /** Watches the disk; to be called once. */
  start(): void {
    this.#watchLater();
  }

  /**
   * The local copy must not be used any more. True: the peer's copy takes over. False: there is
   * none that could, nothing was changed.
   */
  lose(why: string, word: 'detached' | 'failed'): boolean {
    const resource = this.#resource;
    const { context, session, io } = resource;
    if (this.isDiskless) return true;
    if (resource.role !== 'primary' || resource.failed || !this.#peerCanTakeOver()) return false;
    context.log.error({ why }, 'the local copy is detached: the peer serves');
    this.isDiskless = true;
    this.localWord = word;
    this.reason = why;
    const wasActive = this.lineage !== null;
    if (!wasActive) this.#relyOn(session);
    this.lineage ??= this.#newLineage();
    this.#dropDisk(this.lineage);
    let pending: Pending[];
    this.isCommitting = false;
    if (wasActive) {
      // Nothing more goes out before the peer marks what it takes.
      this.io.streamLost();
      const since = context.measures.tick();
      pending = this.io.takeQueue().map((app) => ({ app, held: null, since }));
      this.io.localGone();
    } else {
      pending = io.surrender();
    }
    for (const { app, held, since } of pending) this.io.submit(app, held, since);
    // Also one that shakes hands: what it said of the copy is no longer true.
    if (session !== null) session.claimDiskless(this.lineage);
    else resource.linker.start();
    context.events.event({ kind: 'detach' });
    return true;
  }

  /** The peer serves; everything that waits is sent. */
  ready(stream: PeerStream): void {
    this.lineage = this.claim;
    this.#next = null;
    this.isConfirmed = true;
    // In memory only: what the next handshake says of this node.
    if (this.isDiskless) this.#resource.context.store.update({ ...this.lineage }, () => undefined);
    this.io.useStream(stream);
    this.#answered();
  }

  /** Calls `done` when the peer serves, or contact broke before it did; perhaps at once. */
  whenAnswered(done: () => void): void {
    if (this.#resource.session?.phase === 'claiming') this.#onAnswered.push(done);
    else done();
  }

  /** Everything answered before the copy was lost is in the memory of this peer, or durable. */
  acceptsPeer(instance: bigint): boolean {
    const contact = this.#reliesOn;
    if (this.isConfirmed || contact === null) return true;
    return !contact.hasTail && (!contact.hasUnflushed || contact.instance === instance);
  }

  /** Requests wait for the next session. */
  sessionEnded(session: Session): void {
    const isPrimary = this.#resource.role === 'primary';
    if (session.endedIn === 'complete' && isPrimary && session.supportsRemote) {
      this.lastContact = contactOf(session, this.#resource.context.store.value);
    }
    if (!this.isConfirmed && this.#reliesOn !== null && session.lostTail) {
      this.#reliesOn = { ...this.#reliesOn, hasTail: true };
    }
    this.io.streamLost();
    if (!this.isCommitting) this.io.open();
    this.#answered();
  }

  /** Own and peer's copy are equal: the usual data path takes what waited. */
  leave(): void {
    // The copy was lost in the meantime.
    if (this.lineage === null || this.isDiskless) return;
    this.lineage = null;
    this.isCommitting = false;
    for (const app of this.io.takeQueue()) this.#resource.io.submit(app);
  }

  /** A promotion of a copy that is being filled: relies on the peer's copy from now on. */
  rely(lineage: Lineage): void {
    const { random } = this.#resource.context;
    const { generation, history } = lineage;
    this.lineage = lineage;
    this.isConfirmed = false;
    this.isMapKnown = false;
    this.#next = { generation: random.id64(), history: withAncestor(history, generation) };
  }

  /** The promotion came to nothing. */
  relyNoMore(): void {
    this.lineage = null;
    this.#next = null;
  }

  /** Takes `attachment`, whose metadata are loaded; its copy is fetched from the peer. */
  attach(
    attachment: Attachment, isOver: () => boolean, done: (errno: number) => void,
  ): void {
    const { context } = this.#resource;
    const { store, tracker, disk, dataOffset } = attachment;
    attachment.onEarlyError = done;
    // Whatever its own map names may differ from what the peer has.
    tracker.mergeLocalStale(tracker.peerStale);
    tracker.persistAll(() => store.update({
      dataState: DataState.inconsistent, syncGeneration: this.lineage?.generation ?? 0n,
    }, (errno) => {
      if (errno !== 0 || !this.isDiskless || this.lineage === null || isOver()) {
        tracker.abandon();
        store.abandon();
        done(errno === 0 ? errnoNoDevice : errno);
        return;
      }
      Object.assign(context, { disk, store, tracker, dataOffset });
      this.isDiskless = false;
      this.isMapKnown = false;
      context.log.info({}, 'a local copy is attached: it is brought up to date by the peer');
      context.events.event({ kind: 'attach' });
      this.#resource.session?.bye('a local copy was attached');
      this.io.copyAttached();
      this.#resource.linker.start();
      done(0);
    }));
  }

  #answered(): void {
    const due = this.#onAnswered;
    this.#onAnswered = [];
    for (const done of due) done();
  }

  #peerCanTakeOver(): boolean {
    const { session } = this.#resource;
    if (this.lineage !== null) return true;
    if (session !== null) return session.isComplete && session.supportsRemote;
    // The link is down: the peer has everything answered so far, if nothing was answered alone.
    const { lastContact } = this;
    return lastContact !== null && !this.#resource.aloneRecorded && !lastContact.hasTail;
  }

  /** What the peer must still have: `confirmed` once it said that all of it is durable there. */
  #relyOn(session: Session | null): void {
    const { store } = this.#resource.context;
    this.isConfirmed = false;
    this.#reliesOn = session === null ? this.lastContact : contactOf(session, store.value);
  }

  #newLineage(): Lineage {
    const { store, random } = this.#resource.context;
    const { generation, history } = this.#reliesOn?.lineage ?? store.value;
    const { peerGeneration } = store.value;
    return {
      generation: random.id64(), history: withAncestor(history, generation, peerGeneration),
    };
  }

  #dropDisk(lineage: Lineage): void {
    const { context } = this.#resource;
    context.tracker.abandon();
    // A record of going alone may be under way: it is not what the peer shares.
    const shared = this.#reliesOn?.lineage ?? {};
    context.store.abandon({
      ...shared, dataState: DataState.inconsistent, syncGeneration: lineage.generation,
    });
    context.store.update(shared, () => undefined);
    this.#resource.aloneRecorded = false;
    context.locks = new RangeLocks();
    let waiting: (() => void)[] = [];
    context.disk = new AbsentDisk((run) => {
      waiting.push(run);
      context.timers.set('absent-disk', context.clock.now(), () => {
        const due = waiting;
        waiting = [];
        for (const one of due) one();
      });
    });
  }

  #watchLater(): void {
    const { timers, clock, options } = this.#resource.context;
    const ms = options.diskTimeoutMs === 0
      ? watchMsMax
      : Math.min(watchMsMax, options.diskTimeoutMs / 4);
    timers.set('disk-watch', clock.now() + ms, () => this.#watch());
  }

  #watch(): void {
    const resource = this.#resource;
    const { context } = resource;
    if (resource.isStopped) return;
    this.#watchLater();
    const since = context.disk.busySince;
    const limit = context.options.diskTimeoutMs;
    if (limit === 0 || since === null || this.isDiskless || resource.failed) return;
    if (context.clock.now() < since + limit) return;
    context.log.error({ seconds: limit / 1000 }, 'the local disk does not answer');
    resource.copyFailed('timeout', `no answer within ${limit / 1000} s`);
  }
}

/** What an operation of the local copy is called in a sentence. */
export function lossText(op: LocalOp | 'timeout', detail: string): string {
  return `the local copy failed (${op}, ${detail})`;
}

/** The new disk holds another resource's copy, or one that does not fit. */
export function attachmentProblem(context: CoreContext, mediaSize: number): HastError | null {
  if (mediaSize === context.mediaSize) return null;
  return new HastError('HAST_E_CONFIG',
    `the volume on this disk has ${mediaSize} bytes, the one in use ${context.mediaSize}`,
    { hint: `create it anew: hastctl create --force -m ${context.mediaSize} NAME` });
}

/** True where a session carries requests to the copy that counts. */
export function isServed(session: Session | null): boolean {
  return session?.phase === 'remote' || session?.phase === 'rejoining';
}
