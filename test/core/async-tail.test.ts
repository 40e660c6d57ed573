/**
 * An async primary that comes back behind its peer: what only its copy has is in an undo file
 * before one byte of it is overwritten, whatever breaks meanwhile.
 */
import type { Test } from 'tap';
import { limits, MiB } from '../../lib/format/limits.ts';
import { DataState, SuperblockFlag } from '../../lib/format/superblock.ts';
import { DiscardSide, type ResolveResult } from '../../lib/core/operator.ts';
import { coreStatus } from '../../lib/core/status.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { imageSuperblock } from '../fixtures/sim-image.ts';
import type { SimPair } from '../fixtures/sim-pair.ts';
import type { SimUndoFile } from '../fixtures/sim-undo.ts';

const async = { mode: 'async', mediaSize: 4 * MiB } as const;
const enoSpace = 28;

/** What the two copies held when the async primary was gone and nothing had been written since. */
interface Tail { lost: Buffer; survivor: Buffer }

function noticed(pair: SimPair): void {
  pair.link?.cut();
  pair.until('the peer noticed', () => pair.b.phase === 'none');
}

/** `a` dies with acknowledged writes that `b` never got; `b` is promoted and goes on. */
function failOver(pair: SimPair, power = false): Tail {
  pair.primary();
  pair.load(pair.a, 30);
  pair.answered(pair.a);
  pair.flush(pair.a);
  pair.partition(true);
  pair.load(pair.a, 20);
  pair.answered(pair.a);
  pair.flush(pair.a);
  pair.load(pair.a, 5);
  pair.a.crash(power);
  noticed(pair);
  const survivor = Buffer.from(pair.b.data());
  pair.mustPromote(pair.b);
  pair.load(pair.b, 20);
  pair.answered(pair.b);
  const lost = Buffer.from(pair.a.data());
  if (lost.equals(survivor)) throw new Error('the scenario left no tail');
  return { lost, survivor };
}

/** Nothing is written to the data of `a` before a file is whole. */
function guard(pair: SimPair): void {
  const { dataOffset, mediaSize } = pair.a.geometry;
  pair.a.disk.watch = ({ kind, offset }) => {
    const isData = (kind === 'write' || kind === 'zero') && offset >= dataOffset &&
      offset < dataOffset + mediaSize;
    if (isData && pair.a.undo.sealed.length === 0) throw new Error('overwritten, and not kept');
  };
}

function comeBack(pair: SimPair): void {
  pair.heal();
  pair.a.boot();
}

function restores(t: Test, file: SimUndoFile | undefined, { lost, survivor }: Tail): void {
  t.ok(file?.putBack(Buffer.from(survivor)).equals(lost), 'the file holds all that differed');
}

function flagsOf(pair: SimPair): number {
  return imageSuperblock(pair.a.disk.durable).flags;
}

function isMarked(pair: SimPair): boolean {
  return (flagsOf(pair) & SuperblockFlag.asyncPrimary) !== 0;
}

for (const power of [false, true]) {
  eachSeed(`tail: kept before it is overwritten (${power ? 'power cut' : 'killed'})`,
    { ...async, seeds: 6 }, (pair, t) => {
      const tail = failOver(pair, power);
      t.ok(isMarked(pair), 'that it was an async primary is durable');
      guard(pair);
      const { generation, copyId } = imageSuperblock(pair.a.disk.durable);
      comeBack(pair);
      pair.load(pair.b, 10);
      pair.complete();
      pair.answered(pair.b);
      pair.flush(pair.b);
      t.equal(pair.difference(), -1);
      const [file] = pair.a.undo.files;
      t.equal(pair.a.undo.files.length, 1);
      restores(t, file, tail);
      t.match(file?.info, {
        generation, copyId, resource: 'shared', discarded: 1,
        keptCopyId: pair.b.running.context.store.value.copyId,
      });
      t.match(coreStatus(pair.a.running), {
        keptBytes: file?.bytes, keptFile: file?.name, needsHuman: false, detail: '',
      });
      t.notOk(isMarked(pair));
      t.equal(pair.b.undo.files.length, 0);
    });
}

