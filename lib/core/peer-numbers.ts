/**
 * Numbers that tell an older image of a disk from the present one.
 *
 * - A hello names the number after the one on disk. It is made durable once the handshake is
 *   accepted and before the peer may record it. An older image makes none durable before all of
 *   it is marked at the peer: it shows in every handshake, however many break off.
 * - What was flushed on both copies stays marked until the peer has raised its number durably
 *   after that flush, and this node has recorded it: an image of the peer's disk from before it
 *   shows a lower one.
 */
import { HastError } from '../base/errors.ts';
import { FrameType, plainFrame } from '../format/frame.ts';
import type { Hello } from '../format/hello.ts';
import type { CoreContext } from './context.ts';
import { isOlderImage } from './generation.ts';
import type { Session } from './session.ts';

export class PeerNumbers {
  readonly #session: Session;
  readonly #context: CoreContext;
  #onNumber: (() => void) | null = null;
  /** The number in this node's hello. */
  #said = 0;
  #isOlder = false;

  constructor(session: Session, context: CoreContext) {
    this.#session = session;
    this.#context = context;
  }

  /** Both hellos are known. */
  said(mine: Hello, peer: Hello): void {
    this.#said = mine.sessionNumber;
    this.#isOlder = isOlderImage(mine, peer);
  }

  /** For an update of the superblock after which the peer may record the number of the hello. */
  get raised(): { sessionNumber: number } {
    return { sessionNumber: Math.max(this.#context.store.value.sessionNumber, this.#said) };
  }

  /** Calls `done` when the peer may record it; never after the session. */
  raise(done: () => void): void {
    if (this.#isOlder) {
      done();
      return;
    }
    this.#context.store.update(this.raised, (errno) => {
      if (this.#session.phase === 'ended') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else done();
    });
  }

  /** Calls `done` when what both copies have flushed by now is clean; never after the session. */
  settle(done: () => void): void {
    const { stream } = this.#session;
    if (stream === null || stream.ended || !stream.hasSettled) {
      done();
      return;
    }
    stream.numberAsked();
    this.#onNumber = () => {
      stream.numbered();
      done();
    };
    this.#session.send(plainFrame(FrameType.number));
  }

  /** The peer asks for a number. */
  give(): void {
    const session = this.#session;
    if (!session.isConnected) {
      throw new HastError('HAST_E_PROTOCOL', 'a number is asked for too early');
    }
    const { store } = this.#context;
    const sessionNumber = store.value.sessionNumber + 1;
    store.update({ sessionNumber }, (errno) => {
      if (session.phase === 'ended') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else session.send(plainFrame(FrameType.numberAck, 0, sessionNumber));
    });
  }

  /** The peer's number is durable there. */
  take(number: number): void {
    const { store } = this.#context;
    const done = this.#onNumber;
    this.#onNumber = null;
    if (done === null || number <= store.value.peerSessionNumber) {
      throw new HastError('HAST_E_PROTOCOL', 'a number that was not asked for, or is not new');
    }
    store.update({ peerSessionNumber: number }, (errno) => {
      if (this.#session.phase === 'ended') return;
      if (errno !== 0) this.#context.localFailed('metadata', errno);
      else done();
    });
  }
}
