/**
 * Getting and keeping one connection to the peer. The primary dials, otherwise the node with the
 * smaller name; the other one waits. Attempts back off from 0.2 s to 5 s with jitter.
 *
 * Invariant: an old session has ended, and its received frames are executed, before a new one
 * begins.
 */
import { PrefaceAnswer, PrefaceRole, type Preface } from '../format/preface.ts';
import type { CoreContext } from './context.ts';
import type { ConnectPort, ConnectResult, OpenLink } from './ports.ts';

const backoffMinMs = 200;
const backoffMaxMs = 5000;
/** After a refusal that an operator must resolve, such as split brain. */
const backoffRefusedMs = 10_000;

export interface LinkerHost {
  readonly isPrimary: boolean;
  readonly hasSession: boolean;
  /** Ends the present session, if any, and calls `done` when its frames are executed. */
  endSession(reason: string, done: () => void): void;
  openSession(open: OpenLink): void;
  /** An attempt of ours ended without a connection. */
  attemptFailed(text: string, answered: boolean): void;
}

export class Linker {
  /** What the latest attempt met; empty before the first. */
  lastFailure = '';
  /** A hastd spoke at the peer's address at the latest attempt. */
  peerAnswers = false;
  /** Attempts of ours that ended since the session was lost. */
  attempts = 0;

  readonly #context: CoreContext;
  readonly #connect: ConnectPort;
  readonly #host: LinkerHost;
  #backoffMs = backoffMinMs;
  #attempting = false;
  #taking = false;
  #stopped = false;
  #isHeld = false;
  #peerNode = '';

  constructor(context: CoreContext, connect: ConnectPort, host: LinkerHost) {
    this.#context = context;
    this.#connect = connect;
    this.#host = host;
    this.#peerNode = context.store.value.peerNode;
  }

  get isConnecting(): boolean {
    return this.#attempting || this.#context.timers.has('dial');
  }

  /** Starts dialing where it is this node's part. */
  start(): void {
    if (this.#stopped || this.#context.options.alone || this.#host.hasSession) return;
    if (this.#attempting || this.#taking || this.#isHeld) return;
    this.#context.timers.clear('dial');
    if (this.#shouldDial()) this.#attempt();
  }

  /** One attempt now, whosever part it is to dial: a promotion wants to know. */
  probe(): void {
    if (this.#stopped || this.#context.options.alone || this.#host.hasSession) return;
    if (this.#attempting || this.#taking || this.#isHeld) return;
    this.#context.timers.clear('dial');
    this.#attempt();
  }

  /** No connection, of either side, before release(). */
  hold(): void {
    this.#isHeld = true;
    this.#context.timers.clear('dial');
  }

  /** As hold(), for as long as after a refusal. */
  pause(): void {
    this.hold();
    const { timers, clock } = this.#context;
    if (!this.#stopped) {
      timers.set('dial', clock.now() + backoffRefusedMs, () => this.release());
    }
  }

  release(): void {
    this.#isHeld = false;
    this.start();
  }

  stop(): void {
    this.#stopped = true;
    this.#context.timers.clear('dial');
  }

  /**
   * The session ended: dial again. Soon where contact was lost; a handshake that failed counts as
   * an attempt that failed; a refusal waits for an operator.
   */
  lost(what: 'contact' | 'handshake' | 'refused'): void {
    if (what === 'contact') this.attempts = 0;
    if (what === 'contact') this.#later(backoffMinMs / 2);
    else if (what === 'refused') this.#later(backoffRefusedMs);
    else {
      this.attempts++;
      this.#backOff();
    }
  }

  /** A connection of the peer was given up before incoming(): for status. */
  incomingFailed(text: string): void {
    if (!this.#host.hasSession) this.lastFailure = text;
  }

  connected(peerNode: string): void {
    this.#peerNode = peerNode;
    this.#backoffMs = backoffMinMs;
    this.lastFailure = '';
    this.peerAnswers = true;
    this.#context.measures.connects++;
  }

  /**
   * A connection the peer opened. `accept` answers ok and gives the link; `refuse` answers with a
   * code and closes. One of the two is called, now or when the old session is out of the way.
   */
  incoming(preface: Preface, accept: () => OpenLink, refuse: (answer: number) => void): void {
    if (this.#stopped || this.#context.options.alone || this.#taking || this.#isHeld) {
      refuse(PrefaceAnswer.busy);
      return;
    }
    this.#peerNode = preface.node;
    // Two connections crossed: the one of the node whose part it is to dial stays.
    const theirsCounts = preface.role === PrefaceRole.primary || !this.#shouldDial();
    if (this.#attempting && !theirsCounts) {
      refuse(PrefaceAnswer.busy);
      return;
    }
    this.#taking = true;
    this.#host.endSession('the peer opened a new connection', () => {
      this.#taking = false;
      if (this.#stopped) refuse(PrefaceAnswer.busy);
      else this.#host.openSession(accept());
    });
  }

  #shouldDial(): boolean {
    if (this.#host.isPrimary) return true;
    const { node } = this.#context.options;
    // Before the first contact nobody knows the other's name, and a clone of the peer's disk names
    // this node: both dial.
    return this.#peerNode === '' || this.#peerNode === node || node < this.#peerNode;
  }

  #attempt(): void {
    this.#attempting = true;
    const isPrimary = this.#host.isPrimary;
    this.#connect.connect(isPrimary, (result) => this.#ended(result));
  }

  #ended(result: ConnectResult): void {
    this.#attempting = false;
    this.attempts++;
    if ('failed' in result) {
      this.lastFailure = result.failed;
      this.peerAnswers = result.answered;
      this.#host.attemptFailed(result.failed, result.answered);
      this.#backOff();
      return;
    }
    if (this.#stopped || this.#host.hasSession || this.#taking || this.#isHeld) {
      // The peer's own connection came first.
      result.open({ frame: () => undefined, closed: () => undefined }).close();
      return;
    }
    this.#host.endSession('a new connection', () => this.#host.openSession(result.open));
  }

  #backOff(): void {
    this.#later(this.#backoffMs);
    this.#backoffMs = Math.min(this.#backoffMs * 2, backoffMaxMs);
  }

  #later(ms: number): void {
    if (this.#stopped || this.#isHeld) return;
    const { timers, clock, random } = this.#context;
    const jitter = 0.75 + random.unit() / 2;
    timers.set('dial', clock.now() + ms * jitter, () => this.start());
  }
}
