/**
 * Every number that is part of a format or a promise, in one table. Sizes in bytes.
 * Changing one of them is a format change: see docs/on-disk-format.md and wire-protocol.md.
 */
import { assert } from '../base/assert.ts';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

export const limits = {
  /** Name of a resource, UTF-8 bytes. */
  nameBytesMax: 127,
  /** Name of a node. */
  nodeBytesMax: 64,
  /** Size of a volume. */
  mediaBytesMin: 1 * MiB,
  mediaBytesMax: 256 * TiB,
  /** Unit of the fine dirty map. */
  blockSize: 4 * KiB,
  /** What one map page covers: 8192 blocks. */
  regionSize: 32 * MiB,
  /** Unit of the hot extents; a power of two. */
  extentBytesMin: 64 * KiB,
  extentBytesMax: 32 * MiB,
  extentBytesDefault: 2 * MiB,
  keepDirtyMin: 32,
  keepDirtyMax: 16_384,
  keepDirtyDefault: 512,
  superblockSize: 4 * KiB,
  mapPageSize: 4 * KiB,
  hotSlotCount: 8,
  /** Regions whose state fits one index page. */
  regionsPerIndexPage: 4096,
  historyCount: 16,
  /** Data starts at a multiple of this. */
  dataAlignment: 1 * MiB,
  /** Map pages a volume keeps in memory (2 KiB each); above it a whole region is marked. */
  mapPagesMax: 32_768,
  /** Largest read or write of the application and largest payload of a frame. */
  payloadBytesMax: 1 * MiB,
  /** Largest body of a frame that is not data. */
  bodyBytesMax: 8 * KiB,
  /** Frames and bytes a sender may have unanswered; the receiver drops the link above it. */
  windowFrames: 2048,
  windowBytes: 64 * MiB,
  /** Preface and answer. */
  prefaceSize: 256,
  /** Largest range of one discard or zero on the wire. */
  rangeBytesMax: 1 * GiB,
} as const;

assert(limits.regionSize % limits.extentBytesMax === 0, 'a region holds whole extents');
assert(limits.regionSize / limits.blockSize === 8 * 1024, 'a map page holds 1024 bytes of bits');
assert(limits.mediaBytesMax / limits.extentBytesMin <= 2 ** 32, 'an extent number fits 32 bits');
assert(
  limits.payloadBytesMax / limits.extentBytesMin + 1 <= limits.keepDirtyMin,
  'the extents of one write fit the hot set',
);

/** The smallest multiple of `unit` that is not below `value`. */
export function alignUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** The largest multiple of `unit` that is not above `value`. */
export function alignDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit;
}
