/**
 * One connection to the peer: handshake, who copies to whom, and the dispatch of frames.
 * docs/wire-protocol.md has the sequence.
 *
 * Invariants
 * - the target is durably inconsistent before the first copied byte, and a copy again only after
 *   a flush, with the source's generation durable;
 * - marks handed over are durable at the source before anything is copied;
 * - a session that ended takes and sends nothing; frames received whole are still executed.
 */
import { HastError } from '../base/errors.ts';
import {
  bodyFrame, bodyOf, FrameType, isDataFrame, plainFrame, type Frame,
} from '../format/frame.ts';
import {
  decodeHello, decodeLineage, encodeHello, encodeLineage, WireRole, type Hello,
} from '../format/hello.ts';
import { regionBitBytes } from '../format/map-pages.ts';
import { DataState, PeerState, SuperblockFlag } from '../format/superblock.ts';
import { AckBatch } from './ack-batch.ts';
import type { CoreContext } from './context.ts';
import { decide, refuseTexts, type Verdict } from './generation.ts';
import { PeerStream } from './peer-stream.ts';
import type { LinkHandler, LinkPort, OpenLink } from './ports.ts';
import { Replica, type AckSink } from './replica.ts';
import { ResyncSource } from './resync-source.ts';
import type { SessionHost, SessionPhase } from './session-host.ts';

const verdictCode = { source: 1, target: 2, undecided: 3, refuse: 4 } as const;

export class Session implements LinkHandler, AckSink {
  phase: SessionPhase = 'hello';
  /** The phase it was in when it ended. */
  endedIn: SessionPhase | null = null;
  peer: Hello | null = null;
  verdict: Verdict | null = null;
  stream: PeerStream | null = null;
  resync: ResyncSource | null = null;
  /** Role of the peer, as it said last. */
  peerRole: number = WireRole.secondary;
  readonly replica: Replica;

  readonly #context: CoreContext;
  readonly #host: SessionHost;
  readonly #link: LinkPort;
  readonly #acks: AckBatch;
  #mine: Hello | null = null;
  #peerVerdict: number | null = null;
  #heardAt: number;
  #turnAsked = false;
  #onGeneration: (() => void) | null = null;

