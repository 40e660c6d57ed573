/** What one resource counted and timed, from the core's state: lib/format/statistics.ts. */
import type { ResourceStatistics } from '../format/statistics.ts';
import { latencyBounds } from './latencies.ts';
import { isServed } from './remote-state.ts';
import type { Resource } from './resource.ts';

/** Requests of the application are kept unanswered until something outside changes. */
function isSuspended(resource: Resource): boolean {
  const { role, failed, stalls, remote, roleChange, session, context } = resource;
  if (role !== 'primary' && !roleChange.isResuming) return false;
  if (failed) return stalls;
  if (roleChange.waitsFor !== '') return true;
  return remote.isActive && !isServed(session) && context.options.onNoData === 'stall';
}

/** See ResourceStatistics.secondsBehind. */
function secondsBehind(resource: Resource, now: number): number | null {
  const { role, session, context, io } = resource;
  const { tracker, measures } = context;
  if (role !== 'primary') return null;
  // The peer's copy is the one that counts.
  if (resource.remote.isActive) return 0;
  const stream = session?.stream ?? null;
  if (stream?.counts === true && tracker.peerStale.isEmpty) {
    return Math.max(0, now - (stream.oldestSentAt ?? now)) / 1000;
  }
  if (io.singleCopyWrites > 0) return (now - io.singleCopySince) / 1000;
  // What the peer lacks is from before this process.
  return tracker.peerStale.isEmpty ? 0 : measures.ageMs / 1000;
}

/** `idle`: free places for requests in the front end. */
export function coreStatistics(resource: Resource, idle: number): ResourceStatistics {
  const { session, context, io, remote } = resource;
  const { measures, statistics, tracker, clock } = context;
  const now = clock.now();
  const oldest = Math.min(io.oldestSince, remote.io.oldestSince);
  return {
    schema: 1,
    age: measures.ageMs / 1000,
    requests: measures.requests(),
    failedRequests: measures.failedRequests,
    executed: measures.executed(),
    latencyBounds: [...latencyBounds],
    latencies: measures.latencies.histograms(),
    queues: {
      requests: io.activeCount + remote.io.activeCount,
      local: statistics.queueLocal,
      send: session?.stream?.unansweredFrames ?? 0,
      sendBytes: session?.stream?.unansweredBytes ?? 0,
      receive: session?.replica.pending ?? 0,
      idle,
    },
    oldestRequest: oldest === Infinity ? 0 : Math.max(0, now - oldest) / 1000,
    ioSuspended: isSuspended(resource),
    secondsBehind: secondsBehind(resource, now),
    connects: measures.connects,
    mapUpdates: tracker.updates,
    hotExtents: tracker.hotCount,
    checkpoints: measures.checkpoints,
    resyncBytes: measures.resyncBytes,
    localErrors: {
      read: statistics.localReadErrors, write: statistics.localWriteErrors,
      discard: statistics.localDeleteErrors, flush: statistics.localFlushErrors,
    },
  };
}
