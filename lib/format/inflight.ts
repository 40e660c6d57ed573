/**
 * The in-flight table of a primary: memory that the next worker reads when this one was killed.
 * It never leaves the machine and never outlives its boot; docs/decisions/014 has the reasons.
 *
 * A header, then `inflightSlots` slots: ranges of writes that one of the copies may lack. A slot
 * whose length is 0 is free. Where `valid` is set, both copies hold the same bytes outside the
 * ranges. `length` is stored last when a slot is taken, so a process that dies in between leaves
 * it free.
 *
 * Version history
 * - 1: first version.
 */
import { HastError } from '../base/errors.ts';
import { bytes, id64, struct, u32, u53, type StructValue } from '../base/layout.ts';
import { limits } from './limits.ts';

const magic = Uint8Array.from(Buffer.from('HASTINFL', 'latin1'));
const version = 1;
/** `valid` of a table that holds. */
export const inflightValid = 1;
/** A power of two, well above the frames of a window and the requests of a front end. */
export const inflightSlots = 4 * limits.windowFrames;

const headerStruct = struct('in-flight header', 128, [
  ['magic', 0, bytes(8)],
  ['version', 8, u32],
  ['slots', 12, u32],
  ['valid', 16, u32],
  ['reserved20', 20, u32],
  /** Of the machine. */
  ['boot', 24, bytes(16)],
  ['copyId', 40, id64],
  /** Of the copy: the one it had, and one that is being recorded (0: none). */
  ['generation', 48, id64],
  ['nextGeneration', 56, id64],
  ['peerCopyId', 64, id64],
  /** Process of the peer. */
  ['instance', 72, id64],
  ['mediaSize', 80, u53],
  ['reserved88', 88, bytes(40)],
]);

const slotStruct = struct('in-flight slot', 16, [
  ['offset', 0, u53],
  ['length', 8, u32],
  ['reserved12', 12, u32],
]);

export const inflightBytes = headerStruct.size + inflightSlots * slotStruct.size;
/** Where single fields of the header are. */
export const inflightField = headerStruct.offset;
/** Where the fields of a slot are, from its beginning. */
export const inflightSlotField = slotStruct.offset;

export const bootIdBytes = 16;

export type InflightHeader = Omit<StructValue<typeof headerStruct>, 'magic' | 'version' | 'slots'>;

export interface InflightRange {
  slot: number;
  offset: number;
  length: number;
}

/** Byte position of slot `slot`. */
export function inflightSlotAt(slot: number): number {
  return headerStruct.size + slot * slotStruct.size;
}

/** Writes the whole header at the beginning of `target`. */
export function encodeInflightHeader(header: InflightHeader, target: Uint8Array): void {
  headerStruct.encode({ ...header, magic, version, slots: inflightSlots }, target);
}

/** What a table says, or null where it is not one of this version, or anything in it is strange. */
export function decodeInflight(
  raw: Uint8Array,
): { header: InflightHeader; ranges: InflightRange[] } | null {
  if (raw.length !== inflightBytes) return null;
  try {
    const { magic: found, version: written, slots, ...header } = headerStruct.decode(raw);
    const isKnown = Buffer.compare(found, magic) === 0 && written === version &&
      slots === inflightSlots;
    if (!isKnown) return null;
    const ranges: InflightRange[] = [];
    const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
    for (let slot = 0; slot < inflightSlots; slot++) {
      // Nearly all are free: of those nothing else is looked at.
      const at = inflightSlotAt(slot);
      if (view.getUint32(at + inflightSlotField.length, true) === 0) continue;
      const { offset, length } = slotStruct.decode(raw, at);
      if (length > limits.rangeBytesMax || offset + length > header.mediaSize) return null;
      ranges.push({ slot, offset, length });
    }
    return { header, ranges };
  } catch (error) {
    if (error instanceof HastError) return null;
    throw error;
  }
}
