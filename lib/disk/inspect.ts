/** `hastctl dump`: what the metadata of a copy say, without the daemon. */
import * as fs from 'node:fs';
import { HastError } from '../base/errors.ts';
import { chooseSuperblock } from '../core/superblock-store.ts';
import { limits } from '../format/limits.ts';
import {
  DataState, decodeSuperblock, DiskRole, PeerState, SuperblockFlag, tailOffset, type Superblock,
} from '../format/superblock.ts';
import { closeLocal, openLocalReadOnly, type LocalFile } from './local.ts';

export interface CopyDescription {
  superblock: Superblock;
  /** Role that last wrote, in words. */
  previousRole: string;
  dataState: string;
  peerState: string;
  /** Names of the flags that are set. */
  flags: string[];
  /** Ids as 16 hexadecimal digits. */
  copyId: string;
  generation: string;
  history: string[];
  peerCopyId: string;
  /** Both superblock copies hold the same update. */
  copiesAgree: boolean;
  /** Shows the data read-only without the daemon, for an emergency. */
  losetup: string;
}

const hex = (id: bigint): string => id.toString(16).padStart(16, '0');

function wordOf(table: Record<string, number>, value: number): string {
  return Object.entries(table).find(([, one]) => one === value)?.[0] ?? String(value);
}

function readAt(local: LocalFile, offset: number): Buffer {
  const raw = Buffer.alloc(limits.superblockSize);
  if (offset >= 0) fs.readSync(local.fd, raw, 0, raw.length, offset);
  return raw;
}

function sequenceOf(raw: Buffer): number | null {
  try {
    return decodeSuperblock(raw).sequence;
  } catch (error) {
    if (error instanceof HastError) return null;
    throw error;
  }
}

/** Throws what opening or decoding says: HAST_E_DEVICE, HAST_E_NO_METADATA, HAST_E_CORRUPT, ... */
export function describeCopy(path: string): CopyDescription {
  const local = openLocalReadOnly(path);
  try {
    const head = readAt(local, 0);
    const headSequence = sequenceOf(head);
    const size = headSequence === null ? local.size : decodeSuperblock(head).localSize;
    const tail = readAt(local, tailOffset(size));
    const superblock = chooseSuperblock(head, tail);
    const { dataOffset, mediaSize, history, flags } = superblock;
    return {
      superblock,
      previousRole: wordOf(DiskRole, superblock.lastRole),
      dataState: wordOf(DataState, superblock.dataState),
      peerState: wordOf(PeerState, superblock.peerState),
      flags: Object.entries(SuperblockFlag).filter(([, bit]) => (flags & bit) !== 0)
        .map(([name]) => name),
      copyId: hex(superblock.copyId),
      generation: hex(superblock.generation),
      history: history.filter((id) => id !== 0n).map(hex),
      peerCopyId: hex(superblock.peerCopyId),
      copiesAgree: headSequence !== null && headSequence === sequenceOf(tail),
      losetup: 'losetup --find --show --read-only ' +
        `-o ${dataOffset} --sizelimit ${mediaSize} ${path}`,
    };
  } finally {
    closeLocal(local);
  }
}
