/**
 * The way out of a split brain: the dry run changes nothing, the decision copies only what either
 * side wrote since the fork, what is overwritten can be put back.
 */
import { AppOp, type UndoSink, type UndoSource } from '../../lib/core/ports.ts';
import { DiscardSide, type ResolveRequest, type ResolveResult } from '../../lib/core/operator.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import type { SimPair } from '../fixtures/sim-pair.ts';

interface Kept { offset: number; data: Buffer }

class MemoryUndo implements UndoSink {
  readonly kept: Kept[] = [];
  sealed = false;
  errno = 0;
  /** An add or a seal that has not called back. */
  busy = false;
  readonly #pair: SimPair;

  constructor(pair: SimPair) {
    this.#pair = pair;
  }

  add(offset: number, data: Buffer, at: number, length: number, done: (errno: number) => void):
  void {
    if (this.sealed || this.busy) throw new Error('add out of turn');
    this.kept.push({ offset, data: Buffer.from(data.subarray(at, at + length)) });
    this.#later(done);
  }

  seal(done: (errno: number) => void): void {
    if (this.sealed || this.busy) throw new Error('seal out of turn');
    this.sealed = true;
    this.#later(done);
  }

  source(): UndoSource {
    let at = 0;
    return {
      next: (done) => this.#pair.world.between(0.1, 1, () => done(0, this.kept[at++] ?? null)),
    };
  }

  #later(done: (errno: number) => void): void {
    this.busy = true;
    this.#pair.world.between(0.1, 2, () => {
      this.busy = false;
      done(this.errno);
    });
  }
}

/** Both sides wrote since they were equal; both are secondary, or `b` stays primary. */
function split(pair: SimPair, primary: boolean): { common: Buffer; one: Buffer; two: Buffer } {
  pair.primary();
  pair.load(pair.a, 30);
  pair.answered(pair.a);
  pair.stop(pair.a);
  pair.a.boot();
  pair.complete();
  const common = Buffer.from(pair.a.data());
  pair.partition();
  for (const node of [pair.a, pair.b]) {
    pair.until('the loss is noticed', () => node.phase === 'none', 30_000);
    pair.mustPromote(node, true);
    pair.load(node, 6, 8192);
    pair.answered(node);
  }
  const one = Buffer.from(pair.a.data());
  const two = Buffer.from(pair.b.data());
  pair.stop(pair.a);
  pair.a.boot();
  if (!primary) {
    pair.stop(pair.b);
    pair.b.boot();
  }
  pair.heal();
  pair.until('refused', () => pair.a.running.refusal?.reason === 'split-brain' &&
    pair.b.running.refusal?.reason === 'split-brain');
  return { common, one, two };
}

function resolve(pair: SimPair, node: SimNode, request: ResolveRequest): ResolveResult {
  let result: ResolveResult | null = null;
  node.running.operator.resolve(request, (answer) => {
    result = answer;
  });
  pair.until('the resolution is answered', () => result !== null);
  return result as unknown as ResolveResult;
}

/** The blocks in which `image` is not `common`. */
function written(image: Buffer, common: Buffer): number[] {
  const blocks: number[] = [];
  for (let at = 0; at < image.length; at += 4096) {
    if (image.compare(common, at, at + 4096, at, at + 4096) !== 0) blocks.push(at / 4096);
  }
  return blocks;
}

function covers(ranges: { offset: number; length: number }[], block: number): boolean {
  return ranges.some(({ offset, length }) =>
    offset <= block * 4096 && (block + 1) * 4096 <= offset + length);
}

for (const primary of [false, true]) {
  eachSeed(`resolve: a dry run tells what either side wrote and changes nothing (${primary})`,
    { seeds: 5 }, (pair, t) => {
      const { common, one, two } = split(pair, primary);
      const result = resolve(pair, pair.a, {
        discard: DiscardSide.local, dryRun: true, undo: null,
      });
      if (result.refusal !== null) throw new Error(result.refusal.message);
      t.notOk(result.full);
      for (const block of written(one, common)) t.ok(covers(result.local.ranges, block));
      for (const block of written(two, common)) t.ok(covers(result.peer.ranges, block));
      t.ok(result.copyBytes < 2 * 1024 * 1024);
      const bytes = result.local.ranges.reduce((sum, range) => sum + range.length, 0);
      t.equal(bytes, result.local.bytes);
      t.equal(result.localGeneration, pair.a.running.context.store.value.generation.toString(16));
      t.ok(pair.a.data().equals(one));
      t.ok(pair.b.data().equals(two));
      pair.pass(20_000);
      t.notOk(pair.isComplete);
    });
}

