/**
 * The superblock: 4 KiB, one copy at the start of `local` and one in its last whole 4 KiB.
 * Layout and meaning: docs/on-disk-format.md.
 *
 * Version history
 * - 1: first version.
 */
import { crc32 } from '../base/checksum.ts';
import { HastError } from '../base/errors.ts';
import { array, bytes, id64, struct, text, u32, u53, type StructValue } from '../base/layout.ts';
import { alignDown, alignUp, limits } from './limits.ts';

export const superblockMagic = Uint8Array.from(Buffer.from('HASTLNX1', 'latin1'));
export const superblockVersion = 1;
/** Bits of `incompat` and `roCompat` that this program understands: none is defined yet. */
export const knownIncompat = 0;
export const knownRoCompat = 0;

export const superblockStruct = struct('superblock', limits.superblockSize, [
  ['magic', 0, bytes(8)],
  ['version', 8, u32],
  ['compat', 12, u32],
  ['roCompat', 16, u32],
  ['incompat', 20, u32],
  ['checksum', 24, u32],
  ['flags', 28, u32],
  /** Grows by one with each update; of two valid copies the higher one counts. */
  ['sequence', 32, u53],
  /** Random id of this copy, made by `create`; map pages carry it too. */
  ['copyId', 40, id64],
  ['localSize', 48, u53],
  ['mediaSize', 56, u53],
  ['dataOffset', 64, u53],
  ['sectorSize', 72, u32],
  ['blockSize', 76, u32],
  ['extentSize', 80, u32],
  ['keepDirty', 84, u32],
  ['regionSize', 88, u32],
  ['hotSlotSize', 92, u32],
  ['hotOffset', 96, u53],
  ['hotSlotCount', 104, u32],
  ['indexPageCount', 108, u32],
  ['indexOffset', 112, u53],
  ['mapOffset', 120, u53],
  ['regionCount', 128, u32],
  ['dataState', 132, u32],
  ['lastRole', 136, u32],
  ['peerState', 140, u32],
  ['createdAt', 144, u53],
  ['contactAt', 152, u53],
  ['generation', 160, id64],
  /** Former generations, newest first, 0 where there is none. */
  ['history', 168, array(id64, limits.historyCount)],
  ['peerCopyId', 296, id64],
  ['peerGeneration', 304, id64],
  ['sessionNumber', 312, u53],
  ['peerSessionNumber', 320, u53],
  ['syncGeneration', 328, id64],
  ['reserved336', 336, bytes(176)],
  ['resource', 512, text(128)],
  ['peerNode', 640, text(128)],
  ['reserved768', 768, bytes(3328)],
]);

export type Superblock = StructValue<typeof superblockStruct>;

export const SuperblockFlag = {
  /** Data read as zeros at creation. */
  createdZeroed: 1,
  /** `create --assume-clean` was said. */
  assumeClean: 2,
  /** Set while primary; found set at start, the node stopped without leaving the role. */
  primaryActive: 4,
  /** A promotion was forced since the copies were last equal. */
  forced: 8,
  /** A copy that was not eligible was forced: it never wins automatically. */
  forcedIneligible: 16,
  /**
   * The peer, as primary, declared its own copy stale: it acknowledges nothing without this one.
   */
  keeper: 32,
  /** An operator said that the peer is gone; holds until it returns. */
  peerGone: 64,
  /** Was primary in async mode: its map may name data that no other copy ever had. */
  asyncPrimary: 128,
} as const;

/** What this copy's data are worth. */
export const DataState = { consistent: 1, inconsistent: 2 } as const;

/** What this node knows of the peer's copy. `behind` is written before acknowledging alone. */
export const PeerState = { unknown: 0, complete: 1, behind: 2 } as const;

export const DiskRole = { init: 0, primary: 1, secondary: 2 } as const;

const checksumAt = superblockStruct.offset.checksum;

function checksumOf(raw: Uint8Array): number {
  const zero = new Uint8Array(4);
  const head = crc32(raw.subarray(0, checksumAt));
  return crc32(raw.subarray(checksumAt + 4, limits.superblockSize), crc32(zero, head));
}

export function encodeSuperblock(value: Superblock): Buffer {
  const raw = Buffer.alloc(limits.superblockSize);
  superblockStruct.encode(value, raw);
  raw.writeUInt32LE(checksumOf(raw), checksumAt);
  return raw;
}

/** True where `raw` starts with the magic, whatever its version or state. */
export function hasSuperblockMagic(raw: Uint8Array): boolean {
  return superblockMagic.every((byte, index) => raw[index] === byte);
}

