/** What a finished handshake changes in what is known of the peer. */
import { SuperblockFlag } from '../format/superblock.ts';
import type { CoreContext } from './context.ts';
import type { Session } from './session.ts';
import type { SuperblockPatch } from './superblock-store.ts';

export function noteContact(context: CoreContext, session: Session): void {
  const { store } = context;
  const { flags, generation } = store.value;
  const { peer, verdict } = session;
  // This copy is about to change: what was under way says nothing of it then.
  if (verdict?.kind !== 'source' || verdict.pull || verdict.resolving) context.inflight.lose();
  const patch: SuperblockPatch = {};
  // An operator's statement holds until the peer returns.
  if ((flags & SuperblockFlag.peerGone) !== 0) patch.flags = flags & ~SuperblockFlag.peerGone;
  // A fresh copy that has met a peer with data is not one that never had a peer.
  if (verdict?.kind === 'target' && peer !== null && generation === 0n && peer.generation !== 0n) {
    patch.peerCopyId = peer.copyId;
    patch.peerNode = peer.node;
  }
  if (Object.keys(patch).length === 0) return;
  store.update(patch, (errno) => {
    if (errno !== 0) context.localFailed('metadata', errno);
  });
}
