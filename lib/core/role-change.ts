/** Promotion, step by step, and the clean stop. */
import { DataState, DiskRole, PeerState, SuperblockFlag } from '../format/superblock.ts';
import { WireRole, type Hello, type Lineage } from '../format/hello.ts';
import {
  judgePromotion, judgeResume, servedRow, type PromotionAnswer, type PromotionFacts,
  type ResumeFacts,
} from './promotion.ts';
import type { RefuseReason } from './generation.ts';
import type { Resource } from './resource.ts';
import { isServed } from './remote-state.ts';
import type { Session } from './session.ts';
import type { SessionPhase } from './session-host.ts';
import { StateLog } from './state-log.ts';
import { withAncestor, type SuperblockPatch } from './superblock-store.ts';

export type PromoteDone = (refusal: { message: string; hint: string } | null) => void;

interface Request {
  force: boolean;
  /** Of the successor of a primary's worker: see resume(). */
  resumes: boolean;
  /** Monotonic milliseconds. */
  deadline: number;
  done: PromoteDone;
  probed: boolean;
  running: boolean;
  /** Promoted to work through the peer's copy: the handshake for it is under way. */
  relying: boolean;
  /** The peer is being told of the generation: looks whether it still is. */
  announcing?: () => void;
}

/** The handshake or the end of a sync is under way: wait for what comes of it. */
const passing: ReadonlySet<SessionPhase> = new Set([
  'hello', 'verdict', 'map', 'starting', 'finishing', 'waiting', 'keeping', 'adopting', 'handing',
]);

/** What a copy is no longer whose primary left with nothing that the peer lacks. */
const endedFlags = SuperblockFlag.primaryActive | SuperblockFlag.asyncPrimary;

/** How long a stop waits for requests in flight, and for the peer's last flush. */
const stopWaitMs = 5000;
/** Attempts to reach the peer before the successor of a primary's worker goes on without it. */
const resumeAttempts = 3;
/** How long it waits for a peer that is connected and does not take the new generation. */
const resumeAnnounceMs = 5000;

export class RoleChange {
  /** Why resume() is not answered yet, as a sentence; empty while nothing waits. */
  waitsFor = '';
  readonly states: StateLog;
  readonly #resource: Resource;
  #request: Request | null = null;
  /** The last part of a stop waits for the disk: called once where the disk fails instead. */
  #stopEnd: (() => void) | null = null;

  constructor(resource: Resource) {
    this.#resource = resource;
    this.states = new StateLog(resource);
  }

  /** A promotion was asked for and is not answered yet. */
  get isPending(): boolean {
    return this.#request !== null;
  }

  /** This node has been primary all the time, as far as the peer is concerned. */
  get isResuming(): boolean {
    return this.#request?.resumes === true;
  }