  constructor(context: CoreContext, host: SessionHost, open: OpenLink) {
    this.#context = context;
    this.#host = host;
    this.#heardAt = context.clock.now();
    const { windowBytes, windowFrames } = host.hello();
    this.replica = new Replica(context, this, windowFrames, windowBytes);
    this.#link = open(this);
    this.#acks = new AckBatch(this.#link);
    this.#keepalive();
    const { store } = context;
    // Durable before the peer hears it: a disk rolled back shows a number the peer has seen.
    store.update({ sessionNumber: store.value.sessionNumber + 1 }, (errno) => {
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
    return this.phase !== 'hello' && this.phase !== 'verdict' && this.phase !== 'ended';
  }

  frame(frame: Frame): void {
    if (this.phase === 'ended') return;
    this.#heardAt = this.#context.clock.now();
    try {
      this.#dispatch(frame);
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      this.end(error.message);
    }
  }

  closed(reason: string): void {
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

  /** Sends the acknowledgements gathered since the last turn. */
  turnEnd(): void {
    this.#turnAsked = false;
    if (this.phase !== 'ended') this.#acks.flush();
  }

  /** A promotion: the complete peer takes the new generation too; `done` when durably so. */
  announceGeneration(done: () => void): void {
    const { generation, history } = this.#context.store.value;
    this.#onGeneration = done;
    this.#link.send(bodyFrame(FrameType.generation, encodeLineage({ generation, history })));
  }

  announceRole(role: number): void {
    this.#link.send(plainFrame(FrameType.role, 0, role));
  }

  /** This node is primary of a complete pair: its writes go through this session. */
  becomeSender(): PeerStream {
    this.stream ??= this.#newStream();
    this.stream.counts = true;
    return this.stream;
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
    this.#link.send(plainFrame(FrameType.nack, seq, errno));
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
    this.resync?.stop();
    this.replica.detach();
    if (this.stream !== null) {
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
    this.#link.send(plainFrame(FrameType.keepalive));
    const next = Math.min(
      clock.now() + Math.min(options.timeoutMs / 4, 5000), this.#heardAt + options.timeoutMs,
    );
    timers.set('keepalive', next, () => this.#keepalive());
  }

  #newStream(): PeerStream {
    const { windowFrames, windowBytes } = this.peer as Hello;
    return new PeerStream(this.#context, this.#link, windowFrames, windowBytes);
  }

  #dispatch(frame: Frame): void {
    if (isDataFrame(frame.type) || frame.type === FrameType.flush) {
      this.#takeData(frame);
      return;
    }
    switch (frame.type) {
      case FrameType.recvAck: this.#sender().received(frame.seq); return;
      case FrameType.writeAck: this.#sender().done(frame.seq, frame.arg, 0); break;
      case FrameType.flushAck: this.#sender().flushed(frame.seq); break;
      case FrameType.nack:
        throw new HastError('HAST_E_IO', `the peer's disk failed (errno ${frame.arg})`);
      case FrameType.keepalive: this.#link.send(plainFrame(FrameType.keepaliveReply)); return;
      case FrameType.keepaliveReply: return;
      case FrameType.hello: this.#takeHello(frame); return;
      case FrameType.verdict: this.#takeVerdict(frame); return;
      case FrameType.role: this.peerRole = frame.arg; return;
      case FrameType.bye: this.end(`the peer closed: ${bodyText(frame)}`); return;
      default: this.#dispatchSync(frame);
    }
    this.resync?.pump();
  }

  #dispatchSync(frame: Frame): void {
    switch (frame.type) {
      case FrameType.map: this.#expect('map'); this.#takeMap(frame); return;
      case FrameType.mapEnd: this.#expect('map'); this.#endMap(); return;
      case FrameType.syncStart: this.#expect('waiting'); this.#beInconsistent(); return;
      case FrameType.syncReady: this.#expect('starting'); this.#copy(); return;
      case FrameType.syncDone:
        if (this.phase !== 'waiting') this.#expect('syncing');
        this.#adopt(frame);
        return;
      case FrameType.syncDoneAck: this.#expect('finishing'); this.#peerComplete(); return;
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
      this.phase === 'adopting' || (this.phase === 'complete' && !this.#host.isPrimary);
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
    this.peer = decodeHello(bodyOf(frame));
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
    if (verdict.kind === 'source') this.phase = 'map';
    else this.phase = verdict.kind === 'target' ? 'waiting' : 'undecided';
    this.#host.sessionConnected(this);
    if (verdict.kind === 'target') this.#sendMap();
  }

  // Source

  #takeMap(frame: Frame): void {
    const { tracker } = this.#context;
    const region = frame.offset;
    if (region >= tracker.peerStale.regionCount) {
      throw new HastError('HAST_E_PROTOCOL', 'a map of a region that does not exist');
    }
    if (frame.arg === 1) tracker.setRegionStale(region, null);
    else if (frame.size === regionBitBytes) tracker.setRegionStale(region, bodyOf(frame));
    else throw new HastError('HAST_E_PROTOCOL', 'a map of wrong size');
  }

  #endMap(): void {
    const { tracker, store, clock } = this.#context;
    const verdict = this.verdict as Verdict;
    const peer = this.peer as Hello;
    if (verdict.kind === 'source' && verdict.full) tracker.setAllStale();
    // First the marks, then the pairing: once the peer is recorded, the map speaks of its copy.
    tracker.persistAll(() => {
      if (this.phase !== 'map') return;
      const pairing = {
        peerCopyId: peer.copyId, peerGeneration: peer.generation, peerNode: peer.node,
        peerSessionNumber: peer.sessionNumber, contactAt: clock.wallSeconds(),
      };
      store.update(pairing, (errno) => {
        if (this.phase !== 'map') return;
        if (errno !== 0) this.#context.localFailed('metadata', errno);
        else this.#startSource();
      });
    });
  }

  #startSource(): void {
    const { tracker, store } = this.#context;
    // Writes may follow at once: a target of another generation must not look like what it was.
    const isOther = (this.peer as Hello).generation !== store.value.generation;
    const mayWrite = isOther && this.#host.isPrimary;
    if (tracker.peerStale.isEmpty && this.#host.strayWrites(null) === 0 && !mayWrite) {
      this.stream = this.#newStream();
      this.#host.useStream(this.stream);
      this.#finish(this.stream);
      return;
    }
    this.phase = 'starting';
    this.#host.recordAlone(() => {
      if (this.phase === 'starting') this.#link.send(plainFrame(FrameType.syncStart));
    });
  }

  #copy(): void {
    this.phase = 'copying';
    const stream = this.#newStream();
    this.stream = stream;
    this.#host.useStream(stream);
    const { events, tracker } = this.#context;
    if (!tracker.peerStale.isEmpty) events.event({ kind: 'syncstart' });
    this.resync = new ResyncSource(this.#context, stream, () => this.#copied(stream));
    this.resync.start();
  }

