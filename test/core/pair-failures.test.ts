/**
 * Goal: whatever dies or is cut, no acknowledged write is lost that the mode promises, nothing
 * hangs, only what differs is copied, and the images end equal.
 * Method: as pair.test.ts; links are cut, processes killed, machines lose their power.
 */
import { limits, MiB } from '../../lib/format/limits.ts';
import { DataState, PeerState, SuperblockFlag } from '../../lib/format/superblock.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { imageSuperblock } from '../fixtures/sim-image.ts';
import type { SimNode, SimRequest } from '../fixtures/sim-node.ts';
import type { SimPair } from '../fixtures/sim-pair.ts';

const modes = ['fullsync', 'memsync', 'async'] as const;

/** Keeps `depth` random writes in flight until stopped; each is checked to succeed. */
function steadyLoad(pair: SimPair, node: SimNode, depth: number): { stop(): void; count: number } {
  const state = { count: 0, stopped: false, stop: () => void (state.stopped = true) };
  const { random } = pair.world;
  const { size } = node.running.volume;
  const life = node.running;
  const next = (): void => {
    if (state.stopped || node.resource !== life) return;
    const length = 512 * (1 + random.int(32));
    const request = node.write(
      512 * random.int((size - length) / 512), Buffer.alloc(length, 1 + random.int(255)),
    );
    const { onDone } = request;
    request.onDone = (one: SimRequest) => {
      onDone?.(one);
      if (one.errno !== 0) throw new Error(`a write failed with errno ${one.errno}`);
      state.count++;
      pair.world.between(0, 2, next);
    };
  };
  for (let index = 0; index < depth; index++) next();
  return state;
}

function equalInTheEnd(pair: SimPair): void {
  pair.complete();
  for (const node of [pair.a, pair.b]) if (node.resource?.role === 'primary') pair.answered(node);
  pair.pass(3000);
  const at = pair.difference();
  if (at !== -1) throw new Error(`the images differ at block ${at}`);
}

for (const mode of modes) {
  eachSeed(`pair: link cut under load, alone, back, only the difference (${mode})`,
    { mode, mediaSize: 4 * MiB }, (pair, t) => {
      pair.primary();
      const generation = pair.a.running.context.store.value.generation;
      const load = steadyLoad(pair, pair.a, 8);
      pair.pass(100);
      pair.partition();
      const before = load.count;
      pair.until('it goes on alone', () => load.count > before + 50);
      const block = imageSuperblock(pair.a.disk.durable);
      t.equal(block.peerState, PeerState.behind);
      t.not(block.generation, generation);
      t.equal(block.history[0], generation);
      t.ok(pair.a.running.io.singleCopyWrites > 0);
      load.stop();
      pair.answered(pair.a);
      const stale = pair.a.running.context.tracker.peerStale.count;
      t.ok(stale > 0 && stale < pair.a.running.volume.size / limits.blockSize);
      const again = steadyLoad(pair, pair.a, 4);
      pair.heal();
      pair.until('copying began', () => pair.a.events.includes('syncstart'));
      pair.complete();
      again.stop();
      equalInTheEnd(pair);
      t.equal(pair.a.running.io.singleCopyWrites, 0);
      t.equal(
        imageSuperblock(pair.a.disk.durable).generation,
        imageSuperblock(pair.b.disk.durable).generation,
      );
    });
}

eachSeed('pair: a short cut copies no more than what was written', { mediaSize: 8 * MiB },
  (pair, t) => {
    pair.primary();
    pair.load(pair.a, 40);
    pair.answered(pair.a);
    pair.pass(9000);
    pair.partition();
    for (let at = 0; at < 5; at++) pair.a.write(at * MiB, Buffer.alloc(4096, at + 1));
    pair.answered(pair.a);
    t.equal(pair.a.running.context.tracker.peerStale.count, 5);
    let copied = 0;
    pair.b.disk.watch = (op) => {
      if (op.kind === 'write') copied += op.length;
    };
    pair.heal();
    equalInTheEnd(pair);
    t.equal(copied, 5 * 4096);
  });

