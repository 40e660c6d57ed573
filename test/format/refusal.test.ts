/**
 * Goal: nothing off the wire or the disk is trusted.
 * Method: a recorded session cut at every byte; every bit of headers, payloads and metadata
 * flipped; lengths over the limits with a good checksum; noise.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { FrameFlag, FrameType, plainFrame, type Frame } from '../../lib/format/frame.ts';
import { decodeHello, decodeLineage } from '../../lib/format/hello.ts';
import { alignDown, alignUp, GiB, limits, MiB, TiB } from '../../lib/format/limits.ts';
import {
  decodeHotSlot, decodeIndexPage, decodeMapPage, encodeHotSlot, encodeIndexPage, encodeMapPage,
} from '../../lib/format/map-pages.ts';
import {
  decodePreface, encodePreface, PrefaceAnswer, prefaceAnswerText, prefaceVersionFits,
} from '../../lib/format/preface.ts';
import {
  decodeSuperblock, encodeSuperblock, extentSizeProblem, layoutFor, mediaSizeMax, tailOffset,
  type Superblock,
} from '../../lib/format/superblock.ts';
import { encodeFrame, FrameReader, headerSize, type WireOptions } from '../../lib/format/wire.ts';
import { chooseSuperblock } from '../../lib/core/superblock-store.ts';
import { Bytes } from './golden-bytes.ts';
import { superblockValue } from './samples.ts';

const plain: WireOptions = { checksum: 'crc32', compression: 'none', compressor: null };

/** The code of what `run` throws; anything but a HastError goes on. */
function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof HastError) return error.code;
    throw error;
  }
  return 'none';
}

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return '';
}

function bytesOf(frame: Frame, options = plain): Buffer {
  const pieces: Buffer[] = [];
  encodeFrame(frame, options, (piece) => pieces.push(Buffer.from(piece)));
  return Buffer.concat(pieces);
}

function write(seq: number, size: number): Frame {
  const payload = Buffer.alloc(size, seq + 1);
  return { ...plainFrame(FrameType.write, seq), size, offset: seq * 4096, payload };
}

function read(options: WireOptions, chunks: readonly Buffer[]): Frame[] {
  const frames: Frame[] = [];
  const reader = new FrameReader(options, (frame) => frames.push(frame));
  for (const chunk of chunks) reader.push(Buffer.from(chunk));
  return frames;
}

/** A frame as text, whatever memory its payload lies in. */
function textOf(frame: Frame): string {
  const { payload, payloadOffset, size, type, flags, seq, offset, arg } = frame;
  const body = payload?.subarray(payloadOffset, payloadOffset + size).toString('hex') ?? '-';
  return [type, flags, seq, offset, size, arg, body].join(' ');
}

t.test('frame-reader: a recorded session cut at every byte', async (t) => {
  const session = Buffer.concat([
    bytesOf(plainFrame(FrameType.keepalive)), bytesOf(write(1, 700)),
    bytesOf(write(2, 300), { ...plain, checksum: 'sha256' }),
    bytesOf(write(3, 100), { ...plain, checksum: 'none' }),
    bytesOf({ ...write(4, 4096), payload: Buffer.alloc(4096) }, { ...plain, compression: 'hole' }),
    bytesOf(plainFrame(FrameType.flush, 5)), bytesOf(plainFrame(FrameType.writeAck, 1, 4)),
  ]);
  const whole = read(plain, [session]).map(textOf);
  t.equal(whole.length, 7);
  for (let cut = 0; cut <= session.length; cut++) {
    const frames = read(plain, [session.subarray(0, cut), session.subarray(cut)]).map(textOf);
    if (frames.join() !== whole.join()) t.fail(`cut at ${cut}`);
  }
  const single = Array.from(session, (byte) => Buffer.of(byte));
  t.same(read(plain, single).map(textOf), whole);
});