for (const side of ['local', 'peer'] as const) {
  for (const primary of [false, true]) {
    if (side === 'peer' && primary) continue;
    eachSeed(`resolve: discard ${side}, the winner in use: ${primary}`, { seeds: 8 },
      (pair, t) => {
        const { one, two } = split(pair, primary);
        const undo = new MemoryUndo(pair);
        const result = resolve(pair, pair.a, {
          discard: DiscardSide[side], dryRun: false, undo,
        });
        if (result.refusal !== null) throw new Error(result.refusal.message);
        t.ok(undo.sealed);
        pair.complete();
        pair.pass(100);
        const [winner, loser] = side === 'local' ? [two, one] : [one, two];
        t.ok(pair.a.data().equals(winner));
        t.ok(pair.b.data().equals(winner));
        // What is kept makes the losing image again.
        const image = Buffer.from(winner);
        for (const { offset, data } of undo.kept) data.copy(image, offset);
        t.ok(image.equals(loser));
        if (primary) {
          let refusal: unknown = null;
          pair.a.running.operator.undo(undo.source(), (answer) => {
            refusal = answer;
          });
          t.not(refusal, null);
          return;
        }
        let done = false;
        pair.a.running.operator.undo(undo.source(), (refusal) => {
          t.equal(refusal, null);
          done = true;
        });
        pair.until('put back', () => done);
        pair.complete();
        pair.pass(100);
        t.ok(pair.a.data().equals(loser));
        t.ok(pair.b.data().equals(loser));
        t.same(pair.a.events.filter((event) => event === 'split-brain'), ['split-brain']);
      });
  }
}

eachSeed('resolve: the copy that is given up must not be in use', {}, (pair, t) => {
  split(pair, true);
  const result = resolve(pair, pair.a, { discard: DiscardSide.peer, dryRun: false, undo: null });
  t.match(result.refusal?.message, /in use/);
  pair.load(pair.b, 5);
  pair.answered(pair.b);
});

eachSeed('resolve: an undo file that cannot be written stops it before a byte is copied', {},
  (pair, t) => {
    const { one, two } = split(pair, false);
    const undo = new MemoryUndo(pair);
    undo.errno = 28;
    const result = resolve(pair, pair.a, { discard: DiscardSide.local, dryRun: false, undo });
    t.match(result.refusal?.message, /nothing was overwritten/);
    t.notOk(undo.busy);
    pair.pass(20_000);
    t.ok(pair.a.data().equals(one));
    t.ok(pair.b.data().equals(two));
  });

eachSeed('resolve: cuts and crashes in the middle of it', { seeds: 40 }, (pair, t) => {
  const { one, two } = split(pair, false);
  const { random } = pair.world;
  const side = random.pick(['local', 'peer'] as const);
  const undo = new MemoryUndo(pair);
  let result: ResolveResult | null = null;
  pair.a.running.operator.resolve({ discard: DiscardSide[side], dryRun: false, undo },
    (answer) => {
      result = answer;
    });
  pair.pass(random.unit() * 60);
  const kind = random.int(3);
  if (kind === 0) pair.link?.cut();
  else if (kind === 1) pair.b.crash(random.chance(0.5));
  else pair.a.crash(random.chance(0.5));
  if (kind === 1) pair.b.boot();
  if (kind === 2) pair.a.boot();
  pair.pass(30_000);
  t.notOk(kind < 2 && result === null && undo.busy);
  if (!pair.isComplete) {
    // Nothing was begun: both are as they were, and the command is given again.
    t.ok(pair.a.data().equals(one));
    t.ok(pair.b.data().equals(two));
    const again = resolve(pair, pair.a, {
      discard: DiscardSide[side], dryRun: false, undo: new MemoryUndo(pair),
    });
    t.equal(again.refusal?.message ?? '', '');
  }
  pair.complete();
  pair.pass(100);
  t.equal(pair.difference(), -1);
  t.ok(pair.a.data().equals(side === 'local' ? two : one));
  const read = pair.run(promoted(pair), AppOp.read, 0, 4096);
  t.equal(read.errno, 0);
});

function promoted(pair: SimPair): SimNode {
  pair.mustPromote(pair.a);
  return pair.a;
}

eachSeed('undo: a crash in the middle of it, and the peer brings the copy back', { seeds: 20 },
  (pair, t) => {
    split(pair, false);
    const undo = new MemoryUndo(pair);
    const result = resolve(pair, pair.a, { discard: DiscardSide.local, dryRun: false, undo });
    t.equal(result.refusal, null);
    pair.complete();
    pair.pass(100);
    const image = Buffer.from(pair.b.data());
    let done = false;
    pair.a.running.operator.undo(undo.source(), () => {
      done = true;
    });
    pair.pass(pair.world.random.unit() * 15);
    if (done) return;
    pair.a.crash(pair.world.random.chance(0.5));
    pair.a.boot();
    pair.complete();
    pair.pass(100);
    t.equal(pair.difference(), -1);
    const isBack = pair.a.data().equals(image);
    const isUndone = undo.kept.every(({ offset, data }) =>
      data.equals(pair.a.data().subarray(offset, offset + data.length)));
    t.ok(isBack || isUndone);
  });
