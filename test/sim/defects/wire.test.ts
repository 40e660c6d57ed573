/**
 * Goal: what comes off the wire is a whole verified frame, or the end of the session.
 * Method: the same bytes for our reader and for a reader as the original's.
 */
import { crc32 } from '../../../lib/base/checksum.ts';
import { HastError } from '../../../lib/base/errors.ts';
import { FrameType, type Frame } from '../../../lib/format/frame.ts';
import { limits, MiB } from '../../../lib/format/limits.ts';
import {
  encodeFrame, FrameReader, headerSize, headerStruct, type WireOptions,
} from '../../../lib/format/wire.ts';
import { compared, scenario, settled, study } from './scenario.ts';

const bare: WireOptions = { checksum: 'none', compression: 'none', compressor: null };

function writeFrame(offset: number, data: Buffer, seq = 1): Frame {
  return {
    type: FrameType.write, flags: 0, seq, offset, size: data.length, arg: 0, payload: data,
    payloadOffset: 0, headroom: 0,
  };
}

function bytesOf(frame: Frame): Buffer {
  const pieces: Buffer[] = [];
  encodeFrame(frame, bare, (piece) => pieces.push(Buffer.from(piece)));
  return Buffer.concat(pieces);
}

/** Changes one field of a header and makes its checksum right again. */
function patched(raw: Buffer, field: 'size' | 'type', value: number): Buffer {
  const { offset } = headerStruct;
  if (field === 'type') raw[offset.type] = value;
  else raw.writeUInt32LE(value, offset.size);
  raw.writeUInt32LE(0, offset.headerChecksum);
  raw.writeUInt32LE(crc32(raw.subarray(0, headerSize)), offset.headerChecksum);
  return raw;
}

/** Offsets of the writes that our reader delivers, and whether it gave up. */
function ours(bytes: Buffer): { writes: number[]; error: string } {
  const writes: number[] = [];
  const reader = new FrameReader(bare, (frame) => writes.push(frame.offset));
  try {
    reader.push(bytes);
    return { writes, error: '' };
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    return { writes, error: error.code };
  }
}

/** As secondary.c recv_thread: a bad header is answered with an error, its payload not read. */
function asTheOriginal(bytes: Buffer): number[] {
  const writes: number[] = [];
  const { offset } = headerStruct;
  for (let at = 0; at + headerSize <= bytes.length;) {
    if (bytes.readUInt32LE(at) !== bytes.readUInt32LE(0)) break;
    const size = bytes.readUInt32LE(at + offset.size);
    if (bytes[at + offset.type] !== FrameType.write || size > limits.payloadBytesMax) {
      at += headerSize;
      continue;
    }
    writes.push(Number(bytes.readBigUInt64LE(at + offset.offset)));
    at += headerSize + size;
  }
  return writes;
}

/*
 * A WRITE whose header is refused gets an error reply, but its payload stays in the stream
 * (secondary.c recv_thread): the next "header" is what the application wrote. A file that holds a
 * frame then becomes a request. Ours ends the session at the first header that cannot be.
 */
study('S6-bad-write-header-desynchronises', (t) => {
  let bites = 0;
  for (const [field, value] of [['size', 4 * MiB], ['type', 200]] as const) {
    const evil = bytesOf(writeFrame(777 * 4096, Buffer.alloc(4096, 0xbd)));
    const outer = patched(bytesOf(writeFrame(0, evil)), field, value);
    const stream = Buffer.concat([bytesOf(writeFrame(4096, Buffer.alloc(4096, 1))), outer]);
    const result = ours(stream);
    t.same(result, { writes: [4096], error: 'HAST_E_PROTOCOL' });
    if (asTheOriginal(stream).includes(777 * 4096)) bites++;
  }
  return bites;
});

/*
 * The same on a running pair (secondary.c recv_thread): a write beyond the volume, a bit that
 * flips in any place. Ours ends the session: nothing of it reaches the disk, and the next session
 * mends it.
 */
scenario('S6-bad-frame-on-a-running-pair', { seeds: 6, mediaSize: 4 * MiB }, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 10);
  pair.answered(pair.a);
  pair.link?.ends[pair.a.end].send(writeFrame(pair.a.running.volume.size, Buffer.alloc(4096, 1)));
  pair.until('the session has ended', () => pair.b.events.includes('disconnect'));
  settled(pair);
  for (let round = 0; round < 8; round++) {
    const end = pair.link?.ends[pair.world.random.chance(0.7) ? pair.a.end : pair.b.end];
    if (end !== undefined) end.flipNext = true;
    const requests = pair.load(pair.a, 15);
    pair.answered(pair.a);
    t.ok(requests.every((one) => one.errno === 0));
    pair.complete();
  }
  settled(pair);
  t.notOk(pair.a.running.failed || pair.b.running.failed);
});

/*
 * The original receives with MSG_WAITALL once and takes any positive count for all of it
 * (proto_common.c proto_common_recv): a connection cut in a payload passes as full data with the
 * buffer's old tail, unless checksums are on. Ours counts bytes: a cut payload is no frame, also
 * with `checksum none`.
 */
compared('S7-cut-payload-passes-as-whole', { wire: bare, seeds: 6, mediaSize: 2 * MiB },
  (pair, t) => {
    pair.primary();
    for (let at = 0; at < 16; at++) pair.a.write(at * 65_536, Buffer.alloc(65_536, 0x20 + at));
    pair.pass(0.2 + pair.world.random.unit());
    pair.partition();
    pair.answered(pair.a);
    pair.pass(500);
    for (let at = 0; at < 16; at++) {
      const data = pair.b.data().subarray(at * 65_536, (at + 1) * 65_536);
      const first = data[0] as number;
      t.ok((first === 0 || first === 0x20 + at) && data.every((one) => one === first), `at ${at}`);
    }
    pair.heal();
    settled(pair);
    // One buffer that is used again, one recv() whose count nobody looks at.
    const buffer = Buffer.alloc(4096, 0x77);
    const sent = Buffer.alloc(4096, 0x20);
    const got = 1 + pair.world.random.int(4095);
    sent.copy(buffer, 0, 0, got);
    return got > 0 && !buffer.equals(sent) ? 1 : 0;
  });

/*
 * The original sends a keepalive only when its send queue was empty for 10 s, and nobody answers
 * it (primary.c remote_send_thread): an idle primary learns of a peer that died silently from TCP
 * alone, and a queue that never sent let the secondary time out again and again. Ours asks and
 * answers in both directions whatever else is sent.
 */
scenario('S8-keepalive-only-when-idle', { timeoutMs: 2000, seeds: 3 }, (pair, t) => {
  pair.primary();
  pair.pass(60_000);
  const lost = (): number =>
    [...pair.a.events, ...pair.b.events].filter((one) => one === 'disconnect').length;
  t.equal(lost(), 0, 'an idle pair stays connected');
  // Busy in one direction for many timeouts: what the peer sends are acknowledgements only.
  const end = pair.world.now() + 10_000;
  while (pair.world.now() < end) {
    pair.load(pair.a, 4, 4096);
    pair.answered(pair.a);
  }
  t.equal(lost(), 0, 'a busy pair stays connected');
  // Idle again, and one direction dies without a word: both must learn of it.
  for (const dead of [0, 1] as const) {
    const before = pair.world.now();
    pair.link?.stall(dead);
    pair.until('both have noticed', () =>
      pair.a.phase !== 'complete' && pair.b.phase !== 'complete', 10_000);
    t.ok(pair.world.now() - before <= 2 * 2000 + 500, `${pair.world.now() - before} ms`);
    settled(pair);
  }
});