eachSeed('pair: a silent network is noticed within the timeout', { timeoutMs: 2000 }, (pair, t) => {
  pair.primary();
  pair.partition(true);
  const request = pair.a.write(0, Buffer.alloc(512, 1));
  const before = pair.world.now();
  pair.until('answered', () => request.isDone);
  t.equal(request.errno, 0);
  t.ok(pair.world.now() - before < 4000, `${pair.world.now() - before} ms`);
  pair.heal();
  equalInTheEnd(pair);
});

for (const mode of modes) {
  eachSeed(`pair: the secondary takes over and the old primary returns (${mode})`, { mode },
    (pair, t) => {
      pair.primary();
      const load = steadyLoad(pair, pair.a, 6);
      pair.pass(50);
      pair.a.crash(pair.world.random.chance(0.5), false);
      pair.until('the loss is noticed', () => pair.b.phase === 'none');
      pair.mustPromote(pair.b);
      pair.load(pair.b, 20);
      pair.answered(pair.b);
      pair.a.boot();
      equalInTheEnd(pair);
      t.equal(pair.b.running.role, 'primary');
      // And back.
      load.stop();
      pair.b.crash(false);
      pair.until('the loss is noticed', () => pair.a.phase === 'none');
      pair.mustPromote(pair.a);
      pair.load(pair.a, 20);
      pair.b.boot();
      equalInTheEnd(pair);
    });

  for (const power of [false, true]) {
    eachSeed(`pair: the primary dies and returns (${mode}, ${power ? 'power cut' : 'kill'})`,
      { mode, mediaSize: 4 * MiB, seeds: 2 }, (pair) => {
        pair.primary();
        const load = steadyLoad(pair, pair.a, 8);
        pair.pass(60);
        load.stop();
        pair.a.crash(power);
        pair.a.boot();
        pair.complete();
        pair.mustPromote(pair.a);
        equalInTheEnd(pair);
      });

    eachSeed(`pair: the secondary dies and returns (${mode}, ${power ? 'power cut' : 'kill'})`,
      { mode, mediaSize: 3 * MiB, seeds: 2 }, (pair, t) => {
        pair.primary();
        const load = steadyLoad(pair, pair.a, 8);
        pair.pass(60);
        pair.b.crash(power);
        pair.b.boot();
        pair.until('connected again', () => pair.isComplete);
        load.stop();
        equalInTheEnd(pair);
        t.notOk(pair.a.running.failed);
      });
  }
}

eachSeed('pair: a fresh disk in place of the secondary gets everything', {}, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 40);
  pair.answered(pair.a);
  pair.b.crash(true);
  const size = pair.b.disk.size;
  const copyId = pair.world.random.id64();
  pair.b.disk = pair.b.newDisk({ ...pair.b.image, copyId, zeroed: pair.world.random.chance(0.5) });
  t.equal(pair.b.disk.size, size);
  pair.b.boot();
  pair.until('all is stale', () =>
    pair.a.running.context.tracker.peerStale.count === pair.a.running.volume.size / 4096);
  pair.load(pair.a, 10);
  equalInTheEnd(pair);
});

eachSeed('pair: copies that are not zeroed wait for a promotion, then one is copied',
  { zeroed: false }, (pair, t) => {
    pair.boot();
    pair.until('undecided', () => pair.a.phase === 'undecided' && pair.b.phase === 'undecided');
    pair.pass(5000);
    t.not(pair.difference(), -1);
    pair.mustPromote(pair.b);
    pair.load(pair.b, 10);
    equalInTheEnd(pair);
    t.equal(pair.a.data()[1000], 'b'.charCodeAt(0));
  });

/** a has been primary, b is: what both then remember must not let the copies be mistaken. */
function handedOver(pair: SimPair): void {
  pair.primary();
  pair.load(pair.a, 3);
  pair.a.crash(false);
  pair.pass(100);
  pair.a.boot();
  pair.complete();
  pair.mustPromote(pair.b);
}

