/**
 * The one table of error codes. A code says what happened; its class says who must react:
 * - `config`     the person who wrote the configuration
 * - `state`      the operator who asked for something that cannot be done now
 * - `protocol`   this program: close the connection, log once, reconnect with back-off
 * - `corruption` this program: stop using the copy; the operator must look
 * - `device`     the operator: a disk, a file or a kernel facility failed (`errno` is kept)
 */

export type ErrorClass = 'config' | 'state' | 'protocol' | 'corruption' | 'device';

const codes = {
  HAST_E_CONFIG: 'config',
  HAST_E_CONFIG_MISSING: 'config',
  HAST_E_USAGE: 'config',
  HAST_E_UNKNOWN_RESOURCE: 'config',
  HAST_E_NO_METADATA: 'state',
  HAST_E_METADATA_EXISTS: 'state',
  HAST_E_FOREIGN_DATA: 'state',
  HAST_E_TOO_SMALL: 'state',
  HAST_E_BUSY: 'state',
  HAST_E_DEVICE_IN_USE: 'state',
  HAST_E_PROMOTE_REFUSED: 'state',
  HAST_E_ROLE: 'state',
  HAST_E_REFUSED: 'state',
  HAST_E_TIMEOUT: 'state',
  HAST_E_ADDRESS_IN_USE: 'state',
  HAST_E_NO_DAEMON: 'state',
  HAST_E_PROTOCOL: 'protocol',
  HAST_E_CHECKSUM: 'protocol',
  HAST_E_CORRUPT: 'corruption',
  HAST_E_UNSUPPORTED: 'corruption',
  HAST_E_IO: 'device',
  HAST_E_DEVICE: 'device',
  HAST_E_INTERNAL: 'device',
} as const satisfies Record<string, ErrorClass>;

export type ErrorCode = keyof typeof codes;

/** What to do where whoever made the error could not know better. */
const usualHints: Readonly<Record<ErrorCode, string>> = {
  HAST_E_CONFIG: 'hastctl check',
  HAST_E_CONFIG_MISSING: 'name the file with -c FILE or HAST_CONF',
  HAST_E_USAGE: 'hastctl --help',
  HAST_E_UNKNOWN_RESOURCE: 'hastctl status shows the names',
  HAST_E_NO_METADATA: 'hastctl create, on a new disk',
  HAST_E_METADATA_EXISTS: 'hastctl dump shows what is there',
  HAST_E_FOREIGN_DATA: 'wipefs DISK shows what is there',
  HAST_E_TOO_SMALL: 'a larger disk, or hastctl create -m SIZE',
  HAST_E_BUSY: 'the same command again in a moment',
  HAST_E_DEVICE_IN_USE: 'end what uses it: hastctl down names it',
  HAST_E_PROMOTE_REFUSED: 'hastctl list, on both nodes',
  HAST_E_ROLE: 'hastctl status, on both nodes',
  HAST_E_REFUSED: 'hastctl list, on both nodes',
  HAST_E_TIMEOUT: "hastctl list, and hastd's log",
  HAST_E_ADDRESS_IN_USE: "ss -ltnp shows who has it; or change 'listen'",
  HAST_E_NO_DAEMON: 'hastd',
  HAST_E_PROTOCOL: 'hastctl check --peer; the same release on both nodes: hastctl upgrade',
  HAST_E_CHECKSUM: 'a network card or memory may be bad; hastctl list, on both nodes',
  HAST_E_CORRUPT: 'look at the disk (dmesg), replace it, then hastctl create and attach',
  HAST_E_UNSUPPORTED: 'a newer release of hast-linux, or a newer kernel: uname -r',
  HAST_E_IO: 'see the kernel log: dmesg',
  HAST_E_DEVICE: "see the kernel log (dmesg) and hastd's",
  HAST_E_INTERNAL: "see hastd's log: journalctl -u hastd, or RUNDIR/hastd.log",
};

export interface HastErrorOptions {
  cause?: unknown;
  /** What to do next, as one sentence or a command; shown to the person. */
  hint?: string;
  /** Name of the errno, such as `EIO`, where the kernel gave one. */
  errno?: string;
}

/** Every expected failure that crosses a module is one of these. */
export class HastError extends Error {
  override readonly name = 'HastError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly errno: string | undefined;

  constructor(code: ErrorCode, message: string, options: HastErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.errno = options.errno ?? errnoName(options.cause);
  }

  get errorClass(): ErrorClass {
    return codes[this.code];
  }
}

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(codes, text);
}

/** The errno name (`ENOENT`, ...) that Node puts on system errors, or undefined. */
export function errnoName(error: unknown): string | undefined {
  if (error === null || typeof error !== 'object' || !('code' in error)) return undefined;
  return typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code) ? error.code : undefined;
}

/** Any thrown value as one line of text. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What a person is told to do next; never empty. */
export function nextStep({ code, hint }: HastError): string {
  return hint === undefined || hint === '' ? usualHints[code] : hint;
}
