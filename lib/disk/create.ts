/**
 * `hastctl create`: metadata for a new copy. Refuses what would destroy something unasked, and
 * writes the first superblock last, so that a create that was cut short leaves no copy.
 */
import * as fs from 'node:fs';
import { randomBytes } from 'node:crypto';
import { fallocate } from '../base/libc.ts';
import { errorText, HastError } from '../base/errors.ts';
import { encodeHotSlot, encodeIndexPage } from '../format/map-pages.ts';
import { alignDown, limits, MiB } from '../format/limits.ts';
import {
  DataState, DiskRole, encodeSuperblock, extentSizeProblem, hasSuperblockMagic, layoutFor,
  mediaSizeMax, PeerState, SuperblockFlag, superblockMagic, superblockVersion, tailOffset,
  type Superblock,
} from '../format/superblock.ts';
import { probe } from '../programs/blkid.ts';
import { closeLocal, openLocal, type LocalFile } from './local.ts';

export interface CreateOptions {
  resource: string;
  /** Path of the local component. */
  local: string;
  /** Bytes; default 2 MiB. */
  extentSize?: number | undefined;
  /** Default 512. */
  keepDirty?: number | undefined;
  /** Bytes of the volume; default: as much as fits. */
  mediaSize?: number | undefined;
  /** Replace existing metadata or foreign data. */
  force?: boolean | undefined;
  /** The operator states that both copies hold the same bytes already. */
  assumeClean?: boolean | undefined;
}

export interface CreateResult {
  mediaSize: number;
  extentSize: number;
  keepDirty: number;
  dataOffset: number;
  /** The data read as zeros: the first connection of two such copies copies nothing. */
  zeroed: boolean;
}

function randomId(): bigint {
  for (;;) {
    const id = randomBytes(8).readBigUInt64LE();
    if (id !== 0n) return id;
  }
}

function usage(message: string, hint: string): HastError {
  return new HastError('HAST_E_USAGE', message, { hint });
}

/** Checks sizes against the limits and the disk. */
function plan(options: CreateOptions, localSize: number): Superblock {
  const extentSize = options.extentSize ?? limits.extentBytesDefault;
  const problem = extentSizeProblem(extentSize);
  if (problem !== null) throw usage(`extent size ${extentSize} ${problem}`, 'for example -e 2M');
  const keepDirty = options.keepDirty ?? limits.keepDirtyDefault;
  const { keepDirtyMin, keepDirtyMax } = limits;
  if (!Number.isSafeInteger(keepDirty) || keepDirty < keepDirtyMin || keepDirty > keepDirtyMax) {
    throw usage(`keepdirty ${keepDirty} is not between ${keepDirtyMin} and ${keepDirtyMax}`,
      'for example -k 512');
  }
  const max = mediaSizeMax(localSize, keepDirty);
  if (max === 0) {
    const { dataOffset } = layoutFor(limits.mediaBytesMin, keepDirty);
    const least = limits.mediaBytesMin + dataOffset + MiB;
    throw new HastError('HAST_E_TOO_SMALL',
      `${options.local} has ${localSize} bytes, too few for metadata and data`,
      { hint: `give it ${Math.ceil(least / MiB)} MiB or more` });
  }
  const mediaSize = options.mediaSize ?? max;
  if (!Number.isSafeInteger(mediaSize) || mediaSize % limits.blockSize !== 0) {
    throw usage(`media size ${mediaSize} is not a multiple of ${limits.blockSize}`,
      `for example -m ${alignDown(Math.min(mediaSize, max), limits.blockSize)}`);
  }
  if (mediaSize < limits.mediaBytesMin || mediaSize > max) {
    throw new HastError('HAST_E_TOO_SMALL', `a volume of ${mediaSize} bytes does not fit ` +
      `${options.local}: between ${limits.mediaBytesMin} and ${max} bytes do`,
    { hint: 'choose a smaller -m, the same on both nodes' });
  }
  return {
    magic: superblockMagic, version: superblockVersion, compat: 0, roCompat: 0, incompat: 0,
    checksum: 0, flags: options.assumeClean === true ? SuperblockFlag.assumeClean : 0,
    sequence: 1, copyId: randomId(), localSize, mediaSize,
    sectorSize: 512, blockSize: limits.blockSize, extentSize, keepDirty,
    regionSize: limits.regionSize, ...layoutFor(mediaSize, keepDirty),
    dataState: DataState.consistent, lastRole: DiskRole.init, peerState: PeerState.unknown,
    createdAt: Math.floor(Date.now() / 1000), contactAt: 0, generation: 0n,
    history: new Array<bigint>(limits.historyCount).fill(0n), peerCopyId: 0n,
    peerGeneration: 0n, sessionNumber: 0, peerSessionNumber: 0, syncGeneration: 0n,
    resource: options.resource, peerNode: '',
  };
}

