/** What a node says of itself at the beginning of a session. */
import { Attachment, Resolve, WireRole, type Hello } from '../format/hello.ts';
import { limits } from '../format/limits.ts';
import { DataState } from '../format/superblock.ts';
import type { Resource } from './resource.ts';

const modeCode = { fullsync: 1, memsync: 2, async: 3 } as const;

const undecided = { resolve: Resolve.none, resolveLocal: 0n, resolvePeer: 0n };

export function ownHello(resource: Resource, instance: bigint): Hello {
  const { store, tracker, options } = resource.context;
  const block = store.value;
  // Half a copy becomes primary on the peer's, step by step; a whole one has been it all the time.
  const isPrimary = resource.role === 'primary' ||
    (resource.roleChange.isResuming && block.dataState === DataState.consistent);
  return {
    ...options.protocol, copyId: block.copyId,
    mediaSize: block.mediaSize, sectorSize: block.sectorSize, extentSize: block.extentSize,
    role: isPrimary ? WireRole.primary : WireRole.secondary,
    dataState: block.dataState, replication: modeCode[options.mode], flags: block.flags,
    generation: block.generation, history: block.history, peerCopyId: block.peerCopyId,
    peerGeneration: block.peerGeneration, peerSessionNumber: block.peerSessionNumber,
    sessionNumber: block.sessionNumber + 1, instance,
    marked: tracker.peerStale.isEmpty && tracker.hotCount === 0 ? 0 : 1,
    windowFrames: limits.windowFrames,
    windowBytes: Math.max(limits.windowBytes, options.asyncLagBytes),
    resource: options.resource, node: options.node,
    timeout: Math.max(1, Math.ceil(options.timeoutMs / 1000)),
    attachment: resource.isDiskless ? Attachment.diskless : Attachment.normal,
    authority: resource.reliesOn?.generation ?? block.syncGeneration,
    ...(resource.operator.resolution?.hello ?? undecided),
  };
}
