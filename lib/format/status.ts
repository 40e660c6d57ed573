/**
 * What `status --json` and `list` show of one resource; schema 1. New fields may be added, so a
 * worker of an older release leaves some out: those are optional here.
 */

export type StatusWord =
  | 'init' | 'complete' | 'syncing' | 'degraded' | 'diskless' | 'waiting' | 'split-brain'
  | 'failed';
export type ConnectionWord =
  | 'none' | 'connecting' | 'connected' | 'syncing' | 'paused' | 'refused';
export type DiskWord =
  | 'up-to-date' | 'inconsistent' | 'outdated' | 'detached' | 'failed' | 'unknown';

export interface Statistics {
  reads: number;
  writes: number;
  /** Discards and zeroed ranges; the original's word. */
  deletes: number;
  flushes: number;
  /** Writes of hot extents and map pages. */
  mapUpdates: number;
  localReadErrors: number;
  localWriteErrors: number;
  localDeleteErrors: number;
  localFlushErrors: number;
  /** What the peer sent and cannot be: each ended a connection. */
  badFrames?: number;
  /** Requests at this moment. */
  queueLocal: number;
  queueSend: number;
  queueRecv: number;
  queueDone: number;
  queueIdle: number;
}

export interface ResourceStatus {
  schema: 1;
  name: string;
  role: 'init' | 'primary' | 'secondary';
  status: StatusWord;
  connection: ConnectionWord;
  /** Why `connection` is what it is, or what the operator should know; empty if nothing. */
  detail: string;
  local: string;
  remote: string;
  source: string | null;
  /** Link below devdir; present as a path also while it does not exist. */
  device: string;
  replication: string;
  checksum: string;
  compression: string;
  frontend: string;
  extentSize: number;
  keepDirty: number;
  mediaSize: number;
  /** Bytes the peer lacks or may lack. */
  dirtyBytes: number;
  /** 0..100; 100 when nothing is left to copy. */
  syncPercent: number;
  localDisk: DiskWord;
  peerDisk: DiskWord;
  /** Protocol version in use with the peer; null while not connected. */
  protocol?: number | null;
  /** Features that both nodes have, by name, in the order of their bits; none if not connected. */
  protocolFeatures?: string[];
  peerRole: 'init' | 'primary' | 'secondary' | 'unknown';
  /** pid, or null without a worker. */
  worker: number | null;
  /** Release of hast-linux that the worker runs; null without one. */
  release: string | null;
  /** Seconds since 1970 since when the peer is not connected; null while connected. */
  disconnectedSince: number | null;
  /** Writes acknowledged with one copy only, since the peer was last complete. */
  singleCopyWrites: number;
  /** Bytes a second a resync copies at this moment; 0 without one. */
  syncRate: number;
  /** Seconds until it is done at this rate; null where nobody can tell, and without one. */
  syncEta: number | null;
  /** The operator paused resyncs. */
  resyncPaused: boolean;
  /** Nothing of its own ends this state: `detail` says what a person has to do. */
  needsHuman: boolean;
  /**
   * Of the data that only this copy had, from its time as async primary: kept before the peer's
   * replaced them, by the present worker. 0 and null for none.
   */
  keptBytes: number;
  keptFile: string | null;
  /** Seconds; 0: never. */
  diskTimeout: number;
  onNoData: 'stall' | 'fail';
  /** Bytes a second; 0: as the application's latency allows. */
  resyncRate: number;
  /** How the peer proves who it is; `none`: anybody at its address is believed. */
  authentication?: 'none' | 'tls' | 'secret';
  /** Seconds since 1970 when this node's certificate ends; null without one. */
  certificateExpires?: number | null;
  statistics: Statistics;
}
