/**
 * What a primary's process leaves to the one that takes over under its device, should it be
 * killed: the writes that one of the copies may lack. Everything else that the durable marks name
 * is the same on both, and needs no copy but a flush (docs/decisions/014).
 *
 * Invariants, as long as `valid` is set:
 * - outside the ranges of the taken slots, this copy (as its machine's cache shows it) and the copy
 *   of the peer's process `instance`, once that has executed what it received, hold the same bytes;
 * - a slot is taken before the frame is sent and before the local write begins, and is free again
 *   only when the peer has executed the frame *and* the local write has returned;
 * - a write that no stream carries clears `valid` first; so does the end of the stream.
 * Slots are taken also while `valid` is not set: a write that begins before the pair is complete
 * may be under way when it is.
 *
 * Hot path: enter() and leave() run once per write, and allocate nothing.
 * `npm run bench`, write-32 on fullsync: all JavaScript is 7 % of the processors' time.
 */
import { assert } from '../base/assert.ts';
import {
  bootIdBytes, decodeInflight, encodeInflightHeader, inflightBytes, inflightField,
  inflightSlotAt, inflightSlotField, inflightSlots, inflightValid, type InflightHeader,
} from '../format/inflight.ts';
import { DataState, type Superblock } from '../format/superblock.ts';
import { BlockMap } from './block-map.ts';
import type { LoadedMap } from './map-loader.ts';
import type { HandedDown } from './peer-marks.ts';
import type { SurvivingMemory } from './ports.ts';

/** Who may lack a write: the peer, and this copy. */
const holdersOfOne = 2;
const none = -1;

export class InflightTable {
  readonly #memory: SurvivingMemory | null;
  readonly #view: DataView;
  #isValid = false;
  /** A write found no slot: no table before the next stream. */
  #overflowed = false;
  /** Slots that are free, as a stack. */
  readonly #free = new Uint16Array(inflightSlots);
  #freeCount = 0;
  /** By slot: who of the two may still lack it. */
  readonly #holders = new Uint8Array(inflightSlots);
  /** Raised when all slots are freed: what was entered before is unknown from then on. */
  #epoch = 0;

  /** `memory`: null for a process that leaves nothing. */
  constructor(memory: SurvivingMemory | null) {
    this.#memory = memory;
    const bytes = memory?.bytes ?? new Uint8Array(inflightBytes);
    assert(bytes.length === inflightBytes, 'the in-flight table has its size');
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    // Only inherit() may find it valid.
    if (memory?.inherited !== true) this.#reset();
  }

  get isValid(): boolean {
    return this.#isValid;
  }

  /** Slots that are taken. */
  get count(): number {
    return inflightSlots - this.#freeCount;
  }

  /**
   * What the process before left, for the copy `block` with the map `loaded`; null where there is
   * nothing, or it does not fit. The table stays valid for the next process. To be called once.
   */
  inherit(block: Superblock, loaded: LoadedMap): HandedDown | null {
    const memory = this.#memory;
    if (memory?.inherited !== true) return null;
    const found = decodeInflight(memory.bytes);
    if (found === null || !fits(found.header, block, memory.boot) || loaded.damage.length > 0) {
      this.#reset();
      return null;
    }
    const { header, ranges } = found;
    const unanswered = new BlockMap(block.mediaSize, Infinity);
    const taken = new Set<number>();
    for (const { slot, offset, length } of ranges) {
      unanswered.setRange(offset, length);
      taken.add(slot);
    }
    this.#freeCount = 0;
    for (let slot = inflightSlots - 1; slot >= 0; slot--) {
      if (!taken.has(slot)) this.#free[this.#freeCount++] = slot;
    }
    this.#view.setBigUint64(inflightField.generation, block.generation, true);
    this.#view.setBigUint64(inflightField.nextGeneration, 0n, true);
    this.#isValid = true;
    return { unanswered, instance: header.instance };
  }

