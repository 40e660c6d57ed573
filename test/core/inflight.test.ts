/**
 * Goal: the successor of a killed primary copies what was under way and nothing else, as long as
 * the table of the dead process speaks of these very copies; else all that is marked.
 * Method: the table against a model, and damaged in every byte of its header; two cores as in
 * resume.test.ts, with the bytes counted that the successor sends.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { InflightTable } from '../../lib/core/inflight-table.ts';
import type { LoadedMap } from '../../lib/core/map-loader.ts';
import { AppOp, type SurvivingMemory } from '../../lib/core/ports.ts';
import { FrameType } from '../../lib/format/frame.ts';
import {
  decodeInflight, inflightBytes, inflightSlotAt, inflightSlots,
} from '../../lib/format/inflight.ts';
import { KiB, limits, MiB } from '../../lib/format/limits.ts';
import { DataState, type Superblock } from '../../lib/format/superblock.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

const block = {
  copyId: 11n, generation: 22n, peerCopyId: 33n, mediaSize: 64 * MiB,
  dataState: DataState.consistent,
} as unknown as Superblock;
const instance = 44n;
const noDamage = { damage: [] } as unknown as LoadedMap;

function memory(bytes: Uint8Array, inherited = false): SurvivingMemory {
  return { bytes, inherited, boot: new Uint8Array(16).fill(5) };
}

/** What a successor finds in `bytes`, as ranges of blocks; null: nothing it could use. */
function found(bytes: Uint8Array, of = block): number | null {
  const table = new InflightTable(memory(bytes.slice(), true));
  return table.inherit(of, noDamage)?.unanswered.count ?? null;
}

t.test('inflight: entries against a model', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('enter' as const), at: fc.nat(15_000) }),
    fc.record({ kind: fc.constant('leave' as const), at: fc.nat(40) }),
    fc.record({ kind: fc.constant('lose' as const), at: fc.constant(0) }),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const bytes = new Uint8Array(inflightBytes);
    const table = new InflightTable(memory(bytes));
    const begin = (): void => table.trust(block, instance);
    begin();
    let open: { entry: number; at: number; left: number }[] = [];
    const gone: number[] = [];
    for (const { kind, at } of steps) {
      if (kind === 'enter') {
        open.push({ entry: table.enter(at * 4096, 4096), at, left: 2 });
      } else if (kind === 'leave' && open.length > 0) {
        const one = open[at % open.length] as { entry: number; left: number };
        table.leave(one.entry);
        if (--one.left === 0) open = open.filter((other) => other !== one);
      } else if (kind === 'lose') {
        table.lose();
        if (found(bytes) !== null) return false;
        gone.push(...open.map(({ entry }) => entry));
        open = [];
        begin();
      }
    }
    // Late ones of an ended stream mean nothing.
    for (const entry of gone) table.leave(entry);
    const ranges = decodeInflight(bytes)?.ranges.map(({ offset }) => offset / 4096) ?? [];
    const sorted = (list: number[]): string => list.sort((one, other) => one - other).join();
    return sorted(ranges) === sorted(open.map(({ at }) => at)) && table.count === open.length &&
      found(bytes) === new Set(open.map(({ at }) => at)).size;
  }), { numRuns: 200 });
});

t.test('inflight: a full table says nothing, until the next stream', async (t) => {
  const bytes = new Uint8Array(inflightBytes);
  const table = new InflightTable(memory(bytes));
  table.trust(block, instance);
  for (let slot = 0; slot < inflightSlots; slot++) table.enter(slot * 4096, 4096);
  t.not(found(bytes), null);
  const entry = table.enter(0, 4096);
  t.equal(found(bytes), null);
  table.leave(entry);
  table.trust(block, instance);
  t.equal(found(bytes), null, 'a write that is not entered may be under way');
  table.lose();
  table.trust(block, instance);
  t.equal(found(bytes), 0);
});

t.test('inflight: a table of something else is not used', async (t) => {
  const bytes = new Uint8Array(inflightBytes);
  const table = new InflightTable(memory(bytes));
  t.equal(found(bytes), null, 'nothing was left');
  table.trust(block, instance);
  table.enter(8192, 5000);
  t.equal(found(bytes), 2);
  const other = (change: Partial<Superblock>): number | null =>
    found(bytes, { ...block, ...change });
  const others: Partial<Superblock>[] = [
    { copyId: 1n }, { peerCopyId: 1n }, { generation: 1n }, { mediaSize: 32 * MiB },
    { dataState: DataState.inconsistent },
  ];
  for (const change of others) t.equal(other(change), null, Object.keys(change).join());
  table.generationChanges(23n);
  t.equal(other({ generation: 23n }), 2, 'the generation that is being recorded');
  t.equal(found(bytes), 2, 'or the one before, where that came to nothing');
  table.generationChanges(24n);
  t.equal(found(bytes), null);
  t.equal(other({ generation: 24n }), 2);
  const damaged = new InflightTable(memory(bytes.slice(), true));
  t.equal(damaged.inherit({ ...block, generation: 24n }, {
    damage: ['map page 1 is unreadable'],
  } as LoadedMap), null);
  const next = bytes.slice();
  t.equal(new InflightTable(memory(next, false)).isValid, false);
  t.equal(found(next), null, 'nor after a start that takes nothing over');
  t.throws(() => new InflightTable(memory(new Uint8Array(64))));
});

