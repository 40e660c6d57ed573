/**
 * From a local disk to a running core: superblock, map, and, before anything acts on what was
 * read, one durable rewrite of it (a killed process's last metadata write may be visible in the
 * cache and not be durable).
 */
import { HastError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Statistics } from '../format/status.ts';
import { limits } from '../format/limits.ts';
import { decodeSuperblock, tailOffset, type Superblock } from '../format/superblock.ts';
import type { CoreContext, CoreOptions } from './context.ts';
import { DirtyTracker } from './dirty-tracker.ts';
import { loadMap, type LoadedMap } from './map-loader.ts';
import type {
  ClockPort, ConnectPort, DiskPort, EventPort, RandomPort, TurnPort,
} from './ports.ts';
import { RangeLocks } from './range-lock.ts';
import { Resource } from './resource.ts';
import { chooseSuperblock, SuperblockStore } from './superblock-store.ts';
import { Timers } from './timers.ts';

export interface CorePorts {
  disk: DiskPort;
  /** Bytes of `local` now. */
  localSize: number;
  connect: ConnectPort;
  clock: ClockPort;
  random: RandomPort;
  events: EventPort;
  turn: TurnPort;
  log: Logger;
}

export type OpenDone = (error: HastError | null, resource: Resource | null) => void;

const emptyStatistics = (): Statistics => ({
  reads: 0, writes: 0, deletes: 0, flushes: 0, mapUpdates: 0, localReadErrors: 0,
  localWriteErrors: 0, localDeleteErrors: 0, localFlushErrors: 0, queueLocal: 0, queueSend: 0,
  queueRecv: 0, queueDone: 0, queueIdle: 0,
});

/** Calls `done` with the core, not yet started, or with what stands against it. */
export function openResource(ports: CorePorts, options: CoreOptions, done: OpenDone): void {
  const size = limits.superblockSize;
  const head = Buffer.alloc(size);
  const tail = Buffer.alloc(size);
  if (ports.localSize < 2 * size) {
    done(new HastError('HAST_E_TOO_SMALL', 'the local disk is too small to hold metadata'), null);
    return;
  }
  ports.disk.read(0, head, 0, size, (headError) => {
    const at = tailPosition(headError === 0 ? head : null, ports.localSize);
    ports.disk.read(at, tail, 0, size, (tailError) => {
      try {
        const block = chooseSuperblock(
          headError === 0 ? head : Buffer.alloc(size), tailError === 0 ? tail : null,
        );
        checkIdentity(block, ports.localSize, options);
        load(ports, options, block, done);
      } catch (error) {
        if (!(error instanceof HastError)) throw error;
        done(error, null);
      }
    });
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

function load(
  ports: CorePorts, options: CoreOptions, block: Superblock, done: OpenDone,
): void {
  loadMap(ports.disk, block, (errno, loaded) => {
    if (errno !== 0) {
      done(new HastError('HAST_E_IO', `the dirty map cannot be read (errno ${errno})`, {
        hint: 'the local disk fails: replace it',
      }), null);
      return;
    }
    for (const damage of loaded.damage) {
      ports.log.warn({ damage }, 'a part of the dirty map is lost: all it covers will be copied');
    }
    let onError = (errno: number): void => void errno;
    const resource = build(ports, options, block, loaded, (errno) => onError(errno));
    // The map's writer says once that it failed, and answers nothing then.
    onError = (errno) => cannotWrite(errno, done);
    // A killed process's last metadata may be in the cache only: durable before anything is built
    // on what was read.
    ports.disk.flush((flushError) => {
      if (flushError !== 0) {
        cannotWrite(flushError, done);
        return;
      }
      rewrite(resource, (error, opened) => {
        onError = () => undefined;
        done(error, opened);
      });
    });
  });
}

function build(
  ports: CorePorts, options: CoreOptions, block: Superblock, loaded: LoadedMap,
  onMapError: (errno: number) => void,
): Resource {
  const { disk, clock, random, events, turn, log } = ports;
  return new Resource((localFailed): CoreContext => {
    const onError = (errno: number): void => {
      localFailed('metadata', errno);
      onMapError(errno);
    };
    return {
      options, disk, clock, random, events, turn, log, localFailed,
      store: new SuperblockStore(disk, block),
      tracker: new DirtyTracker(disk, block, loaded, onError),
      locks: new RangeLocks(),
      timers: new Timers(() => turn.deadlineChanged()),
      statistics: emptyStatistics(),
      dataOffset: block.dataOffset,
      mediaSize: block.mediaSize,
    };
  }, ports.connect);
}

function rewrite(resource: Resource, done: OpenDone): void {
  const { tracker, store } = resource.context;
  tracker.persistAll(() => store.update({}, (errno) => {
    if (errno === 0) done(null, resource);
    else cannotWrite(errno, done);
  }));
}

function cannotWrite(errno: number, done: OpenDone): void {
  done(new HastError('HAST_E_IO', `the metadata cannot be written (errno ${errno})`, {
    hint: 'the local disk fails: replace it',
  }), null);
}
