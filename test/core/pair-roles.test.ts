/**
 * Goal: who may be primary, who copies to whom, and what two nodes do that must not connect.
 * Method: as pair.test.ts; some operations of a disk are held back to open a race wide.
 */
import t from 'tap';
import { MiB } from '../../lib/format/limits.ts';
import { DataState, PeerState, SuperblockFlag } from '../../lib/format/superblock.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { coreStatus } from '../../lib/core/status.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { imageSuperblock } from '../fixtures/sim-image.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

function noticed(pair: SimPair, node: SimNode): void {
  pair.until(`${node.name} notices the loss`, () => node.phase === 'none');
}

function settled(pair: SimPair): void {
  pair.complete();
  pair.pass(3000);
  const at = pair.difference();
  if (at !== -1) throw new Error(`the images differ at block ${at}`);
}

eachSeed('roles: copies of different sizes are refused by both, nothing is written',
  { second: { mediaSize: 3 * MiB } }, (pair, t) => {
    pair.boot();
    pair.until('refused', () =>
      pair.a.running.refusal !== null && pair.b.running.refusal !== null);
    t.equal(pair.a.running.refusal?.reason, 'size-mismatch');
    t.equal(pair.b.running.refusal?.reason, 'size-mismatch');
    t.equal(coreStatus(pair.a.running).connection, 'refused');
    // And it does not knock without pause.
    const steps = pair.world.steps;
    pair.pass(20_000);
    t.ok(pair.world.steps - steps < 2000, `${pair.world.steps - steps} steps`);
  });

eachSeed('roles: a clone of the peer\'s disk is refused', {}, (pair, t) => {
  pair.b.disk.place(0, pair.a.disk.cache);
  pair.boot();
  pair.until('refused', () => pair.a.running.refusal !== null && pair.b.running.refusal !== null);
  t.equal(pair.a.running.refusal?.reason, 'same-copy');
});

eachSeed('roles: a clone that names its own node as its peer finds the peer', {}, (pair, t) => {
  pair.boot().complete();
  pair.partition();
  pair.a.crash(true);
  pair.a.disk.place(0, pair.b.disk.cache);
  pair.a.boot();
  // The attempt that every start makes comes to nothing.
  pair.pass(3000);
  pair.heal();
  pair.until('refused', () => pair.a.running.refusal !== null && pair.b.running.refusal !== null);
  t.equal(pair.a.running.refusal?.reason, 'same-copy');
});

/** Both nodes write on their own after a partition, the second one by force. */
function splitBrain(pair: SimPair, t: { match: (one: unknown, two: RegExp) => unknown }): void {
  pair.primary();
  pair.load(pair.a, 20);
  pair.answered(pair.a);
  pair.partition();
  pair.load(pair.a, 10);
  pair.answered(pair.a);
  noticed(pair, pair.b);
  pair.b.crash();
  pair.b.boot();
  t.match(pair.promote(pair.b), /not reachable and may have newer data/);
  pair.mustPromote(pair.b, true);
  pair.load(pair.b, 10);
  pair.answered(pair.b);
}

eachSeed('roles: split brain is seen by both, no byte is changed, one event each', {},
  (pair, t) => {
    splitBrain(pair, t);
    pair.a.crash();
    pair.b.crash();
    pair.connected = true;
    const images = [pair.a, pair.b].map((node) => Buffer.from(node.data()));
    pair.boot();
    pair.until('refused', () => pair.a.running.refusal !== null && pair.b.running.refusal !== null);
    pair.pass(60_000);
    for (const [index, node] of [pair.a, pair.b].entries()) {
      t.equal(node.running.refusal?.reason, 'split-brain');
      t.equal(coreStatus(node.running).status, 'split-brain');
      t.ok(node.data().equals(images[index] as Buffer));
      t.equal(node.events.filter((one) => one === 'split-brain').length, 1);
      t.match(pair.promote(node), /split brain/);
    }
  });

eachSeed('roles: two running primaries never join', {}, (pair, t) => {
  splitBrain(pair, t);
  const images = [pair.a, pair.b].map((node) => Buffer.from(node.data()));
  pair.heal();
  pair.pass(60_000);
  t.ok(pair.a.data().equals(images[0] as Buffer));
  t.ok(pair.b.data().equals(images[1] as Buffer));
  t.notOk(pair.isComplete);
  for (const node of [pair.a, pair.b]) t.not(node.running.refusal, null);
});