eachSeed('pair: a primary that was killed is not the last one any more when the peer is promoted',
  { seeds: 10, mode: 'memsync' }, (pair, t) => {
    handedOver(pair);
    const { flags } = imageSuperblock(pair.a.disk.durable);
    t.equal(flags & SuperblockFlag.primaryActive, 0);
    pair.run(pair.b, AppOp.write, 0, 4096, Buffer.alloc(4096, 'x'));
    pair.link?.cut();
    pair.until('together again', () => pair.isComplete);
    t.notOk(pair.b.running.failed, 'it serves');
    equalInTheEnd(pair);
  });

eachSeed('pair: when both are lost the primary is the source, not one that was it before',
  { seeds: 10, mode: 'memsync' }, (pair, t) => {
    handedOver(pair);
    // The peer acknowledges what it holds in memory only.
    pair.a.disk.latency = [50, 60];
    pair.run(pair.b, AppOp.write, 0, 4096, Buffer.alloc(4096, 'y'));
    pair.a.crash(true);
    pair.b.crash(false);
    pair.a.boot();
    pair.b.boot();
    pair.complete();
    equalInTheEnd(pair);
    t.equal(pair.a.data()[0], 'y'.charCodeAt(0), 'what was acknowledged is there');
  });

for (const lost of ['connection', 'peer'] as const) {
  eachSeed(`pair: the peer takes the generation of a promotion, and its answer is lost (${lost})`,
    { seeds: 30 }, (pair, t) => {
      pair.boot().complete();
      const generation = (): bigint => imageSuperblock(pair.a.disk.durable).generation;
      const before = generation();
      const answer = pair.b.promote();
      pair.until('the peer has it', () => generation() !== before);
      if (lost === 'connection') pair.link?.cut();
      else {
        pair.a.crash(true);
        pair.a.boot();
      }
      pair.until('it is answered', () => answer.done);
      t.equal(answer.refusal, null);
      pair.until('together again', () => pair.isComplete);
      t.equal(pair.run(pair.b, AppOp.write, 0, 4096, Buffer.alloc(4096, 'z')).errno, 0);
      equalInTheEnd(pair);
    });
}

for (const side of ['a', 'b'] as const) {
  for (const power of [false, true]) {
    eachSeed(`pair: ${side} restarts in the middle of a resync (${power ? 'power cut' : 'kill'})`,
      { mediaSize: 8 * MiB, seeds: 2 }, (pair, t) => {
        pair.primary();
        pair.partition();
        for (let at = 0; at < 8; at++) pair.a.write(at * MiB, Buffer.alloc(MiB, at + 1));
        pair.answered(pair.a);
        pair.heal();
        pair.until('copying', () =>
          (pair.a.running.session?.source.resync?.copiedBlocks ?? 0) > 100);
        t.equal(imageSuperblock(pair.b.disk.durable).dataState, DataState.inconsistent);
        pair[side].crash(power);
        pair.pass(100);
        if (side === 'a') {
          t.match(pair.promote(pair.b), /half-finished|brought up to date|is primary/);
        }
        pair[side].boot();
        if (side === 'a') {
          pair.until('connected', () => pair.a.running.session?.isConnected === true);
          pair.mustPromote(pair.a);
        }
        pair.load(pair.a, 10);
        equalInTheEnd(pair);
      });
  }
}

eachSeed('pair: the secondary\'s disk fails, the primary goes on', {}, (pair, t) => {
  pair.primary();
  const load = steadyLoad(pair, pair.a, 4);
  pair.pass(20);
  pair.b.disk.fault = (op) => (op.kind === 'write' ? 5 : 0);
  pair.until('the secondary failed', () => pair.b.running.failed);
  const before = load.count;
  pair.until('it goes on alone', () => load.count > before + 20);
  load.stop();
  pair.answered(pair.a);
  t.equal(imageSuperblock(pair.a.disk.durable).peerState, PeerState.behind);
  pair.b.crash();
  pair.b.disk.fault = () => 0;
  pair.b.boot();
  equalInTheEnd(pair);
});

