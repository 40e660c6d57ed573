/**
 * Goal: the way out of a split brain copies what either side wrote since the fork, no more.
 * Method: a split brain with known writes on both sides; what the losing disk is written is
 * counted.
 */
import { MiB } from '../../../lib/format/limits.ts';
import { DiscardSide, type ResolveResult } from '../../../lib/core/operator.ts';
import { compared, noticed, settled, type SimNode, type SimPair } from './scenario.ts';

function resolve(pair: SimPair, node: SimNode, dryRun: boolean): ResolveResult {
  let result: ResolveResult | null = null;
  node.running.operator.resolve({ discard: DiscardSide.peer, dryRun, undo: null }, (one) => {
    result = one;
  });
  pair.until('the resolution is answered', () => result !== null);
  return result as unknown as ResolveResult;
}

/** One block each MiB: even ones by `a` alone, odd ones by `b` alone, one by both. */
function fork(pair: SimPair): void {
  pair.primary();
  pair.load(pair.a, 40);
  pair.answered(pair.a);
  pair.partition();
  noticed(pair, pair.b);
  pair.mustPromote(pair.b, true);
  for (let at = 0; at < 8; at++) {
    const node = at % 2 === 0 ? pair.a : pair.b;
    node.write(at * MiB, Buffer.alloc(4096, 0x40 + at));
  }
  for (const node of [pair.a, pair.b]) node.write(4096, Buffer.alloc(4096, node.name));
  for (const node of [pair.a, pair.b]) pair.answered(node);
  for (const node of [pair.a, pair.b]) {
    pair.stop(node);
    node.boot();
  }
  pair.heal();
  pair.until('refused', () => pair.a.running.refusal !== null && pair.b.running.refusal !== null);
}

/*
 * A split brain of the original ends only with `hastctl create` on one node: the whole device is
 * copied, whatever little was written (hastctl.c control_create, secondary.c init_remote row 7).
 * Ours copies the union of what both wrote since the fork.
 */
compared('S8-split-brain-costs-a-whole-copy', { mediaSize: 16 * MiB, seeds: 3 }, (pair, t) => {
  fork(pair);
  const images = [pair.a, pair.b].map((node) => Buffer.from(node.data()));
  const plan = resolve(pair, pair.a, true);
  if (plan.refusal !== null) throw new Error(plan.refusal.message);
  pair.pass(2000);
  for (const [index, node] of [pair.a, pair.b].entries()) {
    t.ok(node.data().equals(images[index] as Buffer), 'a dry run changes nothing');
  }
  t.equal(plan.full, false);
  t.ok(plan.local.bytes >= 5 * 4096 && plan.peer.bytes >= 5 * 4096);
  let copied = 0;
  const { dataOffset } = pair.b.geometry;
  pair.b.disk.watch = (op) => {
    if (op.kind === 'write' && op.offset >= dataOffset) copied += op.length;
  };
  t.equal(resolve(pair, pair.a, false).refusal, null);
  settled(pair);
  t.ok(pair.a.data().equals(images[0] as Buffer), 'the winner is not touched');
  t.ok(copied >= 9 * 4096 && copied <= plan.copyBytes, `${copied} of ${plan.copyBytes}`);
  const original = pair.a.geometry.mediaSize;
  t.ok(plan.copyBytes < original / 2);
  return original > plan.copyBytes ? 1 : 0;
});