eachSeed('roles: a primary whose peer was promoted by force answers nothing more', {},
  (pair, t) => {
    pair.primary();
    pair.partition();
    noticed(pair, pair.b);
    pair.mustPromote(pair.b, true);
    const writes = pair.load(pair.b, 5);
    pair.answered(pair.b);
    t.ok(writes.every((one) => one.errno === 0));
    pair.heal();
    // Nothing was acknowledged alone before the handshake: it must not be after it.
    pair.until('a has stepped back', () => pair.a.running.failed);
    t.equal(pair.run(pair.a, AppOp.write, 0, 512, Buffer.alloc(512)).errno, 5);
    pair.a.crash();
    pair.a.boot();
    settled(pair);
  });

eachSeed('roles: promotion refusals', {}, (pair, t) => {
  pair.primary();
  t.match(pair.promote(pair.b), /the peer is primary/);
  t.match(pair.promote(pair.b, true), /the peer is primary/);
  pair.a.crash();
  noticed(pair, pair.b);
  pair.b.crash();
  pair.b.boot();
  t.match(pair.promote(pair.b), /not reachable/);
  pair.mustPromote(pair.b, true);
  const { flags } = imageSuperblock(pair.b.disk.durable);
  t.not(flags & SuperblockFlag.forced, 0);
});

eachSeed('roles: a fresh copy alone may be promoted, its peer gets what was written', {},
  (pair, t) => {
    pair.a.boot();
    pair.mustPromote(pair.a);
    pair.load(pair.a, 10);
    pair.answered(pair.a);
    const stale = pair.a.running.context.tracker.peerStale.count;
    t.ok(stale < pair.a.running.volume.size / 4096);
    pair.b.boot();
    settled(pair);
  });

eachSeed('roles: a primary that recorded its peer as behind returns alone', {}, (pair) => {
  pair.primary();
  pair.b.crash();
  pair.load(pair.a, 5);
  pair.answered(pair.a);
  pair.a.crash(true);
  pair.a.boot();
  pair.mustPromote(pair.a);
  pair.b.boot();
  settled(pair);
});

eachSeed('roles: a forced copy that was half a sync never wins by itself',
  { mediaSize: 4 * MiB }, (pair, t) => {
    pair.primary();
    pair.partition();
    for (let at = 0; at < 4; at++) pair.a.write(at * MiB, Buffer.alloc(MiB, at + 1));
    pair.answered(pair.a);
    pair.heal();
    pair.until('copying', () => (pair.a.running.session?.source.resync?.copiedBlocks ?? 0) > 50);
    pair.a.crash();
    noticed(pair, pair.b);
    t.match(pair.promote(pair.b), /half-finished/);
    pair.mustPromote(pair.b, true);
    pair.load(pair.b, 3);
    pair.answered(pair.b);
    const image = Buffer.from(pair.b.data());
    pair.a.boot();
    pair.pass(30_000);
    t.notOk(pair.isComplete);
    t.equal(pair.a.running.refusal?.reason, 'split-brain');
    t.ok(pair.b.data().equals(image));
  });

eachSeed('roles: both are promoted at once: one becomes primary', { seeds: 20 }, (pair, t) => {
  pair.boot().complete();
  const answers = [pair.a, pair.b].map((node) => {
    pair.pass(pair.world.random.pick([0, 1, 3]) * pair.world.random.unit());
    return node.promote();
  });
  pair.until('both are answered', () => answers.every((one) => one.done));
  t.equal(answers.filter((one) => one.refusal === null).length, 1);
  const primaries = [pair.a, pair.b].filter((node) => node.running.role === 'primary');
  t.equal(primaries.length, 1);
  const write = pair.run(primaries[0] as SimNode, AppOp.write, 0, 4096, Buffer.alloc(4096, 1));
  t.equal(write.errno, 0);
  settled(pair);
  // Also after the one that gave way was killed, or its peer.
  pair.other(primaries[0] as SimNode).crash(pair.world.random.chance(0.5));
  pair.other(primaries[0] as SimNode).boot();
  settled(pair);
  t.notOk(pair.a.events.includes('split-brain'));
});

