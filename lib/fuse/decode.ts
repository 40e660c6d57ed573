/**
 * Requests of the kernel, read in place: `view` covers the memory, the request starts at `at`
 * and is `length` bytes long. Nothing here allocates except `requestName`.
 *
 * 64-bit offsets and lengths become numbers. Above 2^53 they lose low bits, which is harmless:
 * they are far outside any volume, and only compared with its size.
 */
import {
  fuseFallocateIn, fuseFsyncIn, fuseInHeader, fuseInitIn, fuseReadIn, fuseSetattrIn, fuseWriteIn,
  Opcode,
} from './abi.ts';

const HEADER = fuseInHeader.size;
const header = fuseInHeader.offset;

/** Bytes that must follow the header; an opcode that is not listed needs none. */
const bodySizeMin: Partial<Record<number, number>> = {
  [Opcode.INIT]: fuseInitIn.size,
  [Opcode.READ]: fuseReadIn.size,
  [Opcode.READDIR]: fuseReadIn.size,
  [Opcode.WRITE]: fuseWriteIn.size,
  [Opcode.FSYNC]: fuseFsyncIn.size,
  [Opcode.FALLOCATE]: fuseFallocateIn.size,
  [Opcode.SETATTR]: fuseSetattrIn.size,
  [Opcode.LOOKUP]: 2,
};

/**
 * Why the bytes are not a request that may be decoded, or null. Only a request with a sound
 * header can be answered at all; `isAnswerable` tells.
 */
export function invalidRequest(view: DataView, at: number, length: number): string | null {
  if (!isAnswerable(view, at, length)) return 'len';
  const opcode = requestOpcode(view, at);
  const body = length - HEADER;
  if (body < (bodySizeMin[opcode] ?? 0)) return 'body';
  if (opcode === Opcode.WRITE && body !== fuseWriteIn.size + transferSize(view, at)) return 'size';
  return null;
}

/** The header is whole, so `unique` can be echoed. */
export function isAnswerable(view: DataView, at: number, length: number): boolean {
  return length >= HEADER && view.getUint32(at + header.len, true) === length;
}

export function requestOpcode(view: DataView, at: number): number {
  return view.getUint32(at + header.opcode, true);
}

/** The node id where it is one of ours, else 0. */
export function requestNode(view: DataView, at: number): number {
  if (view.getUint32(at + header.nodeid + 4, true) !== 0) return 0;
  return view.getUint32(at + header.nodeid, true);
}

/** Copies the opaque 8 bytes of `unique`; they are never turned into a number. */
export function copyUnique(view: DataView, at: number, target: DataView, to: number): void {
  target.setUint32(to, view.getUint32(at + header.unique, true), true);
  target.setUint32(to + 4, view.getUint32(at + header.unique + 4, true), true);
}

function long(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
}

/** READ, WRITE and READDIR. */
export function transferOffset(view: DataView, at: number): number {
  return long(view, at + HEADER + fuseReadIn.offset.offset);
}

export function transferSize(view: DataView, at: number): number {
  return view.getUint32(at + HEADER + fuseReadIn.offset.size, true);
}

export function fallocateOffset(view: DataView, at: number): number {
  return long(view, at + HEADER + fuseFallocateIn.offset.offset);
}

export function fallocateLength(view: DataView, at: number): number {
  return long(view, at + HEADER + fuseFallocateIn.offset.length);
}

export function fallocateMode(view: DataView, at: number): number {
  return view.getUint32(at + HEADER + fuseFallocateIn.offset.mode, true);
}

export function setattrValid(view: DataView, at: number): number {
  return view.getUint32(at + HEADER + fuseSetattrIn.offset.valid, true);
}

export function setattrSize(view: DataView, at: number): number {
  return long(view, at + HEADER + fuseSetattrIn.offset.size);
}

/** The file name of LOOKUP, or '' where it has none that could be ours. */
export function requestName(view: DataView, at: number, length: number): string {
  const raw = Buffer.from(view.buffer, view.byteOffset + at + HEADER, length - HEADER);
  const end = raw.indexOf(0);
  return end < 0 ? '' : raw.toString('latin1', 0, end);
}

export interface InitRequest {
  major: number;
  minor: number;
  maxReadahead: number;
  flags: number;
  /** 0 from kernels that do not send them. */
  flags2: number;
}

export function initRequest(view: DataView, at: number, length: number): InitRequest {
  const body = at + HEADER;
  const extended = length >= HEADER + fuseInitIn.size + 4;
  return {
    major: view.getUint32(body + fuseInitIn.offset.major, true),
    minor: view.getUint32(body + fuseInitIn.offset.minor, true),
    maxReadahead: view.getUint32(body + fuseInitIn.offset.max_readahead, true),
    flags: view.getUint32(body + fuseInitIn.offset.flags, true),
    flags2: extended ? view.getUint32(body + fuseInitIn.size, true) : 0,
  };
}