t.test('inflight: damage is noticed, or harmless', async (t) => {
  const bytes = new Uint8Array(inflightBytes);
  new InflightTable(memory(bytes)).trust(block, instance);
  for (let at = 0; at < inflightSlotAt(0); at++) {
    const copy = bytes.slice();
    copy[at] = (copy[at] as number) ^ 0x41;
    const table = new InflightTable(memory(copy, true));
    const handed = table.inherit(block, noDamage);
    // The instance is compared with the peer's own word; the next generation is none yet.
    const isOpen = (at >= 72 && at < 80) || (at >= 56 && at < 64);
    if (!isOpen && handed !== null) t.fail(`byte ${at} is believed`);
  }
  const beyond = bytes.slice();
  new DataView(beyond.buffer).setUint32(inflightSlotAt(7) + 8, 4096, true);
  t.equal(found(beyond), 1);
  new DataView(beyond.buffer).setUint32(inflightSlotAt(7) + 4, 1, true);
  t.equal(found(beyond), null, 'a range outside the volume');
  t.equal(decodeInflight(bytes.subarray(0, 4096)), null, 'of another size');
});

/** Bytes that `a` sends as writes from now on. */
function counter(pair: SimPair): () => number {
  let sent = 0;
  pair.onLink = (link, dialer) => {
    const end = link.ends[dialer === pair.a ? 0 : 1];
    end.tap = (frame) => {
      if (frame.type === FrameType.write) sent += frame.size;
    };
  };
  return () => sent;
}

function succeed(node: SimNode): void {
  node.onOpened = (resource) => {
    node.onOpened = () => undefined;
    resource.roleChange.resume(() => undefined);
  };
  node.boot(true);
}

/** A complete pair with much that is marked and nothing under way. */
function marked(pair: SimPair): void {
  pair.primary();
  pair.load(pair.a, 30);
  pair.answered(pair.a);
  pair.until('all is executed', () => pair.a.running.session?.stream?.unansweredFrames === 0);
}

function equal(pair: SimPair): void {
  pair.complete();
  pair.until('primary', () => pair.a.running.role === 'primary');
  const at = pair.difference();
  if (at !== -1) throw new Error(`the images differ at block ${at}`);
  pair.pass(9000);
  if (!pair.isUnmarked(pair.a)) throw new Error('an idle pair is marked');
  for (const node of [pair.a, pair.b]) node.crash(true);
  if (pair.difference() !== -1) throw new Error('not all is on stable storage');
}

for (const mode of ['fullsync', 'memsync', 'async'] as const) {
  eachSeed(`inflight: ${mode}: nothing was under way, nothing is copied`, { mode }, (pair, t) => {
    marked(pair);
    const sent = counter(pair);
    pair.a.crash();
    succeed(pair.a);
    equal(pair);
    t.equal(sent(), 0);
  });

  eachSeed(`inflight: ${mode}: what was under way is copied`, { mode, seeds: 6 }, (pair, t) => {
    marked(pair);
    const under = pair.load(pair.a, 4, 8 * KiB);
    pair.run(pair.a, AppOp.discard, 512 * KiB, 64 * KiB);
    const more = pair.load(pair.a, 4, 8 * KiB);
    pair.pass(pair.world.random.unit());
    const sent = counter(pair);
    pair.a.crash();
    succeed(pair.a);
    equal(pair);
    const most = [...under, ...more].reduce((sum, { length }) => sum + length + 8192, 64 * KiB);
    t.ok(sent() <= most, `${sent()} of ${most} bytes`);
  });
}

eachSeed('inflight: again and again, before the peer is met and after', { seeds: 8 }, (pair, t) => {
  marked(pair);
  const sent = counter(pair);
  for (let death = 0; death < 5; death++) {
    pair.a.crash();
    succeed(pair.a);
    pair.pass(pair.world.random.unit() * death);
  }
  // The generation is on its way to the peer for a moment: what holds it then is the newer copy.
  const isMet = pair.a.running.refusal === null;
  if (!isMet) return;
  equal(pair);
  t.ok(sent() <= 64 * KiB, `${sent()} bytes`);
});

/** At least this much is marked in these tests. */
const much = 16 * limits.extentBytesMin;

function all(title: string, between: (pair: SimPair) => void): void {
  eachSeed(`inflight: all is copied: ${title}`, {}, (pair, t) => {
    marked(pair);
    const sent = counter(pair);
    between(pair);
    succeed(pair.a);
    equal(pair);
    t.ok(sent() >= much, `${sent()} bytes`);
  });
}

all('the peer was killed meanwhile', (pair) => {
  pair.a.crash();
  pair.b.crash();
  pair.b.boot();
});
all('the machine lost its power', (pair) => {
  pair.load(pair.a, 30);
  pair.pass(1);
  pair.a.crash(true);
});
all('written alone before', (pair) => {
  pair.partition();
  pair.load(pair.a, 5);
  pair.answered(pair.a);
  pair.a.crash();
  pair.heal();
});
all('the table is gone', (pair) => {
  pair.a.crash();
  pair.a.table = new Uint8Array(inflightBytes);
});
all('a start that took nothing over came between', (pair) => {
  pair.partition();
  pair.a.crash();
  const before = pair.a.table;
  pair.a.boot();
  pair.a.crash();
  if (pair.a.table.every((byte, at) => byte === before[at])) throw new Error('the table is left');
  pair.heal();
});