for (const step of ['create', 'add', 'seal'] as const) {
  eachSeed(`tail: killed while it is kept (${step})`, { ...async, seeds: 3 }, (pair, t) => {
    const tail = failOver(pair);
    guard(pair);
    let count = step === 'add' ? 3 : 1;
    pair.a.undo.watch = (what, isDone) => {
      if (isDone && what === step && --count === 0) pair.a.crash();
    };
    comeBack(pair);
    pair.until('killed', () => count === 0);
    t.ok(pair.a.data().equals(tail.lost), 'nothing was overwritten');
    t.equal(imageSuperblock(pair.a.disk.durable).dataState, DataState.consistent);
    pair.a.boot();
    pair.complete();
    restores(t, pair.a.undo.sealed.at(-1), tail);
    t.equal(pair.a.undo.sealed.length, 1, 'the first one was not sealed');
  });

  eachSeed(`tail: it cannot be kept (${step})`, { ...async, seeds: 2 }, (pair, t) => {
    const tail = failOver(pair);
    guard(pair);
    pair.a.undo.fault = (what) => what === step ? enoSpace : 0;
    comeBack(pair);
    pair.until('it needs a person', () => coreStatus(pair.a.running).needsHuman);
    pair.b.events.length = 0;
    pair.pass(60_000);
    t.ok(pair.a.data().equals(tail.lost), 'nothing was overwritten');
    t.match(coreStatus(pair.a.running), {
      needsHuman: true, detail: /errno 28.*undo-directory.*hastctl create/, keptFile: null,
    });
    const tries = pair.b.events.filter((kind) => kind === 'connect').length;
    t.ok(tries >= 2 && tries <= 8, `tried again now and then (${tries})`);
    t.equal(pair.a.undo.files.filter(({ state }) => state === 'open').length, 0, 'none is left');
    pair.a.undo.fault = () => 0;
    pair.complete();
    t.equal(pair.a.undo.sealed.length, 1);
    restores(t, pair.a.undo.sealed[0], tail);
    t.match(coreStatus(pair.a.running), { needsHuman: false, detail: '' });
  });

  eachSeed(`tail: the link breaks meanwhile (${step})`, { ...async, seeds: 3 }, (pair, t) => {
    const tail = failOver(pair);
    guard(pair);
    let breaks = 3;
    pair.a.undo.latency = [5, 8];
    pair.a.undo.watch = (what, isDone) => {
      if (!isDone && what === step && breaks-- > 0) pair.link?.cut();
    };
    comeBack(pair);
    pair.complete();
    t.ok(breaks <= 0);
    const { files, sealed } = pair.a.undo;
    t.equal(sealed.length, 1);
    t.equal(files.filter(({ state }) => state === 'abandoned').length, files.length - 1);
    restores(t, sealed[0], tail);
  });
}

eachSeed('tail: kept once, however often the sync is interrupted', async, (pair, t) => {
  const tail = failOver(pair);
  guard(pair);
  comeBack(pair);
  pair.until('copying', () => pair.a.phase === 'syncing' &&
    imageSuperblock(pair.a.disk.durable).dataState === DataState.inconsistent);
  t.notOk(isMarked(pair), 'one record says inconsistent and that it is kept');
  for (let round = 0; round < 3; round++) {
    pair.link?.cut();
    if (round === 1) pair.a.crash(true);
    if (round === 1) pair.a.boot();
    pair.until('copying again', () => pair.a.phase === 'syncing');
  }
  pair.complete();
  t.equal(pair.a.undo.files.length, 1);
  restores(t, pair.a.undo.files[0], tail);
});

eachSeed('tail: a block that cannot be read is counted and left out', async, (pair, t) => {
  const { lost, survivor } = failOver(pair);
  const block = limits.blockSize;
  const differs = (at: number): boolean =>
    !lost.subarray(at, at + block).equals(survivor.subarray(at, at + block));
  let bad = 0;
  while (!differs(bad)) bad += block;
  pair.a.disk.latent.add((pair.a.geometry.dataOffset + bad) / 512 + 1);
  comeBack(pair);
  pair.complete();
  t.equal(pair.a.running.context.statistics.localReadErrors, 1);
  const [file] = pair.a.undo.sealed;
  const has = (at: number): boolean => file?.ranges.some(({ offset, data }) =>
    offset <= at && at < offset + data.length) === true;
  t.notOk(has(bad));
  survivor.copy(lost, bad, bad, bad + block);
  restores(t, file, { lost, survivor });
  t.equal(pair.difference(), -1);
});

