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
  /** `PrefaceSecurity`. A node that does not know the field refuses what is not 0. */
  ['security', 17, u8],
  ['reserved18', 18, bytes(14)],
  ['resource', 32, text(128)],
  ['node', 160, text(72)],
  ['reserved232', 232, bytes(24)],
]);

/** Role of the dialer when it dialed: decides which of two crossing connections stays. */
export const PrefaceRole = { secondary: 0, primary: 1 } as const;

/** What the dialer is set to; what the other side is set to alone decides whether it may go on. */
export const PrefaceSecurity = { none: 0, tls: 1, secret: 2 } as const;
export type SecurityWord = keyof typeof PrefaceSecurity;

export interface Preface {
  resource: string;
  node: string;
  role: number;
  security: number;
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
  /** The dialer is set to something else than the node it dialed, which uses: */
  needsNone: 7,
  needsTls: 8,
  needsSecret: 9,
  /** Within TLS, of the receiver's certificate: */
  certificateUntrusted: 10,
  certificateExpired: 11,
  certificateName: 12,
  certificateMissing: 13,
  /** What the peer itself would show cannot be used. */
  brokenFiles: 14,
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
    case PrefaceAnswer.needsNone: return 'the peer uses neither TLS nor a secret';
    case PrefaceAnswer.needsTls: return 'the peer uses TLS';
    case PrefaceAnswer.needsSecret: return 'the peer uses a secret';
    case PrefaceAnswer.certificateUntrusted:
      return "no CA that the peer trusts vouches for this node's certificate: give both nodes " +
        "the same 'ca' file, or pair them anew (hastctl pair init)";
    case PrefaceAnswer.certificateExpired:
      return "this node's certificate is not valid at this time, says the peer: compare the " +
        'clocks, or make new certificates (hastctl pair init)';
    case PrefaceAnswer.certificateName:
      return "this node's certificate bears another name than the 'on' section of the peer's " +
        'configuration: make them the same';
    case PrefaceAnswer.certificateMissing:
      return 'this node showed no certificate, says the peer';
    case PrefaceAnswer.brokenFiles:
      return 'the peer cannot use its own certificate or secret: run hastctl check there';
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
  security: number = PrefaceSecurity.none,
): Buffer {
  const { versionMin, versionMax } = own;
  const raw = Buffer.alloc(prefaceSize);
  prefaceStruct.encode({
    magic, checksum: 0, versionMin, versionMax, role, security, resource, node,
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
    const { resource, node, role, security, versionMin, versionMax } = value;
    if (!isPrintable(resource) || !isPrintable(node)) {
      throw new HastError('HAST_E_PROTOCOL', 'a name that cannot be printed');
    }
    return { resource, node, role, security, versionMin, versionMax };
  } catch (cause) {
    throw new HastError('HAST_E_PROTOCOL', 'the preface has an impossible field', { cause });
  }
}

/** True where both speak a version in common. */
export function prefaceVersionFits(preface: Preface, own: Protocol = ownProtocol): boolean {
  return agreeOn(own, { ...preface, features: 0 }) !== null;
}