t.test('frame-reader: every flipped bit of a header is refused', async (t) => {
  for (const frame of [write(1, 64), plainFrame(FrameType.writeAck, 3, 9)]) {
    const raw = bytesOf(frame);
    for (let bit = 0; bit < headerSize * 8; bit++) {
      const bad = Buffer.from(raw);
      bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7));
      const code = codeOf(() => read(plain, [bad]));
      if (code !== 'HAST_E_PROTOCOL' && code !== 'HAST_E_CHECKSUM') t.fail(`bit ${bit}: ${code}`);
    }
  }
});

t.test('frame-reader: every flipped bit of a payload is refused', async (t) => {
  for (const checksum of ['crc32', 'sha256'] as const) {
    const raw = bytesOf(write(1, 64), { ...plain, checksum });
    for (let bit = headerSize * 8; bit < raw.length * 8; bit++) {
      const bad = Buffer.from(raw);
      bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7));
      for (const chunks of [[bad], [bad.subarray(0, 70), bad.subarray(70)]]) {
        const code = codeOf(() => read(plain, chunks));
        if (code !== 'HAST_E_CHECKSUM') t.fail(`${checksum}, bit ${bit}: ${code}`);
      }
    }
  }
});

/** A header with a good checksum and any content. */
function forged(change: Record<string, number>): Buffer {
  const fields: Record<string, [at: number, size: number]> = {
    type: [4, 1], flags: [5, 1], reserved: [6, 2], seq: [16, 8], offset: [24, 8], size: [32, 4],
    wireSize: [36, 4], arg: [40, 8], tag: [48, 8],
  };
  const raw = new Bytes(64).text(0, 'HSTF').number(4, 1, FrameType.keepalive);
  for (const [name, value] of Object.entries(change)) {
    const [at, size] = fields[name] as [number, number];
    raw.number(at, size, value);
  }
  return raw.seal(8).raw;
}

t.test('frame-reader: impossible headers with a good checksum, before any payload', async (t) => {
  const { write, discard, zero, map, flush } = FrameType;
  const over = limits.payloadBytesMax + 1;
  t.equal(codeOf(() => read(plain, [forged({})])), 'none');
  for (const change of [
    { type: 0 }, { type: 13 }, { type: 255 }, { flags: 128 }, { reserved: 1 }, { tag: 1 },
    { seq: 2 ** 53 }, { offset: 2 ** 60 }, { arg: 2 ** 53 },
    { type: write, size: over, wireSize: over }, { type: write, size: 0xffffffff,
      wireSize: 0xffffffff }, { type: write, size: 512, wireSize: 511 },
    { type: write, size: 512, wireSize: 0 }, { type: write, size: 512, wireSize: over },
    { type: write, size: 0, wireSize: 512 },
    { type: write, size: 512, wireSize: 512, flags: FrameFlag.sha256 },
    { type: write, size: 512, wireSize: 512, flags: FrameFlag.hole },
    { type: write, size: 512, wireSize: 512, flags: FrameFlag.lz4 },
    { type: write, size: 512, wireSize: 0, flags: FrameFlag.lz4 },
    { type: write, size: 512, wireSize: 32, flags: FrameFlag.lz4 | FrameFlag.sha256 },
    { type: write, size: over, flags: FrameFlag.hole }, { type: flush, size: 1 },
    { type: flush, flags: FrameFlag.hole, size: 8192 },
    { type: map, size: limits.bodyBytesMax + 1, wireSize: limits.bodyBytesMax + 1 },
    { type: map, size: 1024, wireSize: 100, flags: FrameFlag.lz4 },
    { type: discard, size: limits.rangeBytesMax + 1 }, { type: zero, size: 1, wireSize: 1 },
  ] as Record<string, number>[]) {
    const name = JSON.stringify(change);
    t.equal(codeOf(() => read(plain, [forged(change)])), 'HAST_E_PROTOCOL', name);
  }
  const packed = forged({ type: write, size: 512, wireSize: 4, flags: FrameFlag.lz4 });
  t.equal(codeOf(() => read(plain, [packed, Buffer.alloc(4)])), 'HAST_E_PROTOCOL', 'no lz4 here');
});

