/**
 * What a copy's metadata say on stable storage, kept up to date piece by piece: the superblock
 * that counts and every block that is marked. An own reader of the format, beside the core's.
 */
import { HastError } from '../../lib/base/errors.ts';
import { limits } from '../../lib/format/limits.ts';
import {
  decodeHotSlot, decodeIndexPage, decodeMapPage, RegionBit,
} from '../../lib/format/map-pages.ts';
import {
  layoutFor, tailOffset, type Superblock,
} from '../../lib/format/superblock.ts';
import { chooseSuperblock } from '../../lib/core/superblock-store.ts';

const page = limits.mapPageSize;
const blocksPerRegion = limits.regionSize / limits.blockSize;

type Slot = { sequence: number; extents: number[] } | null;
type Index = { sequence: number; states: Uint8Array } | null;

export class DurableMeta {
  readonly #image: Buffer;
  readonly #layout: ReturnType<typeof layoutFor>;
  readonly #extentSize: number;
  readonly #dirty = new Set<string>();
  #superblock: Superblock | null = null;
  #superblockKnown = false;
  readonly #slots: Slot[];
  readonly #indexes: [Index, Index][];
  readonly #pages: (Uint8Array | null)[];
  #hot = new Set<number>();
  #allHot = false;

  constructor(image: Buffer, mediaSize: number, keepDirty: number, extentSize: number) {
    this.#image = image;
    this.#layout = layoutFor(mediaSize, keepDirty);
    this.#extentSize = extentSize;
    this.#slots = new Array<Slot>(this.#layout.hotSlotCount).fill(null);
    this.#indexes = Array.from({ length: this.#layout.indexPageCount }, () => [null, null]);
    this.#pages = new Array<Uint8Array | null>(this.#layout.regionCount).fill(null);
    this.changed(0, image.length);
  }

  /** Bytes of the image changed; true where they are metadata. */
  changed(offset: number, length: number): boolean {
    const { dataOffset } = this.#layout;
    const tail = tailOffset(this.#image.length);
    const end = offset + length;
    if (offset >= dataOffset && end <= tail) return false;
    const { hotOffset, hotSlotSize, indexOffset, mapOffset } = this.#layout;
    if (offset < limits.superblockSize || end > tail) this.#superblockKnown = false;
    this.#each(offset, end, hotOffset, hotSlotSize, this.#slots.length, 'h');
    this.#each(offset, end, indexOffset, page, 2 * this.#indexes.length, 'i');
    this.#each(offset, end, mapOffset, page, this.#pages.length, 'm');
    return true;
  }

  /** The copy that counts; null where neither is readable. */
  superblock(): Superblock | null {
    if (this.#superblockKnown) return this.#superblock;
    this.#superblockKnown = true;
    const at = tailOffset(this.#image.length);
    try {
      this.#superblock = chooseSuperblock(
        this.#image.subarray(0, limits.superblockSize),
        this.#image.subarray(at, at + limits.superblockSize),
      );
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      this.#superblock = null;
    }
    return this.#superblock;
  }

  /** A starting worker would take this block as "may differ". */
  isMarked(block: number): boolean {
    this.#refresh();
    if (this.#allHot) return true;
    const extent = Math.floor((block * limits.blockSize) / this.#extentSize);
    if (this.#hot.has(extent)) return true;
    const region = Math.floor(block / blocksPerRegion);
    const pair = this.#indexes[Math.floor(region / limits.regionsPerIndexPage)] as [Index, Index];
    const [one, two] = pair;
    const newer = two !== null && (one === null || two.sequence > one.sequence) ? two : one;
    if (newer === null) return true;
    const state = newer.states[region % limits.regionsPerIndexPage] ?? 0;
    if ((state & (RegionBit.peerFull | RegionBit.localFull)) !== 0) return true;
    if ((state & RegionBit.page) === 0) return false;
    const bits = this.#pages[region];
    if (bits == null) return true;
    const at = block % blocksPerRegion;
    return ((bits[at >> 3] ?? 0) & (1 << (at & 7))) !== 0;
  }

  #each(
    from: number, to: number, start: number, size: number, count: number, kind: string,
  ): void {
    const first = Math.max(0, Math.floor((from - start) / size));
    const last = Math.min(count, Math.ceil((to - start) / size));
    for (let index = first; index < last; index++) this.#dirty.add(`${kind}${index}`);
  }

  #refresh(): void {
    if (this.#dirty.size === 0) return;
    const { hotOffset, hotSlotSize, indexOffset, mapOffset } = this.#layout;
    const copyId = this.superblock()?.copyId ?? 0n;
    let hotChanged = false;
    for (const name of this.#dirty) {
      const index = Number(name.slice(1));
      if (name[0] === 'h') {
        const at = hotOffset + index * hotSlotSize;
        this.#slots[index] = decodeHotSlot(this.#image.subarray(at, at + hotSlotSize), copyId);
        hotChanged = true;
      } else if (name[0] === 'i') {
        const at = indexOffset + index * page;
        const pair = this.#indexes[index >> 1] as [Index, Index];
        pair[index & 1 ? 1 : 0] =
          decodeIndexPage(this.#image.subarray(at, at + page), copyId, index >> 1);
      } else {
        const at = mapOffset + index * page;
        const one = decodeMapPage(this.#image.subarray(at, at + page), copyId, index);
        // Stale there or stale here: either may differ.
        const bits = one?.peerStale ?? null;
        one?.localStale.forEach((byte, at) => {
          if (bits !== null) bits[at] = (bits[at] ?? 0) | byte;
        });
        this.#pages[index] = bits;
      }
    }
    this.#dirty.clear();
    if (hotChanged) this.#chooseHot();
  }

  #chooseHot(): void {
    let best: Slot = null;
    for (const slot of this.#slots) {
      if (slot !== null && (best === null || slot.sequence > best.sequence)) best = slot;
    }
    this.#allHot = best === null;
    this.#hot = new Set(best?.extents ?? []);
  }
}