eachSeed('tail: a promotion meanwhile does not let the peer overwrite it', async, (pair, t) => {
  const tail = failOver(pair);
  guard(pair);
  pair.stop(pair.b);
  pair.a.undo.latency = [3000, 4000];
  pair.b.boot();
  comeBack(pair);
  pair.until('keeping', () => pair.a.phase === 'keeping');
  t.match(coreStatus(pair.a.running), {
    status: 'syncing', connection: 'syncing', localDisk: 'outdated', peerDisk: 'up-to-date',
    detail: /is kept in a file first/, needsHuman: false,
  });
  t.match(pair.promote(pair.a), /still being brought up to date/);
  t.ok(pair.a.data().equals(tail.lost));
  pair.a.undo.latency = [0, 1];
  pair.complete();
  restores(t, pair.a.undo.sealed[0], tail);
  pair.mustPromote(pair.a);
  t.ok(isMarked(pair));
});

eachSeed('tail: a promotion before it is kept does not either', async, (pair, t) => {
  const tail = failOver(pair);
  guard(pair);
  pair.stop(pair.b);
  pair.b.boot();
  comeBack(pair);
  pair.until('waiting', () => pair.a.phase === 'waiting');
  pair.b.disk.holds = ({ kind }) => kind === 'durable';
  t.match(pair.promote(pair.a), /still being brought up to date/);
  t.equal(pair.a.phase, 'waiting');
  pair.b.disk.holds = () => false;
  pair.b.disk.release();
  pair.complete();
  restores(t, pair.a.undo.sealed[0], tail);
});

eachSeed('tail: the mode becomes async while the primary runs', { mediaSize: 4 * MiB },
  (pair, t) => {
    pair.primary();
    t.notOk(isMarked(pair));
    pair.load(pair.a, 10);
    pair.answered(pair.a);
    pair.partition(true);
    pair.a.options.mode = 'async';
    pair.a.running.optionsChanged(false);
    let unmarked = 0;
    const write = (): void => {
      const request = pair.load(pair.a, 1)[0];
      const finish = request?.onDone;
      if (request !== undefined) request.onDone = (one) => {
        finish?.(one);
        if (!isMarked(pair)) unmarked++;
      };
    };
    const held = pair.a.open.size;
    write();
    pair.pass(100);
    t.ok(isMarked(pair));
    write();
    pair.until('answered without the peer', () => pair.a.open.size <= held + 1);
    t.equal(unmarked, 0, 'nothing is answered as async before that is durable');
    pair.a.crash(true);
    noticed(pair);
    pair.mustPromote(pair.b);
    pair.load(pair.b, 5);
    pair.answered(pair.b);
    comeBack(pair);
    pair.complete();
    t.equal(pair.a.undo.sealed.length, 1);
  });

eachSeed('tail: an operator who decided has decided', async, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 20);
  pair.answered(pair.a);
  pair.partition();
  pair.load(pair.a, 20);
  pair.answered(pair.a);
  pair.mustPromote(pair.b, true);
  pair.load(pair.b, 10);
  pair.answered(pair.b);
  pair.stop(pair.a);
  pair.stop(pair.b);
  pair.b.boot();
  comeBack(pair);
  pair.until('split', () => pair.a.running.refusal?.reason === 'split-brain');
  t.ok(isMarked(pair));
  t.notOk(pair.a.running.context.tracker.peerStale.isEmpty);
  const request = { discard: DiscardSide.local, dryRun: false, undo: null };
  let answer: ResolveResult | null = null;
  pair.a.running.operator.resolve(request, (result) => {
    answer = result;
  });
  pair.complete();
  t.match(answer, { refusal: null });
  t.same(pair.a.undo.files, []);
  t.notOk(isMarked(pair));
  t.equal(pair.difference(), -1);
});

const unasked: Record<string, (pair: SimPair) => void> = {
  'another mode': (pair) => {
    pair.a.options.mode = 'memsync';
    pair.b.options.mode = 'memsync';
    pair.primary();
    pair.load(pair.a, 10);
    pair.answered(pair.a);
    pair.partition(true);
    pair.load(pair.a, 5);
    pair.pass(10);
    pair.a.crash();
    noticed(pair);
  },
  'a clean stop': (pair) => {
    pair.primary();
    pair.load(pair.a, 10);
    pair.answered(pair.a);
    pair.stop(pair.a);
    noticed(pair);
  },
};

for (const [what, leave] of Object.entries(unasked)) {
  eachSeed(`tail: nothing to keep (${what})`, async, (pair, t) => {
    leave(pair);
    t.notOk(isMarked(pair));
    pair.mustPromote(pair.b);
    pair.load(pair.b, 10);
    pair.answered(pair.b);
    comeBack(pair);
    pair.complete();
    t.same(pair.a.undo.files, []);
    t.equal(pair.difference(), -1);
  });
}

