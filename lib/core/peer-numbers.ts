/**
 * Numbers that tell an older image of a disk from the present one. What was flushed on both copies
 * stays marked until the peer has raised its session number durably after that flush, and this
 * node has recorded the number: an image of the peer's disk from before it shows a lower one.
 */
import { HastError } from '../base/errors.ts';
import { FrameType, plainFrame } from '../format/frame.ts';
import type { CoreContext } from './context.ts';
import type { Session } from './session.ts';

export class PeerNumbers {
  readonly #session: Session;
  readonly #context: CoreContext;
  #onNumber: (() => void) | null = null;

  constructor(session: Session, context: CoreContext) {
    this.#session = session;
    this.#context = context;
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
