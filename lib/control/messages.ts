/**
 * The control protocol: over a unix socket, one JSON line asks, one JSON line answers, then
 * the connection ends. Both sides check what they read against the schemas below. New fields
 * may be added within schema 1; readers ignore what they do not know.
 */
import type { ErrorCode } from '../base/errors.ts';
import { HastError, isErrorCode } from '../base/errors.ts';
import type { ResourceStatistics } from '../format/statistics.ts';
import type { ResourceStatus } from '../format/status.ts';
import type { VolumeMap } from '../format/volume-map.ts';

export const controlSchema = 1;

/** Bytes of a request or a reply, with its newline. */
export const lineBytesMax = 1024 * 1024;

/** sockaddr_un without its closing NUL; a longer path would be cut, not refused. */
const socketPathBytesMax = 107;

/** Throws HAST_E_CONFIG where the kernel cannot have a unix socket at `path`. */
export function checkSocketPath(path: string): void {
  if (Buffer.byteLength(path) <= socketPathBytesMax) return;
  throw new HastError(
    'HAST_E_CONFIG', `the path of the control socket is too long: ${path}`,
    { hint: `name one of at most ${socketPathBytesMax} bytes with control or rundir` },
  );
}

export const roleWords = ['init', 'primary', 'secondary'] as const;
export type RoleWord = (typeof roleWords)[number];

/** Whose writes since the fork a resolution gives up. */
export const resolveSides = ['local', 'peer'] as const;
export type ResolveSide = (typeof resolveSides)[number];

/** The peer is to become primary; or to leave that role to this node. */
export const switchoverWords = ['take-over', 'hand-over'] as const;
export type SwitchoverWhat = (typeof switchoverWords)[number];

/** What a node is, and believes of its peer, as far as one resource goes: for check --peer. */
export interface NodeFacts {
  node: string;
  release: string;
  /** Versions of the protocol, and names of features, that it speaks. */
  versionMin: number;
  versionMax: number;
  features: string[];
  /** Of the machine, without loopback. */
  addresses: string[];
  /** As in the configuration; the first ones. */
  listen: string[];
  local: string;
  /** Of the disk, and of the volume on it; null where they cannot be told. */
  diskBytes: number | null;
  sectorBytes: number | null;
  mediaBytes: number | null;
  /** As in the configuration, and what its name means on that node; null for `remote none`. */
  remote: string | null;
  remoteAddresses: string[];
  /** Keywords that both nodes should have in common, with their values. */
  settings: Record<string, string>;
  undoDirectory: string;
  undoFreeBytes: number | null;
  /** What a connection from this node to its peer meets. */
  reach: Reach;
  /** Clock of the node, milliseconds since 1970: when the question came, and the answer left. */
  askedAt: number;
  toldAt: number;
}

export const reachLayers = ['none', 'name', 'route', 'connect', 'answer', 'hastd'] as const;

/** `layer`: what does not work; `hastd`: the peer's hastd refuses. */
export type Reach =
  | { ok: true; milliseconds: number; text: string; hint: string }
  | { ok: false; layer: (typeof reachLayers)[number]; text: string; hint: string };

export type ControlCommand =
  | { command: 'ping' }
  /** `resources` empty: all of them. */
  | { command: 'role'; role: RoleWord; resources: readonly string[]; force: boolean }
  | { command: 'status'; resources: readonly string[] }
  | { command: 'statistics'; resources: readonly string[] }
  /** The reply is followed by one StateEvent a line, until either side ends. */
  | { command: 'events'; resources: readonly string[] }
  /** `cells`: at most as many as `mapCellsMax`. */
  | { command: 'map'; resource: string; cells: number }
  | { command: 'resync'; paused: boolean; resources: readonly string[] }
  | { command: 'detach' | 'attach' | 'peer-gone'; resources: readonly string[] }
  /** `undo`: absolute path of a file that does not exist yet, or null. */
  | {
    command: 'resolve'; resource: string; discard: ResolveSide; dryRun: boolean;
    undo: string | null;
  }
  | { command: 'undo'; resource: string; file: string }
  /** Asks the peer's hastd; answered when that one has done it, or failed. */
  | { command: 'switchover'; resource: string; what: SwitchoverWhat }
  /** What both hastds know of themselves. */
  | { command: 'peer-facts'; resource: string }
  /** hastd becomes what is installed now; it answers before, and again at the socket afterwards. */
  | { command: 'replace-hastd' }
  /** The workers become what is installed now, under their devices. */
  | { command: 'replace-workers'; resources: readonly string[] };

