/**
 * A session between two split copies, made by an operator's decision: the peer shows its map and
 * lets itself be read, and the usual sync begins only when the node of the operator says so.
 *
 * Invariant: nothing is written on either node, not even metadata, before that word.
 */
import { HastError } from '../base/errors.ts';
import { bodyOf, FrameType, plainFrame, type Frame } from '../format/frame.ts';
import { Resolve } from '../format/hello.ts';
import { regionBitBytes } from '../format/map-pages.ts';
import { BlockMap } from './block-map.ts';
import type { CoreContext } from './context.ts';
import type { Session } from './session.ts';
import type { SessionHost } from './session-host.ts';
import { sendMaps } from './sync-target.ts';

export class ResolveSession {
  readonly #session: Session;
  readonly #context: CoreContext;
  readonly #host: SessionHost;
  /** The decision was made on this node. */
  readonly #isAsking: boolean;
  readonly #full: boolean;
  readonly #peerMap: BlockMap;

  constructor(
    session: Session, context: CoreContext, host: SessionHost, isAsking: boolean, full: boolean,
  ) {
    this.#session = session;
    this.#context = context;
    this.#host = host;
    this.#isAsking = isAsking;
    this.#full = full;
    this.#peerMap = new BlockMap(context.mediaSize);
  }

  begin(): void {
    const { peerStale, localStale } = this.#context.tracker;
    if (!this.#isAsking) sendMaps(this.#session, [peerStale, localStale], false);
  }

  takeMap(frame: Frame): void {
    const region = frame.offset;
    const isFull = frame.arg === 1;
    if (!this.#isAsking || region >= this.#peerMap.regionCount ||
        (!isFull && frame.size !== regionBitBytes)) {
      throw new HastError('HAST_E_PROTOCOL', 'a map that cannot be one');
    }
    if (isFull) this.#peerMap.setFull(region);
    else this.#peerMap.mergeBits(region, bodyOf(frame));
  }

  endMap(): void {
    if (!this.#isAsking) throw new HastError('HAST_E_PROTOCOL', 'a map that nobody asked for');
    this.#host.compare(this.#session, this.#peerMap, this.#full);
  }

  /** The node of the operator: everything is kept that should be. */
  decide(): void {
    if (this.#session.phase !== 'resolving') return;
    this.#session.send(plainFrame(FrameType.resolve));
    this.#session.proceed();
  }

  /** The other node. */
  decided(): void {
    if (this.#isAsking || this.#session.peer?.resolve === Resolve.dryRun) {
      throw new HastError('HAST_E_PROTOCOL', 'a decision that was not announced');
    }
    this.#session.proceed();
  }
}