  /**
   * Primary again, as the successor of a primary's worker that died: its device is still there.
   * Answered as soon as it is decided, which may take as long as the peer needs (`waitsFor`); a
   * refusal is final. Before start().
   */
  resume(done: PromoteDone): void {
    this.#request = {
      force: false, resumes: true, deadline: Infinity, done,
      probed: false, running: false, relying: false,
    };
    this.poke();
  }

  promote(force: boolean, timeoutMs: number, done: PromoteDone): void {
    const { context, role } = this.#resource;
    if (role === 'primary') {
      done(null);
      return;
    }
    if (this.#request !== null) {
      done({ message: 'a promotion is already under way', hint: 'wait for it to end' });
      return;
    }
    const deadline = context.clock.now() + timeoutMs;
    this.#request = {
      force, resumes: false, deadline, done, probed: false, running: false, relying: false,
    };
    context.timers.set('promotion', deadline, () => this.poke());
    this.poke();
  }

  /** Something changed that a waiting promotion may depend on. */
  poke(): void {
    this.states.look();
    if (this.#resource.failed || this.#resource.isDiskless) this.#stopEnd?.();
    const request = this.#request;
    if (request === null) return;
    const { context, session, linker, role } = this.#resource;
    const late = context.clock.now() >= request.deadline;
    if (request.relying) {
      this.#pokeRelying(request, late);
      return;
    }
    if (request.running) {
      // A peer that took it must not be met, in the next handshake, under the one before.
      request.announcing?.();
      if (late && role !== 'primary') {
        this.#finish({ message: 'the local disk does not answer', hint: 'see the kernel log' });
      }
      return;
    }
    if (session !== null && passing.has(session.phase) && !late) return;
    if (session === null && !context.options.alone && !late) {
      if (!request.probed) {
        request.probed = true;
        linker.attempts = 0;
        linker.probe();
        return;
      }
      if (linker.attempts === 0) return;
    }
    const answer = this.#judge(request);
    this.waitsFor = !answer.allowed && answer.waits ? `${answer.message}: ${answer.hint}` : '';
    if (this.waitsFor !== '') return;
    // A peer that answers may be about to shake hands: a little patience before the refusal.
    if (!answer.allowed && answer.row === 'J-peer-answers' && !late) return;
    request.running = true;
    if (answer.allowed) this.#run(answer, request);
    else this.#finish({ message: answer.message, hint: answer.hint });
  }

  #judge({ resumes, force }: Request): PromotionAnswer {
    return resumes ? judgeResume(this.#resumeFacts()) : judgePromotion(this.#facts(), force);
  }

  /** The peer, promoted at the same moment, stays primary: nothing was served here yet. */
  outvoted(): void {
    const resource = this.#resource;
    const { context, io, session } = resource;
    resource.role = 'secondary';
    io.useStream(null);
    context.timers.clear('generation');
    const flags = context.store.value.flags & ~endedFlags;
    context.store.update({ flags, lastRole: DiskRole.secondary }, (errno) => {
      if (errno !== 0) context.localFailed('metadata', errno);
    });
    session?.announceRole(WireRole.secondary);
    this.#finish({
      message: 'the peer was promoted at the same moment',
      hint: 'run hastctl role secondary NAME there first, if this node is to be primary',
    });
  }

  /** Ends every activity in order; bounded. */
  stop(force: boolean, done: () => void): void {
    const resource = this.#resource;
    const { context, io, remote } = resource;
    // A primary that works through its peer needs it to the end.
    if (!remote.isActive) resource.linker.stop();
    if (force) resource.failAll('the device was taken away by force');
    const deadline = context.clock.now() + stopWaitMs;
    const wait = (): void => {
      if (io.activeCount + remote.io.activeCount > 0 && context.clock.now() < deadline) {
        context.timers.set('stop', context.clock.now() + 20, wait);
        return;
      }
      this.#lastFlush(done);
    };
    wait();
  }

  #facts(): PromotionFacts {
    const {
      context, session, linker, refusal, failed, completeAtLastContact, tail,
    } = this.#resource;
    const block = context.store.value;
    const connected = session !== null && session.isConnected;
    const phase = session?.phase;
    const lastPrimary = block.lastRole === DiskRole.primary ||
      (block.flags & SuperblockFlag.primaryActive) !== 0;
    return {
      consistent: block.dataState === DataState.consistent,
      failed,
      connected,
      peerIsPrimary: connected && session.peerRole === WireRole.primary,
      current: phase === 'complete' || phase === 'copying' || phase === 'undecided' ||
        phase === 'serving',
      splitBrain: refusal?.reason === 'split-brain',
      misfit: refusal !== null && refusal.reason !== 'split-brain',
      remoteNone: context.options.alone,
      freshAndAlone: block.generation === 0n && block.peerCopyId === 0n,
      lastPrimaryPeerBehind: lastPrimary && block.peerState === PeerState.behind,
      servable: (phase === 'syncing' || phase === 'waiting') && session?.supportsRemote === true &&
        !tail.isOwed(session),
      keeper: (block.flags & SuperblockFlag.keeper) !== 0 && block.peerState === PeerState.behind,
      peerGone: (block.flags & SuperblockFlag.peerGone) !== 0,
      completeAtLastContact,
      peerAnswers: linker.peerAnswers && !context.options.alone && !connected,
    };
  }

  #resumeFacts(): ResumeFacts {
    const { context, session, linker, refusal } = this.#resource;
    const { dataState, syncGeneration } = context.store.value;
    return {
      ...this.#facts(),
      relied: dataState !== DataState.consistent && syncGeneration !== 0n &&
        session?.peer?.generation === syncGeneration,
      peerWasPrimary: refusal !== null && isOfPrimary(refusal.reason),
      tried: linker.attempts >= resumeAttempts,
    };
  }

  #run(answer: PromotionAnswer & { allowed: true }, request: Request): void {
    const { context } = this.#resource;
    context.log.info({ row: answer.row, forced: answer.forced }, 'promotion');
    const fail = (errno: number): void => {
      // Refused: it must not go on through the peer, as a primary would.
      if (this.#request === request) this.#resource.role = 'secondary';
      context.localFailed('metadata', errno);
      this.#finish({ message: 'the local disk failed', hint: 'see the log' });
    };
    this.#resource.drained(() => context.disk.flush((errno) => {
      if (errno !== 0) {
        fail(errno);
        return;
      }
      // What came during the flush counts as well: in memsync it is acknowledged.
      this.#resource.drained(() => this.#claim(request, fail));
    }));
  }

  /** Decides again, as the peer may have come back during the flush, and takes the role. */
  #claim(request: Request, fail: (errno: number) => void): void {
    const { context, session } = this.#resource;
    if (this.#request !== request) return;
    const isLate = context.clock.now() >= request.deadline;
    if (session !== null && passing.has(session.phase) && !isLate) {
      request.running = false;
      return;
    }
    const answer = this.#judge(request);
    if (!answer.allowed && answer.waits) {
      request.running = false;
      this.poke();
      return;
    }
    if (!answer.allowed) {
      this.#finish({ message: answer.message, hint: answer.hint });
      return;
    }
    if (answer.row === servedRow && session !== null) {
      this.#rely(session, request);
      return;
    }
    const joined = session !== null && (session.isComplete || session.phase === 'copying');
    // What a handshake under way was told of this node's role is no longer true.
    // The role first: the end of a session asks again what comes of this promotion.
    this.#resource.role = 'primary';
    if (!joined && session?.phase !== 'undecided') session?.end('this node is being promoted');
    const lineage = this.#nextLineage();
    const record = (recorded: Lineage, isJoined: boolean): void => {
      context.store.update({ ...recorded, ...this.#patch(answer, isJoined) }, (error) => {
        if (error !== 0) {
          fail(error);
          return;
        }
        // A fill that is given up names what differs; the peer has handed its own marks over.
        if (answer.ineligible) context.tracker.localCounts();
        this.#promoted(request);
      });
    };
    if (session?.isComplete === true) this.#announce(session, request, lineage, record);
    else record(lineage, joined);
  }

  /**
   * The complete peer takes the generation first: were it recorded here first, and this node lost
   * before the peer heard of it, the two would seem to have gone different ways.
   */
  #announce(
    session: Session, request: Request, lineage: Lineage,
    record: (recorded: Lineage, isJoined: boolean) => void,
  ): void {
    const { context } = this.#resource;
    const isOver = (): boolean => this.#request !== request || this.#resource.role !== 'primary';
    let answered = false;
    const deadline = request.resumes
      ? context.clock.now() + resumeAnnounceMs
      : Math.max(request.deadline, context.clock.now() + 1000);
    const check = (): void => {
      if (answered || isOver()) return;
      if (session.isComplete && context.clock.now() < deadline) {
        context.timers.set('generation', Math.min(deadline, context.clock.now() + 50), check);
        return;
      }
      answered = true;
      // Also a session that began meanwhile: what it was told of this node is no longer true.
      this.#resource.session?.end('the peer did not take the new generation');
      // It may hold this one: what is acknowledged alone must be of another.
      const history = withAncestor(lineage.history, lineage.generation);
      record({ generation: context.random.id64(), history }, false);
    };
    // First the role: the peer must not think of being promoted any more.
    session.announceRole(WireRole.primary);
    session.announceGeneration(lineage, () => {
      if (answered || isOver()) return;
      answered = true;
      context.timers.clear('generation');
      record(lineage, true);
    });
    request.announcing = check;
    check();
  }

  /** The copy is not whole: this node becomes primary on the peer's. */
  #rely(session: Session, request: Request): void {
    const resource = this.#resource;
    const { context } = resource;
    const { generation, history } = session.sourceLineage ?? session.peer as Hello;
    resource.role = 'primary';
    session.end('this node is being promoted');
    resource.remote.rely({ generation, history });
    context.store.update({
      dataState: DataState.inconsistent, syncGeneration: generation,
    }, (errno) => {
      if (errno !== 0) context.localFailed('metadata', errno);
      request.relying = true;
      resource.linker.attempts = 0;
      resource.linker.start();
      this.poke();
    });
  }

  #pokeRelying(request: Request, late: boolean): void {
    const resource = this.#resource;
    const { context, session, linker } = resource;
    if (isServed(session)) {
      request.relying = false;
      context.store.update({
        flags: context.store.value.flags | SuperblockFlag.primaryActive | resource.tail.flag,
        lastRole: DiskRole.primary,
        syncGeneration: resource.remote.lineage?.generation ?? 0n,
      }, (errno) => {
        if (errno !== 0) context.localFailed('metadata', errno);
        if (this.#request === request) this.#finish(null);
      });
      return;
    }
    const isLost = session === null && (linker.attempts > 0 || resource.refusal !== null);
    if (!late && !isLost && !resource.failed) return;
    resource.role = 'secondary';
    resource.remote.relyNoMore();
    session?.end('the promotion came to nothing');
    if (request.resumes && !resource.failed && !resource.isDiskless) {
      request.relying = request.running = false;
      return;
    }
    this.#finish({
      message: 'the peer, whose copy is the complete one, was lost during the promotion',
      hint: 'run the command again when hastctl status says that it is connected',
    });
    // It was given up meanwhile, for the peer to serve a primary: there is none.
    if (resource.isDiskless) resource.giveUpCopy(resource.remote.reason);
  }

  #nextLineage(): Lineage {
    const { context, aloneRecorded } = this.#resource;
    const { generation, history, peerGeneration, flags } = context.store.value;
    // A generation that only this copy ever had need not be remembered: a node that is promoted
    // again and again without its peer must not lose their common ancestor. A keeper's is what a
    // primary relies on.
    const isOwn = aloneRecorded && (flags & SuperblockFlag.keeper) === 0;
    return {
      generation: context.random.id64(),
      history: generation === 0n || isOwn
        ? history
        : withAncestor(history, generation, peerGeneration),
    };
  }

  #patch(answer: PromotionAnswer & { allowed: true }, joined: boolean): SuperblockPatch {
    const { context } = this.#resource;
    const { flags } = context.store.value;
    let next = flags | SuperblockFlag.primaryActive | this.#resource.tail.flag;
    if (answer.forced) next |= SuperblockFlag.forced;
    if (answer.ineligible) next |= SuperblockFlag.forcedIneligible;
    return {
      lastRole: DiskRole.primary,
      flags: next,
      // What was forced counts as an image of its own from here on.
      ...(answer.ineligible ? { dataState: DataState.consistent } : {}),
      ...(joined ? {} : { peerState: PeerState.behind }),
    };
  }

  #promoted(request: Request): void {
    const resource = this.#resource;
    if (resource.role !== 'primary' || this.#request !== request) return;
    const { session, context } = resource;
    resource.aloneRecorded = context.store.value.peerState === PeerState.behind;
    if (session === null || session.phase === 'undecided') {
      // The pair shakes hands anew: this copy has a generation now.
      session?.bye('this node was promoted');
      resource.linker.start();
      this.#finish(null);
      return;
    }
    session.announceRole(WireRole.primary);
    if (!session.isComplete) {
      this.#finish(null);
      return;
    }
    resource.io.useStream(session.becomeSender());
    this.#finish(null);
  }

  #finish(refusal: { message: string; hint: string } | null): void {
    const done = this.#request?.done;
    if (refusal !== null) this.#resource.context.inflight.lose();
    this.#request = null;
    this.waitsFor = '';
    this.#resource.context.timers.clear('promotion');
    done?.(refusal);
  }

  #lastFlush(done: () => void): void {
    const resource = this.#resource;
    const { context, session } = resource;
    let stepped = false;
    const next = (): void => {
      if (stepped) return;
      stepped = true;
      context.timers.clear('stop');
      this.#release(done);
    };
    if (resource.failed || resource.isDiskless) {
      next();
      return;
    }
    context.timers.set('stop', context.clock.now() + stopWaitMs, next);
    const flushed = (): void => {
      const stream = resource.session?.stream ?? null;
      const both = session !== null && stream !== null && !stream.ended && stream.hasUnflushed;
      if (both) resource.flushBoth(stream, () => session.numbers.settle(next));
      else if (session !== null) context.disk.flush(() => session.numbers.settle(next));
      else context.disk.flush(next);
    };
    resource.drained(flushed);
  }

  #release(done: () => void): void {
    const resource = this.#resource;
    const { context, session } = resource;
    const wasPrimary = resource.role === 'primary';
    const clean = session !== null && session.isComplete && context.tracker.peerStale.isEmpty &&
      session.stream?.hasUnflushed !== true && !resource.failed;
    let ended = false;
    const end = (): void => {
      if (ended) return;
      ended = true;
      resource.halt();
      resource.session?.announceRole(WireRole.secondary);
      resource.session?.bye('this node leaves');
      done();
    };
    if (resource.failed || resource.isDiskless) {
      end();
      return;
    }
    this.#stopEnd = end;
    const { store, tracker } = context;
    tracker.releaseHot(() => {
      if (!wasPrimary) {
        end();
        return;
      }
      const flags = clean ? store.value.flags & ~endedFlags : store.value.flags;
      store.update({ lastRole: DiskRole.secondary, flags, contactAt: context.clock.wallSeconds() },
        () => end());
    });
  }
}

/** The peer's newer data are those of a primary. */
function isOfPrimary(reason: RefuseReason): boolean {
  return reason === 'primary-is-behind' || reason === 'both-primary';
}
