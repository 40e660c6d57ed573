/**
 * From a local disk to a running core: superblock, map, and, before anything acts on what was
 * read, one durable rewrite of it (a killed process's last metadata write may be visible in the
 * cache and not be durable).
 */
import { HastError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Superblock } from '../format/superblock.ts';
import type { CoreContext, CoreOptions } from './context.ts';
import { InflightTable } from './inflight-table.ts';
import { loadMap, type LoadedMap } from './map-loader.ts';
import { Measures } from './measures.ts';
import { attachmentOf, readSuperblock, unreadableMap } from './open-attachment.ts';
import type {
  ClockPort, ConnectPort, DiskPort, EventPort, RandomPort, SurvivingMemory, TurnPort, UndoStore,
} from './ports.ts';
import { RangeLocks } from './range-lock.ts';
import { Resource } from './resource.ts';
import { Timers } from './timers.ts';
import { WatchedDisk } from './watched-disk.ts';

export interface CorePorts {
  disk: DiskPort;
  /** Bytes of `local` now. */
  localSize: number;
  connect: ConnectPort;
  clock: ClockPort;
  random: RandomPort;
  events: EventPort;
  turn: TurnPort;
  undo: UndoStore;
  /** What outlives a kill; null, or left out, where nothing does. */
  surviving?: SurvivingMemory | null;
  log: Logger;
}

export type OpenDone = (error: HastError | null, resource: Resource | null) => void;

const emptyStatistics = (): CoreContext['statistics'] => ({
  reads: 0, writes: 0, deletes: 0, flushes: 0, mapUpdates: 0, localReadErrors: 0,
  localWriteErrors: 0, localDeleteErrors: 0, localFlushErrors: 0, badFrames: 0,
  queueLocal: 0, queueSend: 0, queueRecv: 0, queueDone: 0, queueIdle: 0,
});

/** Calls `done` with the core, not yet started, or with what stands against it. */
export function openResource(ports: CorePorts, options: CoreOptions, done: OpenDone): void {
  readSuperblock(ports.disk, ports.localSize, options, (error, block) => {
    if (block === null) done(error, null);
    else load(ports, options, block, done);
  });
}

function load(
  ports: CorePorts, options: CoreOptions, block: Superblock, done: OpenDone,
): void {
  loadMap(ports.disk, block, (errno, loaded) => {
    if (errno !== 0) {
      done(unreadableMap(errno), null);
      return;
    }
    for (const damage of loaded.damage) {
      ports.log.warn({ damage }, 'a part of the dirty map is lost: all it covers will be copied');
    }
    if (loaded.hotCopies === 1 || loaded.indexRepairs.size > 0) {
      const indexPages = [...loaded.indexRepairs].slice(0, 8);
      ports.log.info({ hotCopies: loaded.hotCopies, indexPages },
        'one copy of these parts of the dirty map is torn, old or bad: both are written anew');
    }
    let onError = (errno: number): void => void errno;
    const inflight = inherit(ports, block, loaded);
    const resource = build(ports, options, block, loaded, inflight, (errno) => onError(errno));
    // The map's writer says once that it failed, and answers nothing then.
    onError = (errno) => cannotWrite(errno, done);
    rewrite(resource, (error, opened) => {
      onError = () => undefined;
      done(error, opened);
    });
  });
}

/** The table, and in `loaded` what a dead process left in it. */
function inherit(ports: CorePorts, block: Superblock, loaded: LoadedMap): InflightTable {
  const inflight = new InflightTable(ports.surviving ?? null);
  loaded.handedDown = inflight.inherit(block, loaded);
  if (ports.surviving?.inherited === true) {
    const blocks = loaded.handedDown?.unanswered.count ?? null;
    ports.log.info({ blocks, marked: loaded.peerStale.count }, blocks === null
      ? 'the process before left no table of what was under way: all that is marked is copied'
      : 'the process before left a table of what was under way');
  }
  // Marked before, or they would not have been begun: this costs nothing and relies on nothing.
  if (loaded.handedDown !== null) {
    const { unanswered } = loaded.handedDown;
    for (const region of unanswered.regions()) loaded.inherited.add(region);
    loaded.peerStale.merge(unanswered);
  }
  return inflight;
}

function build(
  ports: CorePorts, options: CoreOptions, block: Superblock, loaded: LoadedMap,
  inflight: InflightTable, onMapError: (errno: number) => void,
): Resource {
  const { disk, clock, random, events, turn, undo, log } = ports;
  const measures = new Measures(clock);
  return new Resource((localFailed): CoreContext => {
    const onError = (errno: number): void => {
      localFailed('metadata', errno);
      onMapError(errno);
    };
    return {
      options, clock, random, events, turn, undo, log, localFailed, inflight, measures,
      ...attachmentOf(new WatchedDisk(disk, measures), block, loaded, inflight, onError),
      locks: new RangeLocks(),
      timers: new Timers(() => turn.deadlineChanged()),
      statistics: emptyStatistics(),
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
