/** Values and, independently, their bytes: a superblock, an undo file. */
import type { Superblock } from '../../lib/format/superblock.ts';
import type { UndoInfo } from '../../lib/format/undo.ts';
import { Bytes, slowCrc32 } from './golden-bytes.ts';

const MiB = 1024 * 1024;
const mediaSize = 100 * MiB;
const history = [0xa1n, 0xa2n, 0xa3n, ...new Array<bigint>(13).fill(0n)];

/** 100 MiB: four regions, one index page; keepdirty 512: hot slots of 8 KiB. */
export const superblockValue: Superblock = {
  magic: Uint8Array.from(Buffer.from('HASTLNX1', 'latin1')), version: 1, compat: 0x10, roCompat: 0,
  incompat: 0, checksum: 0, flags: 1 | 4 | 8, sequence: 2 ** 33 + 5, copyId: 0x1122334455667788n,
  localSize: 200 * MiB + 512, mediaSize, dataOffset: MiB, sectorSize: 512, blockSize: 4096,
  extentSize: 2 * MiB, keepDirty: 512, regionSize: 32 * MiB, hotSlotSize: 8192, hotOffset: 4096,
  hotSlotCount: 8, indexPageCount: 1, indexOffset: 69_632, mapOffset: 77_824, regionCount: 4,
  dataState: 1, lastRole: 2, peerState: 2, createdAt: 1_700_000_000, contactAt: 1_700_000_001,
  generation: 0xfffffffffffffffen, history, peerCopyId: 0x99n, peerGeneration: 0xa1n,
  sessionNumber: 41, peerSessionNumber: 42, syncGeneration: 0x43n, resource: 'shared',
  peerNode: 'h2',
};

export function handSuperblock(): Buffer {
  return new Bytes(4096).text(0, 'HASTLNX1').number(8, 4, 1).number(12, 4, 0x10)
    .number(28, 4, 13).number(32, 8, 2 ** 33 + 5).number(40, 8, 0x1122334455667788n)
    .number(48, 8, 200 * MiB + 512).number(56, 8, mediaSize).number(64, 8, MiB)
    .number(72, 4, 512).number(76, 4, 4096).number(80, 4, 2 * MiB).number(84, 4, 512)
    .number(88, 4, 32 * MiB).number(92, 4, 8192).number(96, 8, 4096).number(104, 4, 8)
    .number(108, 4, 1).number(112, 8, 69_632).number(120, 8, 77_824).number(128, 4, 4)
    .number(132, 4, 1).number(136, 4, 2).number(140, 4, 2).number(144, 8, 1_700_000_000)
    .number(152, 8, 1_700_000_001).number(160, 8, 0xfffffffffffffffen).numbers(168, 8, history)
    .number(296, 8, 0x99).number(304, 8, 0xa1).number(312, 8, 41).number(320, 8, 42)
    .number(328, 8, 0x43).text(512, 'shared').text(640, 'h2').seal(24).raw;
}

export const undoInfo: UndoInfo = {
  copyId: 0x1122334455667788n, generation: 0xa1n, keptCopyId: 0x99n,
  keptGeneration: 0xfffffffffffffffen, mediaSize, createdAt: 1_700_000_000, discarded: 2,
  resource: 'shared',
};

/** Two ranges: the last 512 bytes of the volume, and 100 bytes at 4096. */
export const undoRanges = [
  { offset: mediaSize - 512, data: Buffer.from(Array.from({ length: 512 }, (_, at) => at & 0xff)) },
  { offset: 4096, data: Buffer.alloc(100, 0xee) },
];

export function handUndoFile(): Buffer {
  const header = new Bytes(512).text(0, 'HASTUNDO').number(8, 4, 1).number(16, 8, undoInfo.copyId)
    .number(24, 8, 0xa1).number(32, 8, 0x99).number(40, 8, 0xfffffffffffffffen)
    .number(48, 8, mediaSize).number(56, 8, 1_700_000_000).number(64, 4, 2).text(72, 'shared')
    .seal(12).raw;
  const heads = undoRanges.map(({ offset, data }, number) => new Bytes(32).text(0, 'UREC')
    .number(8, 8, offset).number(16, 8, number).number(24, 4, data.length)
    .number(28, 4, slowCrc32(data)).seal(4).raw);
  const trailer = new Bytes(64).text(0, 'UEND').number(8, 8, 2).number(16, 8, 612)
    .put(24, header.subarray(12, 16)).number(28, 4, slowCrc32(Buffer.concat(heads))).seal(4).raw;
  const records = undoRanges.flatMap(({ data }, index) => [heads[index] as Buffer, data]);
  return Buffer.concat([header, ...records, trailer]);
}
