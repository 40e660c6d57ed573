/** What one resource says of itself: the words of docs/architecture.md, from the core's state. */
import { limits } from '../format/limits.ts';
import { Attachment, WireRole } from '../format/hello.ts';
import { namesOfFeatures } from '../format/protocol.ts';
import { DataState, SuperblockFlag } from '../format/superblock.ts';
import type { ConnectionWord, DiskWord, ResourceStatus, StatusWord } from '../format/status.ts';
import { isServed } from './remote-state.ts';
import type { Resource } from './resource.ts';

/** The part of a status that the core knows. */
export type CoreStatus = Pick<
  ResourceStatus,
  'role' | 'status' | 'connection' | 'detail' | 'dirtyBytes' | 'syncPercent' | 'localDisk' |
  'peerDisk' | 'peerRole' | 'disconnectedSince' | 'singleCopyWrites' | 'statistics' |
  'extentSize' | 'keepDirty' | 'mediaSize' | 'syncRate' | 'syncEta' | 'resyncPaused' |
  'needsHuman' | 'keptBytes' | 'keptFile' | 'protocol' | 'protocolFeatures'
>;

export function statusWord(resource: Resource): StatusWord {
  const { session, role, refusal, failed, context } = resource;
  if (failed) return 'failed';
  if (resource.isDiskless && isServed(session)) return 'diskless';
  if (resource.isDiskless || (resource.remote.isActive && session === null)) return 'failed';
  if (refusal?.reason === 'split-brain') return 'split-brain';
  switch (session?.phase) {
    case 'complete':
      return role === 'primary' && !context.tracker.peerStale.isEmpty ? 'degraded' : 'complete';
    case 'map': case 'starting': case 'copying': case 'finishing': case 'keeping': case 'syncing':
    case 'adopting': case 'taking': case 'claiming': case 'remote': case 'rejoining':
    case 'handing':
      return 'syncing';
    case 'serving': return 'degraded';
    default:
      return role === 'primary' ? 'degraded' : 'waiting';
  }
}

function connectionWord(resource: Resource): ConnectionWord {
  const { session, refusal, context } = resource;
  if (context.options.alone) return 'none';
  if (resource.resyncPaused && resource.isSyncing) return 'paused';
  switch (session?.phase) {
    case 'complete': case 'undecided': case 'waiting': case 'serving': return 'connected';
    case 'remote': return resource.isDiskless ? 'connected' : 'syncing';
    case 'map': case 'starting': case 'copying': case 'finishing': case 'keeping': case 'syncing':
    case 'adopting': case 'taking': case 'claiming': case 'rejoining': case 'handing':
      return 'syncing';
    default: return refusal === null ? 'connecting' : 'refused';
  }
}

/** Why the connection is what it is, or what the operator should know. */
export function detailText(resource: Resource): string {
  const { failed, failure, refusal, session, linker, lostBecause, context, tail } = resource;
  if (failed) return failure;
  if (resource.isDiskless) return disklessText(resource);
  if (resource.roleChange.waitsFor !== '') return `requests wait: ${resource.roleChange.waitsFor}`;
  if (refusal !== null) return refusal.text;
  if (context.options.alone) return 'remote none: this node works alone';
  if (cannotKeep(resource)) return tail.failure;
  if (session?.phase === 'keeping') return 'what only this copy has is kept in a file first';
  if (session?.phase === 'undecided') return 'neither copy has data yet: promote one node';
  if (session?.isConnected === true) return '';
  if (linker.lastFailure !== '') return linker.lastFailure;
  return lostBecause;
}

function disklessText(resource: Resource): string {
  const { remote, session, context, linker } = resource;
  if (isServed(session)) return `${remote.reason}; the peer serves: hastctl attach NAME`;
  const waits = context.options.onNoData === 'stall' ? 'requests wait' : 'requests fail';
  return `${remote.reason}, and the peer is not connected (${linker.lastFailure}): ${waits}`;
}

function localDisk(resource: Resource): DiskWord {
  if (resource.isDiskless) return resource.remote.localWord;
  if (resource.failed) return resource.remote.localWord;
  const { dataState } = resource.context.store.value;
  if (dataState !== DataState.consistent) return 'inconsistent';
  const phase = resource.session?.phase;
  const isBehind = phase === 'waiting' || phase === 'keeping' || phase === 'adopting';
  return isBehind ? 'outdated' : 'up-to-date';
}

