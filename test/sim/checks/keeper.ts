/**
 * The only copy: as long as a copy's durable record says that the other one is stale and
 * acknowledges nothing without it, the other one does not. By that record it is promoted without
 * a question, so what was acknowledged elsewhere would be lost.
 */
import {
  DataState, PeerState, SuperblockFlag, type Superblock,
} from '../../../lib/format/superblock.ts';

/** What is wrong with an acknowledgement by the copy of `own` itself, or null. */
export function keeperProblem(own: Superblock | null, peer: Superblock | null): string | null {
  if (own === null || peer === null) return null;
  const isKeeper = (peer.flags & SuperblockFlag.keeper) !== 0 &&
    peer.peerState === PeerState.behind &&
    // Half a copy is not promoted, whatever it was before it was given up.
    peer.dataState === DataState.consistent;
  // A record of a disk that was replaced says nothing of this one.
  const isOfThis = peer.peerCopyId === own.copyId && peer.copyId !== own.copyId;
  if (!isKeeper || !isOfThis) return null;
  return 'acknowledged while the peer\'s durable record calls its own copy the only one';
}
