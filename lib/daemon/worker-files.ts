/**
 * The files by which the workers of a node are found: RUNDIR/.workers/NAME.*, for root only.
 * Names of resources begin with a letter or digit, so nothing of theirs collides with the folder.
 */
import { createHash } from 'node:crypto';
import * as path from 'node:path';
import { limits } from '../config/limits.ts';

const folderName = '.workers';
/** Mode of the folder: a worker does what it is told at its socket. */
export const workerFolderMode = 0o700;
const endings = { socket: 'sock', record: 'json', inflight: 'inflight' } as const;
/** Characters of the hash that stands for a name that is too long for a socket's path. */
const hashLength = 16;

export function workerFolder(rundir: string): string {
  return path.join(rundir, folderName);
}

/**
 * `socket`: where a worker listens for the next parent. `record`: see RoleRecord. `inflight`: what
 * a primary's worker leaves to its successor.
 */
export type WorkerFile = keyof typeof endings;

/** The path of a file; who makes it makes the folder. */
export function workerFile(rundir: string, resource: string, kind: WorkerFile): string {
  const folder = workerFolder(rundir);
  const ending = endings[kind];
  const named = path.join(folder, `${resource}.${ending}`);
  if (Buffer.byteLength(named) <= limits.socketPathBytesMax) return named;
  return path.join(folder, `${hashOf(resource)}.${ending}`);
}

/** Stands for the name where only few and plain characters are allowed. */
export function hashOf(resource: string): string {
  return createHash('sha256').update(resource).digest('hex').slice(0, hashLength);
}
