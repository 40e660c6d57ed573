/** Bodies of the handshake frames. docs/wire-protocol.md. */
import { HastError } from '../base/errors.ts';
import {
  array, bytes, id64, struct, text, u16, u32, u53, u8, type StructValue,
} from '../base/layout.ts';
import { isPrintable, limits } from './limits.ts';
import { agreeOn, ownProtocol, type Protocol } from './protocol.ts';
import { DataState } from './superblock.ts';

export const helloStruct = struct('hello', 640, [
  ['versionMin', 0, u16],
  ['versionMax', 2, u16],
  /** `Feature` bits of protocol.ts that the sender can use; what both have is used. */
  ['features', 4, u32],
  ['copyId', 8, id64],
  ['mediaSize', 16, u53],
  ['sectorSize', 24, u32],
  ['extentSize', 28, u32],
  ['role', 32, u8],
  ['dataState', 33, u8],
  ['replication', 34, u8],
  /** `Attachment`: a diskless sender has no copy, the fields of one tell what it had. */
  ['attachment', 35, u8],
  /** SuperblockFlag bits. */
  ['flags', 36, u32],
  ['generation', 40, id64],
  ['history', 48, array(id64, limits.historyCount)],
  /** What the sender remembers of the receiver's copy. */
  ['peerCopyId', 176, id64],
  ['peerGeneration', 184, id64],
  ['peerSessionNumber', 192, u53],
  /** Grows durably with each session of the sender's copy: a lower one shows a rolled-back disk. */
  ['sessionNumber', 200, u53],
  /** Random id of the sending process. */
  ['instance', 208, id64],
  /** 1 where the sender's map has marks. */
  ['marked', 216, u32],
  ['windowFrames', 220, u32],
  ['windowBytes', 224, u53],
  ['resource', 232, text(128)],
  ['node', 360, text(72)],
  /** Seconds the sender waits without a byte before it drops the link. */
  ['timeout', 432, u32],
  /**
   * Generation of the receiver's copy that the data of the sender are taken from, 0 where its own
   * copy is complete: a primary that is diskless or pulls, or a copy being filled.
   */
  ['authority', 436, id64],
  /** `Resolve`: how the operator of the sender ends a split brain. */
  ['resolve', 444, u32],
  /** Current generations that the operator decided upon: of the sender, of the receiver. */
  ['resolveLocal', 448, id64],
  ['resolvePeer', 456, id64],
  ['reserved464', 464, bytes(176)],
]);

export type Hello = StructValue<typeof helloStruct>;

export const WireRole = { secondary: 0, primary: 1 } as const;

export const Attachment = { normal: 0, diskless: 1 } as const;

/** `discard*`: whose copy is given up, as the sender sees it. A dry run only compares. */
export const Resolve = { none: 0, dryRun: 1, discardLocal: 2, discardPeer: 3 } as const;

/** True where the fields agree with one another. */
function isSound(hello: Hello): boolean {
  const { attachment, resolve, resolveLocal, resolvePeer } = hello;
  if (!isPrintable(hello.resource) || !isPrintable(hello.node)) return false;
  if (attachment > Attachment.diskless || resolve > Resolve.discardPeer) return false;
  if (attachment === Attachment.diskless && hello.role !== WireRole.primary) return false;
  const isNamed = resolveLocal !== 0n && resolvePeer !== 0n;
  return resolve === Resolve.none ? resolveLocal === 0n && resolvePeer === 0n : isNamed;
}

export function encodeHello(hello: Hello): Buffer {
  const raw = Buffer.alloc(helloStruct.size);
  helloStruct.encode(hello, raw);
  return raw;
}

/**
 * What the peer says of itself. A sender that speaks a later version than `own` may have put
 * something into reserved bytes, and more behind them: it is not looked at. Throws HAST_E_PROTOCOL
 * where the body cannot be a hello, or shares no version with `own`.
 */
export function decodeHello(raw: Buffer, own: Protocol = ownProtocol): Hello {
  const { size, offset } = helloStruct;
  if (raw.length < size) throw new HastError('HAST_E_PROTOCOL', 'a hello of wrong size');
  const isLater = raw.readUInt16LE(offset.versionMax) > own.versionMax;
  if (raw.length > size && !isLater) {
    throw new HastError('HAST_E_PROTOCOL', 'a hello of wrong size');
  }
  let hello: Hello;
  try {
    hello = helloStruct.decode(raw, 0, isLater);
  } catch (cause) {
    throw new HastError('HAST_E_PROTOCOL', 'a hello with an impossible field', { cause });
  }
  const { versionMin, versionMax, dataState } = hello;
  if (versionMin > versionMax || agreeOn(own, hello) === null) {
    throw new HastError('HAST_E_PROTOCOL',
      `the peer speaks the versions ${versionMin} to ${versionMax} of the protocol, this node ` +
      `${own.versionMin} to ${own.versionMax}`);
  }
  if (hello.copyId === 0n || hello.role > 1 || hello.marked > 1 || hello.windowFrames === 0 ||
      hello.windowBytes < limits.payloadBytesMax || hello.timeout === 0 ||
      (dataState !== DataState.consistent && dataState !== DataState.inconsistent) ||
      !isSound(hello)) {
    throw new HastError('HAST_E_PROTOCOL', 'a hello with an impossible field');
  }
  return hello;
}

/** A generation and what it descends from: body of syncDone and generation frames. */
export const lineageStruct = struct('lineage', 8 + 8 * limits.historyCount, [
  ['generation', 0, id64],
  ['history', 8, array(id64, limits.historyCount)],
]);

export type Lineage = StructValue<typeof lineageStruct>;

export function encodeLineage(lineage: Lineage): Buffer {
  const raw = Buffer.alloc(lineageStruct.size);
  lineageStruct.encode(lineage, raw);
  return raw;
}

export function decodeLineage(raw: Buffer): Lineage {
  if (raw.length !== lineageStruct.size) {
    throw new HastError('HAST_E_PROTOCOL', 'a lineage of wrong size');
  }
  return lineageStruct.decode(raw);
}
