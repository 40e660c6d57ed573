/**
 * When a request may be answered: one truth table per kind, tested over every input.
 * docs/replication.md explains the modes.
 */

export type Mode = 'fullsync' | 'memsync' | 'async';

/** How far the peer is with one request. */
export const PeerStage = { none: 0, received: 1, done: 2 } as const;
export type PeerStage = (typeof PeerStage)[keyof typeof PeerStage];

/**
 * Whether a write (discard, zero) may be answered.
 * @param peerCounts the peer is connected and complete, so it is the second copy of this write
 * @param alone      acknowledging with one copy is durably recorded (never needed while
 *                   `peerCounts`)
 */
export function writeComplete(
  mode: Mode, localDone: boolean, peerCounts: boolean, stage: PeerStage, alone: boolean,
): boolean {
  if (!localDone) return false;
  if (!peerCounts) return alone;
  switch (mode) {
    case 'fullsync': return stage === PeerStage.done;
    case 'memsync': return stage !== PeerStage.none;
    case 'async': return true;
  }
}

/** Whether a flush may be answered; the peer's `done` is its flush acknowledgement. */
export function flushComplete(
  mode: Mode, localDone: boolean, peerCounts: boolean, stage: PeerStage, alone: boolean,
): boolean {
  if (!localDone) return false;
  if (!peerCounts) return alone;
  return mode === 'async' || stage === PeerStage.done;
}
