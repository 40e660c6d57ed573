/**
 * Every metric but the histogram: name, help, and how it follows from the facts. docs/monitoring.md
 * has the same table, and a test compares them. Base units: seconds and bytes.
 */
import { requestKinds, type RequestKind } from '../format/statistics.ts';
import type { ResourceFacts } from './facts.ts';

export interface Sample {
  labels: Record<string, string>;
  value: number;
}

export interface Family {
  name: string;
  type: 'gauge' | 'counter';
  help: string;
  /** Beside `resource`. */
  labels: readonly string[];
  of(facts: ResourceFacts): Sample[];
}

type Value = number | boolean | null | undefined;

/** One value; none where it is null. */
function one(
  type: Family['type'], name: string, help: string, of: (facts: ResourceFacts) => Value,
): Family {
  return {
    name: `hast_${name}`, type, help, labels: [],
    of: (facts) => {
      const value = of(facts);
      return value === null || value === undefined ? [] : [{ labels: {}, value: Number(value) }];
    },
  };
}

/** 1 for the word that holds, 0 for the others. */
function oneHot(
  name: string, label: string, help: string, words: readonly string[],
  of: (facts: ResourceFacts) => string,
): Family {
  return {
    name: `hast_${name}`, type: 'gauge', help: `${help}: 1 for the one that holds`, labels: [label],
    of: (facts) => {
      const word = of(facts);
      const all = words.includes(word) ? words : [...words, word];
      return all.map((each) => ({ labels: { [label]: each }, value: Number(each === word) }));
    },
  };
}

function byKind(
  name: string, help: string, of: (facts: ResourceFacts) => Record<RequestKind, number> | undefined,
): Family {
  return {
    name: `hast_${name}`, type: 'counter', help, labels: ['kind'],
    of: (facts) => {
      const values = of(facts);
      if (values === undefined) return [];
      return requestKinds.map((kind) => ({ labels: { kind }, value: values[kind] }));
    },
  };
}

function pick<Field extends 'count' | 'bytes'>(
  counts: Record<RequestKind, Record<Field, number>> | undefined, field: Field,
): Record<RequestKind, number> | undefined {
  if (counts === undefined) return undefined;
  const { read, write, discard, flush } = counts;
  return {
    read: read[field], write: write[field], discard: discard[field], flush: flush[field],
  };
}

const disks = ['up-to-date', 'inconsistent', 'outdated', 'detached', 'failed', 'unknown'];
const roles = ['init', 'primary', 'secondary'];

const states: Family[] = [
  one('gauge', 'up', 'The worker of the resource answered; also 1 where the role needs none',
    ({ hasAnswered }) => hasAnswered),
  oneHot('role', 'role', 'Role of this node', roles, ({ status }) => status.role),
  oneHot('status', 'status', 'Status of the resource', [
    'init', 'complete', 'syncing', 'degraded', 'diskless', 'waiting', 'split-brain', 'failed',
  ], ({ status }) => status.status),
  oneHot('connection', 'connection', 'Connection to the peer', [
    'none', 'connecting', 'connected', 'syncing', 'paused', 'refused',
  ], ({ status }) => status.connection),
  oneHot('local_disk', 'state', "State of this node's copy", disks,
    ({ status }) => status.localDisk),
  oneHot('peer_disk', 'state', "State of the peer's copy, as far as this node knows", disks,
    ({ status }) => status.peerDisk),
  oneHot('peer_role', 'role', 'Role of the peer', [...roles, 'unknown'],
    ({ status }) => status.peerRole),
  oneHot('authentication', 'kind', 'How the peer proves who it is', ['none', 'tls', 'secret'],
    ({ status }) => status.authentication ?? 'none'),
  one('gauge', 'certificate_expires_seconds',
    "Time since 1970 at which this node's certificate ends; absent without one",
    ({ status }) => status.certificateExpires),
  one('gauge', 'needs_human', 'Nothing of its own ends this state: a person has to act',
    ({ status }) => status.needsHuman),
  one('gauge', 'io_suspended', 'Requests of the application wait for a person or for the peer',
    ({ statistics }) => statistics?.ioSuspended),
];

