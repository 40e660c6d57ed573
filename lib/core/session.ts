/**
 * One connection to the peer: handshake, who copies to whom, and the dispatch of frames to the
 * part that is at work: sync-source.ts and sync-target.ts (a sync that pushes), remote-session.ts
 * (a primary that relies on the peer's copy). docs/wire-protocol.md has the sequences.
 *
 * Invariant: a session that ended takes and sends nothing; frames received whole are still
 * executed.
 */
import { HastError } from '../base/errors.ts';
import {
  bodyFrame, bodyOf, DetachKeep, FrameType, isRangeFrame, textOf, plainFrame, type Frame,
} from '../format/frame.ts';
import {
  Attachment, decodeHello, decodeLineage, encodeHello, encodeLineage, Resolve, WireRole,
  type Hello, type Lineage,
} from '../format/hello.ts';
import { agreeOn, checkFrameAgreed, Feature, type Agreement } from '../format/protocol.ts';
import { AckBatch } from './ack-batch.ts';
import type { CoreContext } from './context.ts';
import { decide, refuseTexts, type CopyVerdict, type Verdict } from './generation.ts';
import { PeerNumbers } from './peer-numbers.ts';
import { PeerStream } from './peer-stream.ts';
import type { LinkHandler, LinkPort, OpenLink } from './ports.ts';
import { RemotePrimary, RemoteServer } from './remote-session.ts';
import { Replica, type AckSink } from './replica.ts';
import { ResolveSession } from './resolve-session.ts';
import { isHandshake, type SessionHost, type SessionPhase } from './session-host.ts';
import { ofPromotedPeer } from './superblock-store.ts';
import { SyncSource } from './sync-source.ts';
import { SyncTarget } from './sync-target.ts';

const errnoIo = 5;
const verdictCode = { source: 1, target: 2, undecided: 3, refuse: 4 } as const;

export class Session implements LinkHandler, AckSink {
  phase: SessionPhase = 'hello';
  /** The phase it was in when it ended. */
  endedIn: SessionPhase | null = null;
  peer: Hello | null = null;
  /** Version and features in use; null before both hellos are known. */
  agreed: Agreement | null = null;
  verdict: Verdict | null = null;
  stream: PeerStream | null = null;
  /** Of a sync target: the lineage of the source since it began. */
  sourceLineage: Lineage | null = null;
  /** Role of the peer, as it said last. */
  peerRole: number = WireRole.secondary;
  readonly replica: Replica;
  readonly source: SyncSource;
  readonly numbers: PeerNumbers;
  /** When it ended: writes that the peer has not flushed; answered ones that never reached it. */
  hasUnflushed = false;
  lostTail = false;
  /** Set while this primary relies on the peer's copy. */
  remote: RemotePrimary | null = null;
  /** Set in a session that an operator's decision between split copies made. */
  resolve: ResolveSession | null = null;

  readonly #context: CoreContext;
  readonly #host: SessionHost;
  readonly #link: LinkPort;
  readonly #acks: AckBatch;
  readonly #target: SyncTarget;
  readonly #server: RemoteServer;
  #mine: Hello | null = null;
  #peerVerdict: number | null = null;
  #heardAt: number;
  #turnAsked = false;
  #nacked = false;
  #onGeneration: (() => void) | null = null;

  constructor(context: CoreContext, host: SessionHost, open: OpenLink) {
    this.#context = context;
    this.#host = host;
    this.#heardAt = context.clock.now();
    this.source = new SyncSource(this, context, host);
    this.numbers = new PeerNumbers(this, context);
    this.#target = new SyncTarget(this, context, host);
    this.#server = new RemoteServer(this, context, host);
    const own = host.hello();
    this.replica = new Replica(context, this, own.windowFrames, own.windowBytes);
    this.#link = open(this);
    this.#acks = new AckBatch(this.#link);
    this.#keepalive();
    // What the peer hears is durable: updates end in the order in which they began.
    context.store.update({}, (errno) => {
      if (this.phase === 'ended') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else this.#sendHello();
    });
  }