export type ControlRequest = ControlCommand & { schema: 1 };

/** An error as it travels: what happened, and what to do next. */
export interface ControlFailure {
  code: ErrorCode;
  message: string;
  hint: string;
}

export interface RoleResult {
  name: string;
  from: RoleWord;
  /** The role now: `from` where the change failed and was undone. */
  to: RoleWord;
  error: ControlFailure | null;
}

/** What became of a command for one resource. */
export interface OrderResult {
  name: string;
  error: ControlFailure | null;
}

/** A worker that took the place of another. */
export interface ReplacedWorker {
  name: string;
  error: ControlFailure | null;
  /** pid and release now; null where the role is init. */
  worker: number | null;
  release: string | null;
  /** How long a primary's users waited, in milliseconds; null where nobody uses the device. */
  pauseMs: number | null;
}

/** What one side wrote since the fork. */
interface SideWrites {
  bytes: number;
  /** Ascending; the first ones. */
  ranges: { offset: number; length: number }[];
  /** Ranges beyond those listed. */
  more: number;
}

/** What a resolution copies, or with a dry run would copy. */
export interface Resolution {
  /** Ids of the two copies when it was decided; hexadecimal. */
  localGeneration: string;
  peerGeneration: string;
  local: SideWrites;
  peer: SideWrites;
  /** What the copy that is given up gets from the other. */
  copyBytes: number;
  /** All of the volume, because a map does not speak of this peer. */
  full: boolean;
}

export interface ReplyOf {
  /** `startedAt`: milliseconds since 1970; another value is another life of hastd. */
  ping: { pid: number; node: string; release: string; startedAt: number };
  role: { results: RoleResult[] };
  status: { resources: ResourceStatus[] };
  /** `statistics`: null without a worker, and of one that is hung or of an older release. */
  statistics: {
    resources: { status: ResourceStatus; statistics: ResourceStatistics | null }[];
  };
  events: object;
  map: { map: VolumeMap };
  resync: { results: OrderResult[] };
  detach: { results: OrderResult[] };
  attach: { results: OrderResult[] };
  'peer-gone': { results: OrderResult[] };
  undo: { results: OrderResult[] };
  resolve: { resolution: Resolution };
  /** Exit code of hastctl there, and what it printed. */
  switchover: { code: number; text: string };
  /** `peer`: null where it cannot be asked, and `why`. The times are this node's. */
  'peer-facts': {
    local: NodeFacts; peer: NodeFacts | null; why: string; hint: string; isOld: boolean;
    sentAt: number; heardAt: number;
  };
  'replace-hastd': { pid: number; release: string };
  'replace-workers': { results: ReplacedWorker[] };
}

export type ControlReply =
  | ({ schema: 1; ok: true } & ReplyOf[keyof ReplyOf])
  | { schema: 1; ok: false; error: ControlFailure };

export function toFailure(error: unknown): ControlFailure {
  if (error instanceof HastError) {
    return { code: error.code, message: error.message, hint: error.hint ?? '' };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'HAST_E_INTERNAL', message, hint: 'this is a bug in hastd: see its log' };
}

/** The error a failure stands for; a code that this version does not know is internal. */
export function fromFailure(failure: { code: string; message: string; hint: string }): HastError {
  const code = isErrorCode(failure.code) ? failure.code : 'HAST_E_INTERNAL';
  return new HastError(code, failure.message, failure.hint === '' ? {} : { hint: failure.hint });
}
