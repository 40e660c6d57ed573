/**
 * An undo file: what a copy held before a resolution of a split brain overwrote it.
 * Layout and meaning: docs/on-disk-format.md.
 *
 * Version history
 * - 1: first version.
 */
import { crc32 } from '../base/checksum.ts';
import { HastError } from '../base/errors.ts';
import { bytes, id64, struct, text, u32, u53, type StructValue } from '../base/layout.ts';
import { limits } from './limits.ts';

const headerMagic = Uint8Array.from(Buffer.from('HASTUNDO', 'latin1'));
const recordMagic = 0x43455255; // "UREC"
const trailerMagic = 0x444e4555; // "UEND"
const undoVersion = 1;

const headerStruct = struct('undo header', 512, [
  ['magic', 0, bytes(8)],
  ['version', 8, u32],
  ['checksum', 12, u32],
  /** The copy whose data these are, and its generation then. */
  ['copyId', 16, id64],
  ['generation', 24, id64],
  /** The copy that was kept. */
  ['keptCopyId', 32, id64],
  ['keptGeneration', 40, id64],
  ['mediaSize', 48, u53],
  /** Seconds since 1970. */
  ['createdAt', 56, u53],
  /** `UndoSide`, seen from the node that wrote the file. */
  ['discarded', 64, u32],
  ['reserved68', 68, u32],
  ['resource', 72, text(128)],
  ['reserved200', 200, bytes(312)],
]);

const recordStruct = struct('undo record', 32, [
  ['magic', 0, u32],
  ['checksum', 4, u32],
  ['offset', 8, u53],
  /** From 0, without a gap. */
  ['number', 16, u53],
  ['length', 24, u32],
  ['dataChecksum', 28, u32],
]);

const trailerStruct = struct('undo trailer', 64, [
  ['magic', 0, u32],
  ['checksum', 4, u32],
  ['count', 8, u53],
  ['bytes', 16, u53],
  /** Checksum field of the header. */
  ['headerChecksum', 24, u32],
  /** crc32 of the record headers, one after the other. */
  ['recordsChecksum', 28, u32],
  ['reserved32', 32, bytes(32)],
]);

export const undoHeaderSize = headerStruct.size;
export const undoRecordSize = recordStruct.size;
export const undoTrailerSize = trailerStruct.size;

export const UndoSide = { local: 1, peer: 2 } as const;

export type UndoInfo =
  Omit<StructValue<typeof headerStruct>, 'magic' | 'version' | 'checksum'>;
export type UndoRecord = Pick<StructValue<typeof recordStruct>,
  'offset' | 'number' | 'length' | 'dataChecksum'>;
export type UndoTrailer =
  Omit<StructValue<typeof trailerStruct>, 'magic' | 'checksum'>;

/** The checksum of all of `raw` with the four bytes at `at` zero. */
function checksumOf(raw: Buffer, at: number): number {
  return crc32(raw.subarray(at + 4), crc32(new Uint8Array(4), crc32(raw.subarray(0, at))));
}

function seal(raw: Buffer, at: number): Buffer {
  raw.writeUInt32LE(checksumOf(raw, at), at);
  return raw;
}

function isSealed(raw: Buffer, at: number): boolean {
  return raw.readUInt32LE(at) === checksumOf(raw, at);
}

export function encodeUndoHeader(info: UndoInfo): Buffer {
  const raw = Buffer.alloc(undoHeaderSize);
  headerStruct.encode({ ...info, magic: headerMagic, version: undoVersion, checksum: 0 }, raw);
  return seal(raw, headerStruct.offset.checksum);
}

/** `checksum` of an encoded header: what its trailer repeats. */
export function undoHeaderChecksum(raw: Buffer): number {
  return raw.readUInt32LE(headerStruct.offset.checksum);
}

/** Throws HAST_E_UNSUPPORTED for a newer version, else HAST_E_CORRUPT. */
export function decodeUndoHeader(raw: Buffer): UndoInfo {
  if (raw.length !== undoHeaderSize || !headerMagic.every((byte, at) => raw[at] === byte)) {
    throw new HastError('HAST_E_CORRUPT', 'this is not an undo file');
  }
  if (!isSealed(raw, headerStruct.offset.checksum)) {
    throw new HastError('HAST_E_CORRUPT', 'the head of the undo file is damaged');
  }
  const found = raw.readUInt32LE(headerStruct.offset.version);
  if (found !== undoVersion) {
    throw new HastError('HAST_E_UNSUPPORTED',
      `the undo file has version ${found}, this program knows ${undoVersion}`);
  }
  const { magic, version, checksum, ...info } = headerStruct.decode(raw);
  void [magic, version, checksum];
  const { mediaSize, discarded } = info;
  if (info.copyId === 0n || info.keptCopyId === 0n || info.copyId === info.keptCopyId ||
      mediaSize < limits.mediaBytesMin || mediaSize > limits.mediaBytesMax ||
      (discarded !== UndoSide.local && discarded !== UndoSide.peer)) {
    throw new HastError('HAST_E_CORRUPT', 'the undo file has an impossible field');
  }
  return info;
}

export function encodeUndoRecord(record: UndoRecord): Buffer {
  const raw = Buffer.alloc(undoRecordSize);
  recordStruct.encode({ ...record, magic: recordMagic, checksum: 0 }, raw);
  return seal(raw, recordStruct.offset.checksum);
}

/** Throws HAST_E_CORRUPT where the range cannot be one of a volume of `mediaSize` bytes. */
export function decodeUndoRecord(raw: Buffer, mediaSize: number): UndoRecord {
  if (raw.length !== undoRecordSize ||
      raw.readUInt32LE(recordStruct.offset.magic) !== recordMagic ||
      !isSealed(raw, recordStruct.offset.checksum)) {
    throw new HastError('HAST_E_CORRUPT', 'a record of the undo file is damaged');
  }
  const { offset, number, length, dataChecksum } = recordStruct.decode(raw);
  if (length === 0 || length > limits.payloadBytesMax || offset + length > mediaSize) {
    throw new HastError('HAST_E_CORRUPT', 'a record of the undo file has an impossible range');
  }
  return { offset, number, length, dataChecksum };
}

export function encodeUndoTrailer(trailer: UndoTrailer): Buffer {
  const raw = Buffer.alloc(undoTrailerSize);
  trailerStruct.encode({ ...trailer, magic: trailerMagic, checksum: 0 }, raw);
  return seal(raw, trailerStruct.offset.checksum);
}

/** Throws HAST_E_CORRUPT, "not sealed", where `raw` does not close an undo file. */
export function decodeUndoTrailer(raw: Buffer): UndoTrailer {
  if (raw.length !== undoTrailerSize ||
      raw.readUInt32LE(trailerStruct.offset.magic) !== trailerMagic ||
      !isSealed(raw, trailerStruct.offset.checksum)) {
    throw new HastError('HAST_E_CORRUPT', 'the undo file is not sealed', {
      hint: 'the program that wrote it was interrupted before the file was whole',
    });
  }
  const { count, bytes: sum, headerChecksum, recordsChecksum } = trailerStruct.decode(raw);
  return { count, bytes: sum, headerChecksum, recordsChecksum };
}
