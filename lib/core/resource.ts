/**
 * One replicated resource on one node: owns the parts, and what they ask of each other.
 *
 * Invariants
 * - nothing is acknowledged with one copy before `aloneRecorded`: a new generation and "the peer
 *   is behind", durably; and, after a loss of contact, before one attempt to reach the peer;
 * - a generation handed to the peer ends `aloneRecorded` first;
 * - a primary that learns the peer was primary meanwhile answers nothing more.
 */
import { HastError } from '../base/errors.ts';
import type { Hello, Lineage } from '../format/hello.ts';
import type { Preface } from '../format/preface.ts';
import { PeerState } from '../format/superblock.ts';
import { AppIo } from './app-io.ts';
import type { AppIoHost } from './app-io-host.ts';
import { AsyncTail } from './async-tail.ts';
import type { BlockMap } from './block-map.ts';
import { Checkpoints } from './checkpoints.ts';
import type { CoreContext, LocalOp } from './context.ts';
import type { RefuseReason } from './generation.ts';
import { Linker, type LinkerHost } from './linker.ts';
import { noteContact } from './peer-contact.ts';
import type { PeerStream } from './peer-stream.ts';
import type { ConnectPort, OpenLink, Volume } from './ports.ts';
import type { RemoteIo } from './remote-io.ts';
import { isServed, lossText, RemoteState } from './remote-state.ts';
import type { Replica } from './replica.ts';
import { ResyncPace } from './resync-pace.ts';
import { Operator } from './operator.ts';
import { ownHello } from './own-hello.ts';
import { RoleChange, type PromoteDone } from './role-change.ts';
import { Session } from './session.ts';
import { isHandshake, type SessionHost } from './session-host.ts';
import { withAncestor } from './superblock-store.ts';

export class Resource implements SessionHost, AppIoHost, LinkerHost {
  readonly io: AppIo;
  readonly context: CoreContext;
  role: 'primary' | 'secondary' = 'secondary';
  session: Session | null = null;
  /** Why the peer and this node do not connect, until a handshake succeeds. */
  refusal: { reason: RefuseReason; text: string } | null = null;
  /** What the peer said of itself then. */
  refusedPeer: Hello | null = null;
  /** Reason of the latest loss of contact; empty before the first. */
  lostBecause = '';
  /** Wall clock seconds since when the peer is not connected; null while it is. */
  disconnectedSince: number | null;
  aloneRecorded: boolean;
  /** The peer was primary meanwhile, or the local copy failed: nothing is answered any more. */
  failed = false;
  failure = '';
  /** While `failed`: requests wait for a person. */
  stalls = false;
  /** The peer's disk failed in the present outage; it said so itself. */
  peerDiskHasFailed = false;
  /** This copy was complete when contact broke, as far as this process knows. */
  completeAtLastContact = false;
  readonly linker: Linker;
  readonly operator = new Operator(this);
  readonly roleChange = new RoleChange(this);
  readonly tail = new AsyncTail(this);
  readonly remote: RemoteState;
  /** Of the latest resync. */
  pace: ResyncPace;
  resyncPaused = false;

  readonly #checkpoints: Checkpoints;
  readonly #instance: bigint;
  #draining: Replica | null = null;
  #aloneWanted = false;
  #recording: (() => void)[] | null = null;
  #splitBrainSeen = '';
  #stopped = false;

