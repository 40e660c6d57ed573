/** Bytes off the wire: frames, the preface, bodies of the handshake. */
import { crc32, sha256 } from '../../lib/base/checksum.ts';
import {
  carriesData, FrameFlag, FrameType, plainFrame, type Frame, type FrameMemory,
} from '../../lib/format/frame.ts';
import {
  decodeHello, decodeLineage, encodeHello, encodeLineage, helloStruct, lineageStruct, type Hello,
} from '../../lib/format/hello.ts';
import { limits } from '../../lib/format/limits.ts';
import { decodePreface, encodePreface, prefaceSize } from '../../lib/format/preface.ts';
import { ownProtocol } from '../../lib/format/protocol.ts';
import { decodeSwitchover, encodeSwitchover } from '../../lib/format/switchover.ts';
import {
  encodeFrame, FrameReader, headerSize, headerStruct, type WireOptions,
} from '../../lib/format/wire.ts';
import { lz4Compressor } from '../../lib/net/lz4.ts';
import { check, taken, type FuzzTarget } from './property.ts';
import { edge, mangle, spoilFields, type Random } from './random.ts';

const types = Object.values(FrameType);
const headerOffsets = Object.values(headerStruct.offset);
const checksums = ['none', 'crc32', 'sha256'] as const;
const compressions = ['none', 'hole', 'lzf'] as const;
const text = Buffer.from('all work and no play makes the payload compressible. '.repeat(80));
const badFrame = ['HAST_E_PROTOCOL', 'HAST_E_CHECKSUM'] as const;

function anyOptions(random: Random): WireOptions {
  return {
    checksum: random.pick(checksums), compression: random.pick(compressions),
    compressor: random.chance(0.9) ? lz4Compressor : null,
  };
}

function anyFrame(random: Random): Frame {
  const type = random.pick(types);
  const frame = plainFrame(type, random.int(5000), random.int(5000));
  frame.offset = random.int(1 << 20) * 512;
  if (type === FrameType.discard || type === FrameType.zero || type === FrameType.read) {
    frame.size = random.int(limits.payloadBytesMax);
  } else if (carriesData(type) || random.chance(0.5)) {
    frame.size = 1 + random.int(random.chance(0.1) ? 4000 : 200);
    const isText = random.chance(0.3);
    frame.payload = isText ? text
      : random.chance(0.2) ? Buffer.alloc(frame.size) : random.bytes(frame.size);
  }
  return frame;
}

function bytesOf(frame: Frame, options: WireOptions): Buffer {
  const pieces: Buffer[] = [];
  encodeFrame(frame, options, (piece) => pieces.push(piece));
  return Buffer.concat(pieces);
}

/** As a liar would: what is in the header is a good checksum of it, and of what follows. */
function sealFrame(random: Random, raw: Buffer): void {
  const at = headerStruct.offset;
  if (random.chance(0.5)) raw.writeUInt32LE(raw.length - headerSize, at.wireSize);
  const flags = raw[at.flags] as number;
  if ((flags & FrameFlag.sha256) !== 0 && raw.length >= headerSize + 32) {
    sha256(raw.subarray(headerSize, raw.length - 32)).copy(raw, raw.length - 32);
  }
  const end = raw.length - ((flags & FrameFlag.sha256) === 0 ? 0 : 32);
  if (end > headerSize) {
    raw.writeUInt32LE(crc32(raw.subarray(headerSize, end)), at.payloadChecksum);
  }
  raw.writeUInt32LE(0, at.headerChecksum);
  raw.writeUInt32LE(crc32(raw.subarray(0, headerSize)), at.headerChecksum);
}

function hostileFrame(random: Random, options: WireOptions): Buffer {
  let raw = bytesOf(anyFrame(random), options);
  if (random.chance(0.2)) raw = mangle(random, raw, bytesOf(anyFrame(random), options));
  if (raw.length < headerSize || random.chance(0.1)) return raw;
  if (random.chance(0.9)) spoilFields(random, raw, headerOffsets);
  if (random.chance(0.95)) {
    raw.writeUInt32LE(0x46545348, 0);
    sealFrame(random, raw);
  }
  return raw;
}

function asText(frame: Frame): string {
  const { payload, payloadOffset, size, type, flags, seq, offset, arg } = frame;
  const end = payloadOffset + size;
  const body = payload === null ? '-' : crc32(payload.subarray(payloadOffset, end));
  return `${type} ${flags} ${seq} ${offset} ${size} ${arg} ${body}`;
}

/** In pieces, as a socket gives them. */
function pushed(random: Random, options: WireOptions, raw: Buffer): string[] {
  const frames: string[] = [];
  const reader = new FrameReader(options, (frame) => frames.push(asText(frame)));
  taken(badFrame, raw, () => {
    for (let from = 0; from < raw.length;) {
      const to = random.chance(0.4) ? raw.length : from + 1 + random.int(100);
      reader.push(Buffer.from(raw.subarray(from, to)));
      from = to;
    }
  });
  return frames;
}

const memory: FrameMemory = { retain: () => undefined, release: () => undefined };