t.test('frame-reader: lz4 through the injected functions', async (t) => {
  const compressor = {
    compress: (input: Buffer) => (input[0] === 1 ? Buffer.from(input.subarray(0, 2)) : null),
    decompress: (input: Buffer, size: number) => Buffer.alloc(size, input[1]),
  };
  const options: WireOptions = { checksum: 'sha256', compression: 'lzf', compressor };
  const packed = bytesOf({ ...write(0, 512), headroom: 0 }, options);
  t.equal(packed.length, headerSize + 2 + 32);
  const [frame] = read(options, [packed]);
  t.equal(frame?.payload?.toString('hex'), Buffer.alloc(512, 1).toString('hex'));
  t.equal(bytesOf(write(5, 512), options).length, headerSize + 512 + 32);
});

t.test('noise: nothing but a HastError comes of it', async (t) => {
  const noise = fc.uint8Array({ maxLength: 600 });
  fc.assert(fc.property(noise, fc.boolean(), (bytes, magic) => {
    const raw = Buffer.from(bytes);
    if (magic && raw.length > 4) raw.write('HSTF', 0, 'latin1');
    codeOf(() => read(plain, [raw]));
    for (const decode of [decodePreface, decodeSuperblock, decodeHello, decodeLineage]) {
      const isTaken = codeOf(() => decode(raw)) === 'none';
      if (isTaken && decode !== decodeLineage) throw new Error('taken');
    }
    if (decodeHotSlot(raw, 1n) !== null || decodeIndexPage(raw, 1n, 0) !== null ||
        decodeMapPage(raw, 1n, 0) !== null) throw new Error('taken');
  }), { numRuns: 400 });
  const full = fc.uint8Array({ minLength: 640, maxLength: 640 });
  fc.assert(fc.property(full, (bytes) => {
    codeOf(() => decodeHello(Buffer.from(bytes)));
    const preface = Buffer.from(bytes.subarray(0, 256));
    preface.write('HASTLNXP', 0, 'latin1');
    codeOf(() => decodePreface(preface));
    codeOf(() => decodePreface(new Bytes(256).put(0, preface).seal(8).raw));
  }), { numRuns: 200 });
  t.pass('survived');
});

t.test('preface: flips, versions, answers', async (t) => {
  const raw = encodePreface('shared', 'h1', 0);
  for (let bit = 0; bit < raw.length * 8; bit++) {
    const bad = Buffer.from(raw);
    bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7));
    if (codeOf(() => decodePreface(bad)) !== 'HAST_E_PROTOCOL') t.fail(`bit ${bit}`);
  }
  const fits = (versionMin: number, versionMax: number): boolean =>
    prefaceVersionFits({ ...decodePreface(raw), versionMin, versionMax });
  t.same([fits(1, 1), fits(1, 9), fits(0, 1), fits(2, 9), fits(0, 0)],
    [true, true, true, false, false]);
  const texts = new Set(Object.values(PrefaceAnswer).map(prefaceAnswerText));
  t.equal(texts.size, Object.keys(PrefaceAnswer).length);
  t.match(prefaceAnswerText(200), /200/);
});

