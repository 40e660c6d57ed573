/** Goal: a superblock that is under way shows, and one whose disk was given up keeps nobody. */
import t from 'tap';
import type { DiskPort } from '../../lib/core/ports.ts';
import { SuperblockStore } from '../../lib/core/superblock-store.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import { metadataDisk } from '../fixtures/sim-map.ts';
import { SimWorld } from '../fixtures/sim-world.ts';

t.test('superblock-store: a disk that hangs is seen, one given up is left alone', async (t) => {
  const world = new SimWorld(1);
  const { disk, block } = metadataDisk(world, {
    resource: 'r', copyId: 5n, mediaSize: limits.regionSize, extentSize: MiB, keepDirty: 256,
    zeroed: true, sectorSize: 512,
  });
  // Only the first copy lies on this disk.
  const port: DiskPort = {
    ...disk.port(),
    writeDurable: (_offset, raw, done) => disk.port().writeDurable(0, raw, done),
  };
  const store = new SuperblockStore(port, block, () => world.now());
  const since = world.now();
  const called: number[] = [];
  disk.holds = () => true;
  store.update({ contactAt: 1 }, (errno) => void called.push(errno));
  t.equal(store.oldestWrite, since);
  world.pass(20);
  store.update({ contactAt: 2 }, (errno) => void called.push(errno));
  t.equal(store.oldestWrite, since);
  disk.release();
  world.until(() => called.length === 2);
  t.equal(store.oldestWrite, null);
  disk.holds = () => true;
  store.update({ contactAt: 3 }, (errno) => void called.push(errno));
  store.update({ contactAt: 4 }, (errno) => void called.push(errno));
  world.pass(20);
  let issued = 0;
  disk.watch = () => void issued++;
  store.abandon();
  t.equal(store.oldestWrite, null);
  t.equal(store.value.contactAt, 4);
  disk.release();
  world.pass(20);
  t.same(called, [0, 0, 0, 0], 'who waited goes on');
  store.update({ contactAt: 5 }, (errno) => void called.push(errno));
  t.same(called, [0, 0, 0, 0, 0]);
  t.equal(store.value.contactAt, 5);
  t.equal(issued, 0);
});
