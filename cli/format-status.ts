/** What `hastctl status` and `hastctl list` print: the original's words in its order. */
import * as path from 'node:path';
import type { ResourceStatus } from '../lib/format/status.ts';
import { nextSteps } from './next-steps.ts';
import type { Paint, Style } from './terminal.ts';
import { inColumns } from './terminal.ts';

const statusWidth = 9;
const roleWidth = 15;
const unauthenticated = "unauthenticated, in clear text (hastctl pair init, or 'secret')";

/** For programs: one header, one tab-separated line per resource, as the original prints it. */
export function formatStatusTable(resources: readonly ResourceStatus[]): string {
  const lines = ['Name\tStatus\t Role\t\tComponents'];
  for (const { name, status, role, local, remote } of resources) {
    // Our longest status is wider than the original's column.
    const word = `${status.padEnd(statusWidth - 1)} `;
    lines.push(`${name}\t${word}${role.padEnd(roleWidth)}${local}\t${remote}`);
  }
  return `${lines.join('\n')}\n`;
}

/** For a person: in columns, with what has to be known below, and what to type next. */
export function formatStatusPeople(resources: readonly ResourceStatus[], paint: Paint): string {
  const rows = resources.map((resource) => {
    const { name, role, local, remote } = resource;
    return [name, statusText(resource), role, local, remote];
  });
  const widths = [4, 6, 4, 10].map((least, column) =>
    Math.max(least, ...rows.map((row) => row[column]?.length ?? 0)));
  const lineOf = (cells: readonly string[]): string =>
    cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ').trimEnd();
  const lines = [paint('bold', lineOf(['Name', 'Status', 'Role', 'Components']))];
  resources.forEach((resource, index) => {
    const row = rows[index] ?? [];
    const word = row[1] ?? '';
    const line = lineOf(row);
    const at = (widths[0] ?? 0) + 2;
    const painted = paint(styleOf(resource), word);
    lines.push(line.slice(0, at) + painted + line.slice(at + word.length));
    lines.push(...notes(resource, paint).map((note) => `  ${note}`));
  });
  return `${lines.join('\n')}\n`;
}

/** Who has the peer's address is the peer. */
function isUnauthenticated({ authentication, remote }: ResourceStatus): boolean {
  return authentication === 'none' && remote !== 'none';
}

/** What a person must know of it, and the commands that may come next. */
export function notes(resource: ResourceStatus, paint: Paint): string[] {
  const { detail, needsHuman } = resource;
  const lines = detail === '' ? [] : [paint(needsHuman ? 'yellow' : 'dim', detail)];
  if (isUnauthenticated(resource)) lines.push(paint('dim', unauthenticated));
  return [...lines, ...nextSteps(resource).map((step) => `next: ${paint('bold', step)}`)];
}

/** `syncing 42.1%` */
function statusText(resource: ResourceStatus): string {
  const { status, syncPercent, resyncPaused } = resource;
  if (status !== 'syncing') return status;
  return `${status} ${Math.floor(syncPercent * 10) / 10}%${resyncPaused ? ', paused' : ''}`;
}

export function styleOf({ status, needsHuman }: ResourceStatus): Style {
  if (status === 'failed' || status === 'split-brain') return 'alarm';
  if (needsHuman) return 'red';
  if (status === 'complete') return 'green';
  return status === 'init' ? 'dim' : 'yellow';
}

export function formatList(resources: readonly ResourceStatus[]): string {
  return resources.map((resource) => `${listLines(resource).join('\n')}\n`).join('');
}

/** The same lines for a person: values below each other, and what to type next. */
export function formatListPeople(resources: readonly ResourceStatus[], paint: Paint): string {
  return resources.map((resource) => {
    const lines = inColumns(`${listLines(resource).join('\n')}\n`, paint).split('\n');
    const at = lines.findIndex((line) => line.includes('status:'));
    if (at >= 0) {
      lines[at] = (lines[at] ?? '').replace(/\S+$/, (word) => paint(styleOf(resource), word));
    }
    const steps = nextSteps(resource).map((step) => `  next: ${paint('bold', step)}`);
    lines.splice(1, 0, ...steps);
    return lines.join('\n');
  }).join('');
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
  if (resource.release !== null) add('release', resource.release);
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
  const resync = resyncText(resource);
  if (resync !== '') add('resync', resync);
  add('local disk', resource.localDisk);
  add('peer disk', resource.peerDisk);
  add('peer role', resource.peerRole);
  const { protocol, protocolFeatures = [] } = resource;
  if (typeof protocol === 'number') add('protocol', [protocol, ...protocolFeatures].join(' '));
  const { authentication, certificateExpires = null } = resource;
  const until = certificateExpires === null ? ''
    : `, certificate until ${new Date(certificateExpires * 1000).toISOString().slice(0, 10)}`;
  const meaning = isUnauthenticated(resource) ? ' (unauthenticated, in clear text)' : until;
  if (authentication !== undefined) add('authentication', `${authentication}${meaning}`);
  add('single copy writes', resource.singleCopyWrites);
  if (resource.keptFile !== null) {
    add('kept', `${sized(resource.keptBytes)} in ${resource.keptFile}`);
  }
  if (resource.detail !== '') add('detail', resource.detail);
}

/** `42.1%, 10MB/s, 3:20 left`; empty while nothing is or would be copied. */
export function resyncText(resource: ResourceStatus): string {
  const { status, connection, syncPercent, syncRate, syncEta, resyncPaused } = resource;
  const runs = status === 'syncing' || connection === 'syncing' || connection === 'paused';
  if (!runs) return resyncPaused ? 'paused' : '';
  const percent = `${Math.floor(syncPercent * 10) / 10}%`;
  if (resyncPaused) return `${percent}, paused`;
  const left = syncEta === null ? '' : `, ${duration(syncEta)} left`;
  return `${percent}, ${humanSize(syncRate)}/s${left}`;
}

/** `3:20`, `1:02:03`, `2d 1:02:03` */
export function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  const [days, hours] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24];
  const minutes = Math.floor(whole / 60) % 60;
  const short = `${whole < 3600 ? minutes : two(minutes)}:${two(whole % 60)}`;
  if (whole < 3600) return short;
  return days === 0 ? `${hours}:${short}` : `${days}d ${hours}:${short}`;
}

function statisticsLines({ statistics }: ResourceStatus): string[] {
  const { localReadErrors, localWriteErrors, localDeleteErrors, localFlushErrors } = statistics;
  const { queueLocal, queueSend, queueRecv, queueDone, queueIdle } = statistics;
  const badFrames = statistics.badFrames ?? 0;
  return [
    '  statistics:',
    `    reads: ${statistics.reads}`,
    `    writes: ${statistics.writes}`,
    `    deletes: ${statistics.deletes}`,
    `    flushes: ${statistics.flushes}`,
    `    activemap updates: ${statistics.mapUpdates}`,
    `    local errors: read: ${localReadErrors}, write: ${localWriteErrors}, ` +
      `delete: ${localDeleteErrors}, flush: ${localFlushErrors}`,
    // Beyond the original's lines: only where there is something to tell.
    ...(badFrames === 0 ? [] : [`    bad frames: ${badFrames}`]),
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