for (const kind of ['write', 'flush', 'durable'] as const) {
  eachSeed(`pair: the disk of a lone primary fails (${kind}): nothing is answered as good`, {},
    (pair, t) => {
      pair.primary();
      pair.a.options.onNoData = 'fail';
      pair.b.crash();
      pair.load(pair.a, 10);
      pair.answered(pair.a);
      pair.a.disk.fault = (op) => (op.kind === kind ? 5 : 0);
      const requests = pair.load(pair.a, 20);
      const flush = pair.a.submit(AppOp.flush, 0, 0);
      pair.answered(pair.a);
      if (kind === 'flush') t.equal(flush.errno, 5);
      if (kind === 'write') t.ok(requests.every((one) => one.errno === 5));
      t.ok(pair.a.running.failed);
      t.equal(pair.run(pair.a, AppOp.read, 0, 512).errno, 5);
    });

  eachSeed(`pair: the disk of a lone primary fails (${kind}), on-no-data stall: requests wait`, {},
    (pair, t) => {
      pair.primary();
      pair.b.crash();
      pair.load(pair.a, 10);
      pair.answered(pair.a);
      pair.a.disk.fault = (op) => (op.kind === kind ? 5 : 0);
      pair.load(pair.a, 20);
      const flush = pair.a.submit(AppOp.flush, 0, 0);
      pair.pass(20_000);
      t.ok(pair.a.running.failed);
      // What needed no mark was good; what did waits.
      const waiting = pair.a.open.size;
      t.ok(waiting > 0);
      if (kind === 'flush') t.notOk(flush.isDone);
      let stopped = false;
      pair.a.running.stop(true, () => {
        stopped = true;
      });
      pair.until('stopped', () => stopped);
      pair.answered(pair.a);
      if (kind === 'flush') t.equal(flush.errno, 5);
    });
}

eachSeed('pair: blocks that cannot be read do not stop the copying of others',
  { mediaSize: 8 * MiB, seeds: 2 }, (pair, t) => {
    pair.primary();
    pair.partition();
    for (let at = 0; at < 8; at++) pair.a.write(at * MiB, Buffer.alloc(MiB, at + 1));
    pair.answered(pair.a);
    const { dataOffset } = pair.a.geometry;
    const isBad = (offset: number): boolean => offset >= MiB && offset < 7 * MiB;
    pair.a.disk.fault = (op) => (op.kind === 'read' && isBad(op.offset - dataOffset) ? 5 : 0);
    pair.heal();
    pair.until('the last is copied', () => pair.b.data()[8 * MiB - 1] === 8, 20_000);
    const steps = pair.world.steps;
    pair.pass(5000);
    t.ok(pair.world.steps - steps < 1000, 'it does not read without end');
    t.not(pair.a.running.context.tracker.peerStale.count, 0);
    t.equal(pair.b.phase, 'syncing');
    // A write makes a block good again.
    for (let at = 1; at < 7; at++) pair.a.write(at * MiB, Buffer.alloc(MiB, 0x55));
    equalInTheEnd(pair);
  });

eachSeed('pair: a disk rolled back to an image taken while it ran is noticed', { seeds: 10 },
  (pair, t) => {
    pair.primary();
    pair.load(pair.a, 20);
    pair.flush(pair.a);
    // A snapshot of the machine, after some of the writes and at any moment of a checkpoint.
    pair.pass(pair.world.random.unit() * 3000);
    const image = Buffer.from(pair.b.disk.durable);
    for (let round = 0; round < 2; round++) {
      pair.load(pair.a, 10);
      pair.answered(pair.a);
      pair.flush(pair.a);
      pair.pass(8000);
    }
    t.ok(pair.isUnmarked(pair.a));
    pair.b.crash(true);
    pair.b.disk.place(0, image);
    pair.b.boot();
    equalInTheEnd(pair);
  });
