/**
 * Goal: two copies that were both written are told apart from two that were not, always, and
 * nobody's data is touched.
 * Method: the same history once for the real pair and once for the original's two counters.
 */
import t from 'tap';
import { AppOp } from '../../../lib/core/ports.ts';
import { connectOriginal, OriginalNode } from './original-counters.ts';
import {
  compared, noticed, scenario, settled, SimDisk, SimWorld, type SimNode, type SimPair,
} from './scenario.ts';

function write(pair: SimPair, node: SimNode, byte: number): void {
  const data = Buffer.alloc(4096, byte);
  const request = pair.run(node, AppOp.write, 0, data.length, data);
  if (request.errno !== 0) throw new Error(`${node.name} cannot write: ${request.errno}`);
}

/** From primary to secondary, as an operator does it. */
function demote(pair: SimPair, node: SimNode): void {
  pair.stop(node);
  node.boot();
}

/** Both were written since they last were equal: what must come of it. */
function expectSplitBrain(
  pair: SimPair, t: { equal(one: unknown, two: unknown): unknown }, a: number, b: number,
): void {
  for (const node of [pair.a, pair.b]) {
    if (node.resource !== null) node.crash();
    node.events.length = 0;
  }
  pair.connected = true;
  pair.boot();
  pair.until('refused', () => pair.a.running.refusal !== null && pair.b.running.refusal !== null);
  pair.pass(30_000);
  for (const node of [pair.a, pair.b]) t.equal(node.running.refusal?.reason, 'split-brain');
  t.equal(pair.a.data()[0], a);
  t.equal(pair.b.data()[0], b);
}

/*
 * The original's primary counts its first write alone only if its counter equals what its worker
 * learned at the last handshake, and a worker that never connected has learned 0 (primary.c
 * write_complete; secondary.c init_remote decides). Once a sync from the secondary made the
 * counters 0/1 and 1/0, a split brain is taken for an ordinary sync: one node's writes are
 * overwritten without an alarm. Ours has random generations with their history.
 */
compared('S4-counters-miss-split-brain', { seeds: 2 }, (pair, t) => {
  const [a, b] = [new OriginalNode(), new OriginalNode()];
  pair.boot().complete();
  // B works alone for a while; then A takes over and gets what B wrote.
  pair.mustPromote(pair.b);
  b.promote();
  connectOriginal(b, a);
  pair.partition();
  noticed(pair, pair.b);
  write(pair, pair.b, 1);
  b.writeAlone('1');
  demote(pair, pair.b);
  pair.heal();
  settled(pair);
  pair.mustPromote(pair.a);
  a.promote();
  t.equal(connectOriginal(a, b), 'from-secondary');
  t.same([a.localCount, a.remoteCount, b.localCount, b.remoteCount], [0, 1, 1, 0]);
  // A partition, and both write.
  pair.partition();
  noticed(pair, pair.a);
  write(pair, pair.a, 2);
  a.writeAlone('2');
  pair.mustPromote(pair.b, true);
  b.promote();
  write(pair, pair.b, 3);
  b.writeAlone('3');
  expectSplitBrain(pair, t, 2, 3);
  // The original: whoever stays primary overwrites or is overwritten.
  const copy = (one: OriginalNode): OriginalNode => Object.assign(new OriginalNode(), one);
  let lost = 0;
  for (const [primary, secondary] of [[copy(a), copy(b)], [copy(b), copy(a)]] as const) {
    const verdict = connectOriginal(primary, secondary);
    if (verdict !== 'split-brain' && primary.data === secondary.data) lost++;
  }
  return lost;
});

/*
 * The model of the counters is a fair one: from 0/0 it sees a split brain, and an ordinary
 * absence is no split brain. Without this the scenario above could pass by a wrong model.
 */
t.test('original counters: from 0/0 the model sees a split brain', async (t) => {
  const [a, b] = [new OriginalNode(), new OriginalNode()];
  a.promote();
  t.equal(connectOriginal(a, b), 'from-primary');
  a.writeAlone('a');
  t.equal(connectOriginal(a, b), 'from-primary');
  t.equal(b.data, 'a');
  a.writeAlone('aa');
  b.promote();
  b.writeAlone('bb');
  t.equal(connectOriginal(a, b), 'split-brain');
  t.same([a.data, b.data], ['aa', 'bb']);
});

/*
 * The counter that marks "I wrote alone" is written in place and not flushed (metadata.c
 * metadata_write): a power cut right after the write takes it away, and the other side's writes
 * then count as the only ones. Ours is durable before the first acknowledgement alone. The
 * original's write to the same simulated disk is gone after some of the power cuts.
 */
compared('S4-split-brain-marker-lost', { seeds: 12 }, (pair, t) => {
  pair.primary();
  pair.partition();
  noticed(pair, pair.b);
  write(pair, pair.a, 2);
  pair.a.crash(true);
  pair.mustPromote(pair.b, true);
  write(pair, pair.b, 3);
  const survived = pair.a.disk.durable[pair.a.geometry.dataOffset] ?? 0;
  expectSplitBrain(pair, t, survived, 3);
  // The original: pwrite of the metadata, no flush, acknowledgement, power cut.
  const world = new SimWorld(pair.world.random.next32());
  const disk = new SimDisk(world, 4096);
  const [a, b] = [new OriginalNode(), new OriginalNode()];
  a.writeAlone('2');
  b.writeAlone('3');
  disk.port().write(0, Buffer.alloc(512, a.localCount), 0, 512, () => disk.crash(true));
  world.until(() => false, 100);
  a.localCount = disk.durable[0] ?? 0;
  return connectOriginal(b, a) === 'split-brain' ? 0 : 1;
});

/*
 * A primary of the original retries a split brain every 10 s for ever, and both hooks fire each
 * time (secondary.c init_remote, primary.c guard_thread). Ours says it once on each node and
 * knocks more and more slowly.
 */
scenario('S4-split-brain-alarm-repeats', { seeds: 2 }, (pair, t) => {
  pair.primary();
  pair.partition();
  noticed(pair, pair.b);
  write(pair, pair.a, 2);
  pair.mustPromote(pair.b, true);
  write(pair, pair.b, 3);
  expectSplitBrain(pair, t, 2, 3);
  const before = pair.world.steps;
  pair.pass(10 * 60_000);
  for (const node of [pair.a, pair.b]) {
    t.equal(node.events.filter((one) => one === 'split-brain').length, 1);
  }
  t.ok(pair.world.steps - before < 20_000, `${pair.world.steps - before} steps`);
});

/*
 * Copies of different sizes: the original's primary closes without telling the secondary why, and
 * both flap every 10 s (primary.c init_remote). Ours refuses on both sides with the same reason,
 * and stays refused.
 */
scenario('S4-size-mismatch-told-to-one-side', { second: { mediaSize: 3 * 1024 * 1024 }, seeds: 2 },
  (pair, t) => {
    pair.boot();
    pair.until('refused', () =>
      pair.a.running.refusal !== null && pair.b.running.refusal !== null);
    for (const node of [pair.a, pair.b]) {
      t.equal(node.running.refusal?.reason, 'size-mismatch');
      t.match(node.running.refusal?.text, /different sizes/);
    }
    pair.pass(60_000);
    for (const node of [pair.a, pair.b]) t.same(node.events, [], 'no hook of a connection');
  });
