/**
 * Goal: the formats of version 1 stay what they are: written as frozen, read for ever.
 * Method: the frozen samples under test/golden/v1 were built by hand (golden-bytes.ts); encoding
 * the values gives them, decoding them gives the values.
 */
import * as crypto from 'node:crypto';
import t from 'tap';
import {
  decodeInflight, encodeInflightHeader, inflightBytes,
} from '../../lib/format/inflight.ts';
import { FrameFlag, FrameType, plainFrame, type Frame } from '../../lib/format/frame.ts';
import {
  decodeHello, decodeLineage, encodeHello, encodeLineage,
} from '../../lib/format/hello.ts';
import {
  decodeHotSlot, decodeIndexPage, decodeMapPage, encodeHotSlot, encodeIndexPage, encodeMapPage,
} from '../../lib/format/map-pages.ts';
import { decodePreface, encodePreface } from '../../lib/format/preface.ts';
import { decodeSuperblock, encodeSuperblock } from '../../lib/format/superblock.ts';
import {
  decodeUndoHeader, decodeUndoRecord, decodeUndoTrailer, encodeUndoHeader, encodeUndoRecord,
  encodeUndoTrailer, undoHeaderChecksum,
} from '../../lib/format/undo.ts';
import { encodeFrame, FrameReader, type WireOptions } from '../../lib/format/wire.ts';
import { Bytes, frozen, slowCrc32 } from './golden-bytes.ts';
import {
  handSuperblock, handUndoFile, superblockValue, undoInfo, undoRanges,
} from './samples.ts';

const copyId = 0x1122334455667788n;

/** The three things that must agree for ever. */
function check(t: { same: (one: unknown, two: unknown, what: string) => unknown }, name: string,
  hand: Buffer, encoded: Buffer): Buffer {
  const raw = frozen(name, hand);
  t.same(raw.toString('hex'), hand.toString('hex'), `${name}: frozen as built by hand`);
  t.same(encoded.toString('hex'), raw.toString('hex'), `${name}: encodes to the frozen bytes`);
  return raw;
}

t.test('golden: superblock', async (t) => {
  const raw = check(t, 'superblock', handSuperblock(), encodeSuperblock(superblockValue));
  const { checksum, magic, ...decoded } = decodeSuperblock(raw);
  t.equal(checksum, slowCrc32(new Bytes(4096).put(0, raw).number(24, 4, 0).raw));
  t.equal(Buffer.from(magic).toString('latin1'), 'HASTLNX1');
  const { checksum: _one, magic: _two, ...expected } = superblockValue;
  t.same(decoded, expected);
});

t.test('golden: hot list, index page, map page', async (t) => {
  const hotHand = new Bytes(4096).text(0, 'HOT1').number(8, 8, copyId).number(16, 4, 0)
    .number(20, 4, 3).number(24, 8, 77).numbers(64, 4, [0, 5, 0xfffffffe]).seal(4).raw;
  const extents = [0, 5, 0xfffffffe];
  const hot = check(t, 'hot-slot', hotHand,
    encodeHotSlot(4096, { copyId, number: 0, sequence: 77 }, extents));
  t.same(decodeHotSlot(hot, copyId), { sequence: 77, extents });
  t.equal(decodeHotSlot(hot, copyId + 1n), null);

  const states = Uint8Array.of(1, 2, 3, 0, 4, 0, 5);
  const indexHand = new Bytes(4096).text(0, 'IDX1').number(8, 8, copyId).number(16, 4, 9)
    .number(20, 4, 7).number(24, 8, 2 ** 40 + 1).put(64, Uint8Array.of(0x21, 0x03, 0x04, 0x05))
    .seal(4).raw;
  const index = check(t, 'index-page', indexHand,
    encodeIndexPage({ copyId, number: 9, sequence: 2 ** 40 + 1 }, states));
  t.same(decodeIndexPage(index, copyId, 9), { sequence: 2 ** 40 + 1, states });
  t.equal(decodeIndexPage(index, copyId, 8), null);

  const peer = new Uint8Array(1024);
  peer.set([0x80, 0x01], 0);
  peer[1023] = 0xff;
  const local = new Uint8Array(1024);
  local[5] = 0x10;
  const mapHand = new Bytes(4096).text(0, 'MAP1').number(8, 8, copyId).number(16, 4, 12)
    .number(24, 8, 5).put(64, peer).put(64 + 1024, local).seal(4).raw;
  const map = check(t, 'map-page', mapHand,
    encodeMapPage({ copyId, number: 12, sequence: 5 }, peer, local));
  t.same(decodeMapPage(map, copyId, 12), { sequence: 5, peerStale: peer, localStale: local });
  t.equal(decodeMapPage(map, copyId, 13), null);
});

