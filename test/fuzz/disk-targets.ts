/** Bytes off the disk: superblock, pages of the map, the in-flight table, undo files. */
import { crc32 } from '../../lib/base/checksum.ts';
import {
  decodeInflight, encodeInflightHeader, inflightBytes, inflightSlotAt, inflightSlots,
} from '../../lib/format/inflight.ts';
import { limits } from '../../lib/format/limits.ts';
import {
  decodeHotSlot, decodeIndexPage, decodeMapPage, encodeHotSlot, encodeIndexPage, encodeMapPage,
} from '../../lib/format/map-pages.ts';
import {
  decodeSuperblock, encodeSuperblock, superblockStruct,
} from '../../lib/format/superblock.ts';
import {
  decodeUndoHeader, decodeUndoRecord, decodeUndoTrailer, encodeUndoHeader, encodeUndoRecord,
  encodeUndoTrailer,
} from '../../lib/format/undo.ts';
import { superblockValue, undoInfo } from '../format/samples.ts';
import { check, outcomes, taken, type FuzzTarget } from './property.ts';
import { edge, mangle, spoil, spoilFields, type Random } from './random.ts';

/** A good checksum of all bytes with its own four at zero. */
function seal(raw: Buffer, at: number): void {
  if (raw.length < at + 4) return;
  raw.writeUInt32LE(0, at);
  raw.writeUInt32LE(crc32(raw), at);
}

const superblock = encodeSuperblock(superblockValue);
const superblockOffsets = Object.values(superblockStruct.offset);

function runSuperblock(random: Random): void {
  let raw: Buffer = Buffer.from(superblock);
  if (random.chance(0.1)) raw = mangle(random, raw, superblock);
  else if (random.chance(0.97)) spoilFields(random, raw, superblockOffsets);
  if (random.chance(0.95)) seal(raw, superblockStruct.offset.checksum);
  const codes = ['HAST_E_NO_METADATA', 'HAST_E_UNSUPPORTED', 'HAST_E_CORRUPT'] as const;
  const found = taken(codes, raw, () => decodeSuperblock(raw));
  if (found === null) return;
  const first = raw.subarray(0, limits.superblockSize);
  check(encodeSuperblock(found.value).equals(first), 'encode(decode(x)) is not x', raw);
}

const copyId = 0x1122_3344_5566_7788n;
const pageOffsets = [0, 4, 8, 16, 20, 24, 32, 60, 64, 68, 1088, 4092];
const pages = [
  encodeHotSlot(4096, { copyId, number: 0, sequence: 7 }, [1, 2, 3, 1000]),
  encodeIndexPage({ copyId, number: 3, sequence: 9 }, Uint8Array.from({ length: 4096 }, () => 5)),
  encodeMapPage({ copyId, number: 3, sequence: 9 }, new Uint8Array(1024).fill(3), null),
];

/** What a decoder that never throws made of it: null stands for a refusal. */
function found<T>(raw: Buffer, decode: () => T | null): T | null {
  const value = taken([], raw, decode)?.value ?? null;
  if (value === null) {
    outcomes.taken--;
    outcomes.refused++;
  }
  return value;
}

function runPages(random: Random): void {
  const kind = random.int(3);
  let raw: Buffer = Buffer.from(pages[kind] as Buffer);
  if (random.chance(0.1)) raw = mangle(random, raw, random.pick(pages));
  else if (random.chance(0.97)) spoilFields(random, raw, pageOffsets);
  if (random.chance(0.95)) seal(raw, 4);
  // A page that is not whole is null: it never throws.
  if (kind === 0) {
    const hot = found(raw, () => decodeHotSlot(raw, copyId));
    if (hot === null) return;
    const { sequence, extents } = hot;
    const again = encodeHotSlot(raw.length, { copyId, number: 0, sequence }, extents);
    check(decodeHotSlot(again, copyId)?.extents.join() === extents.join(), 'hot slot', raw);
  } else if (kind === 1) {
    const index = found(raw, () => decodeIndexPage(raw, copyId, 3));
    if (index === null) return;
    const { sequence, states } = index;
    const again = encodeIndexPage({ copyId, number: 3, sequence }, states);
    const there = decodeIndexPage(again, copyId, 3)?.states;
    check(there !== undefined && Buffer.from(there).equals(states), 'index page', raw);
  } else {
    const map = found(raw, () => decodeMapPage(raw, copyId, 3));
    if (map === null || raw.length !== limits.mapPageSize) return;
    const { sequence, peerStale, localStale } = map;
    const again = encodeMapPage({ copyId, number: 3, sequence }, peerStale, localStale);
    check(Buffer.compare(decodeMapPage(again, copyId, 3)?.peerStale ?? Buffer.alloc(0),
      peerStale) === 0, 'map page', raw);
  }
}

