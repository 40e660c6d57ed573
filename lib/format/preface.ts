/**
 * The fixed clear-text preface that opens a connection, and its one-byte answer. The dialer
 * sends nothing more before the answer, so whoever accepts can read exactly this much and hand
 * the raw socket on. docs/wire-protocol.md.
 */
import { crc32 } from '../base/checksum.ts';
import { HastError } from '../base/errors.ts';
import { bytes, struct, text, u16, u32, u8 } from '../base/layout.ts';
import { isPrintable, limits } from './limits.ts';
import { agreeOn, ownProtocol, type Protocol } from './protocol.ts';

export const prefaceSize = limits.prefaceSize;

const magic = Uint8Array.from(Buffer.from('HASTLNXP', 'latin1'));

const prefaceStruct = struct('preface', prefaceSize, [
  ['magic', 0, bytes(8)],
  ['checksum', 8, u32],
  ['versionMin', 12, u16],
  ['versionMax', 14, u16],
  ['role', 16, u8],
  ['reserved17', 17, bytes(15)],
  ['resource', 32, text(128)],
  ['node', 160, text(72)],
  ['reserved232', 232, bytes(24)],
]);

/** Role of the dialer when it dialed: decides which of two crossing connections stays. */
export const PrefaceRole = { secondary: 0, primary: 1 } as const;

export interface Preface {
  resource: string;
  node: string;
  role: number;
  versionMin: number;
  versionMax: number;
}

export const PrefaceAnswer = {
  ok: 0,
  unknownResource: 1,
  roleInit: 2,
  addressRefused: 3,
  version: 4,
  busy: 5,
  malformed: 6,
} as const;

/** What an answer other than `ok` means, for status and log. */
export function prefaceAnswerText(answer: number): string {
  switch (answer) {
    case PrefaceAnswer.unknownResource: return 'the peer has no such resource';
    case PrefaceAnswer.roleInit: return 'the resource is in role init on the peer';
    case PrefaceAnswer.addressRefused:
      return 'the peer does not accept this address: its remote names another one';
    case PrefaceAnswer.version: return 'the peer speaks no protocol version in common';
    case PrefaceAnswer.busy: return 'the peer is busy with another connection';
    case PrefaceAnswer.malformed: return 'the peer could not read our preface';
    default: return `the peer answered ${answer}, which this program does not know`;
  }
}

function checksumOf(raw: Buffer): number {
  const copy = Buffer.from(raw);
  copy.writeUInt32LE(0, prefaceStruct.offset.checksum);
  return crc32(copy);
}

export function encodePreface(
  resource: string, node: string, role: number, own: Protocol = ownProtocol,
): Buffer {
  const { versionMin, versionMax } = own;
  const raw = Buffer.alloc(prefaceSize);
  prefaceStruct.encode({
    magic, checksum: 0, versionMin, versionMax, role, resource, node,
  }, raw);
  raw.writeUInt32LE(checksumOf(raw), prefaceStruct.offset.checksum);
  return raw;
}

/**
 * Throws HAST_E_PROTOCOL where the bytes are no preface of ours. Reserved bytes of a dialer that
 * speaks a later version than `own` are not looked at.
 */
export function decodePreface(source: Uint8Array, own: Protocol = ownProtocol): Preface {
  const raw = Buffer.from(source.buffer, source.byteOffset, source.length);
  if (raw.length !== prefaceSize || !magic.every((byte, index) => raw[index] === byte)) {
    throw new HastError('HAST_E_PROTOCOL', 'not a hast-linux preface');
  }
  if (checksumOf(raw) !== raw.readUInt32LE(prefaceStruct.offset.checksum)) {
    throw new HastError('HAST_E_PROTOCOL', 'the preface does not match its checksum');
  }
  const isLater = raw.readUInt16LE(prefaceStruct.offset.versionMax) > own.versionMax;
  try {
    const value = prefaceStruct.decode(raw, 0, isLater);
    const { resource, node, role, versionMin, versionMax } = value;
    if (!isPrintable(resource) || !isPrintable(node)) {
      throw new HastError('HAST_E_PROTOCOL', 'a name that cannot be printed');
    }
    return { resource, node, role, versionMin, versionMax };
  } catch (cause) {
    throw new HastError('HAST_E_PROTOCOL', 'the preface has an impossible field', { cause });
  }
}

/** True where both speak a version in common. */
export function prefaceVersionFits(preface: Preface, own: Protocol = ownProtocol): boolean {
  return agreeOn(own, { ...preface, features: 0 }) !== null;
}