t.test('golden: preface, hello, lineage', async (t) => {
  const prefaceHand = new Bytes(256).text(0, 'HASTLNXP').number(12, 2, 1).number(14, 2, 1)
    .number(16, 1, 1).text(32, 'shared').text(160, 'h1').seal(8).raw;
  const preface = check(t, 'preface', prefaceHand, encodePreface('shared', 'h1', 1));
  t.same(decodePreface(preface), {
    resource: 'shared', node: 'h1', role: 1, security: 0, versionMin: 1, versionMax: 1,
  });

  const history = [0xaan, 0xbbn, ...new Array<bigint>(14).fill(0n)];
  const value = {
    versionMin: 1, versionMax: 1, features: 0, copyId, mediaSize: 2 ** 34 + 4096, sectorSize: 512,
    extentSize: 2 ** 21, role: 1, dataState: 2, replication: 3, flags: 5,
    generation: 0xffeeddccbbaa9988n, history, peerCopyId: 7n, peerGeneration: 8n,
    peerSessionNumber: 9, sessionNumber: 2 ** 33, instance: 11n, marked: 1, windowFrames: 2048,
    windowBytes: 2 ** 26, resource: 'shared', node: 'h1', timeout: 20,
    attachment: 0, authority: 0n, resolve: 0, resolveLocal: 0n, resolvePeer: 0n,
  };
  const helloHand = new Bytes(640).number(0, 2, 1).number(2, 2, 1).number(8, 8, copyId)
    .number(16, 8, 2 ** 34 + 4096).number(24, 4, 512).number(28, 4, 2 ** 21).number(32, 1, 1)
    .number(33, 1, 2).number(34, 1, 3).number(36, 4, 5).number(40, 8, 0xffeeddccbbaa9988n)
    .numbers(48, 8, history).number(176, 8, 7).number(184, 8, 8).number(192, 8, 9)
    .number(200, 8, 2 ** 33).number(208, 8, 11).number(216, 4, 1).number(220, 4, 2048)
    .number(224, 8, 2 ** 26).text(232, 'shared').text(360, 'h1').number(432, 4, 20).raw;
  t.same(decodeHello(check(t, 'hello', helloHand, encodeHello(value))), value);

  const remote = {
    ...value, features: 1, attachment: 1, authority: 0x8877665544332211n, resolve: 3,
    resolveLocal: value.generation, resolvePeer: 0x0807060504030201n,
  };
  const remoteHand = new Bytes(640).put(0, helloHand).number(4, 4, 1).number(35, 1, 1)
    .number(436, 8, 0x8877665544332211n).number(444, 4, 3).number(448, 8, value.generation)
    .number(456, 8, 0x0807060504030201n).raw;
  t.same(decodeHello(check(t, 'hello-remote', remoteHand, encodeHello(remote))), remote);

  const lineage = { generation: 0x0102030405060708n, history };
  const lineageHand = new Bytes(136).number(0, 8, lineage.generation).numbers(8, 8, history).raw;
  t.same(decodeLineage(check(t, 'lineage', lineageHand, encodeLineage(lineage))), lineage);
});

t.test('golden: undo file', async (t) => {
  const header = encodeUndoHeader(undoInfo);
  const records = undoRanges.map(({ offset, data }, number) => ({
    offset, number, length: data.length, dataChecksum: slowCrc32(data),
  }));
  const heads = records.map(encodeUndoRecord);
  const trailer = {
    count: 2, bytes: 612, headerChecksum: undoHeaderChecksum(header),
    recordsChecksum: slowCrc32(Buffer.concat(heads)),
  };
  const [one, two] = undoRanges.map(({ data }) => data) as [Buffer, Buffer];
  const raw = check(t, 'undo', handUndoFile(), Buffer.concat([
    header, heads[0] as Buffer, one, heads[1] as Buffer, two, encodeUndoTrailer(trailer),
  ]));
  t.same(decodeUndoHeader(raw.subarray(0, 512)), undoInfo);
  t.same(decodeUndoRecord(raw.subarray(512, 544), undoInfo.mediaSize), records[0]);
  t.same(decodeUndoRecord(raw.subarray(1056, 1088), undoInfo.mediaSize), records[1]);
  t.same(decodeUndoTrailer(raw.subarray(-64)), trailer);
});

