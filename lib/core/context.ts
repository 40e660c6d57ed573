/** What the parts of one resource's core share. */
import type { Logger } from '../base/log.ts';
import type { Mode } from './completion.ts';
import type { DirtyTracker } from './dirty-tracker.ts';
import type { InflightTable } from './inflight-table.ts';
import type { Measures } from './measures.ts';
import type { ClockPort, EventPort, RandomPort, TurnPort, UndoStore } from './ports.ts';
import type { RangeLocks } from './range-lock.ts';
import type { SuperblockStore } from './superblock-store.ts';
import type { Timers } from './timers.ts';
import type { CoreDisk } from './watched-disk.ts';
import type { Protocol } from '../format/protocol.ts';
import type { Statistics } from '../format/status.ts';

/** Settings of a resource; those not marked fixed may change while it runs. */
export interface CoreOptions {
  /** Fixed. */
  resource: string;
  /** Fixed: this node's name. */
  node: string;
  /** Fixed: what this node says that it speaks. */
  protocol: Protocol;
  mode: Mode;
  timeoutMs: number;
  /** `remote none`. */
  alone: boolean;
  asyncLagBytes: number;
  asyncLagMs: number;
  /** A local or remote disk that does not answer for so long is given up; 0: never. */
  diskTimeoutMs: number;
  /** What becomes of requests while neither copy can serve. */
  onNoData: 'stall' | 'fail';
  /** Bytes a second a resync may send; 0: as the application's own latency allows. */
  resyncRate: number;
}

export type LocalOp = 'read' | 'write' | 'delete' | 'flush' | 'metadata';

export interface CoreContext {
  readonly options: CoreOptions;
  /** What comes with the local copy: others after an attach. */
  disk: CoreDisk;
  store: SuperblockStore;
  tracker: DirtyTracker;
  /** New ones when the local copy is given up: what held the old ones is not waited for. */
  locks: RangeLocks;
  readonly timers: Timers;
  readonly clock: ClockPort;
  readonly random: RandomPort;
  readonly events: EventPort;
  readonly turn: TurnPort;
  readonly undo: UndoStore;
  /** What a successor finds, should this process be killed. */
  readonly inflight: InflightTable;
  readonly log: Logger;
  readonly statistics: Statistics & { badFrames: number };
  readonly measures: Measures;
  /** Start of the data in `local`. */
  dataOffset: number;
  readonly mediaSize: number;
  /** The local copy failed: nothing more is acknowledged from it. A read error only counts. */
  localFailed(op: LocalOp, errno: number): void;
}
