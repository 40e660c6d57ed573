/**
 * The exit code of each error: sysexits(3) as the original used them, in one table. A refusal
 * is 77 (EX_NOPERM): the command was understood, and doing it now could cost data.
 */
import type { ErrorCode } from '../lib/base/errors.ts';
import { HastError } from '../lib/base/errors.ts';

export const ExitCode = {
  ok: 0,
  /** Command line. */
  usage: 64,
  /** Unknown resource, impossible size. */
  data: 65,
  /** `local` cannot be opened, or carries no metadata. */
  noInput: 66,
  /** The daemon was lost while talking to it. */
  unavailable: 69,
  /** Bug, or an error that the daemon reports of itself. */
  software: 70,
  /** No daemon; or hastd cannot have an address, a mount or a loop device. */
  system: 71,
  /** The configuration file is missing. */
  noFile: 72,
  io: 74,
  /** Locked, busy or late: again later. */
  temporary: 75,
  refused: 77,
  config: 78,
  /** `hastctl wait`: the time is over. */
  notReached: 79,
} as const;

const table = {
  HAST_E_CONFIG: ExitCode.config,
  HAST_E_CONFIG_MISSING: ExitCode.noFile,
  HAST_E_USAGE: ExitCode.usage,
  HAST_E_UNKNOWN_RESOURCE: ExitCode.data,
  HAST_E_NO_METADATA: ExitCode.noInput,
  HAST_E_METADATA_EXISTS: ExitCode.refused,
  HAST_E_FOREIGN_DATA: ExitCode.refused,
  HAST_E_TOO_SMALL: ExitCode.data,
  HAST_E_BUSY: ExitCode.temporary,
  HAST_E_DEVICE_IN_USE: ExitCode.refused,
  HAST_E_PROMOTE_REFUSED: ExitCode.refused,
  HAST_E_ROLE: ExitCode.refused,
  HAST_E_REFUSED: ExitCode.refused,
  HAST_E_TIMEOUT: ExitCode.temporary,
  HAST_E_ADDRESS_IN_USE: ExitCode.system,
  HAST_E_NO_DAEMON: ExitCode.system,
  HAST_E_PROTOCOL: ExitCode.unavailable,
  HAST_E_CHECKSUM: ExitCode.unavailable,
  HAST_E_CORRUPT: ExitCode.io,
  HAST_E_UNSUPPORTED: ExitCode.io,
  HAST_E_IO: ExitCode.io,
  HAST_E_DEVICE: ExitCode.system,
  HAST_E_INTERNAL: ExitCode.software,
} as const satisfies Record<ErrorCode, number>;

/** What cannot be opened is 66 and not the general code of a device. */
const openErrnos = new Set(['ENOENT', 'ENXIO', 'ENODEV', 'EACCES', 'EPERM', 'EISDIR', 'ENOTDIR']);

export function exitCodeOf(error: unknown): number {
  if (!(error instanceof HastError)) return ExitCode.software;
  const device = error.code === 'HAST_E_DEVICE' || error.code === 'HAST_E_IO';
  if (device && error.errno !== undefined && openErrnos.has(error.errno)) return ExitCode.noInput;
  return table[error.code];
}