function peerDisk(resource: Resource): DiskWord {
  switch (resource.session?.phase) {
    case 'complete': case 'waiting': case 'keeping': case 'syncing': case 'adopting':
    case 'taking': case 'claiming': case 'remote': case 'rejoining':
      return 'up-to-date';
    case 'copying': case 'finishing': return 'inconsistent';
    case 'map': case 'starting': case 'handing': return 'outdated';
    case 'serving':
      return resource.session?.peer?.attachment === Attachment.diskless ? 'detached'
        : 'inconsistent';
    default:
      if (resource.peerDiskHasFailed) return 'failed';
      return resource.aloneRecorded ? 'outdated' : 'unknown';
  }
}

/** Blocks that only one of the copies has in their newest state, as far as this node knows. */
function staleBlocks(resource: Resource): number {
  const { tracker } = resource.context;
  return tracker.peerStale.count + tracker.localStale.count;
}

function syncPercent(resource: Resource): number {
  const { tracker } = resource.context;
  const left = staleBlocks(resource);
  const sync = resource.session?.source.resync ?? resource.session?.remote?.pull ?? null;
  if (sync === null) {
    const phase = resource.session?.phase;
    if (phase === 'syncing' || phase === 'keeping') return 0;
    return left === 0 ? 100 : Math.floor(1000 * (1 - left / tracker.peerStale.blockCount)) / 10;
  }
  const total = Math.max(sync.total, sync.copiedBlocks + left);
  return total === 0 ? 100 : Math.floor(1000 * (sync.copiedBlocks / total)) / 10;
}

function syncPace(resource: Resource): Pick<CoreStatus, 'syncRate' | 'syncEta'> {
  if (!resource.isSyncing) return { syncRate: 0, syncEta: null };
  const now = resource.context.clock.now();
  const left = staleBlocks(resource) * limits.blockSize;
  const eta = resource.pace.eta(now, left);
  return {
    syncRate: Math.round(resource.pace.speed(now)),
    syncEta: eta === null || resource.resyncPaused ? null : Math.ceil(eta),
  };
}

/** The peer is to overwrite what only this copy has, and it cannot be kept. */
function cannotKeep({ role, tail, context }: Resource): boolean {
  const isDue = (context.store.value.flags & SuperblockFlag.asyncPrimary) !== 0;
  return tail.failure !== '' && role === 'secondary' && isDue && !context.options.alone;
}

/** Nothing of its own ends this state; `detail` says what a person has to do. */
function needsHuman(resource: Resource): boolean {
  const { failed, isDiskless, refusal, role } = resource;
  if (failed || isDiskless || resource.peerDiskHasFailed || cannotKeep(resource)) return true;
  if (resource.remote.isActive && resource.session === null) return true;
  // A primary whose promotion the peer's own ends, or a pair in the middle of a change of roles.
  const passes = refusal?.reason === 'both-primary' && role === 'secondary';
  return refusal !== null && !passes;
}

export function coreStatus(resource: Resource): CoreStatus {
  const { session, context, io } = resource;
  const { tracker, store, statistics } = context;
  const connected = session?.isConnected === true;
  statistics.mapUpdates = tracker.updates;
  statistics.queueSend = session?.stream?.unansweredFrames ?? 0;
  statistics.queueRecv = session?.replica.pending ?? 0;
  statistics.queueDone = io.activeCount;
  return {
    role: resource.role,
    status: statusWord(resource),
    connection: connectionWord(resource),
    detail: detailText(resource),
    dirtyBytes: staleBlocks(resource) * limits.blockSize,
    syncPercent: syncPercent(resource),
    ...syncPace(resource),
    resyncPaused: resource.resyncPaused,
    needsHuman: needsHuman(resource),
    keptBytes: resource.tail.keptBytes,
    keptFile: resource.tail.keptFile,
    localDisk: localDisk(resource),
    peerDisk: peerDisk(resource),
    protocol: connected ? session?.agreed?.version ?? null : null,
    protocolFeatures: connected ? namesOfFeatures(session?.agreed?.features ?? 0) : [],
    peerRole: !connected ? 'unknown'
      : session?.peerRole === WireRole.primary ? 'primary' : 'secondary',
    disconnectedSince: resource.disconnectedSince,
    singleCopyWrites: io.singleCopyWrites,
    statistics: { ...statistics },
    extentSize: store.value.extentSize,
    keepDirty: store.value.keepDirty,
    mediaSize: store.value.mediaSize,
  };
}