eachSeed('roles: what memsync acknowledges while the peer is being promoted is applied first',
  { mode: 'memsync', seeds: 30 }, (pair, t) => {
    const { random } = pair.world;
    pair.boot().complete();
    pair.b.disk.latency = [1, 60];
    const answer = pair.b.promote(true);
    if (pair.promote(pair.a) !== null) return;
    const writes = Array.from({ length: 20 }, (_, at) =>
      pair.a.write(at * 8192, Buffer.alloc(4096, at + 1)));
    pair.pass(random.unit() * 8);
    pair.partition();
    const answered = writes.filter((one) => one.errno === 0);
    pair.until('the answer', () => answer.done);
    if (answer.refusal !== null) return;
    for (const { offset } of answered) {
      t.equal(pair.b.data()[offset], offset / 8192 + 1, `block at ${offset}`);
    }
  });

const targetPhases = ['waiting', 'keeping', 'syncing', 'adopting'];

for (const phase of ['hello', 'waiting', 'syncing']) {
  eachSeed(`roles: the peer returns while a promotion is under way (${phase})`, { seeds: 3 },
    (pair, t) => {
      pair.primary();
      pair.load(pair.a, 20);
      pair.answered(pair.a);
      pair.a.crash();
      noticed(pair, pair.b);
      // The decision is made; the flush before the new generation takes its time.
      pair.b.disk.holds = (op) => op.kind === 'flush';
      const answer = pair.b.promote();
      pair.pass(1500);
      pair.a.boot();
      pair.until('the handshake is as far', () => pair.b.phase === phase, 20_000);
      pair.b.disk.release();
      const overwritten = (): boolean =>
        pair.b.running.role === 'primary' && targetPhases.includes(pair.b.phase);
      pair.until('answered', () => overwritten() || answer.done);
      pair.world.until(() => overwritten() || pair.isComplete, 30_000);
      t.notOk(overwritten(), 'a primary is never the target');
      if (answer.refusal !== null) return;
      const write = pair.run(pair.b, AppOp.write, 0, 4096, Buffer.alloc(4096, 'new'));
      t.equal(write.errno, 0);
      settled(pair);
      t.equal(pair.a.data().subarray(0, 3).toString(), 'new');
    });
}

eachSeed('roles: a target that adopts late does not forget a newer sync', { mediaSize: 4 * MiB },
  (pair, t) => {
    pair.primary();
    pair.partition();
    pair.load(pair.a, 10);
    pair.answered(pair.a);
    pair.heal();
    // The target's flush before it takes the generation hangs, then the link breaks.
    pair.until('adopting', () => pair.b.phase === 'adopting');
    pair.b.disk.holds = (op) => op.kind === 'flush';
    pair.link?.cut();
    pair.until('noticed', () => pair.a.phase !== 'finishing');
    for (let at = 0; at < 4; at++) pair.a.write(at * MiB, Buffer.alloc(MiB, at + 1));
    pair.until('copying again', () => pair.b.phase === 'syncing' &&
      imageSuperblock(pair.b.disk.durable).dataState === DataState.inconsistent, 20_000);
    pair.link?.stall();
    pair.b.disk.release();
    pair.pass(500);
    t.equal(imageSuperblock(pair.b.disk.durable).dataState, DataState.inconsistent);
    t.equal(pair.b.running.context.store.value.dataState, DataState.inconsistent);
    pair.link?.resume();
    settled(pair);
  });

eachSeed('roles: a primary whose peer was replaced by an impossible one goes on alone', {},
  (pair, t) => {
    pair.primary();
    pair.b.crash();
    pair.b.disk = pair.b.newDisk({ ...pair.b.image, copyId: 77n, mediaSize: 3 * MiB });
    pair.b.boot();
    const request = pair.a.write(0, Buffer.alloc(512, 1));
    const steps = pair.world.steps;
    pair.until('answered', () => request.isDone, 30_000);
    t.equal(request.errno, 0);
    t.equal(imageSuperblock(pair.a.disk.durable).peerState, PeerState.behind);
    pair.pass(20_000);
    t.ok(pair.world.steps - steps < 4000, `${pair.world.steps - steps} steps`);
    t.equal(pair.a.running.refusal?.reason, 'size-mismatch');
  });

