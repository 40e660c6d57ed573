/**
 * Bytes of a frame. docs/wire-protocol.md is the description; golden samples are in test/golden.
 *
 * Hot path: encodeFrame() and FrameReader run once per replicated write. `npm run bench`: crc32 was
 * 22 % of the processors' time in seqwrite on fullsync, 3 % in write-32.
 */
import { crc32, sha256 } from '../base/checksum.ts';
import { HastError } from '../base/errors.ts';
import { bytes, struct, u16, u32, u53, u8 } from '../base/layout.ts';
import {
  carriesData, FrameFlag, FrameType, type Frame, type FrameMemory,
} from './frame.ts';
import { limits } from './limits.ts';

export const headerSize = 64;
export const frameMagic = 0x46545348; // "HSTF"

export const headerStruct = struct('frame header', headerSize, [
  ['magic', 0, u32],
  ['type', 4, u8],
  ['flags', 5, u8],
  ['reserved6', 6, u16],
  ['headerChecksum', 8, u32],
  ['payloadChecksum', 12, u32],
  ['seq', 16, u53],
  ['offset', 24, u53],
  ['size', 32, u32],
  ['wireSize', 36, u32],
  ['arg', 40, u53],
  /** Room for an authentication tag. */
  ['reserved48', 48, bytes(16)],
]);

const at = headerStruct.offset;

/** lz4 block functions, injected by whoever builds the connection. */
export interface Compressor {
  /** null where the result would not be smaller than `input` minus an eighth. */
  compress(input: Buffer): Buffer | null;
  /** Throws where `input` is not a block of exactly `size` bytes. */
  decompress(input: Buffer, size: number): Buffer;
}

export interface WireOptions {
  checksum: 'none' | 'crc32' | 'sha256';
  compression: 'none' | 'hole' | 'lzf';
  compressor: Compressor | null;
}

const zeros = Buffer.alloc(limits.payloadBytesMax);

function isHole(data: Buffer): boolean {
  // The first and last words decide nearly always, before a call that touches the whole block.
  if (data[0] !== 0 || data[data.length - 1] !== 0) return false;
  return data.equals(data.length === zeros.length ? zeros : zeros.subarray(0, data.length));
}

function writeU53(raw: Buffer, offset: number, value: number): void {
  raw.writeUInt32LE(value % 0x1_0000_0000, offset);
  raw.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4);
}

function readU53(raw: Buffer, offset: number): number {
  return raw.readUInt32LE(offset + 4) * 0x1_0000_0000 + raw.readUInt32LE(offset);
}

function writeHeader(
  frame: Frame, flags: number, wireSize: number, checksum: number, raw: Buffer, start: number,
): void {
  raw.fill(0, start, start + headerSize);
  raw.writeUInt32LE(frameMagic, start + at.magic);
  raw[start + at.type] = frame.type;
  raw[start + at.flags] = flags;
  raw.writeUInt32LE(checksum, start + at.payloadChecksum);
  writeU53(raw, start + at.seq, frame.seq);
  writeU53(raw, start + at.offset, frame.offset);
  raw.writeUInt32LE(frame.size, start + at.size);
  raw.writeUInt32LE(wireSize, start + at.wireSize);
  writeU53(raw, start + at.arg, frame.arg);
  raw.writeUInt32LE(crc32(raw.subarray(start, start + headerSize)), start + at.headerChecksum);
}

/**
 * Hands the bytes of `frame` to `emit`, in one piece where the payload has headroom. The pieces
 * refer to the frame's payload memory.
 */
export function encodeFrame(
  frame: Frame, options: WireOptions, emit: (piece: Buffer) => void,
): void {
  let flags = frame.flags;
  let body: Buffer<ArrayBufferLike> | null = null;
  if (frame.payload !== null) {
    body = frame.payload.subarray(frame.payloadOffset, frame.payloadOffset + frame.size);
    if (carriesData(frame.type) && options.compression !== 'none') {
      if (isHole(body)) {
        flags |= FrameFlag.hole;
        body = null;
      } else if (options.compression === 'lzf' && options.compressor !== null) {
        const packed = options.compressor.compress(body);
        if (packed !== null) {
          flags |= FrameFlag.lz4;
          body = packed;
        }
      }
    }
  }
  if (body === null) {
    const header = Buffer.allocUnsafe(headerSize);
    writeHeader(frame, flags, 0, 0, header, 0);
    emit(header);
    return;
  }
  const isData = carriesData(frame.type);
  const digest = isData && options.checksum === 'sha256' ? sha256(body) : null;
  if (digest !== null) flags |= FrameFlag.sha256;
  const wireSize = body.length + (digest === null ? 0 : digest.length);
  const withCrc = !isData || options.checksum === 'crc32';
  if (withCrc) flags |= FrameFlag.crc32;
  const checksum = withCrc ? crc32(body) : 0;
  if ((flags & FrameFlag.lz4) === 0 && frame.payload !== null && frame.headroom >= headerSize) {
    const start = frame.payloadOffset - headerSize;
    writeHeader(frame, flags, wireSize, checksum, frame.payload, start);
    emit(frame.payload.subarray(start, frame.payloadOffset + frame.size));
  } else {
    const header = Buffer.allocUnsafe(headerSize);
    writeHeader(frame, flags, wireSize, checksum, header, 0);
    emit(header);
    emit(body);
  }
  if (digest !== null) emit(digest);
}

