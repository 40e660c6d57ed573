/** The phases of a session, and what a session asks of the resource that owns it. */
import type { Hello, Lineage } from '../format/hello.ts';
import type { AsyncTail } from './async-tail.ts';
import type { BlockMap } from './block-map.ts';
import type { RefuseReason } from './generation.ts';
import type { Operator } from './operator.ts';
import type { PeerStream } from './peer-stream.ts';
import type { ResyncPace } from './resync-pace.ts';
import type { Session } from './session.ts';

export type SessionPhase =
  /** Waiting for both hellos, then for both verdicts. */
  | 'hello' | 'verdict'
  /** Two split copies, by an operator's decision: nothing is written before its word. */
  | 'resolving'
  /** Source: taking the target's marks; making them and the pairing durable. */
  | 'map'
  /** Source: waiting until the target is durably inconsistent. */
  | 'starting'
  | 'copying'
  /** Source: everything is sent; waiting for flush and the target's new generation. */
  | 'finishing'
  /**
   * Target: connected, the sync has not begun; keeping what only this copy has; syncing; taking
   * the generation.
   */
  | 'waiting' | 'keeping' | 'syncing' | 'adopting'
  /** Two fresh copies: nothing is copied before one is promoted. */
  | 'undecided'
  /**
   * Primary that relies on the peer's copy: taking the peer's map; asking it to be the copy that
   * counts; working through it; everything is fetched, the peer is asked to let go.
   */
  | 'taking' | 'claiming' | 'remote' | 'rejoining'
  /** The peer of such a primary: before and after it is the copy that counts. */
  | 'handing' | 'serving'
  | 'complete'
  | 'ended';

/** Nothing was agreed on yet. */
export function isHandshake(phase: SessionPhase): boolean {
  return phase === 'hello' || phase === 'verdict' || phase === 'resolving';
}

/** What the session asks of the resource that owns it. */
export interface SessionHost {
  readonly isPrimary: boolean;
  readonly tail: AsyncTail;
  readonly operator: Operator;
  /**
   * The complete peer was promoted; false where this node is being promoted too, and stays
   * primary. Throws HAST_E_PROTOCOL where this node is primary already.
   */
  yieldsTo(peer: Hello): boolean;
  /** What this node says of itself now. */
  hello(): Hello;
  /** Application writes in flight that `stream` does not carry. */
  strayWrites(stream: PeerStream | null): number;
  /** Makes "acknowledging alone" durable (a new generation), then calls `done`. */
  recordAlone(done: () => void): void;
  /** From now on application writes go through `stream`, or nowhere. */
  useStream(stream: PeerStream | null): void;
  /**
   * A generation is about to be handed to the peer: acknowledging alone needs a new record from
   * now on, durably so before `done`.
   */
  aloneEnds(done: () => void): void;
  /** Flush on both sides now; `done` when both returned (never after the session ended). */
  flushBoth(stream: PeerStream, done: () => void): void;
  /** Paces what a resync sends; a new one for each resync. */
  newPace(): ResyncPace;
  /** A primary without a local copy. */
  readonly isDiskless: boolean;
  /** The lineage of the peer's copy that this primary relies on; null while its own counts. */
  readonly reliesOn: Lineage | null;
  /** The lineage that the peer's copy is to have: `reliesOn`, or a new one. */
  readonly claims: Lineage | null;
  /** The peer's map was taken. */
  mapKnown(): void;
  /**
   * Whether this primary may rely on the peer as it is now; where it may not, the resource has
   * failed and the session is over.
   */
  acceptsPeer(peer: Hello): boolean;
  /** The peer says that its disk failed. */
  peerDiskFailed(): void;
  /** The peer serves this primary's requests through `stream` from now on. */
  remoteReady(session: Session, stream: PeerStream): void;
  /** Takes no new requests and calls `done` when none is unanswered. */
  closeRemote(done: () => void): void;
  /** The record that this copy counts again is being written. */
  remoteCommits(): void;
  /** It is durable. */
  remoteEnds(): void;
  /** The map of the peer's split copy is here; `full`: one of the maps says nothing. */
  compare(session: Session, peerMap: BlockMap, full: boolean): void;
  sessionConnected(session: Session): void;
  sessionComplete(session: Session): void;
  sessionRefused(session: Session, reason: RefuseReason, text: string): void;
  sessionEnded(session: Session, reason: string): void;
}
