/** Every bound of the parent on what it waits for; tests shorten them. */

export interface Timing {
  /** A role change to primary takes at most the resource's `timeout`, but at least this. */
  promoteMsMin: number;
  /** Part of it kept back for mount, loop device and link. */
  deviceReserveMs: number;
  /** A started worker must be ready within this. */
  readyMs: number;
  /** One call to mount, losetup and the like. */
  stepMs: number;
  /** A worker asked to stop is killed after this. */
  stopMs: number;
  /** A killed process may need this long to leave the kernel. */
  killMs: number;
  /** Pause before somebody found using the device is looked for again. */
  holderRetryMs: number;
  statusMs: number;
  reloadMs: number;
  /** The worker's answer to detach, attach and the like. */
  orderMs: number;
  /** A resolution saves, and its undoing copies, what may be the whole volume. */
  copyMs: number;
  backoffMsMin: number;
  backoffMsMax: number;
  /** A worker that lived this long starts the back-off anew. */
  stableMs: number;
  /**
   * A primary's worker: the first that dies is replaced at once, one that had not served for
   * `reviveStableMs` after a pause that doubles between these two.
   */
  reviveMsMin: number;
  reviveMsMax: number;
  reviveStableMs: number;
}

export const defaultTiming: Timing = {
  promoteMsMin: 10_000,
  deviceReserveMs: 3000,
  readyMs: 20_000,
  stepMs: 20_000,
  stopMs: 20_000,
  killMs: 5000,
  holderRetryMs: 250,
  statusMs: 2000,
  reloadMs: 10_000,
  orderMs: 60_000,
  copyMs: 24 * 3600 * 1000,
  backoffMsMin: 1000,
  backoffMsMax: 60_000,
  stableMs: 60_000,
  reviveMsMin: 100,
  reviveMsMax: 15_000,
  reviveStableMs: 250,
};
