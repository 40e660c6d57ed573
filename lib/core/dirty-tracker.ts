/**
 * What may differ between the copies, and its durable record (rule: mark first, clear last).
 *
 * Two layers. `hot` extents: any block of them may differ; listed durably before the first write
 * into one, so that steady writing costs no metadata. 4 KiB blocks: `peerStale`, those the peer
 * lacks, and `localStale`, those whose newest data only the peer has.
 * An extent leaves the hot list only after the map pages of its region are durable with every
 * block that is not yet flushed on both copies. A block leaves the durable local-stale marks only
 * after a local flush that began when its data had been written.
 *
 * One list at a time serves all writers that wait, and beside it one group of pages those who
 * want marks durable: no writer waits for pages. An evicted extent is named in every list that is
 * made before the page of its region, and the index, are durable.
 *
 * Hot path: mark() and unmark() run once per write: `npm run bench:scale`, 0.1 to 1 us a write.
 */
import { regionBitBytes } from '../format/map-pages.ts';
import { limits } from '../format/limits.ts';
import type { Superblock } from '../format/superblock.ts';
import type { BlockMap } from './block-map.ts';
import { HotExtents } from './hot-extents.ts';
import { LocalMarks, type LocalFlush } from './local-marks.ts';
import { MapWriter, type RegionImage, type RegionMarks } from './map-writer.ts';
import type { LoadedMap } from './map-loader.ts';
import { PeerMarks } from './peer-marks.ts';
import type { DiskPort, Done } from './ports.ts';
import { addRegions, RegionSet, regionsOf } from './region-set.ts';

/** A write that needs its extents hot; pooled by its owner. */
export interface MarkRequest {
  firstExtent: number;
  lastExtent: number;
  /** It comes to the start of an extent, as a sequential writer does. */
  begins: boolean;
  /** Called when mark() returned false and the extents are durably hot now. */
  onMarked(): void;
}

/** Blocks written but not yet flushed on both copies; owned by the peer's stream. */
export interface UnflushedBlocks {
  /** Sets the bits of `region` in `target`; true where there was one. */
  collect(region: number, target: Uint8Array): boolean;
  hasFull(region: number): boolean;
}

const nothingUnflushed: UnflushedBlocks = { collect: () => false, hasFull: () => false };

export class DirtyTracker {
  readonly extentSize: number;
  unflushed: UnflushedBlocks = nothingUnflushed;
  /** Lists and groups of pages so far: the original's "activemap updates". */
  updates = 0;

  readonly #peer: PeerMarks;
  readonly #local: LocalMarks;
  readonly #writer: MapWriter;
  readonly #hot: HotExtents;
  /** Regions with marks that no durable page holds: of hot extents, or not yet persisted. */
  readonly #unwritten: RegionSet;
  /** Regions whose durable page holds blocks that are clean by now. */
  readonly #excess: RegionSet;
  readonly #image = new Uint8Array(regionBitBytes);
  /** A list is being written. */
  #listing = false;
  /** Pages are being written; or, before both, what was read is made durable. */
  #settling = false;
  /** The first group of pages is still to come: it takes all that was inherited. */
  #isFirst = true;
  /** While no list is readable everything counts as hot: until the first pages are durable. */
  #mayList: boolean;
  /** One is written, if it differs from what was read, though nobody waits for it. */
  #owesList = true;
  #broken = false;
  #isAbandoned = false;
  #waiting: MarkRequest[] = [];
  /** Callers of persist(): served by the next group of pages. */
  #persist: { regions: RegionSet; done: Done }[] = [];
  /** Who waits until the list is as it should be. */
  #onListed: Done[] = [];