/** Where they lie, as the ring does. */
function pulled(options: WireOptions, raw: Buffer): string[] {
  const frames: string[] = [];
  const reader = new FrameReader(options, (frame) => frames.push(asText(frame)));
  taken(badFrame, raw, () => reader.pull(Buffer.from(raw), 0, raw.length, memory));
  return frames;
}

function runFrames(random: Random): void {
  const options = anyOptions(random);
  const good = random.chance(0.1);
  const count = 1 + random.int(3);
  const sent = Array.from({ length: count }, () => {
    if (!good) return hostileFrame(random, options);
    const frame = anyFrame(random);
    return bytesOf(frame, { ...options, compressor: lz4Compressor });
  });
  const raw = Buffer.concat(sent);
  const reads = good ? { ...options, compressor: lz4Compressor } : options;
  const one = pushed(random, reads, raw);
  check(one.join() === pulled(reads, raw).join(), 'push() and pull() differ', raw);
  check(!good || one.length === count, 'a good frame is not taken', raw);
}

const prefaceOffsets = [0, 8, 12, 14, 16, 17, 20, 32, 33, 64, 158, 159, 160, 200, 231, 232, 255];

function runPreface(random: Random): void {
  const name = random.chance(0.5) ? 'shared' : 'a'.repeat(random.int(127));
  const good = encodePreface(name, 'h2', random.int(2));
  let raw: Buffer = Buffer.from(good);
  if (random.chance(0.2)) raw = mangle(random, raw, good);
  else if (random.chance(0.95)) spoilFields(random, raw, prefaceOffsets);
  if (raw.length === prefaceSize && random.chance(0.95)) {
    raw.writeUInt32LE(0, 8);
    raw.writeUInt32LE(crc32(raw), 8);
  }
  const found = taken(['HAST_E_PROTOCOL'], raw, () => decodePreface(raw));
  if (found === null || found.value.versionMax !== 1 || found.value.versionMin !== 1) return;
  const { resource, node, role, security } = found.value;
  const again = encodePreface(resource, node, role, ownProtocol, security);
  check(again.equals(raw), 'encode(decode(x)) is not x', raw);
}

/** A hello that is taken as it is. */
export const goodHello: Hello = {
  versionMin: 1, versionMax: 1, features: 7, copyId: 0x1122n, mediaSize: 2 ** 21,
  sectorSize: 512, extentSize: 65_536, role: 0, dataState: 1, replication: 0, attachment: 0,
  flags: 0, generation: 5n, history: new Array<bigint>(limits.historyCount).fill(0n),
  peerCopyId: 0n, peerGeneration: 0n, peerSessionNumber: 0, sessionNumber: 1, instance: 77n,
  marked: 0, windowFrames: 2048, windowBytes: limits.windowBytes, resource: 'shared', node: 'h2',
  timeout: 5, authority: 0n, resolve: 0, resolveLocal: 0n, resolvePeer: 0n,
};
const helloOffsets = Object.values(helloStruct.offset);
const encodedHello = encodeHello(goodHello);

function runHello(random: Random): void {
  let raw: Buffer = Buffer.from(encodedHello);
  if (random.chance(0.2)) raw = mangle(random, raw, encodedHello);
  else if (random.chance(0.97)) spoilFields(random, raw, helloOffsets);
  const found = taken(['HAST_E_PROTOCOL'], raw, () => decodeHello(raw));
  if (found === null || found.value.versionMax > 1) return;
  check(encodeHello(found.value).equals(raw), 'encode(decode(x)) is not x', raw);
}

function runLineage(random: Random): void {
  const raw = random.bytes(random.chance(0.8) ? lineageStruct.size : random.int(300));
  const found = taken(['HAST_E_PROTOCOL'], raw, () => decodeLineage(raw));
  if (found === null) return;
  check(encodeLineage(found.value).equals(raw), 'encode(decode(x)) is not x', raw);
}

function runSwitchover(random: Random): void {
  const body = random.chance(0.5) ? random.bytes(random.int(300)) : null;
  const frame: Frame = {
    ...plainFrame(random.chance(0.5) ? FrameType.switchover : FrameType.switchoverDone),
    arg: edge(random), offset: edge(random), payload: body, size: body?.length ?? 0,
  };
  const raw = body ?? Buffer.alloc(0);
  const found = taken(['HAST_E_PROTOCOL'], raw, () => decodeSwitchover(frame));
  if (found === null) return;
  const { value } = found;
  // A character that is replaced may be longer than what it stands for: it is cut at its end then.
  if (value.kind === 'answer') check(!value.text.includes('\x1b'), 'an escape', raw);
  const again = decodeSwitchover(encodeSwitchover(value));
  check(JSON.stringify(again) === JSON.stringify(value), 'decode(encode(x)) is not x', raw);
}

export const wireTargets: readonly FuzzTarget[] = [
  { name: 'frames', run: runFrames },
  { name: 'preface', run: runPreface },
  { name: 'hello', run: runHello },
  { name: 'lineage', run: runLineage },
  { name: 'switchover', run: runSwitchover },
];