  /**
   * The pair is complete, and every write from now on is entered: what `instance`, the process of
   * the peer, and this copy hold is the same but for what is entered.
   */
  trust(block: Readonly<Superblock>, instance: bigint): void {
    if (this.#memory === null || this.#overflowed || instance === 0n) return;
    this.#invalidate();
    encodeInflightHeader({
      valid: 0, boot: this.#memory.boot, copyId: block.copyId, generation: block.generation,
      nextGeneration: 0n, peerCopyId: block.peerCopyId, instance, mediaSize: block.mediaSize,
    }, this.#memory.bytes);
    // What the process before had under way was copied.
    for (let slot = 0; slot < inflightSlots; slot++) {
      if (this.#holders[slot] === 0 && this.#lengthOf(slot) !== 0) this.#release(slot);
    }
    this.#view.setUint32(inflightField.valid, inflightValid, true);
    this.#isValid = true;
  }

  /** This copy is about to get another generation, durably so at some moment from now on. */
  generationChanges(generation: bigint): void {
    if (!this.#isValid) return;
    const { generation: at, nextGeneration: nextAt } = inflightField;
    const next = this.#view.getBigUint64(nextAt, true);
    if (next !== 0n) this.#view.setBigUint64(at, next, true);
    this.#view.setBigUint64(nextAt, generation, true);
  }

  /** The copies go different ways from now on, or nobody knows: nothing is left to a successor. */
  lose(): void {
    if (this.#isValid || this.#overflowed || this.#freeCount < inflightSlots) this.#reset();
  }

  /** A write begins, here and at the peer. For leave(); nothing else is known of the value. */
  enter(offset: number, length: number): number {
    if (this.#memory === null) return none;
    if (this.#freeCount === 0) {
      this.#invalidate();
      this.#overflowed = true;
      return none;
    }
    const slot = this.#free[--this.#freeCount] as number;
    const at = inflightSlotAt(slot);
    this.#holders[slot] = holdersOfOne;
    this.#view.setUint32(at + inflightSlotField.offset, offset % 0x1_0000_0000, true);
    this.#view.setUint32(
      at + inflightSlotField.offset + 4, Math.floor(offset / 0x1_0000_0000), true,
    );
    this.#view.setUint32(at + inflightSlotField.length, length, true);
    return this.#epoch * inflightSlots + slot;
  }

  /** The peer has executed it, or it returned here: to be called once for each. */
  leave(entry: number): void {
    if (Math.floor(entry / inflightSlots) !== this.#epoch) return;
    const slot = entry % inflightSlots;
    const left = (this.#holders[slot] as number) - 1;
    assert(left >= 0, 'a write leaves the in-flight table once for each copy');
    this.#holders[slot] = left;
    if (left === 0) this.#release(slot);
  }

  #lengthOf(slot: number): number {
    return this.#view.getUint32(inflightSlotAt(slot) + inflightSlotField.length, true);
  }

  #release(slot: number): void {
    this.#view.setUint32(inflightSlotAt(slot) + inflightSlotField.length, 0, true);
    this.#free[this.#freeCount++] = slot;
  }

  #invalidate(): void {
    this.#isValid = false;
    this.#view.setUint32(inflightField.valid, 0, true);
  }

  #reset(): void {
    this.#invalidate();
    this.#overflowed = false;
    this.#epoch++;
    this.#holders.fill(0);
    this.#freeCount = 0;
    for (let slot = inflightSlots - 1; slot >= 0; slot--) {
      this.#view.setUint32(inflightSlotAt(slot) + inflightSlotField.length, 0, true);
      this.#free[this.#freeCount++] = slot;
    }
  }
}

/** It speaks of this copy as it is, and of this boot. */
function fits(header: InflightHeader, block: Superblock, boot: Uint8Array): boolean {
  const isSameBoot = boot.length === bootIdBytes && Buffer.compare(header.boot, boot) === 0;
  const isSameCopy = header.copyId === block.copyId && header.mediaSize === block.mediaSize &&
    header.peerCopyId === block.peerCopyId;
  const isSameData = block.generation !== 0n && block.dataState === DataState.consistent &&
    (header.generation === block.generation || header.nextGeneration === block.generation);
  return header.valid === inflightValid && header.instance !== 0n && isSameBoot && isSameCopy &&
    isSameData;
}
