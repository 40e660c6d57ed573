/** What is on a block device, making and checking it, mounting and unmounting. */
import { HastError } from '../base/errors.ts';
import { probe } from '../programs/blkid.ts';
import { lastWords, runTool } from '../programs/tool.ts';
import type { ToolResult } from '../programs/tool.ts';

/** A program that only reads a few blocks. */
const lookMs = 60_000;
const mountMs = 120_000;
/** Unmounting writes everything that is dirty, to both nodes. */
const unmountMs = 600_000;
const makeMs = 3600_000;
/** A check of a large file system that was damaged takes hours. */
const checkMs = 12 * 3600_000;

const MiB = 1024 * 1024;

/** e2fsck(8): 1 errors were corrected, 2 also, and the system should be rebooted (of a root). */
const fsckClean = 0;
const fsckCorrected = 3;

/** What blkid finds: `ext4`, `LVM2_member`, `a partition table (gpt)`; null for nothing. */
export async function contentOf(device: string): Promise<string | null> {
  const fields = await probe(device);
  if (fields === null) return null;
  if (fields === 'several') return 'several contradicting signatures';
  const type = fields.get('TYPE');
  if (type !== undefined) return type;
  const table = fields.get('PTTYPE');
  return table === undefined ? null : `a partition table (${table})`;
}

/** Whether nothing at all is found on it, and its first and last MiB are zeros. */
export async function isBlank(device: string, size: number): Promise<boolean> {
  if (await contentOf(device) !== null) return false;
  const found = await runTool('wipefs', ['--no-act', device], lookMs);
  if (found.code !== 0) throw failure(`cannot look at ${device}`, found);
  if (found.stdout.trim() !== '') return false;
  const pieceSize = Math.min(MiB, size);
  for (const start of new Set([0, size - pieceSize])) {
    const args = ['-n', String(pieceSize), '-i', `${start}:0`, device, '/dev/zero'];
    const compared = await runTool('cmp', args, lookMs);
    if (compared.code > 1) throw failure(`cannot read ${device}`, compared);
    if (compared.code === 1) return false;
  }
  return true;
}

export async function makeFilesystem(device: string, type: string): Promise<void> {
  const result = await runTool(`mkfs.${type}`, ['-q', device], makeMs);
  if (result.code !== 0) throw failure(`mkfs.${type} failed`, result);
}

/** Whether there is something to do before it is mounted; else the kernel does it. */
export function needsCheck(type: string): boolean {
  return /^ext[234]$/.test(type);
}

/**
 * Replays the journal, and checks all where the file system was not left clean or is due; repairs
 * what is safe to repair. Throws HAST_E_CORRUPT where a person must decide.
 */
export async function checkFilesystem(device: string): Promise<'clean' | 'repaired'> {
  const result = await runTool('e2fsck', ['-p', device], checkMs);
  if (result.code === fsckClean) return 'clean';
  if (result.code <= fsckCorrected) return 'repaired';
  const isUnfit = result.code >= 8;
  throw new HastError(
    isUnfit ? 'HAST_E_IO' : 'HAST_E_CORRUPT', `e2fsck -p ${device}: ${lastWords(result)}`,
    { hint: `e2fsck -f ${device}, which asks what to do` },
  );
}

export async function mountFilesystem(
  device: string, mountPoint: string, type: string, options: string,
): Promise<void> {
  const args = ['-t', type, '-o', options, device, mountPoint];
  const result = await runTool('mount', args, mountMs);
  if (result.code !== 0) throw failure(`cannot mount ${device} on ${mountPoint}`, result);
}

/** Null where it is done; else what umount(8) says, for the caller to look into. */
export async function unmountFilesystem(mountPoint: string): Promise<string | null> {
  const result = await runTool('umount', [mountPoint], unmountMs);
  return result.code === 0 ? null : lastWords(result);
}

function failure(what: string, result: ToolResult): HastError {
  return new HastError('HAST_E_IO', `${what}: ${lastWords(result)}`, {
    hint: 'see the kernel log (dmesg), mend that, then the same command again',
  });
}
