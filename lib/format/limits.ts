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

/** Bounds of what a configuration may say; docs/configuration.md shows the same table. */
export const configLimits = {
  /** Size of a configuration file, bytes. */
  fileBytesMax: 1024 * 1024,
  /** An address as written in the file, bytes. */
  addressBytesMax: 1024,
  /** A path, bytes: the kernel's PATH_MAX without the closing NUL. */
  pathBytesMax: 4095,
  /** Path of a unix socket, bytes: sockaddr_un without the closing NUL. */
  socketPathBytesMax: 107,
  /** Name of an `on` section, bytes: the kernel's HOST_NAME_MAX. */
  nodeNameBytesMax: limits.nodeBytesMax,
  /** Name of a resource, and of its device link, bytes. */
  resourceNameBytesMax: limits.nameBytesMax,
  /** Resources in one file. */
  resourceCountMax: 256,
  /** `listen` addresses at one level. */
  listenCountMax: 64,
  /** Keyword `timeout`, seconds. */
  timeoutSecondsMin: 1,
  timeoutSecondsMax: 86_400,
  /** Keyword `async-lag`, bytes. */
  asyncLagBytesMin: 4096,
  /** It is held in memory, on both nodes. */
  asyncLagBytesMax: 1 * GiB,
  /** Keyword `async-lag-time`, seconds. */
  asyncLagSecondsMin: 1,
  asyncLagSecondsMax: 86_400,
  /** Keyword `disk-timeout`, seconds; 0: never. */
  diskTimeoutSecondsMin: 0,
  diskTimeoutSecondsMax: 86_400,
  /** Keyword `busy-poll`, microseconds; 0: never. */
  busyPollMicrosecondsMin: 0,
  busyPollMicrosecondsMax: 1000,
  /** Keyword `resync-rate`, bytes a second. */
  resyncRateMin: 64 * KiB,
  resyncRateMax: 1 * TiB,
  /** TCP port. */
  portMin: 1,
  portMax: 65_535,
  /** Nested objects and arrays in a JSON file; the model needs five. */
  jsonDepthMax: 16,
  /** Problems reported for one file; the rest is summed up in one line. */
  problemCountMax: 100,
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

/** Names come from the peer and go to logs and terminals: no control characters. */
export function isPrintable(name: string): boolean {
  return /^[\x20-\x7e\u00a0-\uffff]*$/.test(name);
}