const table = Buffer.alloc(inflightBytes);
encodeInflightHeader({
  valid: 1, boot: new Uint8Array(16).fill(9), copyId, generation: 5n, nextGeneration: 0n,
  peerCopyId: 6n, instance: 7n, mediaSize: 2 ** 30,
}, table);
/** The header's fields; those of a few slots follow from the slot's number. */
const tableOffsets = [0, 8, 12, 16, 20, 24, 40, 48, 56, 64, 72, 80, 84, 88, 120];
const changed: number[] = [];

/** In place, and taken back by the next one: a table is large. */
function runInflight(random: Random): void {
  const raw = table;
  const undo = Buffer.from(raw.subarray(0, 128));
  if (random.chance(0.4)) spoilFields(random, raw.subarray(0, 128), tableOffsets);
  for (let round = random.int(5); round > 0; round--) {
    const at = inflightSlotAt(random.int(inflightSlots));
    changed.push(at);
    raw.writeUInt32LE(random.int(1 << 28), at);
    raw.writeUInt32LE(random.chance(0.8) ? 1 + random.int(4096) : edge(random), at + 8);
    if (random.chance(0.2)) spoil(random, raw, at + random.pick([0, 4, 8, 12]));
  }
  const given = random.chance(0.02) ? raw.subarray(0, random.int(raw.length)) : raw;
  const inside = found(raw.subarray(0, 128), () => decodeInflight(given));
  for (const { offset, length } of inside?.ranges ?? []) {
    const isInside = length > 0 && offset + length <= (inside?.header.mediaSize ?? 0);
    check(isInside, 'a range outside', raw.subarray(0, 128));
  }
  undo.copy(raw);
  for (const at of changed.splice(0)) raw.fill(0, at, at + 16);
}

const undoHeader = encodeUndoHeader(undoInfo);
const undoRecord = encodeUndoRecord({ offset: 4096, number: 1, length: 100, dataChecksum: 5 });
const undoTrailer = encodeUndoTrailer({
  count: 2, bytes: 612, headerChecksum: 8, recordsChecksum: 9,
});

function runUndo(random: Random): void {
  const kind = random.int(3);
  const good = [undoHeader, undoRecord, undoTrailer][kind] as Buffer;
  let raw: Buffer = Buffer.from(good);
  const offsets = [0, 4, 8, 12, 16, 24, 28, 32, 40, 48, 56, 64, 68, 72, 200].filter((at) =>
    at < raw.length);
  if (random.chance(0.15)) raw = mangle(random, raw, random.pick([undoHeader, undoTrailer]));
  else if (random.chance(0.97)) spoilFields(random, raw, offsets);
  if (random.chance(0.95)) seal(raw, kind === 0 ? 12 : 4);
  const codes = ['HAST_E_UNSUPPORTED', 'HAST_E_CORRUPT'] as const;
  let again: Buffer | undefined;
  if (kind === 0) {
    const found = taken(codes, raw, () => decodeUndoHeader(raw));
    if (found !== null) again = encodeUndoHeader(found.value);
  } else if (kind === 1) {
    const found = taken(codes, raw, () => decodeUndoRecord(raw, undoInfo.mediaSize));
    if (found !== null) again = encodeUndoRecord(found.value);
  } else {
    const found = taken(codes, raw, () => decodeUndoTrailer(raw));
    if (found !== null) again = encodeUndoTrailer(found.value);
  }
  check(again === undefined || again.equals(raw), 'encode(decode(x)) is not x', raw);
}

export const diskTargets: readonly FuzzTarget[] = [
  { name: 'superblock', run: runSuperblock },
  { name: 'pages', run: runPages },
  { name: 'inflight', run: runInflight, shortRuns: 2000 },
  { name: 'undo', run: runUndo },
];
