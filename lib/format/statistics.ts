/**
 * What `hastctl` and the metrics know of how a resource works: the reply to `statistics`, schema 1.
 * Counters begin at 0 with the worker. New fields may be added; a worker of an older release tells
 * nothing of all this.
 */

/** `discard`: discards and zeroed ranges. */
export const requestKinds = ['read', 'write', 'discard', 'flush'] as const;
export type RequestKind = (typeof requestKinds)[number];

/**
 * Which part of a request took how long:
 * - `total`: from its arrival to its answer, as the application sees it;
 * - `local`: one operation of the local disk, whoever asked for it: the application, the peer, a
 *   resync;
 * - `peer`: from the moment a frame is queued for the peer until the peer has executed it;
 * - `network`: of that, until the peer's process said that it has the frame in memory;
 * - `peer-disk`: of that, the rest.
 * The last two are taken of one write or discard in seventeen, in every mode.
 */
export const latencyStages = ['total', 'local', 'peer', 'network', 'peer-disk'] as const;
export type LatencyStage = (typeof latencyStages)[number];

export interface LatencyHistogram {
  stage: LatencyStage;
  kind: RequestKind;
  count: number;
  /** Seconds, of all of them. */
  sum: number;
  /** How many in each bucket, not added up; one more than there are bounds. */
  buckets: number[];
}

export interface RequestCount {
  /** Done without an error. */
  count: number;
  bytes: number;
}

export interface ResourceStatistics {
  schema: 1;
  /** Seconds since the counters were 0. */
  age: number;
  /** Requests of the application that were answered. */
  requests: Record<RequestKind, RequestCount>;
  /** Requests of the application that were answered with an error. */
  failedRequests: number;
  /** What this node began to execute for the peer, a resync apart. */
  executed: Record<RequestKind, RequestCount>;
  /** Upper bounds of the buckets of every histogram, in seconds, ascending; the last has none. */
  latencyBounds: number[];
  /** Those in which something was counted. */
  latencies: LatencyHistogram[];
  /** Right now. */
  queues: {
    /** Requests of the application that are not answered. */
    requests: number;
    /** Operations of the local disk. */
    local: number;
    /** Frames that the peer has not answered, and the bytes they take of its window. */
    send: number;
    sendBytes: number;
    /** Frames of the peer that are not executed. */
    receive: number;
    /** Free places for requests of the application. */
    idle: number;
  };
  /** Seconds since the oldest unanswered request of the application came; 0 where there is none. */
  oldestRequest: number;
  /** Requests of the application wait for a person, or for the peer: see `detail` of the status. */
  ioSuspended: boolean;
  /**
   * Seconds since the oldest answered write that the peer has not executed: what would be lost with
   * this node. null where this node is not primary.
   */
  secondsBehind: number | null;
  /** Connections that a handshake has accepted. */
  connects: number;
  /** Writes of the metadata that mark or clear parts of the volume. */
  mapUpdates: number;
  /** Extents in the list of hot extents now. */
  hotExtents: number;
  /** Flushes that nobody asked for, so that marks can go. */
  checkpoints: number;
  /** Bytes that resyncs copied, from this node or to it. */
  resyncBytes: number;
  /** Operations of the local disk that failed. */
  localErrors: Record<RequestKind, number>;
}