eachSeed('roles: a flush during a break is answered when the pair is complete again', {},
  (pair, t) => {
    pair.primary();
    pair.a.disk.holds = (op) => op.kind === 'flush';
    const flush = pair.a.submit(AppOp.flush, 0, 0);
    pair.pass(5);
    pair.link?.cut();
    noticed(pair, pair.a);
    pair.a.disk.release();
    pair.until('answered', () => flush.isDone, 20_000);
    t.equal(flush.errno, 0);
    settled(pair);
  });

eachSeed('roles: a peer that breaks off at the end of every sync stays related', { seeds: 2 },
  (pair, t) => {
    pair.primary();
    for (let round = 0; round < 25; round++) {
      pair.load(pair.a, 2);
      pair.until('adopting', () => pair.b.phase === 'adopting' || pair.isComplete);
      if (!pair.isComplete) pair.b.disk.holds = (op) => op.kind === 'flush';
      pair.link?.cut();
      noticed(pair, pair.a);
      pair.answered(pair.a);
      pair.b.disk.release();
    }
    t.equal(pair.a.running.refusal, null);
    settled(pair);
  });

eachSeed('roles: a promotion is answered in time when the disk hangs', {}, (pair, t) => {
  pair.boot().complete();
  pair.a.disk.holds = (op) => op.kind === 'flush';
  const answer = pair.a.promote(false, 3000);
  pair.until('answered', () => answer.done, 4000);
  t.match(answer.refusal?.message, /disk/);
  pair.a.disk.release();
  pair.pass(500);
  t.equal(pair.a.running.role, 'secondary');
  pair.mustPromote(pair.a);
});

t.test('roles: remote none works alone', async (t) => {
  const pair = new SimPair();
  pair.a.options.alone = true;
  pair.a.boot();
  pair.mustPromote(pair.a);
  t.equal(pair.run(pair.a, AppOp.write, 0, 512, Buffer.alloc(512, 1)).errno, 0);
  t.equal(pair.flush(pair.a).errno, 0);
  t.equal(coreStatus(pair.a.running).connection, 'none');
  pair.stop(pair.a);
});

eachSeed('roles: a fresh copy that took writes never passes for an empty one again', {},
  (pair, t) => {
    pair.a.boot();
    pair.mustPromote(pair.a);
    pair.b.boot();
    const isOver = (): boolean => ['finishing', 'copying'].includes(pair.a.phase);
    pair.until('the handshake found nothing to copy', isOver);
    pair.a.write(0, Buffer.alloc(4096, 7));
    pair.until('the first write reaches the other disk', () => pair.b.data()[0] === 7);
    const block = imageSuperblock(pair.b.disk.durable);
    t.notOk(block.generation === 0n && block.dataState === DataState.consistent);
  });

eachSeed('roles: a primary in use never yields to a generation that the peer announces', {},
  (pair, t) => {
    pair.boot().complete();
    const copyId = (node: SimNode): bigint => node.running.context.store.value.copyId;
    const [low, high] = copyId(pair.a) < copyId(pair.b) ? [pair.a, pair.b] : [pair.b, pair.a];
    pair.mustPromote(low);
    pair.pass(100);
    const { generation } = low.running.context.store.value;
    const { history } = high.running.context.store.value;
    high.running.session?.announceGeneration({ generation: 77n, history }, () => undefined);
    pair.pass(50);
    t.equal(low.running.role, 'primary');
    t.equal(low.running.context.store.value.generation, generation);
    pair.load(low, 5);
    pair.answered(low);
    settled(pair);
  });

eachSeed('roles: the statement that the peer is gone ends when it returns', {}, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 5);
  pair.flush(pair.a);
  pair.pass(5000);
  pair.a.crash();
  pair.b.crash();
  pair.b.boot();
  pair.pass(5000);
  let stated = false;
  pair.b.running.operator.peerGone((refusal) => {
    stated = refusal === null;
  });
  pair.pass(1000);
  t.ok(stated);
  pair.a.boot();
  pair.complete();
  pair.mustPromote(pair.a);
  pair.pass(5000);
  pair.b.crash();
  pair.pass(30_000);
  pair.load(pair.a, 5);
  pair.answered(pair.a);
  pair.a.crash();
  pair.b.boot();
  pair.pass(10_000);
  t.match(pair.promote(pair.b), /may have newer data/);
});