/** The name of the first field that cannot be, or null. */
function invalid(value: Superblock): string | null {
  if (value.blockSize !== limits.blockSize) return 'blockSize';
  if (value.regionSize !== limits.regionSize) return 'regionSize';
  if (value.mediaSize < limits.mediaBytesMin || value.mediaSize > limits.mediaBytesMax) {
    return 'mediaSize';
  }
  if (value.mediaSize % limits.blockSize !== 0) return 'mediaSize';
  if (value.sectorSize !== 512 && value.sectorSize !== 4096) return 'sectorSize';
  if (extentSizeProblem(value.extentSize) !== null) return 'extentSize';
  if (value.keepDirty < limits.keepDirtyMin || value.keepDirty > limits.keepDirtyMax) {
    return 'keepDirty';
  }
  if (value.regionCount !== Math.ceil(value.mediaSize / limits.regionSize)) return 'regionCount';
  const expected = layoutFor(value.mediaSize, value.keepDirty);
  for (const key of Object.keys(expected) as (keyof Layout)[]) {
    if (value[key] !== expected[key]) return key;
  }
  if (value.dataOffset + value.mediaSize > tailOffset(value.localSize)) return 'localSize';
  if (value.dataState !== DataState.consistent && value.dataState !== DataState.inconsistent) {
    return 'dataState';
  }
  if (value.lastRole > DiskRole.secondary) return 'lastRole';
  if (value.peerState > PeerState.behind) return 'peerState';
  if (value.copyId === 0n) return 'copyId';
  return null;
}

/**
 * Throws HAST_E_NO_METADATA (no magic), HAST_E_UNSUPPORTED (a newer version or an incompatible
 * feature) or HAST_E_CORRUPT (checksum, a field).
 */
export function decodeSuperblock(raw: Uint8Array): Superblock {
  if (raw.length < limits.superblockSize || !hasSuperblockMagic(raw)) {
    throw new HastError('HAST_E_NO_METADATA', 'no metadata here', {
      hint: 'run hastctl create first',
    });
  }
  const view = new DataView(raw.buffer, raw.byteOffset, limits.superblockSize);
  if (view.getUint32(checksumAt, true) !== checksumOf(raw)) {
    throw new HastError('HAST_E_CORRUPT', 'the superblock does not match its checksum');
  }
  const version = view.getUint32(superblockStruct.offset.version, true);
  if (version !== superblockVersion) {
    throw new HastError('HAST_E_UNSUPPORTED', `the metadata have version ${version}, ` +
      `this program knows ${superblockVersion}`);
  }
  const incompat = view.getUint32(superblockStruct.offset.incompat, true) & ~knownIncompat;
  const roCompat = view.getUint32(superblockStruct.offset.roCompat, true) & ~knownRoCompat;
  if (incompat !== 0 || roCompat !== 0) {
    throw new HastError('HAST_E_UNSUPPORTED', 'the metadata use features this program does not ' +
      `know (incompat 0x${incompat.toString(16)}, ro-compat 0x${roCompat.toString(16)})`);
  }
  const value = superblockStruct.decode(raw);
  const field = invalid(value);
  if (field !== null) {
    throw new HastError('HAST_E_CORRUPT', `the superblock has an impossible ${field}`);
  }
  return value;
}

export interface Layout {
  hotOffset: number;
  hotSlotSize: number;
  hotSlotCount: number;
  indexOffset: number;
  indexPageCount: number;
  mapOffset: number;
  regionCount: number;
  dataOffset: number;
}

/** Where the second superblock copy lies. */
export function tailOffset(localSize: number): number {
  return alignDown(localSize, limits.superblockSize) - limits.superblockSize;
}

/** Offsets of the areas before the data; a function of two numbers for ever. */
export function layoutFor(mediaSize: number, keepDirty: number): Layout {
  const page = limits.mapPageSize;
  const hotOffset = limits.superblockSize;
  // Twice keepdirty: extents that are leaving stay listed until their map pages are durable.
  const hotSlotSize = alignUp(64 + 2 * 4 * keepDirty, page);
  const hotSlotCount = limits.hotSlotCount;
  const indexOffset = hotOffset + hotSlotSize * hotSlotCount;
  const regionCount = Math.ceil(mediaSize / limits.regionSize);
  const indexPageCount = Math.ceil(regionCount / limits.regionsPerIndexPage);
  const mapOffset = indexOffset + indexPageCount * 2 * page;
  const dataOffset = alignUp(mapOffset + regionCount * page, limits.dataAlignment);
  return {
    hotOffset, hotSlotSize, hotSlotCount, indexOffset, indexPageCount, mapOffset, regionCount,
    dataOffset,
  };
}

/** The largest volume that fits `localSize` bytes, a multiple of 4 KiB; 0 where none does. */
export function mediaSizeMax(localSize: number, keepDirty: number): number {
  const guess = Math.max(0, alignDown(tailOffset(localSize), limits.blockSize));
  if (guess === 0) return 0;
  // The map of `guess` is at least as large as the map of what remains: a safe start. Each round
  // wins back most of what the one before reserved too much.
  let media = guess - layoutFor(guess, keepDirty).dataOffset;
  if (media <= 0) return 0;
  for (let round = 0; round < 4; round++) {
    const next = guess - layoutFor(media, keepDirty).dataOffset;
    if (next + layoutFor(next, keepDirty).dataOffset <= guess) media = next;
  }
  media = Math.min(alignDown(media, limits.blockSize), limits.mediaBytesMax);
  return media < limits.mediaBytesMin ? 0 : media;
}

/** Why `size` cannot be an extent size, or null. */
export function extentSizeProblem(size: number): string | null {
  if (!Number.isSafeInteger(size) || size < limits.extentBytesMin || size > limits.extentBytesMax) {
    return `must be between ${limits.extentBytesMin} and ${limits.extentBytesMax} bytes`;
  }
  return Number.isInteger(Math.log2(size)) ? null : 'must be a power of two';
}
