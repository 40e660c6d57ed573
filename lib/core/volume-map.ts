/**
 * The marks of a volume, summed up in cells for a picture. Nothing is copied and nothing awaited:
 * one pass over the pages in memory (32768 at most) and over one bit a region, or, where a cell
 * is less than a region, over the bits of at most 2048 pages. Measured by its test.
 */
import { limits } from '../format/limits.ts';
import { mapCellsMax, type VolumeMap } from '../format/volume-map.ts';
import type { DirtyTracker } from './dirty-tracker.ts';
import type { Resource } from './resource.ts';

/** Eight blocks: one byte of a page's bits. */
const cellBytesMin = 8 * limits.blockSize;

/** `cells`: at least 1; there are at most that many, and no more than `mapCellsMax`. */
export function volumeMap(resource: Resource, cells: number): VolumeMap {
  const { tracker, mediaSize } = resource.context;
  const { source, remote } = resource.session ?? {};
  const walk = source?.resync ?? remote?.pull ?? null;
  const map = mapOf(tracker, mediaSize, cells);
  if (walk !== null) {
    const cell = Math.floor(walk.cursor * limits.blockSize / map.cellBytes);
    map.syncingAt = Math.min(cell, map.hot.length - 1);
  }
  return map;
}

/** Without the place of a resync. */
export function mapOf(
  tracker: Pick<DirtyTracker, 'peerStale' | 'localStale' | 'extentSize' | 'hotExtents'>,
  mediaSize: number, cells: number,
): VolumeMap {
  let cellBytes = cellBytesMin;
  while (Math.ceil(mediaSize / cellBytes) > Math.min(cells, mapCellsMax)) cellBytes *= 2;
  const none = (): number[] =>
    Array.from({ length: Math.ceil(mediaSize / cellBytes) }, () => 0);
  const cut = { peerStale: none(), localStale: none(), hot: none() };
  tracker.peerStale.countInto(cut.peerStale, cellBytes);
  tracker.localStale.countInto(cut.localStale, cellBytes);
  const { extentSize } = tracker;
  for (const extent of tracker.hotExtents()) {
    const end = Math.min((extent + 1) * extentSize, mediaSize);
    for (let at = extent * extentSize; at < end;) {
      const cell = Math.floor(at / cellBytes);
      const next = Math.min(end, (cell + 1) * cellBytes);
      cut.hot[cell] = (cut.hot[cell] ?? 0) + next - at;
      at = next;
    }
  }
  return { mediaSize, cellBytes, ...cut, syncingAt: -1 };
}