t.test('golden: in-flight table', async (t) => {
  const boot = Uint8Array.from({ length: 16 }, (_, index) => 0xa0 + index);
  const header = {
    valid: 1, boot, copyId, generation: 0x21n, nextGeneration: 0x22n,
    peerCopyId: 0x8877665544332211n, instance: 0x31n, mediaSize: 2 ** 41,
  };
  const hand = new Bytes(inflightBytes).text(0, 'HASTINFL').number(8, 4, 1).number(12, 4, 8192)
    .number(16, 4, 1).put(24, boot).number(40, 8, copyId).number(48, 8, 0x21)
    .number(56, 8, 0x22).number(64, 8, header.peerCopyId).number(72, 8, 0x31)
    .number(80, 8, 2 ** 41).number(144, 8, 2 ** 40 + 4096).number(152, 4, 8192).raw;
  const encoded = Buffer.from(hand);
  encoded.fill(0, 0, 128);
  encodeInflightHeader(header, encoded);
  const raw = check(t, 'inflight', hand, encoded);
  t.match(decodeInflight(raw), {
    header: { ...header, boot: Buffer.from(boot) },
    ranges: [{ slot: 1, offset: 2 ** 40 + 4096, length: 8192 }],
  });
  raw[8] = 2;
  t.equal(decodeInflight(raw), null, 'of another version');
});

interface Header {
  type: number;
  flags?: number;
  payloadChecksum?: number;
  seq?: number;
  offset?: number;
  size?: number;
  wireSize?: number;
  arg?: number;
}

function handHeader(header: Header): Buffer {
  return new Bytes(64).text(0, 'HSTF').number(4, 1, header.type).number(5, 1, header.flags ?? 0)
    .number(12, 4, header.payloadChecksum ?? 0).number(16, 8, header.seq ?? 0)
    .number(24, 8, header.offset ?? 0).number(32, 4, header.size ?? 0)
    .number(36, 4, header.wireSize ?? 0).number(40, 8, header.arg ?? 0).seal(8).raw;
}

interface Sample {
  name: string;
  options: WireOptions;
  frame: Frame;
  hand: Buffer;
  /** Flags and payload as they arrive. */
  flags: number;
  payload: Buffer | null;
}

const plain: WireOptions = { checksum: 'crc32', compression: 'none', compressor: null };
const data = Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 7 + (at >> 8)) & 0xff));
const at = { seq: 0x1_0000_0001, offset: 0x12_3456_7000, size: 4096 };
const write: Frame = {
  ...at, type: FrameType.write, flags: FrameFlag.wantRecvAck, arg: 0, payload: data,
  payloadOffset: 0, headroom: 0,
};

function writeSample(
  name: string, options: WireOptions, flags: number, payloadChecksum: number, tail: Buffer,
): Sample {
  const header = handHeader({
    ...at, type: 16, flags, payloadChecksum, wireSize: 4096 + tail.length,
  });
  const hand = Buffer.concat([header, data, tail]);
  return { name, options, frame: write, hand, flags, payload: data };
}

function plainSample(name: string, type: number, change: Partial<Frame> = {}): Sample {
  const frame = { ...plainFrame(type as Frame['type']), ...change };
  const { flags, seq, offset, size, arg } = frame;
  const hand = handHeader({ type, flags, seq, offset, size, arg });
  return { name, options: plain, frame, hand, flags, payload: null };
}

function bodySample(name: string, type: number, arg: number, offset: number): Sample {
  const body = Buffer.from(`body of ${name}`);
  const frame = {
    ...plainFrame(type as Frame['type'], 0, arg), offset, size: body.length, payload: body,
  };
  const header = handHeader({
    type, flags: 64, arg, offset, size: body.length, wireSize: body.length,
    payloadChecksum: slowCrc32(body),
  });
  return { name, options: plain, frame, hand: Buffer.concat([header, body]), flags: 64,
    payload: body };
}

/** The answer to a read: its number, and no place of its own. */
function readDataSample(name: string, compression: 'none' | 'hole', payload: Buffer): Sample {
  const frame: Frame = {
    ...plainFrame(FrameType.readData, at.seq), size: payload.length, payload,
  };
  const head = { type: 36, seq: at.seq, size: payload.length };
  const hand = compression === 'hole'
    ? handHeader({ ...head, flags: 4 })
    : Buffer.concat([handHeader({
      ...head, flags: 64, wireSize: payload.length, payloadChecksum: slowCrc32(payload),
    }), payload]);
  const flags = compression === 'hole' ? 4 : 64;
  return { name, options: { ...plain, compression }, frame, hand, flags, payload };
}

