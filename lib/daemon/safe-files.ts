/**
 * Directories and files that hastd makes as root: nobody else may have put something in their
 * place. A link is not followed, and a directory in which others may write is not used.
 */
import * as fs from 'node:fs/promises';
import { constants, type Stats } from 'node:fs';
import { HastError, errnoName } from '../base/errors.ts';

/** A pipe somebody planted is not waited for. */
const { O_NOFOLLOW, O_NONBLOCK } = constants;
export const rundirMode = 0o755;
const othersMayWrite = 0o022;

/**
 * Makes `directory` where it is missing; `keyword`: what names it in the configuration. Throws
 * HAST_E_IO where it cannot be made, or somebody else owns it or may write into it.
 */
export async function ownDirectory(
  directory: string, mode: number, keyword: string,
): Promise<void> {
  let stat: Stats;
  try {
    await fs.mkdir(directory, { recursive: true, mode });
    stat = await fs.stat(directory);
  } catch (cause) {
    throw new HastError('HAST_E_IO', `cannot make the directory ${directory}`, {
      cause, hint: `run hastd as root, or change '${keyword}'`,
    });
  }
  if (!isOurs(stat)) {
    throw new HastError('HAST_E_IO', `${directory} belongs to user ${stat.uid}, not to root`, {
      hint: `chown root ${directory}, or change '${keyword}'`,
    });
  }
  if ((stat.mode & othersMayWrite) === 0) return;
  throw new HastError('HAST_E_IO', `others than root may write into ${directory}`, {
    hint: `chmod go-w ${directory}, or change '${keyword}'`,
  });
}

/**
 * Opens a file of hastd's own, made where it is missing. Throws HAST_E_IO where something else is
 * there: a link, a file with a second name, a file of somebody else.
 */
export async function openOwn(
  file: string, flags: number, mode: number, what: string, hint: string,
): Promise<fs.FileHandle> {
  let handle: fs.FileHandle;
  try {
    handle = await fs.open(file, flags | O_NOFOLLOW | O_NONBLOCK, mode);
  } catch (cause) {
    const errno = errnoName(cause);
    const why = errno === 'ELOOP' ? 'it is a link' : errno ?? 'unknown error';
    throw new HastError('HAST_E_IO', `cannot open ${what} ${file} (${why})`, {
      cause, hint: errno === 'ELOOP' ? `see who made it, then: rm ${file}` : hint,
    });
  }
  const stat = await handle.stat();
  if (stat.isFile() && stat.nlink <= 1 && isOurs(stat)) return handle;
  await handle.close();
  const why = stat.isFile() ? 'it has another name or another owner' : 'it is no file';
  throw new HastError('HAST_E_IO', `cannot use ${what} ${file}: ${why}`, {
    hint: `see who made it, then: rm ${file}`,
  });
}

function isOurs({ uid }: Stats): boolean {
  return uid === 0 || uid === process.getuid?.();
}
