/**
 * Messages between the parent (hastd) and the worker of one resource: over Node's IPC channel, and,
 * where the parent did not start it, over a unix socket.
 * The parent spawns a worker with: stdio 3 = an open, not yet mounted /dev/fuse description
 * (absent with `frontend fuse-native`), the IPC channel, and one `start` message. A worker's
 * life has at most one mount: leaving primary ends it and the parent starts a new one. The
 * successor of a primary's worker gets the description of the mount that is there already.
 */
import type { Authentication, ResourceConfig } from '../config/model.ts';
import type { ErrorCode } from '../base/errors.ts';
import type { Resolution, ResolveSide } from '../control/messages.ts';
import type { ResourceEvent } from '../core/ports.ts';
import type { ResourceStatistics } from '../format/statistics.ts';
import type { ResourceStatus } from '../format/status.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import type { VolumeMap } from '../format/volume-map.ts';
import type { Negotiated } from '../fuse/session.ts';

export interface StartMessage {
  type: 'start';
  resource: ResourceConfig;
  /** This node's name, told to the peer; the smaller one dials when both are secondary. */
  node: string;
  /** Mount point of the volume file: RUNDIR/NAME. */
  mountPoint: string;
  /** Descriptor of /dev/fuse in the worker, or null with fuse-native. */
  fuseFd: number | null;
  /** The worker before it died as primary, and the device is still there: see `resume`. */
  resumes: boolean;
  /** Where it listens for the next parent, should this one be gone. */
  socket: string;
}

/** Of `adopt`, its answer, and everything sent after it. Grows where a reader must know. */
export const adoptionVersion = 1;

/** What a worker that lost its parent tells the next one. */
export interface WorkerMemo {
  version: number;
  pid: number;
  /** As it was started, with the resource as reloaded since. */
  start: StartMessage;
  /** `resuming`: it succeeds a primary's worker that died, and does not serve yet. */
  state: 'secondary' | 'resuming' | 'serving';
  negotiated: Negotiated | null;
  /** The local copy is detached, or failed. */
  isDetached: boolean;
  /** Somebody unmounted the volume, or aborted its connection. */
  isUnmounted: boolean;
}

/** What an operator may ask of a worker beside the role. Paths are absolute. */
export type Order =
  | { kind: 'resync'; paused: boolean }
  | { kind: 'detach' }
  | { kind: 'attach' }
  | { kind: 'peer-gone' }
  | { kind: 'resolve'; discard: ResolveSide; dryRun: boolean; undo: string | null }
  | { kind: 'undo'; file: string }
  /** To be passed to the peer. */
  | { kind: 'switchover'; say: SwitchoverSaid };

export type ParentMessage =
  | StartMessage
  /**
   * Sent with a socket handle: an accepted connection whose preface the parent has read and
   * judged. The worker writes the answer byte.
   */
  | { type: 'peer'; preface: Uint8Array }
  /**
   * The same over the unix socket: descriptor `fd` of the process `pid`, which keeps it open until
   * `taken`. `inode`: of that socket. `preface` is in base64.
   */
  | { type: 'peer-at'; id: number; preface: string; pid: number; fd: number; inode: number }
  /** The first message of the next parent; answered by `adopted`. */
  | { type: 'adopt'; version: number }
  /** Ask the core for the primary role. Answered by `promoted` or `refused` within `timeoutMs`. */
  | { type: 'promote'; force: boolean; timeoutMs: number }
  /**
   * Of a worker that was started with `resumes`: what came of it. Answered by `promoted` or
   * `refused` when that is decided, which may take as long as the peer needs.
   */
  | { type: 'resume' }
  /**
   * Start serving the volume: direct, the parent has mounted stdio 3 at the mount point before;
   * fuse-native, the worker mounts by itself. `takeOver`: what a dead worker had settled with the
   * kernel, as it said in `serving`. Answered by `serving` or `failed`.
   */
  | { type: 'serve'; takeOver: Negotiated | null }
  /**
   * The device is gone: finish what is in flight, flush, tell the peer, write the metadata, and
   * exit 0. `force`: the device was in use; pending requests fail with EIO.
   */
  | { type: 'stop'; force: boolean }
  /** New values of what can change live. Answered by `reloaded` or `failed`. */
  | { type: 'reload'; resource: ResourceConfig }
  /** Answered by `ordered` or `declined` with the same id; several may be under way. */
  | { type: 'order'; id: number; order: Order }
  | { type: 'status' }
  /** A worker of a release without it says nothing. */
  | { type: 'map'; id: number; cells: number };

export type WorkerMessage =
  /** The first of all: its code is loaded, and it waits for `start`. */
  | { type: 'loaded' }
  /** Metadata read, lock held; the worker is a secondary now. */
  | { type: 'ready' }
  | { type: 'promoted' }
  | { type: 'refused'; code: ErrorCode; message: string; hint: string }
  /** null with fuse-native. */
  | { type: 'serving'; negotiated: Negotiated | null }
  /** The volume was unmounted, or its connection aborted, by somebody else than the parent. */
  | { type: 'unmounted' }
  /** `authentication`: what it works with; a worker of an older release does not say it. */
  | { type: 'reloaded'; authentication?: Authentication['kind'] }
  /** `resolution` of a `resolve`, else null. */
  | { type: 'ordered'; id: number; resolution: Resolution | null }
  | { type: 'declined'; id: number; code: ErrorCode; message: string; hint: string }
  /** A worker of an older release tells no statistics. */
  | { type: 'status'; status: ResourceStatus; statistics?: ResourceStatistics }
  | { type: 'map'; id: number; map: VolumeMap }
  /** From the peer. */
  | { type: 'switchover'; said: SwitchoverSaid }
  /** The same of facts: a parent of an older release ignores what it does not know. */
  | { type: 'facts'; said: SwitchoverSaid }
  | { type: 'adopted'; memo: WorkerMemo }
  | { type: 'taken'; id: number }
  /** The last message to a parent that is not its own before an exit in order. */
  | { type: 'left' }
  /** The last message of a worker whose thread the kernel keeps: it ends by SIGKILL, if at all. */
  | { type: 'stuck' }
  /** For hooks: argv after the resource's name follows the original. */
  | { type: 'event'; event: ResourceEvent['kind'] }
  /** The last message before a nonzero exit, or the answer to a request that failed. */
  | { type: 'failed'; code: ErrorCode; message: string; hint?: string };
