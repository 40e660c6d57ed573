/**
 * Two primaries that acknowledge never share a generation; each is durable before its first
 * acknowledgement; and what is acknowledged alone is so under a generation the peer never had.
 */
import { PeerState, type Superblock } from '../../../lib/format/superblock.ts';

export class GenerationCheck {
  /** Generation -> the reign that acknowledged under it. */
  readonly #owners = new Map<bigint, number>();

  /** What is wrong with an acknowledgement of `reign`, or null. */
  problem(
    reign: number, before: bigint, own: Superblock | null, peer: Superblock | null, alone: boolean,
  ): string | null {
    if (own === null) return 'acknowledged without a readable superblock';
    const { generation } = own;
    if (generation === 0n || generation === before) {
      return `acknowledged under generation ${hex(generation)}, which is older than its role`;
    }
    const owner = this.#owners.get(generation) ?? reign;
    this.#owners.set(generation, owner);
    if (owner !== reign) return `two primaries acknowledge under generation ${hex(generation)}`;
    if (!alone) return null;
    if (own.peerState !== PeerState.behind) return 'acknowledged alone without a durable record';
    if (peer !== null && peer.generation === generation) {
      return `acknowledged alone under generation ${hex(generation)}, which the peer holds too`;
    }
    return null;
  }
}

function hex(generation: bigint): string {
  return generation.toString(16);
}
