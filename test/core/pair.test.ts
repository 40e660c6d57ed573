/**
 * Goal: two cores that talk to each other replicate in every mode, and leave nothing marked.
 * Method: simulated disks, link and clock; every scenario runs with a few seeds, so that orders
 * and delays differ. Images are compared byte for byte.
 */
import { limits, MiB } from '../../lib/format/limits.ts';
import { PeerState, SuperblockFlag } from '../../lib/format/superblock.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { imageMap, imageSuperblock } from '../fixtures/sim-image.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import type { SimPair } from '../fixtures/sim-pair.ts';

const modes = ['fullsync', 'memsync', 'async'] as const;

/** What a restart after a power cut would read. */
function durablyUnmarked(node: SimNode): boolean {
  const { peerStale, hot } = imageMap(node.disk.durable);
  return peerStale.isEmpty && hot.length === 0;
}

function resyncFrames(pair: SimPair): number {
  return pair.a.running.session?.source.resync?.copiedBlocks ?? 0;
}

eachSeed('pair: fresh zeroed copies are complete without copying', {}, (pair, t) => {
  let reads = 0;
  for (const node of [pair.a, pair.b]) {
    node.disk.watch = (op) => {
      if (op.kind === 'read' && op.offset >= 1 * MiB && op.length > 4096) reads++;
    };
  }
  pair.boot().complete();
  t.equal(resyncFrames(pair), 0);
  t.equal(reads, 0);
  t.notOk([...pair.a.events, ...pair.b.events].includes('syncstart'));
  t.same([pair.a.events, pair.b.events], [['connect'], ['connect']]);
});

eachSeed('pair: a promotion gives both copies a durable generation', {}, (pair, t) => {
  pair.boot().complete();
  pair.mustPromote(pair.a);
  const [one, two] = [pair.a, pair.b].map((node) => imageSuperblock(node.disk.durable));
  t.not(one?.generation, 0n);
  t.equal(one?.generation, two?.generation);
  t.equal(one?.peerState, PeerState.complete);
  t.ok(((one?.flags ?? 0) & SuperblockFlag.primaryActive) !== 0);
});

for (const mode of modes) {
  eachSeed(`pair: concurrent overlapping writes end equal (${mode})`, { mode }, (pair, t) => {
    pair.primary();
    for (let round = 0; round < 3; round++) {
      const requests = pair.load(pair.a, 40, 200 * 1024);
      pair.answered(pair.a);
      t.ok(requests.every((one) => one.errno === 0));
    }
    t.equal(pair.flush(pair.a).errno, 0);
    if (mode !== 'async') {
      // Both are durable when the flush is answered, whatever the caches hold.
      pair.a.disk.crash(true);
      pair.b.disk.crash(true);
    } else {
      pair.pass(5000);
    }
    t.equal(pair.difference(), -1);
  });

  eachSeed(`pair: an idle volume ends with nothing marked (${mode})`, { mode }, (pair, t) => {
    pair.primary();
    pair.load(pair.a, 50);
    pair.answered(pair.a);
    t.notOk(pair.isUnmarked(pair.a));
    pair.pass(12_000);
    t.ok(pair.isUnmarked(pair.a), pair.describe());
    t.ok(durablyUnmarked(pair.a));
    t.ok(durablyUnmarked(pair.b));
    t.equal(pair.difference(), -1);
  });

  eachSeed(`pair: reads see writes, requests end once (${mode})`, { mode }, (pair, t) => {
    pair.primary();
    const data = Buffer.alloc(12_345, 'read me');
    const write = pair.run(pair.a, AppOp.write, 4567, data.length, data);
    t.equal(write.errno, 0);
    t.ok(pair.run(pair.a, AppOp.read, 4567, data.length).data?.equals(data));
    t.equal(pair.run(pair.a, AppOp.read, pair.a.running.volume.size, 1).errno, 22);
    t.equal(pair.run(pair.a, AppOp.write, 0, 0).errno, 0);
    pair.load(pair.a, 30);
    for (let index = 0; index < 10; index++) pair.a.submit(AppOp.flush, 0, 0);
    pair.answered(pair.a);
    pair.pass(3000);
  });
}

const wide = { mediaSize: 70 * MiB, seeds: 1 };

for (const mode of modes) {
  eachSeed(`pair: ranges larger than a piece (${mode})`, { ...wide, mode }, (pair, t) => {
    pair.primary();
    for (let at = 0; at < 70; at += 7) {
      pair.a.write(at * MiB + 100, Buffer.alloc(MiB - 200, at + 1));
    }
    pair.answered(pair.a);
    // Two large ranges that overlap, with writes inside and at the edges.
    pair.a.submit(AppOp.discard, 1 * MiB + 512, 50 * MiB);
    pair.a.submit(AppOp.zero, 30 * MiB - 4096, 35 * MiB + 8192);
    pair.a.write(29 * MiB, Buffer.alloc(MiB, 0xaa));
    pair.a.write(60 * MiB, Buffer.alloc(65_536, 0xbb));
    pair.answered(pair.a);
    t.equal(pair.flush(pair.a).errno, 0);
    pair.pass(3000);
    t.equal(pair.difference(), -1);
    t.ok(pair.a.data().subarray(2 * MiB, 3 * MiB).every((byte) => byte === 0));
    t.equal(pair.a.data()[60 * MiB], 0xbb);
  });
}