const knownTypes = new Set<number>(Object.values(FrameType));
const knownFlags = Object.values(FrameFlag).reduce((all, one) => all | one, 0);

function bodySizeMax(type: number): number {
  return carriesData(type) ? limits.payloadBytesMax : limits.bodyBytesMax;
}

/** The name of the first header field that cannot be, or null. Checksums hold already. */
function invalidHeader(frame: Frame, wireSize: number, reserved: boolean): string | null {
  if (!reserved) return 'reserved';
  if (!knownTypes.has(frame.type)) return 'type';
  if ((frame.flags & ~knownFlags) !== 0) return 'flags';
  if (!Number.isSafeInteger(frame.seq)) return 'seq';
  if (!Number.isSafeInteger(frame.offset)) return 'offset';
  if (!Number.isSafeInteger(frame.arg)) return 'arg';
  if (frame.type === FrameType.discard || frame.type === FrameType.zero) {
    if (frame.size > limits.rangeBytesMax) return 'size';
    return wireSize === 0 ? null : 'wireSize';
  }
  if (frame.type === FrameType.read) {
    if (frame.size > limits.payloadBytesMax) return 'size';
    return wireSize === 0 ? null : 'wireSize';
  }
  if (frame.size > bodySizeMax(frame.type)) return 'size';
  if ((frame.flags & FrameFlag.hole) !== 0) {
    return carriesData(frame.type) && wireSize === 0 ? null : 'wireSize';
  }
  const digest = (frame.flags & FrameFlag.sha256) === 0 ? 0 : 32;
  if ((frame.flags & FrameFlag.lz4) === 0) {
    return wireSize === frame.size + digest ? null : 'wireSize';
  }
  return carriesData(frame.type) && wireSize < frame.size + digest && wireSize > digest
    ? null
    : 'wireSize';
}

function protocolError(message: string): HastError {
  return new HastError('HAST_E_PROTOCOL', message);
}

/**
 * Chunks of bytes in, whole verified frames out. Holds no socket. Lengths are capped before
 * anything is allocated; the header is trusted only after its checksum. Throws HAST_E_PROTOCOL or
 * HAST_E_CHECKSUM; afterwards the reader must not be used again.
 *
 * A payload that lies within one chunk is passed on as a view of it, without a copy.
 */
export class FrameReader {
  readonly #onFrame: (frame: Frame) => void;
  readonly #options: WireOptions;
  readonly #header = Buffer.alloc(headerSize);
  #headerFill = 0;
  #frame: Frame | null = null;
  #wireSize = 0;
  #payloadChecksum = 0;
  #body: Buffer | null = null;
  #bodyFill = 0;

  constructor(options: WireOptions, onFrame: (frame: Frame) => void) {
    this.#options = options;
    this.#onFrame = onFrame;
  }

  push(chunk: Buffer): void {
    let from = 0;
    while (from < chunk.length) {
      from = this.#frame === null ? this.#pushHeader(chunk, from) : this.#pushBody(chunk, from);
    }
  }