t.test('superblock: every flipped bit, versions and features by name', async (t) => {
  const raw = encodeSuperblock(superblockValue);
  for (let bit = 0; bit < raw.length * 8; bit++) {
    raw[bit >> 3] = (raw[bit >> 3] as number) ^ (1 << (bit & 7));
    const code = codeOf(() => decodeSuperblock(raw));
    const expected = bit < 64 ? 'HAST_E_NO_METADATA' : 'HAST_E_CORRUPT';
    if (code !== expected) t.fail(`bit ${bit}: ${code}`);
    raw[bit >> 3] = (raw[bit >> 3] as number) ^ (1 << (bit & 7));
  }
  const sealed = (change: Partial<Superblock>): Buffer =>
    encodeSuperblock({ ...superblockValue, ...change });
  for (const [change, text] of [
    [{ version: 2 }, /version 2.*knows 1/], [{ version: 0 }, /version 0/],
    [{ incompat: 0x40 }, /incompat 0x40/], [{ roCompat: 2 }, /ro-compat 0x2/],
  ] as const) {
    const one = (): unknown => decodeSuperblock(sealed(change));
    t.equal(codeOf(one), 'HAST_E_UNSUPPORTED');
    t.match(messageOf(one), text);
    // It wins over an older copy that could be read.
    t.equal(codeOf(() => chooseSuperblock(raw, sealed(change))), 'HAST_E_UNSUPPORTED');
  }
  t.equal(decodeSuperblock(sealed({ compat: 0xffffffff })).compat, 0xffffffff);
  for (const at of [336, 511, 768, 4095]) {
    const bad = new Bytes(4096).put(0, raw).number(at, 1, 1).seal(24).raw;
    t.equal(codeOf(() => decodeSuperblock(bad)), 'HAST_E_CORRUPT', `reserved byte ${at}`);
  }
});

t.test('superblock: every field has bounds', async (t) => {
  const bad: Record<string, Partial<Superblock>[]> = {
    blockSize: [{ blockSize: 512 }], regionSize: [{ regionSize: MiB }],
    mediaSize: [{ mediaSize: MiB - 4096 }, { mediaSize: 257 * TiB }],
    sectorSize: [{ sectorSize: 0 }, { sectorSize: 1024 }],
    extentSize: [{ extentSize: 0 }, { extentSize: 32_768 }, { extentSize: 64 * MiB },
      { extentSize: 3 * MiB }],
    keepDirty: [{ keepDirty: 31 }, { keepDirty: 16_385 }],
    regionCount: [{ regionCount: 3 }, { mediaSize: 200 * MiB }],
    hotOffset: [{ hotOffset: 0 }], hotSlotSize: [{ hotSlotSize: 4096 }],
    hotSlotCount: [{ hotSlotCount: 7 }], indexOffset: [{ indexOffset: 0 }],
    indexPageCount: [{ indexPageCount: 2 }], mapOffset: [{ mapOffset: 0 }],
    dataOffset: [{ dataOffset: 0 }, { dataOffset: 2 * MiB }],
    localSize: [{ localSize: 101 * MiB }, { localSize: 0 }],
    dataState: [{ dataState: 0 }, { dataState: 3 }], lastRole: [{ lastRole: 3 }],
    peerState: [{ peerState: 3 }], copyId: [{ copyId: 0n }],
  };
  for (const [field, changes] of Object.entries(bad)) {
    for (const change of changes) {
      const raw = encodeSuperblock({ ...superblockValue, ...change });
      t.equal(codeOf(() => decodeSuperblock(raw)), 'HAST_E_CORRUPT');
      t.match(messageOf(() => decodeSuperblock(raw)), new RegExp(`impossible ${field}`));
    }
  }
});

t.test('superblock: of two copies the newer whole one counts', async (t) => {
  const [old, young] = [7, 8].map((sequence) => encodeSuperblock({ ...superblockValue, sequence }));
  const torn = Buffer.concat([(young as Buffer).subarray(0, 32), (old as Buffer).subarray(32)]);
  const pick = (head: Buffer, tail: Buffer | null): number => chooseSuperblock(head, tail).sequence;
  t.equal(pick(young as Buffer, old as Buffer), 8);
  t.equal(pick(old as Buffer, young as Buffer), 8);
  t.equal(pick(torn, old as Buffer), 7);
  t.equal(pick(young as Buffer, torn), 8);
  t.equal(pick(old as Buffer, null), 7);
  t.equal(codeOf(() => pick(torn, torn)), 'HAST_E_CORRUPT');
  t.equal(codeOf(() => pick(Buffer.alloc(4096), null)), 'HAST_E_NO_METADATA');
});