  get isComplete(): boolean {
    return this.phase === 'complete';
  }

  /** True from the accepted handshake on. */
  get isConnected(): boolean {
    return this.phase !== 'ended' && !isHandshake(this.phase);
  }

  /** Both nodes know how to serve a primary without a complete copy. */
  get supportsRemote(): boolean {
    return ((this.agreed?.features ?? 0) & Feature.remote) !== 0;
  }

  frame(frame: Frame): void {
    if (this.phase === 'ended') return;
    this.#heardAt = this.#context.measures.tick();
    try {
      this.#dispatch(frame);
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      this.closed(error.message, error.errorClass === 'protocol');
    }
  }

  closed(reason: string, isBad = false): void {
    if (isBad && this.phase !== 'ended') this.#context.statistics.badFrames++;
    this.end(reason);
  }

  /** Ends the session now. Frames received whole are still executed. */
  end(reason: string): void {
    if (this.phase === 'ended') return;
    this.#stop();
    this.#link.close();
    this.#host.sessionEnded(this, reason);
  }

  /** Tells the peer why, then ends. */
  bye(reason: string): void {
    if (this.phase === 'ended') return;
    this.turnEnd();
    this.#link.send(bodyFrame(FrameType.bye, Buffer.from(reason.slice(0, 1000), 'utf8')));
    this.#stop();
    this.#link.finish();
    this.#host.sessionEnded(this, reason);
  }

  /** The copy of this secondary failed: the peer hears it, and nothing more is acknowledged. */
  copyFailed(reason: string): void {
    if (this.phase === 'ended') return;
    if (!this.#nacked) this.#link.send(plainFrame(FrameType.nack, 0, errnoIo));
    this.#stop();
    this.#link.finish();
    this.#host.sessionEnded(this, reason);
  }

  /** Sends the acknowledgements gathered since the last turn. */
  turnEnd(): void {
    this.#turnAsked = false;
    if (this.phase !== 'ended') this.#acks.flush();
  }

  /** A promotion: the complete peer takes the new generation too; `done` when durably so. */
  announceGeneration(lineage: Lineage, done: () => void): void {
    this.#onGeneration = done;
    this.send(bodyFrame(FrameType.generation, encodeLineage(lineage)));
  }

  /** This primary lost its local copy: the peer's counts, once it says so. */
  claimDiskless(lineage: Lineage): void {
    // A session on its way to something else ends; the next one begins as diskless.
    const isReady = this.phase === 'complete' || this.phase === 'remote';
    if (!isReady) {
      this.end('the local copy was lost');
      return;
    }
    // A copy that was whole again meanwhile is another one to be given up, under a new id.
    if (this.remote === null || this.phase === 'complete') {
      this.remote = new RemotePrimary(this, this.#context, this.#host, lineage);
    }
    this.remote.claim(DetachKeep.peer);
  }

  announceRole(role: number): void {
    this.send(plainFrame(FrameType.role, 0, role));
  }

  /** This node is primary of a complete pair: its writes go through this session. */
  becomeSender(): PeerStream {
    this.newStream().counts = true;
    return this.newStream();
  }

  send(frame: Frame): void {
    this.#link.send(frame);
  }

  /** The stream to the peer, made when it is first needed. */
  newStream(): PeerStream {
    const { windowFrames, windowBytes, instance } = this.peer as Hello;
    const takesNumbers = ((this.agreed?.features ?? 0) & Feature.numbers) !== 0;
    this.stream ??= new PeerStream(
      this.#context, this.#link, windowFrames, windowBytes, takesNumbers, instance,
    );
    return this.stream;
  }

  /** A write that the stream does not carry returned. */
  strayEnded(): void {
    this.source.resync?.pump();
  }

  /** A resync may go on: it is no longer paused, or the pace changed. */
  pump(): void {
    this.source.resync?.pump();
    this.remote?.pull?.pump();
  }

  // AckSink
  written(seq: number): void {
    this.#acks.written(seq);
    this.#askTurn();
  }

  received(seq: number): void {
    this.#acks.received(seq);
    this.#askTurn();
  }

  flushed(seq: number): void {
    // What the flush covers is acknowledged before it.
    this.#acks.flush();
    this.#link.send(plainFrame(FrameType.flushAck, seq));
  }

  failed(seq: number, errno: number): void {
    this.#acks.flush();
    this.#nacked = true;
    this.#link.send(plainFrame(FrameType.nack, seq, errno));
  }

  readDone(frame: Frame, errno: number, data: Buffer, at: number): void {
    if (errno !== 0) this.#link.send(plainFrame(FrameType.readError, frame.seq, errno));
    else this.#link.send({
      type: FrameType.readData, flags: 0, seq: frame.seq, offset: 0, size: frame.size, arg: 0,
      payload: data, payloadOffset: at, headroom: at,
    });
  }