  /**
   * Takes the whole frames in `memory` from `from` to `to` where they lie: their payloads are views
   * of it. Returns where the bytes begin that are still of no use; they are to come again at the
   * beginning of the next call, with more behind them. Not to be mixed with push().
   */
  pull(memory: Buffer, from: number, to: number, owner: FrameMemory): number {
    let at = from;
    for (;;) {
      if (this.#frame === null) {
        if (to - at < headerSize) return at;
        this.#openFrame(memory, at);
        at += headerSize;
      } else {
        if (to - at < this.#wireSize) return at;
        this.#closeFrame(memory, at, owner);
        at += this.#wireSize;
      }
    }
  }

  /** Bytes that pull() needs at once to go on. */
  get needs(): number {
    return this.#frame === null ? headerSize : this.#wireSize;
  }

  #pushHeader(chunk: Buffer, from: number): number {
    let header: Buffer = this.#header;
    let start = 0;
    let next: number;
    if (this.#headerFill === 0 && chunk.length - from >= headerSize) {
      header = chunk;
      start = from;
      next = from + headerSize;
    } else {
      const take = Math.min(headerSize - this.#headerFill, chunk.length - from);
      chunk.copy(this.#header, this.#headerFill, from, from + take);
      this.#headerFill += take;
      if (this.#headerFill < headerSize) return from + take;
      this.#headerFill = 0;
      next = from + take;
    }
    this.#openFrame(header, start);
    return next;
  }

  #openFrame(raw: Buffer, start: number): void {
    if (raw.readUInt32LE(start + at.magic) !== frameMagic) throw protocolError('no frame here');
    const stored = raw.readUInt32LE(start + at.headerChecksum);
    raw.writeUInt32LE(0, start + at.headerChecksum);
    if (crc32(raw.subarray(start, start + headerSize)) !== stored) {
      throw new HastError('HAST_E_CHECKSUM', 'a frame header does not match its checksum');
    }
    const wireSize = raw.readUInt32LE(start + at.wireSize);
    const frame: Frame = {
      type: (raw[start + at.type] ?? 0) as FrameType,
      flags: raw[start + at.flags] ?? 0,
      seq: readU53(raw, start + at.seq),
      offset: readU53(raw, start + at.offset),
      size: raw.readUInt32LE(start + at.size),
      arg: readU53(raw, start + at.arg),
      payload: null,
      payloadOffset: 0,
      headroom: 0,
      memory: null,
    };
    const reserved = raw.readUInt16LE(start + at.reserved6) === 0 &&
      raw.readBigUInt64LE(start + at.reserved48) === 0n &&
      raw.readBigUInt64LE(start + at.reserved48 + 8) === 0n;
    const field = invalidHeader(frame, wireSize, reserved);
    if (field !== null) throw protocolError(`a frame has an impossible ${field}`);
    this.#wireSize = wireSize;
    this.#payloadChecksum = raw.readUInt32LE(start + at.payloadChecksum);
    if (wireSize === 0) {
      if ((frame.flags & FrameFlag.hole) !== 0) frame.payload = zeros;
      this.#onFrame(frame);
    } else {
      this.#frame = frame;
    }
  }

  #pushBody(chunk: Buffer, from: number): number {
    const wireSize = this.#wireSize;
    if (this.#body === null) {
      if (chunk.length - from >= wireSize) {
        this.#closeFrame(chunk, from, null);
        return from + wireSize;
      }
      this.#body = Buffer.allocUnsafeSlow(wireSize);
      this.#bodyFill = 0;
    }
    const body = this.#body;
    const take = Math.min(wireSize - this.#bodyFill, chunk.length - from);
    chunk.copy(body, this.#bodyFill, from, from + take);
    this.#bodyFill += take;
    if (this.#bodyFill === wireSize) {
      this.#body = null;
      this.#closeFrame(body, 0, null);
    }
    return from + take;
  }

  #closeFrame(raw: Buffer, start: number, owner: FrameMemory | null): void {
    const frame = this.#frame as Frame;
    this.#frame = null;
    let end = start + this.#wireSize;
    if ((frame.flags & FrameFlag.sha256) !== 0) {
      end -= 32;
      if (!sha256(raw.subarray(start, end)).equals(raw.subarray(end, end + 32))) {
        throw new HastError('HAST_E_CHECKSUM', 'a payload does not match its SHA-256');
      }
    }
    if ((frame.flags & FrameFlag.crc32) !== 0 || !carriesData(frame.type)) {
      if (crc32(raw.subarray(start, end)) !== this.#payloadChecksum) {
        throw new HastError('HAST_E_CHECKSUM', 'a payload does not match its crc32');
      }
    }
    frame.payload = raw;
    frame.payloadOffset = start;
    if ((frame.flags & FrameFlag.lz4) !== 0) {
      if (this.#options.compressor === null) throw protocolError('lz4 was not agreed on');
      frame.payload = this.#options.compressor.decompress(raw.subarray(start, end), frame.size);
      frame.payloadOffset = 0;
    } else if (owner !== null) {
      owner.retain();
      frame.memory = owner;
    }
    this.#onFrame(frame);
  }
}