t.test('map pages: every flipped bit', async (t) => {
  const pages: [Buffer, (raw: Buffer) => unknown][] = [
    [encodeHotSlot(4096, { copyId: 3n, number: 0, sequence: 9 }, [1, 2]),
      (raw) => decodeHotSlot(raw, 3n)],
    [encodeIndexPage({ copyId: 3n, number: 4, sequence: 9 }, Uint8Array.of(1, 2)),
      (raw) => decodeIndexPage(raw, 3n, 4)],
    [encodeMapPage({ copyId: 3n, number: 4, sequence: 9 }, null, null),
      (raw) => decodeMapPage(raw, 3n, 4)],
  ];
  for (const [raw, decode] of pages) {
    t.not(decode(raw), null);
    for (let bit = 0; bit < raw.length * 8; bit++) {
      raw[bit >> 3] = (raw[bit >> 3] as number) ^ (1 << (bit & 7));
      if (decode(raw) !== null) t.fail(`bit ${bit}`);
      raw[bit >> 3] = (raw[bit >> 3] as number) ^ (1 << (bit & 7));
    }
  }
  const head = (magic: string, count: number): Buffer =>
    new Bytes(4096).text(0, magic).number(8, 8, 3).number(20, 4, count).seal(4).raw;
  t.equal(decodeHotSlot(head('HOT1', 1009), 3n), null, 'more extents than fit');
  t.equal(decodeIndexPage(head('IDX1', 4097), 3n, 0), null, 'more regions than fit');
  const reserved = new Bytes(4096).text(0, 'MAP1').number(8, 8, 3).number(40, 1, 1).seal(4).raw;
  t.equal(decodeMapPage(reserved, 3n, 0), null, 'a reserved byte');
  const large = new Bytes(4096).text(0, 'MAP1').number(8, 8, 3).number(24, 8, 2 ** 60).seal(4).raw;
  t.equal(decodeMapPage(large, 3n, 0), null, 'a sequence above 2^53');
});

t.test('layout on disk: areas follow one another, the largest volume fits', async (t) => {
  t.equal(alignUp(5, 4), 8);
  t.equal(alignDown(7, 4), 4);
  t.equal(extentSizeProblem(2 * MiB), null);
  for (const size of [0, 65_535, 96 * 1024, 64 * MiB, 1.5]) {
    t.type(extentSizeProblem(size), 'string');
  }
  const sizes = fc.integer({ min: 0, max: 300 }).chain((power) =>
    fc.integer({ min: 0, max: 2 ** 20 }).map((more) => Math.floor(2 ** (power / 7)) + more));
  fc.assert(fc.property(sizes, fc.constantFrom(32, 512, 16_384), (localSize, keepDirty) => {
    const media = mediaSizeMax(localSize, keepDirty);
    if (media === 0) return localSize < 4 * MiB || keepDirty === 16_384;
    const one = layoutFor(media, keepDirty);
    const ends = [
      [one.hotOffset + one.hotSlotSize * one.hotSlotCount, one.indexOffset],
      [one.indexOffset + one.indexPageCount * 8192, one.mapOffset],
      [one.mapOffset + one.regionCount * 4096, one.dataOffset],
      [one.dataOffset + media, tailOffset(localSize)],
    ] as const;
    const lost = tailOffset(localSize) - one.dataOffset - media;
    return ends.every(([end, start]) => end <= start) && media % 4096 === 0 &&
      one.dataOffset % MiB === 0 && (lost < 2 * MiB || media === limits.mediaBytesMax);
  }), { numRuns: 500 });
  t.ok(layoutFor(16 * TiB, 512).dataOffset < 3 * GiB);
});
