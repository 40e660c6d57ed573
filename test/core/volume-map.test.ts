/** The picture of a volume: sums are right for every size of cell, and quick for large volumes. */
import * as fc from 'fast-check';
import t from 'tap';
import { BlockMap } from '../../lib/core/block-map.ts';
import { mapOf } from '../../lib/core/volume-map.ts';
import { limits, MiB, TiB } from '../../lib/format/limits.ts';

function tracker(mediaSize: number, extents: number[] = []) {
  const [peerStale, localStale] = [new BlockMap(mediaSize), new BlockMap(mediaSize)];
  return { peerStale, localStale, extentSize: 2 * MiB, hotExtents: () => extents };
}

const sum = (cells: number[]): number => cells.reduce((all, one) => all + one, 0);

t.test('volume map: each marked block is counted in its cell', async (t) => {
  const writes = fc.array(fc.record({
    at: fc.integer({ min: 0, max: 300 * MiB - 1 }), length: fc.integer({ min: 1, max: 40 * MiB }),
  }), { maxLength: 5 });
  const sizes = fc.integer({ min: 1 * MiB, max: 300 * MiB });
  fc.assert(fc.property(sizes, writes, fc.integer({ min: 1, max: 2048 }), (size, list, cells) => {
    const one = tracker(size);
    for (const { at, length } of list) {
      if (at < size) one.peerStale.setRange(at, Math.min(length, size - at));
    }
    const map = mapOf(one, size, cells);
    t.ok(map.hot.length <= cells || map.cellBytes === 32_768);
    t.equal(map.hot.length, Math.ceil(size / map.cellBytes));
    t.equal(sum(map.peerStale), one.peerStale.count * limits.blockSize);
    map.peerStale.forEach((bytes, cell) => {
      const isMarked = one.peerStale.touches(cell * map.cellBytes, Math.min(
        map.cellBytes, size - cell * map.cellBytes));
      t.equal(bytes > 0, isMarked, `cell ${cell}`);
    });
  }), { numRuns: 60 });
});

t.test('volume map: hot extents in cells smaller and larger than they are', async (t) => {
  for (const [size, cells] of [[64 * MiB, 2048], [16 * TiB, 100]] as const) {
    const map = mapOf(tracker(size, [0, 1, 3]), size, cells);
    t.equal(sum(map.hot), 6 * MiB);
    t.equal(map.hot.findLastIndex((bytes) => bytes > 0), Math.ceil(8 * MiB / map.cellBytes) - 1);
  }
});

t.test('volume map: the largest volume takes no time that the engine would notice', async (t) => {
  const size = limits.mediaBytesMax;
  const one = tracker(size, Array.from({ length: limits.keepDirtyMax }, (_, at) => at * 7));
  one.peerStale.setAll();
  for (let at = 0; at < 30_000; at++) one.localStale.setRange(at * limits.regionSize * 3, 4096);
  mapOf(one, size, 2048);
  const startedAt = performance.now();
  const map = mapOf(one, size, 2048);
  const ms = performance.now() - startedAt;
  t.comment(`256 TiB, all stale, 30000 pages: ${ms.toFixed(1)} ms`);
  t.ok(ms < 500, 'far below what a disk may take');
  t.equal(sum(map.peerStale), size);
});