const risks: Family[] = [
  one('gauge', 'size_bytes', 'Size of the volume; 0 without a worker',
    ({ status }) => status.mediaSize),
  one('gauge', 'dirty_bytes', 'What one of the copies lacks or may lack',
    ({ status }) => status.dirtyBytes),
  one('gauge', 'seconds_behind',
    'Age of the oldest answered write that the peer has not executed; only on a primary',
    ({ statistics }) => statistics?.secondsBehind),
  one('gauge', 'single_copy_writes', 'Writes answered with one copy since the pair was complete',
    ({ status }) => status.singleCopyWrites),
  one('gauge', 'disconnected_since_seconds',
    'Time since 1970 at which the peer was lost; absent while it is connected',
    ({ status }) => status.disconnectedSince),
  one('gauge', 'kept_bytes', 'Kept in a file before the peer overwrote it, by this worker',
    ({ status }) => status.keptBytes),
  one('gauge', 'oldest_request_seconds', 'Age of the oldest unanswered request; 0 for none',
    ({ statistics }) => statistics?.oldestRequest),
];

const resyncs: Family[] = [
  one('gauge', 'resync_ratio', 'Part of a resync that is copied, 0 to 1; 1 where there is none',
    ({ status }) => status.syncPercent / 100),
  one('gauge', 'resync_bytes_per_second', 'Speed of a resync at this moment; 0 without one',
    ({ status }) => status.syncRate),
  one('gauge', 'resync_eta_seconds', 'Until it is done at this speed; absent where nobody knows',
    ({ status }) => status.syncEta),
  one('gauge', 'resync_paused', 'An operator paused resyncs', ({ status }) => status.resyncPaused),
  one('counter', 'resync_bytes_total', 'Copied by resyncs, from this node or to it',
    ({ statistics }) => statistics?.resyncBytes),
];

const work: Family[] = [
  byKind('requests_total', 'Requests of the application that were answered',
    ({ statistics }) => pick(statistics?.requests, 'count')),
  byKind('request_bytes_total', 'Bytes of these requests',
    ({ statistics }) => pick(statistics?.requests, 'bytes')),
  one('counter', 'failed_requests_total', 'Requests that were answered with an error',
    ({ statistics }) => statistics?.failedRequests),
  byKind('executed_total', 'Operations begun for the peer, resyncs apart',
    ({ statistics }) => pick(statistics?.executed, 'count')),
  byKind('executed_bytes_total', 'Bytes of these operations',
    ({ statistics }) => pick(statistics?.executed, 'bytes')),
  byKind('local_errors_total', 'Operations of the local disk that failed',
    ({ statistics }) => statistics?.localErrors),
  {
    name: 'hast_queue', type: 'gauge', labels: ['queue'],
    help: 'Waiting right now: requests of the application, operations of the local disk, ' +
      'frames sent to the peer, frames received from it',
    of: ({ statistics }) => statistics === null ? []
      : (['requests', 'local', 'send', 'receive'] as const).map((queue) =>
        ({ labels: { queue }, value: statistics.queues[queue] })),
  },
  one('gauge', 'send_bytes', 'Bytes of frames that the peer has not answered',
    ({ statistics }) => statistics?.queues.sendBytes),
];

const workings: Family[] = [
  one('counter', 'connects_total', 'Connections that a handshake accepted',
    ({ statistics }) => statistics?.connects),
  one('counter', 'bad_frames_total', 'Connections that ended because of what the peer sent',
    ({ statistics, status }) => statistics === null ? null : status.statistics.badFrames),
  one('counter', 'map_updates_total', 'Writes of the dirty map',
    ({ statistics }) => statistics?.mapUpdates),
  one('gauge', 'hot_extents', 'Extents listed as hot', ({ statistics }) => statistics?.hotExtents),
  one('counter', 'checkpoints_total', 'Flushes that nobody asked for, so that marks can go',
    ({ statistics }) => statistics?.checkpoints),
  one('counter', 'worker_deaths_total', 'Workers that ended out of order, since hastd started',
    ({ workerDeaths }) => workerDeaths),
  one('gauge', 'worker_age_seconds', 'Age of the worker; the counters above begin with it',
    ({ statistics }) => statistics?.age),
];

export const families: readonly Family[] = [...states, ...risks, ...resyncs, ...work, ...workings];
