/**
 * A front end shows a volume as the file `volume` in a FUSE file system and turns the kernel's
 * requests into `AppRequest`s. There are two: `direct` speaks the kernel's protocol and is the
 * one to use; `fuse-native` goes through libfuse 2 and can do less.
 */
import type { Volume } from '../core/ports.ts';
import type { Negotiated } from './session.ts';

export interface FrontendStats {
  /** Requests lent to the volume. */
  inFlight: number;
  /** Requests that could be taken on top of these. */
  idle: number;
}

export interface Frontend {
  /**
   * Begins to answer the kernel; called once. direct: the descriptor is mounted by somebody
   * else, before or soon after; fuse-native: mounts by itself. `ready` is called once, with
   * null when the file can be used.
   */
  start(volume: Volume, ready: (error: Error | null) => void): void;
  /**
   * The listener is called once, when the kernel has gone (null: unmounted, or the connection
   * was aborted by the administrator) or the front end can no longer answer (an error: the
   * process should end). Never called after `stop`.
   */
  onEnd(listener: (error: Error | null) => void): void;
  /**
   * Stops reading requests, because the process is about to leave. direct: nothing is
   * unmounted; fuse-native: unmounts lazily. With `fail`, requests that are pending now are
   * answered EIO; without, they are answered when the volume completes them. `done` is called
   * within 10 seconds: true when all reader threads ended; false when one is stuck in the
   * kernel: process.exit() would then hang, leave by SIGKILL.
   */
  stop(done: (ended: boolean) => void, fail?: boolean): void;
  readonly stats: FrontendStats;
  /** What was settled with the kernel, once ready; null with fuse-native, which cannot tell. */
  readonly negotiated: Negotiated | null;
}