/** What blkid finds at the start of the disk, as text, or null. */
async function foreignSignature(path: string): Promise<string | null> {
  const fields = await probe(path).catch((cause: unknown) => {
    throw new HastError('HAST_E_DEVICE', `cannot tell what ${path} holds: ${errorText(cause)}`, {
      cause, hint: 'install util-linux, or look yourself and use --force',
    });
  });
  if (fields === null) return null;
  if (fields === 'several') return 'several signatures';
  const type = fields.get('TYPE') ?? fields.get('PTTYPE');
  if (type === undefined) return null;
  const label = fields.get('LABEL');
  const what = fields.has('TYPE') ? `a ${type} signature` : `a ${type} partition table`;
  return label === undefined ? what : `${what} (label ${label})`;
}

async function refuseOverwriting(local: LocalFile, force: boolean): Promise<void> {
  const head = Buffer.alloc(limits.superblockSize);
  const tail = Buffer.alloc(limits.superblockSize);
  fs.readSync(local.fd, head, 0, head.length, 0);
  if (local.size >= 2 * limits.superblockSize) {
    fs.readSync(local.fd, tail, 0, tail.length, tailOffset(local.size));
  }
  if (force) return;
  if (hasSuperblockMagic(head) || hasSuperblockMagic(tail)) {
    throw new HastError('HAST_E_METADATA_EXISTS', `${local.path} holds a copy already`, {
      hint: 'see hastctl dump; hastctl create --force replaces it and everything on it',
    });
  }
  const signature = await foreignSignature(local.path);
  if (signature !== null) {
    throw new HastError('HAST_E_FOREIGN_DATA', `${local.path} holds ${signature}`, {
      hint: 'if nobody needs it any more, use hastctl create --force',
    });
  }
}

function fallocateAsync(fd: number, mode: number, offset: number, length: number): Promise<number> {
  return new Promise((resolve) => {
    fallocate(fd, mode, offset, length, resolve);
  });
}

/** Makes the data read as zeros where that is cheap; false where it is not. */
async function zeroData(local: LocalFile, block: Superblock): Promise<boolean> {
  // PUNCH_HOLE | KEEP_SIZE: a block device that would have to write zeros answers EOPNOTSUPP.
  const step = 1 << 30;
  for (let done = 0; done < block.mediaSize; done += step) {
    const length = Math.min(step, block.mediaSize - done);
    if (await fallocateAsync(local.fd, 0x3, block.dataOffset + done, length) !== 0) return false;
  }
  return true;
}

function writeMaps(fd: number, block: Superblock): void {
  const { copyId, hotOffset, hotSlotSize, hotSlotCount, indexOffset, indexPageCount } = block;
  // Older slots of an earlier create carry another id; zeros keep a look at the disk readable.
  const hot = Buffer.alloc(hotSlotSize * hotSlotCount);
  const sequence = 1;
  const list = encodeHotSlot(hotSlotSize, { copyId, number: 0, sequence }, []);
  for (const slot of [0, 1]) list.copy(hot, slot * hotSlotSize);
  fs.writeSync(fd, hot, 0, hot.length, hotOffset);
  for (let page = 0; page < indexPageCount; page++) {
    const first = page * limits.regionsPerIndexPage;
    const count = Math.min(limits.regionsPerIndexPage, block.regionCount - first);
    const one = encodeIndexPage({ copyId, number: page, sequence }, new Uint8Array(count));
    const pair = Buffer.concat([one, one]);
    fs.writeSync(fd, pair, 0, pair.length, indexOffset + page * pair.length);
  }
}

/**
 * Creates the copy. Throws HAST_E_USAGE, HAST_E_TOO_SMALL, HAST_E_BUSY, HAST_E_METADATA_EXISTS,
 * HAST_E_FOREIGN_DATA, HAST_E_DEVICE or HAST_E_IO; the disk is unchanged except after the last.
 */
export async function createCopy(options: CreateOptions): Promise<CreateResult> {
  if (Buffer.byteLength(options.resource) > limits.nameBytesMax) {
    throw usage(`the name ${options.resource} is longer than ${limits.nameBytesMax} bytes`, '');
  }
  const local = openLocal(options.local);
  try {
    const block = plan(options, local.size);
    await refuseOverwriting(local, options.force === true);
    try {
      const blank = Buffer.alloc(limits.superblockSize);
      fs.writeSync(local.durableFd, blank, 0, blank.length, 0);
      fs.writeSync(local.durableFd, blank, 0, blank.length, tailOffset(local.size));
      const zeroed = await zeroData(local, block);
      if (zeroed) block.flags |= SuperblockFlag.createdZeroed;
      writeMaps(local.fd, block);
      fs.fsyncSync(local.fd);
      const raw = encodeSuperblock(block);
      fs.writeSync(local.durableFd, raw, 0, raw.length, tailOffset(local.size));
      fs.writeSync(local.durableFd, raw, 0, raw.length, 0);
      const { mediaSize, extentSize, keepDirty, dataOffset } = block;
      return { mediaSize, extentSize, keepDirty, dataOffset, zeroed };
    } catch (cause) {
      throw new HastError('HAST_E_IO', `${options.local} cannot be written`, {
        cause, hint: 'check the disk; no copy was created',
      });
    }
  } finally {
    closeLocal(local);
  }
}