  /** `now`: milliseconds, for `oldestWrite`. */
  constructor(
    disk: DiskPort, geometry: Readonly<Superblock>, loaded: LoadedMap,
    onError: (errno: number) => void, now: (() => number) | null = null,
  ) {
    this.extentSize = geometry.extentSize;
    this.#hot = new HotExtents(geometry, loaded.hot, loaded.hotCopies >= 2);
    this.#peer = new PeerMarks(loaded.peerStale, geometry.mediaSize, loaded.handedDown);
    this.#local = new LocalMarks(loaded.localStale, geometry.mediaSize);
    this.#writer = new MapWriter(disk, geometry, loaded, now, (errno) => {
      // Nothing that waits for a mark may go on: the owner fails every pending request.
      this.#broken = true;
      onError(errno);
    });
    this.#mayList = loaded.hotCopies > 0;
    this.#unwritten = this.#regions(loaded.inherited);
    this.#excess = this.#regions([]);
  }

  /** Extents listed as hot now. */
  get hotCount(): number {
    return this.#hot.size;
  }

  get isIdle(): boolean {
    return !this.#listing && !this.#settling && this.#waiting.length === 0 &&
      this.#persist.length === 0 && this.#onListed.length === 0;
  }

  /** Blocks whose newest data the peer lacks; changed through the tracker only. */
  get peerStale(): BlockMap {
    return this.#peer.stale;
  }

  /** Blocks whose newest data only the peer has; changed through the tracker only. */
  get localStale(): BlockMap {
    return this.#local.stale;
  }

  /**
   * When the oldest metadata write still under way was issued, by the constructor's clock: a
   * disk that hangs shows here. null where there is none.
   */
  get oldestWrite(): number | null {
    return this.#writer.oldestWrite;
  }

  /**
   * The local disk was given up: nothing is written or called any more. Whoever waits for a mark
   * or pages is forgotten, and those that come later are ignored; their owner knows of them.
   */
  abandon(): void {
    this.#isAbandoned = true;
    this.#writer.abandon();
    this.#listing = false;
    this.#settling = false;
    this.#waiting = [];
    this.#persist = [];
    this.#onListed = [];
  }

  /** Sets the extents of `request` to those of the bytes `from` up to `to`, at least one. */
  aim(request: MarkRequest, from: number, to: number): void {
    const { extentSize } = this;
    request.firstExtent = Math.floor(from / extentSize);
    request.lastExtent = Math.floor((to - 1) / extentSize);
    request.begins = request.lastExtent > request.firstExtent || from % extentSize === 0;
  }

  /** True: the extents are durably hot and held until unmark(). False: `onMarked` follows. */
  mark(request: MarkRequest): boolean {
    const { firstExtent, lastExtent, begins } = request;
    for (let extent = firstExtent; extent <= lastExtent; extent++) {
      if (!this.#hot.isDurable(extent)) {
        if (this.#isAbandoned) return false;
        this.#waiting.push(request);
        this.#work();
        return false;
      }
    }
    this.#hot.hold(firstExtent, lastExtent, begins);
    if (this.#hot.wantsMore) this.#work();
    return true;
  }

  unmark(request: MarkRequest): void {
    this.#hot.release(request.firstExtent, request.lastExtent);
    if (this.#waiting.length > 0) this.#work();
  }

  /** The bytes now differ, or are not flushed on both copies: the region's page is behind. */
  touch(offset: number, length: number): void {
    addRegions(this.#unwritten, offset, length);
  }

  /** The peer lacks these bytes. Their extents must be hot. */
  setStale(offset: number, length: number): void {
    this.#peer.set(offset, length);
    this.touch(offset, length);
  }

  /** See PeerMarks; the extents of `blocks` are hot or in durable pages. */
  streamEnded(blocks: BlockMap, unanswered: BlockMap, instance: bigint): void {
    this.#unwritten.addAll(blocks.regions());
    this.#peer.streamEnded(blocks, unanswered, instance);
  }

  /** See PeerMarks. */
  executedCount(instance: bigint): number {
    return this.#peer.executedCount(instance);
  }

  /** They are the caller's to flush on both copies, and marked as `unflushed` from now on. */
  takeExecuted(instance: bigint): BlockMap {
    return this.#peer.takeExecuted(instance);
  }

  /**
   * The peer says that these blocks of a region differ (null: all). Not durable before
   * persistAll().
   */
  setRegionStale(region: number, bits: Uint8Array | null): void {
    this.#peer.mergeRegion(region, bits);
    this.#unwritten.add(region);
  }

  /** Every block may differ. Not durable before persistAll(). */
  setAllStale(): void {
    this.#peer.setAll();
    for (const region of this.peerStale.regions()) this.#unwritten.add(region);
  }

  /** True where the newest data of a block of the range are at the peer only. */
  isLocalStale(offset: number, length: number): boolean {
    return this.#local.stale.touches(offset, length);
  }

  /** Every block the bytes touch has its newest data at the peer. See setAllLocalStale. */
  setLocalStale(offset: number, length: number): void {
    this.#local.stale.setRange(offset, length);
    this.touch(offset, length);
  }

  /** As setLocalStale, for the `bits` of a region (null: all of it). */
  setLocalStaleRegion(region: number, bits: Uint8Array | null): void {
    if (bits === null) this.#local.stale.setFull(region);
    else this.#local.stale.mergeBits(region, bits);
    this.#unwritten.add(region);
  }

  /** As setLocalStale, for all blocks of `map`. */
  mergeLocalStale(map: BlockMap): void {
    for (const region of map.regions()) this.#unwritten.add(region);
    this.#local.stale.merge(map);
  }

  /** As setLocalStale, for every block. None of these is durable before persistAll(). */
  setAllLocalStale(): void {
    this.#local.stale.setAll();
    for (const region of this.#local.stale.regions()) this.#unwritten.add(region);
  }

  /**
   * The newest data of these bytes were written here: the blocks that lie wholly within are no
   * longer stale. Durably they stay so until a local flush that begins from now on is done.
   */
  arrivedLocally(offset: number, length: number): void {
    this.#local.arrived(offset, length);
  }

  /**
   * The application wrote these bytes here while the peer's copy counts: blocks that lie wholly
   * within are no longer stale, and all of them are marked until a local flush is done.
   */
  wroteLocally(offset: number, length: number): void {
    this.#local.wrote(offset, length);
    addRegions(this.#unwritten, offset, length);
  }

  /** Something arrived, or was written, that no local flush has covered. */
  get hasLocalUnflushed(): boolean {
    return this.#local.hasUnflushed;
  }

  /** All of it is marked as stale at the peer, durably. */
  isDurablyStale(offset: number, length: number): boolean {
    if (this.#settling) return false;
    for (const region of regionsOf(offset, length)) if (this.#unwritten.has(region)) return false;
    return this.peerStale.covers(offset, length);
  }

  /** This copy counts as it is, durably by now: what was stale here is stale at the peer. */
  localCounts(): void {
    this.#local.drain((region, bits) => this.setRegionStale(region, bits));
  }

  /** Call when a local flush is issued; one that fails is never reported done. */
  localFlushBegins(): LocalFlush {
    return this.#local.flushBegins();
  }

  /** What had arrived when `flush` began may leave the durable marks with its page. */
  localFlushDone(flush: LocalFlush): void {
    if (this.#local.flushDone(flush)) this.covered(flush.blocks.regions());
  }

  /** Makes every mark durable that is not yet, and lets go of those that are clean. */
  persistAll(done: Done): void {
    this.#enqueue(this.#regions(this.#unwritten).addAll(this.#excess), done);
  }

  forgetUnflushed(): void {
    this.unflushed = nothingUnflushed;
  }

  /** These blocks were sent to the peer (their flush is `unflushed`'s business). */
  clearStale(offset: number, length: number): void {
    this.#peer.sent(offset, length);
    addRegions(this.#excess, offset, length);
  }

  /** Blocks were flushed on both copies: pages that still list them may be rewritten. */
  covered(regions: Iterable<number>): void {
    for (const region of regions) {
      if (this.#writer.hasMarks(region)) this.#excess.add(region);
    }
  }

  /**
   * Makes the marks of all regions in `regions` durable in their pages. `done` may come at once
   * where nothing is to be written; it never comes after a failure (`onError` does).
   */
  persist(regions: Iterable<number>, done: Done): void {
    this.#enqueue(this.#regions(regions), done);
  }

  /**
   * Lets go of hot extents without a write for some checkpoints and of marks that are
   * clean; an idle volume ends with nothing marked after two.
   */
  checkpoint(done: Done): void {
    const regions = this.#regions(this.#excess);
    this.#hot.evictUnused();
    const isClean = regions.size === 0 && this.#hot.leaving.length === 0 && !this.#hot.changed;
    if (isClean && !this.#isAbandoned) done(0);
    else this.#enqueue(regions, () => this.#listed(done));
  }

  /** Lets go of every hot extent without a write in flight; their marks go to the map pages. */
  releaseHot(done: Done): void {
    this.#release(this.#regions([]), done);
  }

  /** Forgets every mark, durably when `done` comes: both copies are equal, and flushed. */
  clearAll(done: Done): void {
    this.#peer.clearAll();
    this.#local.clearAll();
    this.#release(this.#regions(this.#writer.regions()), done);
  }

  /**
   * Forgets what the peer lacks, durably when `done` comes: it is on record there now. What is
   * stale here stays.
   */
  clearPeerStale(done: Done): void {
    const regions = this.#regions(this.peerStale.regions());
    this.#peer.clearAll();
    this.#release(regions, done);
  }

  /** Every block of these extents may differ: what a sync target tells its source. */
  hotExtents(): number[] {
    return this.#hot.extents();
  }

  #regions(regions: Iterable<number>): RegionSet {
    return new RegionSet(this.peerStale.regionCount).addAll(regions);
  }

  #release(regions: RegionSet, done: Done): void {
    this.#hot.evictIdle();
    // The list names what was evicted until the pages are durable.
    this.#enqueue(regions.addAll(this.#unwritten).addAll(this.#excess), () => this.#listed(done));
  }

  /** Calls `done` when a list is durable that names nothing but what has to be in it now. */
  #listed(done: Done): void {
    if (this.#isAbandoned) return;
    this.#onListed.push(done);
    this.#work();
  }

  #enqueue(regions: RegionSet, done: Done): void {
    if (this.#isAbandoned) return;
    this.#persist.push({ regions, done });
    this.#work();
  }

  #gather(): MarkRequest[] {
    const batch: MarkRequest[] = [];
    for (const request of this.#waiting) {
      const { firstExtent, lastExtent, begins } = request;
      if (!this.#hot.take(firstExtent, lastExtent, begins)) break;
      batch.push(request);
    }
    this.#waiting = this.#waiting.slice(batch.length);
    return batch;
  }

  /** Begins what is to be done and not under way. */
  #work(): void {
    if (this.#broken || this.#isAbandoned) return;
    if (!this.#writer.isSynced) {
      this.#sync();
      return;
    }
    if (!this.#listing && this.#mayList) this.#list();
    if (!this.#settling) this.#settle();
  }

  #sync(): void {
    if (this.#settling) return;
    this.#settling = true;
    this.#writer.sync(() => {
      this.#settling = false;
      this.#work();
    });
  }

  #list(): void {
    const batch = this.#gather();
    const isAhead = this.#hot.takeAhead();
    const onListed = this.#onListed;
    if (batch.length === 0 && onListed.length === 0 && !isAhead && !this.#owesList) return;
    this.#owesList = false;
    this.#onListed = [];
    const listed = (): void => {
      this.#listing = false;
      this.#hot.madeDurable();
      for (const request of batch) if (!this.#isAbandoned) request.onMarked();
      for (const done of onListed) if (!this.#isAbandoned) done(0);
      this.#work();
    };
    if (!this.#hot.changed) {
      if (batch.length > 0 || onListed.length > 0) listed();
      return;
    }
    this.#listing = true;
    this.updates++;
    this.#writer.writeList(this.#hot.list(), listed);
  }

  #settle(): void {
    const persist = this.#persist;
    // Nothing but pages can make room in the list for those that still wait.
    const isFull = !this.#listing && this.#waiting.length > 0 && this.#hot.leaving.length > 0;
    if (persist.length === 0 && !this.#hot.manyLeave && !isFull && !this.#isFirst) return;
    this.#persist = [];
    const regions = this.#regionsOf(persist);
    this.#isFirst = false;
    this.#hot.leave();
    this.#settling = true;
    if (regions.size > 0) this.updates++;
    this.#writer.writePages(regions, this.#imageOf, () => {
      this.#settling = false;
      this.#mayList = true;
      this.#hot.left();
      for (const one of persist) if (!this.#isAbandoned) one.done(0);
      this.#work();
    });
  }

  /** Whose pages are written: what was asked for, and the marks of extents that are leaving. */
  #regionsOf(persist: readonly { regions: RegionSet }[]): RegionSet {
    // All that was inherited: the first pages may replace what could not be read.
    const regions = this.#regions(this.#isFirst ? this.#unwritten : []);
    for (const one of persist) regions.addAll(one.regions);
    const perRegion = limits.regionSize / this.extentSize;
    for (const extent of this.#hot.leaving) {
      const region = Math.floor(extent / perRegion);
      if (this.#unwritten.has(region)) regions.add(region);
    }
    return regions;
  }

  /** Asked for a region whose page is written now; good until it is asked again. */
  readonly #imageOf = (region: number): RegionImage => {
    this.#unwritten.delete(region);
    this.#excess.delete(region);
    return { peer: this.#peerMarks(region), local: this.#local.marks(region) };
  };

  #peerMarks(region: number): RegionMarks {
    if (this.peerStale.isFull(region)) return 'full';
    // What is only waiting for a flush will be clean soon: look at the region again then.
    if (this.unflushed.hasFull(region)) {
      this.#excess.add(region);
      return 'full';
    }
    const bits = this.#image.fill(0);
    const hasStale = this.peerStale.collect(region, bits);
    const hasUnflushed = this.unflushed.collect(region, bits);
    if (hasUnflushed) this.#excess.add(region);
    return hasStale || hasUnflushed ? bits : null;
  }
}