  #askTurn(): void {
    if (this.#turnAsked) return;
    this.#turnAsked = true;
    this.#context.turn.request();
  }

  #stop(): void {
    this.endedIn = this.phase;
    this.phase = 'ended';
    this.#context.timers.clear('keepalive');
    this.source.resync?.stop();
    this.remote?.pull?.stop();
    this.replica.detach();
    if (this.stream !== null) {
      this.hasUnflushed = this.stream.hasUnflushed;
      this.lostTail = this.#context.options.mode === 'async' && this.stream.hasUnansweredData;
      this.#host.useStream(null);
      this.stream.end();
    }
  }

  #keepalive(): void {
    const { timers, clock, options } = this.#context;
    const silence = clock.now() - this.#heardAt;
    // Compared as the deadline below is computed: a rounded difference might never be enough.
    if (clock.now() >= this.#heardAt + options.timeoutMs) {
      this.end(`nothing heard from the peer for ${Math.round(silence / 100) / 10} s`);
      return;
    }
    // A peer that answers keepalives may still have a disk that does not answer.
    const limit = options.diskTimeoutMs + options.timeoutMs;
    const oldest = this.stream?.oldestSentAt ?? null;
    if (options.diskTimeoutMs > 0 && oldest !== null && clock.now() >= oldest + limit) {
      this.#host.peerDiskFailed();
      this.end(`the peer's disk does not answer for ${Math.round(limit / 1000)} s`);
      return;
    }
    this.#link.send(plainFrame(FrameType.keepalive));
    const next = Math.min(
      clock.now() + Math.min(options.timeoutMs / 4, 5000), this.#heardAt + options.timeoutMs,
    );
    timers.set('keepalive', next, () => this.#keepalive());
  }

  #dispatch(frame: Frame): void {
    if (isRangeFrame(frame.type) || frame.type === FrameType.flush) {
      this.#takeData(frame);
      return;
    }
    checkFrameAgreed(frame.type, this.agreed?.features ?? 0);
    switch (frame.type) {
      case FrameType.recvAck: this.#sender().received(frame.seq); return;
      case FrameType.writeAck: this.#sender().done(frame.seq, frame.arg, 0); break;
      case FrameType.flushAck: this.#sender().flushed(frame.seq); break;
      case FrameType.readData: this.#sender().data(frame); break;
      case FrameType.readError: this.#sender().readFailed(frame.seq, frame.arg); break;
      case FrameType.nack:
        this.#host.peerDiskFailed();
        throw new HastError('HAST_E_IO', `the peer's disk failed (errno ${frame.arg})`);
      case FrameType.keepalive: this.#link.send(plainFrame(FrameType.keepaliveReply)); return;
      case FrameType.keepaliveReply: return;
      case FrameType.hello: this.#takeHello(frame); return;
      case FrameType.verdict: this.#takeVerdict(frame); return;
      case FrameType.role: this.peerRole = frame.arg; return;
      case FrameType.number: this.numbers.give(); return;
      case FrameType.numberAck: this.numbers.take(frame.arg); return;
      case FrameType.bye: this.end(`the peer closed: ${textOf(frame)}`); return;
      default: this.#dispatchSync(frame);
    }
    this.pump();
  }

  #dispatchSync(frame: Frame): void {
    switch (frame.type) {
      case FrameType.map: this.#takeMap(frame); return;
      case FrameType.mapEnd: this.#endMap(frame); return;
      case FrameType.syncStart: this.#expect('waiting'); this.#target.begin(frame); return;
      case FrameType.syncReady: this.#expect('starting'); this.source.copy(); return;
      case FrameType.syncDone:
        if (this.phase !== 'waiting') this.#expect('syncing');
        this.#target.adopt(frame);
        return;
      case FrameType.syncDoneAck: this.#expect('finishing'); this.source.targetComplete(); return;
      case FrameType.resolve: this.#expect('resolving'); this.resolve?.decided(); return;
      case FrameType.switchover: case FrameType.switchoverDone:
      case FrameType.facts: case FrameType.factsDone:
        this.#host.operator.switchover.take(this, frame);
        return;
      case FrameType.detach: this.#server.take(frame); return;
      case FrameType.detachAck: this.#expect('claiming'); this.remote?.claimed(); return;
      case FrameType.pullDone: this.#expect('serving'); this.#server.release(); return;
      case FrameType.pullDoneAck: this.#expect('rejoining'); this.remote?.rejoined(); return;
      case FrameType.generation: this.#expect('complete'); this.#takeGeneration(frame); return;
      case FrameType.generationAck: {
        const done = this.#onGeneration;
        this.#onGeneration = null;
        done?.();
        return;
      }
      default: throw new HastError('HAST_E_PROTOCOL', `an unexpected frame (type ${frame.type})`);
    }
  }

  #takeMap(frame: Frame): void {
    if (this.phase === 'taking') {
      this.remote?.takeMap(frame);
      return;
    }
    if (this.phase === 'resolving') {
      this.resolve?.takeMap(frame);
      return;
    }
    this.#expect('map');
    this.source.takeMap(frame);
  }

  #endMap(frame: Frame): void {
    if (this.phase === 'taking') {
      this.remote?.endMap(frame);
      return;
    }
    if (this.phase === 'resolving') {
      this.resolve?.endMap();
      return;
    }
    this.#expect('map');
    this.source.endMap();
  }

  #expect(phase: SessionPhase): void {
    if (this.phase !== phase) {
      throw new HastError('HAST_E_PROTOCOL', `a frame for phase ${phase} in phase ${this.phase}`);
    }
  }

  #sender(): PeerStream {
    if (this.stream !== null) return this.stream;
    throw new HastError('HAST_E_PROTOCOL', 'an acknowledgement of nothing');
  }

  #takeData(frame: Frame): void {
    const mayWrite = this.phase === 'syncing' || this.phase === 'waiting' ||
      this.phase === 'adopting' || this.phase === 'serving' ||
      (this.phase === 'resolving' && frame.type === FrameType.read) ||
      (this.phase === 'complete' && !this.#host.isPrimary);
    if (!mayWrite) {
      throw new HastError('HAST_E_PROTOCOL', `data from the peer in phase ${this.phase}`);
    }
    this.replica.receive(frame);
  }

  // Handshake

  #sendHello(): void {
    this.#mine = this.#host.hello();
    this.#link.send(bodyFrame(FrameType.hello, encodeHello(this.#mine)));
    this.#judge();
  }

  #takeHello(frame: Frame): void {
    this.#expect('hello');
    if (this.peer !== null) throw new HastError('HAST_E_PROTOCOL', 'a second hello');
    this.peer = decodeHello(bodyOf(frame), this.#context.options.protocol);
    this.peerRole = this.peer.role;
    this.#judge();
  }

  #judge(): void {
    const mine = this.#mine;
    if (mine === null || this.peer === null) return;
    if (this.#host.hello().role !== mine.role) {
      this.end('the role changed during the handshake');
      return;
    }
    this.phase = 'verdict';
    this.agreed = agreeOn(mine, this.peer);
    this.numbers.said(mine, this.peer);
    this.verdict = decide(mine, this.peer);
    const { kind, row } = this.verdict;
    this.#context.log.debug({ row, kind }, 'handshake decided');
    const text = this.verdict.kind === 'refuse' ? this.verdict.reason : row;
    this.#link.send(bodyFrame(FrameType.verdict, Buffer.from(text), verdictCode[kind]));
    if (this.#peerVerdict !== null) this.#begin(this.#peerVerdict);
  }

  #takeVerdict(frame: Frame): void {
    if (this.#mine === null || this.#peerVerdict !== null) {
      throw new HastError('HAST_E_PROTOCOL', 'a verdict out of turn');
    }
    this.#peerVerdict = frame.arg;
    if (this.phase === 'verdict') this.#begin(frame.arg);
  }

  #begin(theirs: number): void {
    const verdict = this.verdict as Verdict;
    if (verdict.kind === 'refuse') {
      this.#host.sessionRefused(this, verdict.reason, refuseTexts[verdict.reason]);
      return;
    }
    const expected = verdict.kind === 'source' ? verdictCode.target
      : verdict.kind === 'target' ? verdictCode.source : verdictCode.undecided;
    if (theirs !== expected) {
      throw new HastError('HAST_E_PROTOCOL', 'the two nodes judge their copies differently');
    }
    if (verdict.kind !== 'undecided' && verdict.pull) {
      this.#beginRemote(verdict);
      return;
    }
    if (verdict.kind !== 'undecided' && verdict.resolving) {
      const isAsking = this.#mine?.resolve !== Resolve.none;
      this.phase = 'resolving';
      this.resolve = new ResolveSession(this, this.#context, this.#host, isAsking, verdict.full);
      this.resolve.begin();
      return;
    }
    this.proceed();
  }

  /** The handshake is over: the sync may begin. */
  proceed(): void {
    const { kind } = this.verdict as Verdict;
    if (kind === 'source') this.phase = 'map';
    else this.phase = kind === 'target' ? 'waiting' : 'undecided';
    this.#host.sessionConnected(this);
    if (kind === 'target') this.numbers.raise(() => this.#target.sendMap());
  }

  /** The target is primary: it works through the other copy until its own is equal. */
  #beginRemote(verdict: CopyVerdict): void {
    const peer = this.peer as Hello;
    if (verdict.kind === 'source') {
      this.phase = 'handing';
      this.#host.sessionConnected(this);
      this.#server.begin(verdict.full, peer.attachment === Attachment.diskless);
      return;
    }
    if (!this.#host.acceptsPeer(peer)) return;
    const lineage = this.#host.claims;
    if (lineage === null) {
      throw new HastError('HAST_E_PROTOCOL', 'this primary does not rely on the peer\'s copy');
    }
    this.remote = new RemotePrimary(this, this.#context, this.#host, lineage);
    this.phase = 'taking';
    this.#host.sessionConnected(this);
    if (this.#host.isDiskless) this.remote.claim(DetachKeep.peer);
  }

  #takeGeneration(frame: Frame): void {
    const lineage = decodeLineage(bodyOf(frame));
    if (!this.#host.yieldsTo(this.peer as Hello)) return;
    const { store } = this.#context;
    store.update(ofPromotedPeer(store.value, lineage), (errno) => {
      if (this.phase === 'ended') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else this.#link.send(plainFrame(FrameType.generationAck));
    });
  }
}
