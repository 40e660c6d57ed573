/**
 * Goal: the decisions of the core, each over every input: when a request may be answered, who may
 * be promoted, who copies to whom; and the two small engines below them, locks and timers.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { flushComplete, PeerStage, writeComplete, type Mode } from '../../lib/core/completion.ts';
import { judgePromotion, promotionTable, type PromotionFacts } from '../../lib/core/promotion.ts';
import { RangeLocks, type RangeLock } from '../../lib/core/range-lock.ts';
import { Timers } from '../../lib/core/timers.ts';

const booleans = [false, true];

t.test('completion: every input', async (t) => {
  const modes: Mode[] = ['fullsync', 'memsync', 'async'];
  const needed = { fullsync: PeerStage.done, memsync: PeerStage.received, async: PeerStage.none };
  for (const mode of modes) {
    for (const local of booleans) {
      for (const counts of booleans) {
        for (const stage of Object.values(PeerStage)) {
          for (const alone of booleans) {
            const input = `${mode} local=${local} counts=${counts} stage=${stage} alone=${alone}`;
            const write = local && (counts ? stage >= needed[mode] : alone);
            t.equal(writeComplete(mode, local, counts, stage, alone), write, `write ${input}`);
            const peer = mode === 'async' || stage === PeerStage.done;
            const flush = local && (counts ? peer : alone);
            t.equal(flushComplete(mode, local, counts, stage, alone), flush, `flush ${input}`);
          }
        }
      }
    }
  }
});

const names = ['consistent', 'failed', 'connected', 'peerIsPrimary', 'current', 'splitBrain',
  'misfit', 'remoteNone', 'freshAndAlone', 'lastPrimaryPeerBehind', 'completeAtLastContact',
  'peerAnswers', 'servable', 'keeper', 'peerGone',
] as const satisfies readonly (keyof PromotionFacts)[];

function* everyFacts(): Generator<PromotionFacts> {
  for (let bits = 0; bits < 1 << names.length; bits++) {
    yield Object.fromEntries(names.map((name, at) => [name, (bits >> at & 1) === 1])) as
      Record<(typeof names)[number], boolean>;
  }
}

t.test('promotion: every combination of facts meets a row, every row is met first', async (t) => {
  const met = new Set<string>();
  for (const facts of everyFacts()) {
    for (const force of booleans) {
      const answer = judgePromotion(facts, force);
      met.add(answer.row);
      if (!answer.allowed && (answer.message === '' || answer.hint === '')) t.fail('no words');
    }
  }
  t.same([...met].sort(), promotionTable.map((row) => row.row).sort());
});

t.test('promotion: what is never allowed', async (t) => {
  const wrong: string[] = [];
  for (const facts of everyFacts()) {
    const plain = judgePromotion(facts, false);
    const forced = judgePromotion(facts, true);
    const must = (holds: boolean, what: string): void => {
      if (!holds) wrong.push(`${what}: ${plain.row} ${JSON.stringify(facts)}`);
    };
    const unforced = plain.allowed;
    must(!(unforced && plain.forced), 'unforced is not recorded as forced');
    if (facts.failed) must(!forced.allowed, 'a failed copy, even by force');
    if (facts.connected && facts.peerIsPrimary) must(!forced.allowed, 'beside a primary');
    const served = facts.servable || facts.current;
    if (facts.connected && !served) must(!forced.allowed, 'a target while connected');
    if (!facts.connected && !facts.consistent) must(!unforced, 'half a copy');
    if (!facts.connected && facts.splitBrain) must(!unforced, 'a split brain');
    if (!facts.connected && facts.misfit) must(!unforced, 'a refused peer');
    const reason = facts.remoteNone || facts.freshAndAlone || facts.lastPrimaryPeerBehind ||
      facts.keeper ||
      ((facts.completeAtLastContact || facts.peerGone) && !facts.peerAnswers);
    if (!facts.connected && !reason) must(!unforced, 'without a reason of rule 7');
    if (forced.allowed) {
      must(forced.ineligible === (forced.forced && !facts.consistent), 'ineligible is recorded');
      if (forced.forced) must(!unforced, 'force is recorded only where it was needed');
    }
    if (unforced) must(forced.allowed && !forced.forced, 'force changes nothing where allowed');
  }
  t.same(wrong.slice(0, 5), []);
});

class TestLock implements RangeLock {
  held = false;
  readonly from: number;
  readonly to: number;
  readonly number: number;
  readonly #onGranted: (lock: TestLock) => void;

  constructor(number: number, from: number, to: number, onGranted: (lock: TestLock) => void) {
    this.number = number;
    this.from = from;
    this.to = to;
    this.#onGranted = onGranted;
  }

  onGranted(): void {
    this.#onGranted(this);
  }
}

const overlap = (one: RangeLock, other: RangeLock): boolean =>
  one.from < other.to && other.from < one.to;

t.test('range-lock: never two that overlap, in order of arrival, everyone once', async () => {
  const action = fc.record({
    from: fc.nat(30), length: fc.integer({ min: 1, max: 12 }), release: fc.nat(3), pick: fc.nat(50),
    nested: fc.boolean(), withdraws: fc.boolean(),
  });
  fc.assert(fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
    const locks = new RangeLocks();
    const held: TestLock[] = [];
    const waiting: TestLock[] = [];
    let nested = false;
    const hold = (lock: TestLock): void => {
      if (lock.held) throw new Error('granted twice');
      lock.held = true;
      for (const other of held) if (overlap(other, lock)) throw new Error('two overlap');
      held.push(lock);
    };
    const release = (pick: number): void => {
      const [lock] = held.splice(pick % held.length, 1);
      locks.release(lock as TestLock);
    };
    const granted = (lock: TestLock): void => {
      const at = waiting.indexOf(lock);
      const before = waiting.slice(0, at).some((other) => overlap(other, lock));
      if (at < 0 || before) throw new Error('out of order');
      waiting.splice(at, 1);
      hold(lock);
      if (nested && held.length > 1) release(0);
    };
    actions.forEach((one, number) => {
      const lock = new TestLock(number, one.from, one.from + one.length, granted);
      const blocked = [...held, ...waiting].some((other) => overlap(other, lock));
      waiting.push(lock);
      if (locks.acquire(lock)) {
        if (blocked) throw new Error('granted over another');
        waiting.pop();
        hold(lock);
      } else if (!blocked) {
        throw new Error('made to wait for nothing');
      }
      nested = one.nested;
      if (one.withdraws && waiting.length > 0) {
        const [gone] = waiting.splice(one.pick % waiting.length, 1);
        locks.withdraw(gone as TestLock);
      }
      for (let count = one.release; count > 0 && held.length > 0; count--) release(one.pick);
    });
    while (held.length > 0) release(0);
    return waiting.length === 0 && locks.heldCount === 0 && locks.waitingCount === 0;
  }), { numRuns: 300 });
});

t.test('range-lock: a range passes from one record to the next without a gap', async (t) => {
  const locks = new RangeLocks();
  const order: number[] = [];
  const make = (number: number): TestLock =>
    new TestLock(number, 0, 10, (lock) => void order.push(lock.number));
  const [one, two, three] = [make(1), make(2), make(3)];
  t.ok(locks.acquire(one));
  t.notOk(locks.acquire(three));
  locks.replace(one, two);
  t.same(order, []);
  locks.release(two);
  t.same(order, [3]);
});

t.test('timers: earliest first, each once, moved and cleared', async (t) => {
  let sets = 0;
  const timers = new Timers(() => void sets++);
  const ran: string[] = [];
  const note = (name: string) => (): void => void ran.push(name);
  t.equal(timers.next(), null);
  timers.set('b', 20, note('b'));
  timers.set('a', 10, note('a'));
  timers.set('c', 30, note('c'));
  t.equal(sets, 3);
  t.equal(timers.next(), 10);
  timers.run(9);
  t.same(ran, []);
  timers.set('c', 15, note('moved'));
  timers.run(20);
  t.same(ran, ['a', 'moved', 'b']);
  timers.run(100);
  t.equal(ran.length, 3);
  timers.set('again', 5, () => timers.set('again', 50, note('second')));
  timers.set('clears', 1, () => timers.clear('cleared'));
  timers.set('cleared', 2, note('never'));
  timers.run(40);
  t.ok(timers.has('again'));
  t.notOk(timers.has('cleared'));
  timers.run(50);
  t.same(ran.slice(3), ['second']);
});
