/** Queues stay within what was promised, on both nodes, at every look. */
import { limits } from '../../../lib/format/limits.ts';
import type { SimNode } from '../../fixtures/sim-node.ts';

const payloadCost = limits.payloadBytesMax + 512;
/** What a resync has read and may send besides. */
const resyncBytes = 16 * (64 * limits.blockSize + 512);

/** What is too large, or null. */
export function boundsProblem(node: SimNode, depth: number): string | null {
  const { resource } = node;
  if (resource === null) return null;
  const { io, session, context } = resource;
  // A large discard has one record for each piece that the stream still refers to.
  if (node.open.size > 3 * depth) return `${node.name} holds ${node.open.size} requests`;
  const stream = session?.stream ?? null;
  const peer = session?.peer ?? null;
  if (stream !== null && peer !== null) {
    const { asyncLagBytes, mode } = context.options;
    const most = mode === 'async' ? Math.min(asyncLagBytes, peer.windowBytes) : peer.windowBytes;
    // One frame may pass any bound, and flushes pass the window.
    if (stream.unansweredBytes > most + payloadCost + resyncBytes + 256 * 512) {
      return `${node.name} has ${stream.unansweredBytes} bytes unanswered, allowed ${most}`;
    }
    if (stream.unansweredFrames > limits.windowFrames + 256) {
      return `${node.name} has ${stream.unansweredFrames} frames unanswered`;
    }
  }
  if ((session?.replica.pending ?? 0) > 3 * limits.windowFrames) {
    return `${node.name} holds ${session?.replica.pending} frames`;
  }
  if (io.activeCount > 3 * depth + limits.windowFrames) {
    return `${node.name} has ${io.activeCount} records in use`;
  }
  return null;
}
