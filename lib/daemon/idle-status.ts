/** The status of a resource whose worker does not run or does not answer: numbers are 0. */
import { formatAddress } from '../config/address.ts';
import { authenticationOf } from '../config/authentication.ts';
import type { ResourceConfig } from '../config/model.ts';
import type { ResourceStatus, StatusWord } from '../format/status.ts';
import type { SupervisorState } from './states.ts';
import { roleOf } from './states.ts';

const words: Readonly<Record<SupervisorState, StatusWord>> = {
  init: 'init',
  starting: 'waiting',
  secondary: 'waiting',
  promoting: 'waiting',
  primary: 'failed',
  reviving: 'waiting',
  resuming: 'waiting',
  leaving: 'failed',
  stopping: 'waiting',
  backoff: 'waiting',
  failed: 'failed',
};

export function idleStatus(
  resource: ResourceConfig,
  device: string,
  state: SupervisorState,
  detail: string,
): ResourceStatus {
  return {
    schema: 1,
    name: resource.name,
    role: roleOf[state],
    status: words[state],
    connection: 'none',
    detail,
    local: resource.local,
    remote: resource.remote === null ? 'none' : formatAddress(resource.remote),
    source: resource.source === null ? null : formatAddress(resource.source),
    device,
    replication: resource.replication,
    checksum: resource.checksum,
    compression: resource.compression,
    frontend: resource.frontend,
    extentSize: 0,
    keepDirty: 0,
    mediaSize: 0,
    dirtyBytes: 0,
    syncPercent: 0,
    localDisk: state === 'failed' ? 'failed' : 'unknown',
    peerDisk: 'unknown',
    peerRole: 'unknown',
    protocol: null,
    protocolFeatures: [],
    worker: null,
    release: null,
    disconnectedSince: null,
    singleCopyWrites: 0,
    syncRate: 0,
    syncEta: null,
    resyncPaused: false,
    needsHuman: state === 'failed',
    keptBytes: 0,
    keptFile: null,
    diskTimeout: resource.diskTimeout,
    onNoData: resource.onNoData,
    resyncRate: resource.resyncRate,
    authentication: authenticationOf(resource).kind,
    certificateExpires: null,
    statistics: {
      reads: 0, writes: 0, deletes: 0, flushes: 0, mapUpdates: 0,
      localReadErrors: 0, localWriteErrors: 0, localDeleteErrors: 0, localFlushErrors: 0,
      queueLocal: 0, queueSend: 0, queueRecv: 0, queueDone: 0, queueIdle: 0,
    },
  };
}