const digest = crypto.createHash('sha256').update(data).digest();
const samples: Sample[] = [
  writeSample('write-crc32', plain, 16 | 64, slowCrc32(data), Buffer.alloc(0)),
  writeSample('write-sha256', { ...plain, checksum: 'sha256' }, 16 | 1, 0, digest),
  writeSample('write-none', { ...plain, checksum: 'none' }, 16, 0, Buffer.alloc(0)),
  {
    name: 'write-hole', options: { ...plain, compression: 'hole' },
    frame: { ...write, payload: Buffer.alloc(4096) }, flags: 16 | 4, payload: Buffer.alloc(4096),
    hand: handHeader({ ...at, type: 16, flags: 16 | 4 }),
  },
  plainSample('flush', 17, { seq: 9 }),
  plainSample('flush-barrier', 17, { seq: 9, flags: 32 }),
  plainSample('discard', 18, { seq: 10, offset: 4096, size: 2 ** 30 }),
  plainSample('zero', 19, { seq: 11, offset: 2 ** 40, size: 512, flags: 8 }),
  plainSample('read', 20, { ...at }),
  readDataSample('read-data', 'none', data),
  readDataSample('read-data-hole', 'hole', Buffer.alloc(4096)),
  plainSample('read-error', 37, { seq: at.seq, arg: 5 }),
  bodySample('detach', 14, 1, 0), plainSample('detach-ack', 15),
  plainSample('pull-done', 24), plainSample('pull-done-ack', 25), plainSample('resolve', 26),
  plainSample('number', 27), plainSample('number-ack', 28, { arg: 2 ** 33 + 1 }),
  bodySample('sync-start-lineage', 5, 0, 0),
  plainSample('recv-ack', 32, { seq: 2 ** 53 - 1 }),
  plainSample('write-ack', 33, { seq: 3, arg: 7 }),
  plainSample('flush-ack', 34, { seq: 8 }),
  plainSample('nack', 35, { seq: 8, arg: 5 }),
  plainSample('switchover', 50, { offset: 2 ** 47 - 1, arg: 2 }),
  bodySample('switchover-done', 51, 77, 2 ** 47 - 1),
  plainSample('facts', 52, { offset: 2 ** 47 - 1 }),
  bodySample('facts-done', 53, 0, 2 ** 47 - 1),
  plainSample('keepalive', 48), plainSample('keepalive-reply', 49),
  plainSample('map-end', 4), plainSample('sync-start', 5), plainSample('sync-ready', 6),
  plainSample('sync-done-ack', 8), plainSample('generation-ack', 10),
  plainSample('role', 11, { arg: 1 }),
  bodySample('hello-frame', 1, 0, 0), bodySample('verdict', 2, 4, 0), bodySample('map', 3, 0, 77),
  bodySample('sync-done', 7, 0, 0), bodySample('generation', 9, 0, 0), bodySample('bye', 12, 0, 0),
];

function encoded(frame: Frame, options: WireOptions): Buffer {
  const pieces: Buffer[] = [];
  encodeFrame(frame, options, (piece) => pieces.push(Buffer.from(piece)));
  return Buffer.concat(pieces);
}

t.test('golden: every kind of frame', async (t) => {
  const kinds = new Set<number>(samples.map((sample) => sample.frame.type));
  const missing = Object.entries(FrameType).filter(([, type]) => !kinds.has(type));
  t.same(missing, [], 'every type has a sample');
  t.equal(kinds.size, Object.keys(FrameType).length, 'and no other');
  for (const { name, options, frame, hand, flags, payload } of samples) {
    const raw = check(t, `frame-${name}`, hand, encoded(frame, options));
    if (frame.payload !== null) {
      // The same bytes where the header goes into the memory before the payload.
      const memory = Buffer.alloc(80 + frame.size);
      frame.payload.copy(memory, 80);
      const roomy = { ...frame, payload: memory, payloadOffset: 80, headroom: 80 };
      t.ok(encoded(roomy, options).equals(raw), `${name}: with headroom`);
    }
    const got: Frame[] = [];
    new FrameReader(options, (one) => got.push(one)).push(Buffer.from(raw));
    t.equal(got.length, 1);
    const one = got[0] as Frame;
    const { type, seq, offset, size, arg } = frame;
    t.match(one, { type, seq, offset, size, arg, flags }, name);
    const end = one.payloadOffset + one.size;
    t.same(one.payload?.subarray(one.payloadOffset, end) ?? null, payload, `${name}: payload`);
  }
});
