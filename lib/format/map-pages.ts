/**
 * What the dirty map looks like on disk: hot slots, index pages, map pages. Each has a 64-byte
 * head with magic, checksum, the copy's id, its own number and a sequence, so that a torn, stale
 * or foreign page is recognised. docs/on-disk-format.md tells what a missing one means.
 */
import { crc32 } from '../base/checksum.ts';
import { assert } from '../base/assert.ts';
import { HastError } from '../base/errors.ts';
import { bytes, id64, struct, u32, u53 } from '../base/layout.ts';
import { limits } from './limits.ts';

const pageHead = struct('page head', 64, [
  ['magic', 0, u32],
  ['checksum', 4, u32],
  ['copyId', 8, id64],
  ['number', 16, u32],
  ['count', 20, u32],
  ['sequence', 24, u53],
  ['reserved32', 32, bytes(32)],
]);

export const PageMagic = {
  hot: 0x31544f48, // HOT1
  index: 0x31584449, // IDX1
  map: 0x3150414d, // MAP1
} as const;

export interface PageIdentity {
  copyId: bigint;
  number: number;
  sequence: number;
}

function seal(raw: Buffer, magic: number, identity: PageIdentity, count: number): Buffer {
  pageHead.encode({ magic, checksum: 0, count, ...identity }, raw);
  raw.writeUInt32LE(crc32(raw), pageHead.offset.checksum);
  return raw;
}

/** Head of a page that is whole and ours, or null. */
function open(raw: Buffer, magic: number, copyId: bigint, number: number) {
  if (raw.length < 64 || raw.readUInt32LE(0) !== magic) return null;
  const stored = raw.readUInt32LE(pageHead.offset.checksum);
  const copy = Buffer.from(raw);
  copy.writeUInt32LE(0, pageHead.offset.checksum);
  if (crc32(copy) !== stored) return null;
  try {
    const head = pageHead.decode(raw);
    return head.copyId === copyId && head.number === number ? head : null;
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    return null;
  }
}

/**
 * One snapshot of the hot extents, each at least once. `identity.number` is 0. `raw`, here and
 * below, is memory of the right size to be used again.
 */
export function encodeHotSlot(
  size: number, identity: PageIdentity, extents: readonly number[],
  raw: Buffer = Buffer.alloc(size),
): Buffer {
  assert(64 + extents.length * 4 <= size, 'hot extents fit their slot');
  raw.fill(0);
  for (let index = 0; index < extents.length; index++) {
    raw.writeUInt32LE(extents[index] as number, 64 + index * 4);
  }
  return seal(raw, PageMagic.hot, identity, extents.length);
}

/** null where the slot is torn, empty or foreign. */
export function decodeHotSlot(
  raw: Buffer, copyId: bigint,
): { sequence: number; extents: number[] } | null {
  const head = open(raw, PageMagic.hot, copyId, 0);
  if (head === null || 64 + head.count * 4 > raw.length) return null;
  const extents = Array.from({ length: head.count }, (_, at) => raw.readUInt32LE(64 + at * 4));
  return { sequence: head.sequence, extents };
}

/** Four bits a region. */
export const RegionBit = {
  /** The region's map page has been written by this copy and counts for what is not full. */
  page: 1,
  /** Every block of the region may be stale at the peer. */
  peerFull: 2,
  /** Every block of the region is stale here: its newest data are at the peer. */
  localFull: 4,
} as const;

/** `states`: one byte a region, at most `regionsPerIndexPage`. */
export function encodeIndexPage(identity: PageIdentity, states: Uint8Array): Buffer {
  assert(states.length <= limits.regionsPerIndexPage, 'region states fit their page');
  const raw = Buffer.alloc(limits.mapPageSize);
  for (let region = 0; region < states.length; region++) {
    const at = 64 + (region >> 1);
    raw[at] = (raw[at] ?? 0) | ((states[region] ?? 0) << ((region & 1) * 4));
  }
  return seal(raw, PageMagic.index, identity, states.length);
}

export function decodeIndexPage(
  raw: Buffer, copyId: bigint, number: number,
): { sequence: number; states: Uint8Array } | null {
  const head = open(raw, PageMagic.index, copyId, number);
  if (head === null || head.count > limits.regionsPerIndexPage) return null;
  const states = new Uint8Array(head.count);
  for (let region = 0; region < head.count; region++) {
    states[region] = ((raw[64 + (region >> 1)] ?? 0) >> ((region & 1) * 4)) & 15;
  }
  return { sequence: head.sequence, states };
}

/** Bytes of bits a region has in one direction. */
export const regionBitBytes = limits.regionSize / limits.blockSize / 8;

const peerBitsAt = 64;
const localBitsAt = peerBitsAt + regionBitBytes;

/** Bit n of byte n>>3 stands for block n of the region. */
export function encodeMapPage(
  identity: PageIdentity, peerStale: Uint8Array | null, localStale: Uint8Array | null,
  raw: Buffer = Buffer.alloc(limits.mapPageSize),
): Buffer {
  raw.fill(0);
  if (peerStale !== null) raw.set(peerStale, peerBitsAt);
  if (localStale !== null) raw.set(localStale, localBitsAt);
  return seal(raw, PageMagic.map, identity, 0);
}

export function decodeMapPage(
  raw: Buffer, copyId: bigint, number: number,
): { sequence: number; peerStale: Uint8Array; localStale: Uint8Array } | null {
  const head = open(raw, PageMagic.map, copyId, number);
  if (head === null) return null;
  return {
    sequence: head.sequence,
    peerStale: Uint8Array.from(raw.subarray(peerBitsAt, peerBitsAt + regionBitBytes)),
    localStale: Uint8Array.from(raw.subarray(localBitsAt, localBitsAt + regionBitBytes)),
  };
}
