/** What lib/core/app-io.ts asks of the resource. */
import type { AsyncTail } from './async-tail.ts';
import type { RemoteIo } from './remote-io.ts';

export interface AppIoHost {
  /** Its `mode` is how requests complete. */
  readonly tail: AsyncTail;
  /** Acknowledging with one copy is durably recorded. */
  readonly aloneRecorded: boolean;
  /** The peer is connected and complete. */
  readonly isComplete: boolean;
  /** A request is held because it is not: record it, then call `recheck`. */
  requireAlone(): void;
  /** The local copy failed or this node must step down: nothing is served any more. */
  readonly failed: boolean;
  /** While `failed`: requests wait for a person, instead of ending with EIO. */
  readonly stalls: boolean;
  /** Where requests go while the peer's copy is the one that counts; null while this one is. */
  readonly remoteIo: RemoteIo | null;
  /** A resync runs: it wants to know what the application feels. */
  readonly isSyncing: boolean;
  requestDone(latencyMs: number): void;
  strayEnded(): void;
}