  /** Nothing is stale at this moment; writes that went nowhere may still make it so. */
  #copied(stream: PeerStream): void {
    if (this.phase !== 'copying' || this.#host.strayWrites(stream) > 0) return;
    this.resync?.stop();
    this.#finish(stream);
  }

  /** Called by the owner when a stray write ended. */
  strayEnded(): void {
    this.resync?.pump();
  }

  #finish(stream: PeerStream): void {
    this.phase = 'finishing';
    stream.counts = true;
    this.#host.flushBoth(stream, () => {
      if (this.phase !== 'finishing') return;
      // The peer may be promoted as soon as it holds this generation.
      this.#host.aloneEnds(() => {
        if (this.phase !== 'finishing') return;
        const { generation, history } = this.#context.store.value;
        this.#link.send(bodyFrame(FrameType.syncDone, encodeLineage({ generation, history })));
      });
    });
  }

  #peerComplete(): void {
    const { store, clock } = this.#context;
    const wasCopying = this.resync !== null && this.resync.total > 0;
    this.resync = null;
    this.phase = 'complete';
    const { generation, flags } = store.value;
    const cleared = flags & ~(SuperblockFlag.forced | SuperblockFlag.forcedIneligible);
    store.update({
      peerState: PeerState.complete, peerGeneration: generation, flags: cleared,
      contactAt: clock.wallSeconds(),
    }, (errno) => {
      if (errno !== 0) this.#context.localFailed('metadata', errno);
    });
    if (wasCopying) this.#context.events.event({ kind: 'syncdone' });
    this.#host.sessionComplete(this);
  }

  // Target

  #sendMap(): void {
    const { peerStale } = this.#context.tracker;
    for (const region of peerStale.regions()) {
      const bits = peerStale.bits(region);
      if (bits === null) this.#link.send(bodyFrame(FrameType.map, Buffer.alloc(0), 1, region));
      else this.#link.send(bodyFrame(FrameType.map, Buffer.from(bits), 0, region));
    }
    this.#link.send(plainFrame(FrameType.mapEnd));
  }

  #beInconsistent(): void {
    const { store } = this.#context;
    const { createdZeroed, assumeClean } = SuperblockFlag;
    const patch = {
      dataState: DataState.inconsistent, syncGeneration: (this.peer as Hello).generation,
      // What is copied now is in no map of this copy: it began with zeros no longer.
      flags: store.value.flags & ~(createdZeroed | assumeClean),
    };
    this.phase = 'syncing';
    store.update(patch, (errno) => {
      if (this.phase !== 'syncing') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else this.#link.send(plainFrame(FrameType.syncReady));
    });
  }

  #adopt(frame: Frame): void {
    const lineage = decodeLineage(bodyOf(frame));
    const peer = this.peer as Hello;
    const { store, tracker, disk, clock } = this.#context;
    this.phase = 'adopting';
    const fail = (errno: number): void => this.#context.localFailed('metadata', errno);
    const record = (errno: number): void => {
      if (errno !== 0) {
        this.#context.localFailed('flush', errno);
        return;
      }
      // A later session may have made this copy a target again: then it is not consistent.
      if (this.phase !== 'adopting') return;
      const { primaryActive, forced, forcedIneligible } = SuperblockFlag;
      store.update({
        ...lineage, dataState: DataState.consistent, syncGeneration: 0n,
        flags: store.value.flags & ~(primaryActive | forced | forcedIneligible),
        peerState: PeerState.complete, peerCopyId: peer.copyId, peerNode: peer.node,
        peerGeneration: lineage.generation, peerSessionNumber: peer.sessionNumber,
        contactAt: clock.wallSeconds(),
      }, (error) => {
        if (error !== 0) fail(error);
        else if (this.phase === 'adopting') tracker.clearAll(() => this.#adopted());
      });
    };
    // Everything copied was flushed here before the source said done; this covers the rest.
    disk.flush(record);
  }

  #adopted(): void {
    if (this.phase !== 'adopting') return;
    this.phase = 'complete';
    this.#link.send(plainFrame(FrameType.syncDoneAck));
    this.#host.sessionComplete(this);
  }

  #takeGeneration(frame: Frame): void {
    const lineage = decodeLineage(bodyOf(frame));
    if (!this.#host.yieldsTo(this.peer as Hello)) return;
    const patch = { ...lineage, peerGeneration: lineage.generation };
    this.#context.store.update(patch, (errno) => {
      if (this.phase === 'ended') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else this.#link.send(plainFrame(FrameType.generationAck));
    });
  }
}

function bodyText(frame: Frame): string {
  return bodyOf(frame).toString('utf8').replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200);
}
