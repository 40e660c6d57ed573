/** From a local disk to the parts of a core that come with it: superblock, map, tracker. */
import { HastError } from '../base/errors.ts';
import { limits } from '../format/limits.ts';
import {
  DataState, decodeSuperblock, tailOffset, type Superblock,
} from '../format/superblock.ts';
import type { CoreContext, CoreOptions } from './context.ts';
import { DirtyTracker } from './dirty-tracker.ts';
import type { InflightTable } from './inflight-table.ts';
import { loadMap, type LoadedMap } from './map-loader.ts';
import type { DiskPort } from './ports.ts';
import type { Attachment } from './remote-state.ts';
import { chooseSuperblock, SuperblockStore } from './superblock-store.ts';
import { WatchedDisk } from './watched-disk.ts';

/** Calls `done` with the superblock that counts, or with what stands against it. */
export function readSuperblock(
  disk: DiskPort, localSize: number, options: CoreOptions,
  done: (error: HastError | null, block: Superblock | null) => void,
): void {
  const size = limits.superblockSize;
  const head = Buffer.alloc(size);
  const tail = Buffer.alloc(size);
  if (localSize < 2 * size) {
    done(new HastError('HAST_E_TOO_SMALL', 'the local disk is too small to hold metadata', {
      hint: "name another disk with 'local'",
    }), null);
    return;
  }
  disk.read(0, head, 0, size, (headError) => {
    const at = tailPosition(headError === 0 ? head : null, localSize);
    disk.read(at, tail, 0, size, (tailError) => {
      let block: Superblock;
      try {
        block = chooseSuperblock(
          headError === 0 ? head : Buffer.alloc(size), tailError === 0 ? tail : null,
        );
        checkIdentity(block, localSize, options);
      } catch (error) {
        if (!(error instanceof HastError)) throw error;
        done(error, null);
        return;
      }
      done(null, block);
    });
  });
}

export function unreadableMap(errno: number): HastError {
  return new HastError('HAST_E_IO', `the dirty map cannot be read (errno ${errno})`, {
    hint: 'the local disk fails: replace it',
  });
}

/** The tail lies where `create` saw the end of the disk, which may have grown since. */
function tailPosition(head: Buffer | null, localSize: number): number {
  if (head !== null) {
    try {
      const block = decodeSuperblock(head);
      if (block.localSize <= localSize) return tailOffset(block.localSize);
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
    }
  }
  return tailOffset(localSize);
}

function checkIdentity(block: Superblock, localSize: number, options: CoreOptions): void {
  if (block.resource !== options.resource) {
    throw new HastError(
      'HAST_E_NO_METADATA',
      `the metadata belong to resource ${block.resource}, not ${options.resource}`,
      { hint: 'check the path of local, or run hastctl create --force to use this disk anew' },
    );
  }
  if (block.localSize > localSize) {
    throw new HastError(
      'HAST_E_TOO_SMALL',
      `the local disk has ${localSize} bytes; it had ${block.localSize} when it was created`,
      { hint: 'give the disk its size back, or run hastctl create --force to use it anew' },
    );
  }
}

/** The parts of a core that come with a disk. */
export function attachmentOf(
  disk: WatchedDisk, block: Superblock, loaded: LoadedMap, inflight: InflightTable,
  onError: (errno: number) => void,
): Attachment {
  if (block.dataState === DataState.consistent) {
    // Left over from a copy that was filled: what is here counts, and the blocks may differ.
    loaded.peerStale.merge(loaded.localStale);
    for (const region of loaded.localStale.regions()) loaded.inherited.add(region);
    loaded.localStale.clearAll();
  }
  const tracker = new DirtyTracker(disk, block, loaded, onError);
  if (block.dataState !== DataState.consistent) {
    // Which blocks are stale here is not on record any more for these.
    for (const region of loaded.damagedRegions) tracker.setLocalStaleRegion(region, null);
  }
  return {
    disk,
    store: new SuperblockStore(disk, block, null, (generation) =>
      inflight.generationChanges(generation)),
    tracker,
    dataOffset: block.dataOffset,
    mediaSize: block.mediaSize,
    onEarlyError: null,
  };
}

/**
 * Reads the copy on a disk that is to be attached to a running core; nothing is written yet.
 * Calls `done` with its parts, or with what stands against it.
 */
export function openAttachment(
  context: CoreContext, disk: DiskPort, localSize: number,
  done: (error: HastError | null, attachment: Attachment | null) => void,
): void {
  const watched = new WatchedDisk(disk, context.measures);
  readSuperblock(watched, localSize, context.options, (error, block) => {
    if (block === null) {
      done(error, null);
      return;
    }
    loadMap(watched, block, (errno, loaded) => {
      if (errno !== 0) {
        done(unreadableMap(errno), null);
        return;
      }
      const attachment = attachmentOf(watched, block, loaded, context.inflight, (code) => {
        if (context.tracker === attachment.tracker) context.localFailed('metadata', code);
        else attachment.onEarlyError?.(code);
      });
      done(null, attachment);
    });
  });
}
