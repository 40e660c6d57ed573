/**
 * Replies to control requests, built in one buffer of the session: the header is written last,
 * by `finish`, because it holds the total length.
 */
import { assert } from '../base/assert.ts';
import {
  DT_DIR, DT_REG, fuseAttrOut, fuseDirent, fuseEntryOut, fuseInitOut, fuseOpenOut, fuseOutHeader,
  fuseStatfsOut, S_IFDIR, S_IFREG,
} from './abi.ts';
import type { StructValue } from '../base/layout.ts';

/** A READDIR reply of this server never needs more. */
export const REPLY_SIZE_MAX = 1024;
export const BLOCK_SIZE = 4096;

const HEADER = fuseOutHeader.size;
/**
 * Seconds the kernel may keep names and attributes. They never change here, and every direct
 * write makes it forget the attributes anyway.
 */
const CACHE_SECONDS = 3600;

export interface FileAttributes {
  ino: number;
  size: number;
  directory: boolean;
}

export interface DirectoryEntry {
  ino: number;
  name: string;
  directory: boolean;
}

/** Writes the header at `at` for a reply whose body of `bodySize` bytes follows it. */
export function encodeHeader(view: DataView, at: number, errno: number, bodySize: number): number {
  const size = HEADER + bodySize;
  view.setUint32(at + fuseOutHeader.offset.len, size, true);
  view.setInt32(at + fuseOutHeader.offset.error, -errno, true);
  return size;
}

function attributes(file: FileAttributes) {
  return {
    ino: file.ino,
    size: file.size,
    blocks: Math.ceil(file.size / 512),
    mode: file.directory ? S_IFDIR | 0o755 : S_IFREG | 0o600,
    nlink: file.directory ? 2 : 1,
    blksize: BLOCK_SIZE,
  };
}

export function encodeAttr(reply: Buffer, file: FileAttributes): number {
  fuseAttrOut.encode({ attr_valid: CACHE_SECONDS, ...attributes(file) }, reply, HEADER);
  return fuseAttrOut.size;
}

export function encodeEntry(reply: Buffer, file: FileAttributes): number {
  const head = {
    nodeid: file.ino,
    generation: 0,
    entry_valid: CACHE_SECONDS,
    attr_valid: CACHE_SECONDS,
  };
  fuseEntryOut.encode({ ...head, ...attributes(file) }, reply, HEADER);
  return fuseEntryOut.size;
}

export function encodeOpen(reply: Buffer, openFlags: number): number {
  fuseOpenOut.encode({ fh: 0n, open_flags: openFlags }, reply, HEADER);
  return fuseOpenOut.size;
}

export function encodeInit(reply: Buffer, value: StructValue<typeof fuseInitOut>): number {
  fuseInitOut.encode(value, reply, HEADER);
  return fuseInitOut.size;
}

/**
 * The volume is full and has one file. A loop device offers discard only where STATFS is
 * answered, and takes `bsize` as the granularity (Linux drivers/block/loop.c,
 * loop_config_discard).
 */
export function encodeStatfs(reply: Buffer, volumeSize: number): number {
  const value = {
    blocks: Math.floor(volumeSize / BLOCK_SIZE),
    bfree: 0,
    bavail: 0,
    files: 1,
    ffree: 0,
    bsize: BLOCK_SIZE,
    namelen: 255,
    frsize: BLOCK_SIZE,
  };
  fuseStatfsOut.encode(value, reply, HEADER);
  return fuseStatfsOut.size;
}

/** Entries from index `first` on, as many as fit `room` bytes. Names are ASCII. */
export function encodeDirectory(
  reply: Buffer,
  entries: readonly DirectoryEntry[],
  first: number,
  room: number,
): number {
  let at = 0;
  for (let index = first; index < entries.length; index++) {
    const entry = entries[index];
    if (entry === undefined) break;
    const size = Math.ceil((fuseDirent.size + entry.name.length) / 8) * 8;
    if (at + size > room) break;
    assert(HEADER + at + size <= REPLY_SIZE_MAX, 'the directory outgrew the reply');
    reply.fill(0, HEADER + at, HEADER + at + size);
    fuseDirent.encode({
      ino: entry.ino,
      // The kernel asks for what follows an entry by this number.
      off: index + 1,
      namelen: entry.name.length,
      type: entry.directory ? DT_DIR : DT_REG,
    }, reply, HEADER + at);
    reply.write(entry.name, HEADER + at + fuseDirent.size, 'latin1');
    at += size;
  }
  return at;
}