  /** `makeContext` gets the function that the parts call when the local copy fails. */
  constructor(
    makeContext: (localFailed: CoreContext['localFailed']) => CoreContext, connect: ConnectPort,
  ) {
    this.context = makeContext((op, errno) => this.#localFailed(op, errno));
    this.io = new AppIo(this.context, this);
    this.linker = new Linker(this.context, connect, this);
    this.remote = new RemoteState(this);
    this.#checkpoints = new Checkpoints(this);
    this.pace = this.newPace();
    this.#instance = this.context.random.id64();
    this.aloneRecorded = this.context.store.value.peerState === PeerState.behind;
    this.disconnectedSince = this.context.clock.wallSeconds();
  }

  /** Starts linking and the checkpoints. */
  start(): void {
    // Whosever part it is to dial: the other one may be in the middle of a long back-off.
    this.linker.probe();
    this.#checkpoints.start();
    this.remote.start();
  }

  /** The volume for a front end. Only a primary may serve it. */
  get volume(): Volume {
    return this.io;
  }

  /** Asks for the primary role; answered within `timeoutMs`. */
  promote(force: boolean, timeoutMs: number, done: PromoteDone): void {
    this.roleChange.promote(force, timeoutMs, done);
  }

  /** Leaves the role cleanly and stops: marks, metadata and the peer are in order at `done`. */
  stop(force: boolean, done: () => void): void {
    this.roleChange.stop(force, done);
  }

  /** An accepted connection: see Linker.incoming. */
  incoming(preface: Preface, accept: () => OpenLink, refuse: (answer: number) => void): void {
    if (this.failed) refuse(5);
    else this.linker.incoming(preface, accept, refuse);
  }

  /** Options changed: what they mean for the connection is applied. */
  optionsChanged(reconnect: boolean): void {
    if (reconnect) this.session?.bye('the configuration changed');
    this.linker.start();
    const { options, clock } = this.context;
    this.pace.setRate(options.resyncRate, clock.now());
    this.session?.pump();
    this.io.recheck();
    this.#failWithoutData();
    if (this.stalls && options.onNoData === 'fail') this.#endStall();
  }

  turnEnd(): void {
    this.remote.io.turnEnd();
    this.session?.turnEnd();
    this.roleChange.states.look();
  }

  /** Monotonic milliseconds when `tick` should be called next, or null. */
  nextDeadline(): number | null {
    return this.context.timers.next();
  }

  tick(): void {
    this.context.timers.run(this.context.clock.now());
  }

  // SessionHost

  hello(): Hello {
    return ownHello(this, this.#instance);
  }

  yieldsTo(peer: Hello): boolean {
    if (this.role !== 'primary') return true;
    if (!this.roleChange.isPending) {
      // Its device may be in use: a primary is never taken out of its role by the peer.
      throw new HastError('HAST_E_PROTOCOL', 'the peer announces a generation to a primary');
    }
    // Both were promoted at the same moment: the copy with the higher id stays.
    if (this.context.store.value.copyId > peer.copyId) return false;
    this.roleChange.outvoted();
    return true;
  }

  strayWrites(stream: PeerStream | null): number {
    return this.io.strayWrites(stream);
  }

  get isDiskless(): boolean {
    return this.remote.isDiskless;
  }

  get reliesOn(): Lineage | null {
    return this.remote.lineage;
  }

  get claims(): Lineage | null {
    return this.remote.claim;
  }

  newPace(): ResyncPace {
    const { clock, options } = this.context;
    const now = clock.now();
    this.pace = new ResyncPace(now);
    this.pace.setRate(options.resyncRate, now);
    this.pace.paused = this.resyncPaused;
    return this.pace;
  }

  remoteReady(session: Session, stream: PeerStream): void {
    this.context.log.info({ peer: session.peer?.node }, 'the peer serves this primary');
    this.remote.ready(stream);
    this.roleChange.poke();
  }

  closeRemote(done: () => void): void {
    this.remote.io.close(done);
  }

  remoteCommits(): void {
    this.remote.isCommitting = true;
  }

  remoteEnds(): void {
    this.remote.leave();
  }

  compare(session: Session, peerMap: BlockMap, full: boolean): void {
    this.operator.resolution?.compare(session, peerMap, full);
  }

  acceptsPeer(peer: Hello): boolean {
    if (this.remote.acceptsPeer(peer.instance)) return true;
    this.#fail('the local copy failed, and the peer has not everything that was answered',
      this.context.options.onNoData === 'stall');
    return false;
  }

  mapKnown(): void {
    this.remote.isMapKnown = true;
  }

  peerDiskFailed(): void {
    this.peerDiskHasFailed = true;
    this.session?.stream?.distrust();
  }

  recordAlone(done: () => void): void {
    if (this.aloneRecorded) {
      done();
      return;
    }
    if (this.#recording !== null) {
      this.#recording.push(done);
      return;
    }
    this.#recording = [done];
    const { store, random } = this.context;
    const { generation, history, peerGeneration } = store.value;
    store.update({
      generation: random.id64(), history: withAncestor(history, generation, peerGeneration),
      peerState: PeerState.behind,
    }, (errno) => {
      const waiting = this.#recording ?? [];
      this.#recording = null;
      if (errno !== 0) {
        this.context.localFailed('metadata', errno);
        return;
      }
      // The copy was lost meanwhile: nothing is acknowledged alone.
      if (this.remote.isActive) return;
      this.aloneRecorded = true;
      this.remote.lastContact = null;
      this.context.log.warn({}, 'the peer is recorded as behind');
      for (const one of waiting) one();
      this.io.recheck();
    });
  }

  useStream(stream: PeerStream | null): void {
    this.io.useStream(stream);
  }

  aloneEnds(done: () => void): void {
    this.aloneRecorded = false;
    this.context.store.update({ peerState: PeerState.unknown }, (errno) => {
      if (errno !== 0) this.context.localFailed('metadata', errno);
      else done();
    });
  }

  flushBoth(stream: PeerStream, done: () => void): void {
    this.io.flushBoth(stream, done);
  }

  sessionConnected(session: Session): void {
    this.refusal = this.refusedPeer = this.remote.lastContact = null;
    this.operator.resolution?.connected(session);
    this.#splitBrainSeen = '';
    this.disconnectedSince = null;
    this.peerDiskHasFailed = false;
    this.completeAtLastContact = session.verdict?.kind === 'source';
    noteContact(this.context, session);
    this.linker.connected(session.peer?.node ?? '');
    this.context.log.info({ peer: session.peer?.node, verdict: session.verdict?.row }, 'connected');
    this.context.events.event({ kind: 'connect' });
    this.roleChange.poke();
  }

  sessionComplete(session: Session): void {
    this.aloneRecorded = false;
    this.#aloneWanted = false;
    this.completeAtLastContact = true;
    this.io.singleCopyWrites = 0;
    if (this.role === 'primary') this.io.useStream(session.becomeSender());
    this.io.recheck();
    this.roleChange.poke();
  }

  sessionRefused(session: Session, reason: RefuseReason, text: string): void {
    this.refusal = { reason, text };
    this.refusedPeer = session.peer;
    const seen = `${session.peer?.generation}/${this.context.store.value.generation}`;
    if (reason === 'split-brain' && seen !== this.#splitBrainSeen) {
      this.#splitBrainSeen = seen;
      this.context.log.error({}, 'split brain: both copies were written independently');
      this.context.events.event({ kind: 'split-brain' });
    } else {
      this.context.log.warn({ reason }, 'the handshake was refused');
    }
    const peerWasPrimary = reason === 'primary-is-behind' || reason === 'both-primary';
    const isAttached = this.remote.isActive && !this.isDiskless;
    if (isAttached && !peerWasPrimary && !this.roleChange.isPending) {
      // What was attached does not fit the peer's copy: on without it.
      this.remote.lose(`the peer refuses the copy that was attached: ${text}`, 'detached');
      this.refusal = null;
    } else if (this.role === 'primary' && peerWasPrimary && !this.aloneRecorded) {
      this.failAll(`${text}; run hastctl role secondary --force`);
    }
    this.operator.resolution?.refused(reason, text);
    session.bye(text);
    this.roleChange.poke();
  }

  sessionEnded(session: Session, reason: string): void {
    if (this.session !== session) return;
    this.session = null;
    this.#draining = session.replica;
    session.replica.drained(() => {
      if (this.#draining === session.replica) this.#draining = null;
    });
    const wasConnected = session.endedIn !== null && !isHandshake(session.endedIn);
    if (wasConnected) {
      this.lostBecause = reason;
      this.disconnectedSince = this.context.clock.wallSeconds();
      this.context.log.warn({ reason }, 'disconnected');
      const copying = session.source.resync ?? session.remote?.pull ?? null;
      if ((copying?.total ?? 0) > 0) this.context.events.event({ kind: 'syncintr' });
      this.context.events.event({ kind: 'disconnect', reason });
    } else {
      this.context.log.debug({ reason }, 'a connection ended in the handshake');
    }
    this.linker.lost(this.refusal !== null ? 'refused' : wasConnected ? 'contact' : 'handshake');
    this.remote.sessionEnded(session);
    this.io.recheck();
    this.roleChange.poke();
    this.operator.resolution?.sessionEnded(session);
  }

  // AppIoHost

  requireAlone(): void {
    this.#aloneWanted = true;
    this.#maybeAlone();
  }

  get remoteIo(): RemoteIo | null {
    return this.remote.isActive ? this.remote.io : null;
  }

  get isSyncing(): boolean {
    const { session } = this;
    return session !== null && (session.source.resync !== null || session.remote?.pull != null);
  }

  requestDone(latencyMs: number): void {
    this.pace.requestDone(latencyMs, this.context.clock.now());
  }

  strayEnded(): void {
    this.session?.strayEnded();
  }

  // LinkerHost

  get isPrimary(): boolean {
    return this.role === 'primary' || this.roleChange.isResuming;
  }

  get isComplete(): boolean {
    return this.session?.isComplete === true;
  }

  get hasSession(): boolean {
    return this.session !== null;
  }

  endSession(reason: string, done: () => void): void {
    this.session?.end(reason);
    // What a failed disk still holds may never return: this node takes no connection any more.
    if (this.#draining === null || this.failed) done();
    else this.#draining.drained(done);
  }

  openSession(open: OpenLink): void {
    if (this.#stopped || this.failed) {
      open({ frame: () => undefined, closed: () => undefined }).close();
      return;
    }
    this.session = new Session(this.context, this, open);
  }

  attemptFailed(text: string, answered: boolean): void {
    this.context.log.debug({ text, answered }, 'the peer was not reached');
    this.#maybeAlone();
    this.#failWithoutData();
    this.roleChange.poke();
  }

  // For RoleChange

  /** Every received frame of an ended session was executed. */
  drained(done: () => void): void {
    if (this.session !== null) this.session.replica.drained(done);
    else if (this.#draining !== null) this.#draining.drained(done);
    else done();
  }

  /** Nothing is answered any more: pending requests end with EIO. */
  failAll(why: string): void {
    this.#fail(why, false);
    this.#endStall();
    this.remote.io.failAll();
  }

  get isStopped(): boolean {
    return this.#stopped;
  }

  /** The local copy must not be used any more: the peer's takes over, or this resource fails. */
  copyFailed(op: LocalOp | 'timeout', detail: string): void {
    const why = lossText(op, detail);
    const waits = this.role === 'primary' && this.context.options.onNoData === 'stall';
    if (!this.remote.lose(why, 'failed')) this.#fail(why, waits);
    this.roleChange.poke();
  }

  halt(): void {
    this.#stopped = true;
    this.linker.stop();
    this.#checkpoints.stop();
  }

  #maybeAlone(): void {
    if (!this.#aloneWanted || !this.isPrimary || this.failed || this.remote.isActive) return;
    if (this.session !== null) return;
    const tried = this.linker.attempts > 0 || this.refusal !== null || this.context.options.alone;
    if (!tried) {
      this.linker.start();
      return;
    }
    this.#aloneWanted = false;
    this.recordAlone(() => undefined);
  }

  #localFailed(op: LocalOp, errno: number): void {
    const { statistics, log } = this.context;
    if (op === 'read') statistics.localReadErrors++;
    else if (op === 'delete') statistics.localDeleteErrors++;
    else if (op === 'flush') statistics.localFlushErrors++;
    else statistics.localWriteErrors++;
    log.error({ op, errno }, 'an operation on the local copy failed');
    if (op !== 'read') this.copyFailed(op, `errno ${errno}`);
  }

  /** A secondary stops using its copy, or has none any more; the peer goes on without it. */
  giveUpCopy(why: string): void {
    if (!this.isDiskless) this.remote.localWord = 'detached';
    if (!this.isDiskless) this.context.events.event({ kind: 'detach' });
    this.session?.bye(why);
    this.#fail(why, false);
  }

  #endStall(): void {
    this.stalls = false;
    this.io.failStalled();
  }

  /** Nobody serves this primary, and its operator wants an error then. */
  #failWithoutData(): void {
    const { onNoData } = this.context.options;
    if (!this.remote.isActive || onNoData === 'stall' || isServed(this.session)) return;
    if (this.linker.attempts > 0 || this.refusal !== null) this.remote.io.failAll();
  }

  #fail(why: string, stalls: boolean): void {
    if (this.failed) return;
    this.failed = true;
    this.failure = why;
    this.stalls = stalls;
    if (stalls) this.io.stall();
    this.context.log.error({ why }, 'the resource failed');
    // At once: requests are answered below, and their memory must not be sent any more.
    if (this.role === 'primary') this.session?.end(why);
    else this.session?.copyFailed(why);
    this.linker.stop();
    this.io.recheck();
    this.roleChange.poke();
  }
}
