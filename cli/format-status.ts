/** What `hastctl status` and `hastctl list` print: the original's words in its order. */
import * as path from 'node:path';
import type { ResourceStatus } from '../lib/format/status.ts';

const statusWidth = 9;
const roleWidth = 15;

/** One header, one tab-separated line per resource. */
export function formatStatusTable(resources: readonly ResourceStatus[]): string {
  const lines = ['Name\tStatus\t Role\t\tComponents'];
  for (const { name, status, role, local, remote } of resources) {
    // Our longest status is wider than the original's column.
    const word = `${status.padEnd(statusWidth - 1)} `;
    lines.push(`${name}\t${word}${role.padEnd(roleWidth)}${local}\t${remote}`);
  }
  return `${lines.join('\n')}\n`;
}

export function formatList(resources: readonly ResourceStatus[]): string {
  return resources.map((resource) => `${listLines(resource).join('\n')}\n`).join('');
}

function listLines(resource: ResourceStatus): string[] {
  const lines: string[] = [`${resource.name}:`];
  const add = (label: string, value: string | number): void => {
    lines.push(`  ${label}: ${value}`);
  };
  add('role', resource.role);
  add('provname', path.basename(resource.device));
  add('localpath', resource.local);
  add('extentsize', sized(resource.extentSize));
  add('keepdirty', resource.keepDirty);
  add('remoteaddr', resource.remote);
  if (resource.source !== null) add('sourceaddr', resource.source);
  add('replication', resource.replication);
  if (resource.worker !== null || resource.role !== 'init') add('status', resource.status);
  if (resource.worker !== null) add('workerpid', resource.worker);
  add('dirty', sized(resource.dirtyBytes));
  addOwnLines(resource, add);
  lines.push(...statisticsLines(resource));
  return lines;
}

/** What the original did not have. */
function addOwnLines(
  resource: ResourceStatus,
  add: (label: string, value: string | number) => void,
): void {
  add('mediasize', sized(resource.mediaSize));
  add('connection', resource.connection);
  if (resource.disconnectedSince !== null) {
    add('disconnected since', new Date(resource.disconnectedSince * 1000).toISOString());
  }
  add('synced', `${Math.floor(resource.syncPercent * 10) / 10}%`);
  add('local disk', resource.localDisk);
  add('peer disk', resource.peerDisk);
  add('peer role', resource.peerRole);
  add('single copy writes', resource.singleCopyWrites);
  if (resource.detail !== '') add('detail', resource.detail);
}

function statisticsLines({ statistics }: ResourceStatus): string[] {
  const { localReadErrors, localWriteErrors, localDeleteErrors, localFlushErrors } = statistics;
  const { queueLocal, queueSend, queueRecv, queueDone, queueIdle } = statistics;
  return [
    '  statistics:',
    `    reads: ${statistics.reads}`,
    `    writes: ${statistics.writes}`,
    `    deletes: ${statistics.deletes}`,
    `    flushes: ${statistics.flushes}`,
    `    activemap updates: ${statistics.mapUpdates}`,
    `    local errors: read: ${localReadErrors}, write: ${localWriteErrors}, ` +
      `delete: ${localDeleteErrors}, flush: ${localFlushErrors}`,
    `    queues: local: ${queueLocal}, send: ${queueSend}, recv: ${queueRecv}, ` +
      `done: ${queueDone}, idle: ${queueIdle}`,
  ];
}

/** `2097152 (2.0MB)` */
export function sized(bytes: number): string {
  return `${bytes} (${humanSize(bytes)})`;
}

/** Powers of 1024, one decimal below ten, as the original's tools print them. */
export function humanSize(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB', 'PB'];
  let value = bytes;
  let unit = 0;
  // 999.5 would be rounded to a fourth digit.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0);
  return `${digits}${units[unit] ?? ''}`;
}