eachSeed('pair: random writers over many more extents than keepdirty', wide, (pair, t) => {
  pair.primary();
  for (let round = 0; round < 4; round++) {
    pair.load(pair.a, 120, 8192);
    pair.answered(pair.a);
    t.ok(pair.a.running.context.tracker.hotCount <= 32);
  }
  pair.pass(8000);
  t.ok(pair.isUnmarked(pair.a), pair.describe());
  t.ok(durablyUnmarked(pair.a));
  t.equal(pair.difference(), -1);
});

eachSeed('pair: memory is used again right after completion (async, stalled link)',
  { mode: 'async' }, (pair, t) => {
    pair.primary();
    pair.link?.stall();
    const requests = pair.load(pair.a, 60);
    pair.until('answered without the peer', () => requests.every((one) => one.isDone), 3000);
    t.ok(requests.every((one) => one.errno === 0));
    pair.link?.resume();
    pair.pass(3000);
    t.ok(pair.isComplete);
    t.equal(pair.difference(), -1);
  });

eachSeed('pair: a flood of flushes over a stalled link (async)', { mode: 'async' }, (pair, t) => {
  pair.primary();
  pair.link?.stall();
  let answered = 0;
  for (let index = 0; index < 5000; index++) {
    pair.a.write(4096 * (index % 8), Buffer.alloc(512, index));
    pair.a.submit(AppOp.flush, 0, 0);
    pair.world.until(() => pair.a.open.size < 40, 100);
    if (pair.a.open.size >= 40) break;
    answered = index;
  }
  t.ok(answered > 1000, 'the window is there to be used');
  pair.link?.resume();
  pair.answered(pair.a);
  pair.pass(5000);
  t.equal(pair.difference(), -1);
});

eachSeed('pair: flushes without writes over a stalled link (async)', { mode: 'async' }, (pair) => {
  pair.primary();
  pair.link?.stall();
  for (let index = 0; index < 5000; index++) {
    pair.a.submit(AppOp.flush, 0, 0);
    pair.world.until(() => pair.a.open.size < 40, 100);
    if (pair.a.open.size >= 40) break;
  }
  pair.link?.resume();
  pair.answered(pair.a);
});

eachSeed('pair: async holds writes at its lag bounds', { mode: 'async' }, (pair, t) => {
  pair.primary();
  pair.a.options.asyncLagBytes = 256 * 1024;
  pair.link?.stall();
  const requests = Array.from({ length: 20 }, (_, index) =>
    pair.a.write(index * 65_536, Buffer.alloc(65_536, index + 1)));
  pair.pass(1500);
  const answered = requests.filter((one) => one.isDone).length;
  t.ok(answered >= 3 && answered <= 5, `${answered} answered`);
  pair.link?.resume();
  pair.answered(pair.a);
  pair.pass(100);
  t.equal(pair.difference(), -1);
});

for (const wire of [
  { checksum: 'sha256', compression: 'none', compressor: null },
  { checksum: 'none', compression: 'hole', compressor: null },
] as const) {
  eachSeed(`pair: checksum ${wire.checksum}, compression ${wire.compression}`, { wire },
    (pair, t) => {
      pair.primary();
      pair.load(pair.a, 30);
      pair.a.write(0, Buffer.alloc(limits.payloadBytesMax));
      pair.answered(pair.a);
      t.equal(pair.difference(), -1);
    });
}

eachSeed('pair: stop() of a primary leaves no marks and no primary', {}, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 40);
  pair.stop(pair.a);
  const block = imageSuperblock(pair.a.disk.durable);
  t.equal(block.flags & SuperblockFlag.primaryActive, 0);
  t.ok(durablyUnmarked(pair.a));
  pair.a.boot();
  pair.complete();
  t.equal(pair.difference(), -1);
  t.notOk(pair.b.events.includes('syncstart') || pair.a.events.includes('syncstart'));
});

eachSeed('pair: stop() of a former source is not slow', {}, (pair, t) => {
  pair.boot().complete();
  // Whichever was the source of the first handshake: promote the other one.
  const source = pair.a.running.session?.verdict?.kind === 'source' ? pair.a : pair.b;
  pair.mustPromote(pair.other(source));
  pair.load(pair.other(source), 10);
  pair.answered(pair.other(source));
  const before = pair.world.now();
  pair.stop(source);
  t.ok(pair.world.now() - before < 1000, `${pair.world.now() - before} ms`);
});

eachSeed('pair: stop() without a peer keeps its marks', {}, (pair, t) => {
  pair.primary();
  pair.partition();
  pair.load(pair.a, 20);
  pair.answered(pair.a);
  pair.stop(pair.a);
  const { peerStale, hot } = imageMap(pair.a.disk.durable);
  t.notOk(peerStale.isEmpty);
  t.same(hot, []);
  t.equal(imageSuperblock(pair.a.disk.durable).peerState, PeerState.behind);
});
