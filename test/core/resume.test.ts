/**
 * Goal: the successor of a primary's dead worker is primary again where that is safe, waits where
 * nobody can know yet, and gives up where another primary was there meanwhile.
 * Method: the table over every input; two cores as in pair.test.ts, one of them killed.
 */
import t from 'tap';
import { judgeResume, resumeTable, type ResumeFacts } from '../../lib/core/promotion.ts';
import { coreStatus } from '../../lib/core/status.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import type { SimPair } from '../fixtures/sim-pair.ts';

const used = ['failed', 'connected', 'peerIsPrimary', 'current', 'relied', 'servable', 'splitBrain',
  'peerWasPrimary', 'consistent', 'remoteNone', 'lastPrimaryPeerBehind', 'misfit', 'peerAnswers',
  'tried', 'peerGone',
] as const satisfies readonly (keyof ResumeFacts)[];
const unused = { freshAndAlone: false, keeper: false, completeAtLastContact: false };

t.test('resume: every row is met, and what is never done', async (t) => {
  const met = new Set<string>();
  const wrong: string[] = [];
  for (let bits = 0; bits < 1 << used.length; bits++) {
    const facts = {
      ...unused, ...Object.fromEntries(used.map((name, at) => [name, (bits >> at & 1) === 1])),
    } as unknown as ResumeFacts;
    const answer = judgeResume(facts);
    met.add(answer.row);
    const must = (holds: boolean, what: string): void => {
      if (!holds) wrong.push(`${what}: ${answer.row} ${JSON.stringify(facts)}`);
    };
    if (!answer.allowed) must(answer.message !== '' && answer.hint !== '', 'words');
    const { connected, current, relied, peerIsPrimary } = facts;
    if (facts.failed || (connected && peerIsPrimary)) must(!answer.allowed, 'beside a primary');
    if (connected && !current && !relied) must(!answer.allowed, 'behind the peer');
    if (!connected && (facts.splitBrain || facts.peerWasPrimary || !facts.consistent)) {
      must(!answer.allowed, 'without the peer');
    }
    const isRecorded = facts.lastPrimaryPeerBehind || facts.remoteNone;
    if (!connected && facts.peerAnswers && !isRecorded) must(!answer.allowed, 'a living peer');
    if (answer.allowed && !connected && !isRecorded) must(facts.tried || facts.peerGone, 'tries');
  }
  t.same(wrong.slice(0, 5), []);
  t.same([...met].sort(), resumeTable.map((one) => one.row).sort());
});

interface Outcome {
  done: boolean;
  refusal: { message: string } | null;
}

/** The worker of the primary dies: its writes stay in the cache, its answers are not given. */
function die(pair: SimPair): void {
  pair.a.crash();
}

/** Its successor, at the beginning. */
function succeed(node: SimNode): Outcome {
  const outcome: Outcome = { done: false, refusal: null };
  node.onOpened = (resource) => {
    node.onOpened = () => undefined;
    resource.roleChange.resume((refusal) => Object.assign(outcome, { done: true, refusal }));
  };
  node.boot(true);
  return outcome;
}

function primaryPair(pair: SimPair): void {
  pair.primary();
  pair.complete();
  pair.load(pair.a, 20);
  pair.answered(pair.a);
}

function equal(pair: SimPair): void {
  pair.complete();
  pair.pass(3000);
  const at = pair.difference();
  if (at !== -1) throw new Error(`the images differ at block ${at}`);
}

eachSeed('resume: the pair goes on, with a new generation', {}, (pair, t) => {
  primaryPair(pair);
  pair.load(pair.a, 10);
  const before = pair.a.running.context.store.value.generation;
  die(pair);
  const outcome = succeed(pair.a);
  pair.until('it is decided', () => outcome.done);
  t.equal(outcome.refusal, null);
  t.equal(pair.a.running.role, 'primary');
  t.not(pair.a.running.context.store.value.generation, before);
  pair.load(pair.a, 20);
  pair.answered(pair.a);
  equal(pair);
});

eachSeed('resume: again and again, also in the middle of the sync', {}, (pair, t) => {
  primaryPair(pair);
  for (let death = 0; death < 4; death++) {
    pair.load(pair.a, 10);
    pair.pass(death * 3);
    die(pair);
    const outcome = succeed(pair.a);
    pair.until('it is decided', () => outcome.done);
    t.equal(outcome.refusal, null);
  }
  equal(pair);
});

eachSeed('resume: nobody answers, so it goes on alone after some attempts', {}, (pair, t) => {
  primaryPair(pair);
  pair.partition();
  die(pair);
  const outcome = succeed(pair.a);
  t.equal(outcome.done, false);
  pair.until('it is decided', () => outcome.done);
  t.equal(outcome.refusal, null);
  t.ok(pair.a.running.linker.attempts >= 3);
  pair.load(pair.a, 10);
  pair.answered(pair.a);
  t.ok(pair.a.running.aloneRecorded, 'and that is on record');
  pair.heal();
  equal(pair);
});

eachSeed('resume: the peer was promoted meanwhile', {}, (pair, t) => {
  primaryPair(pair);
  pair.partition();
  die(pair);
  pair.until('the loss', () => pair.b.phase === 'none');
  t.equal(pair.promote(pair.b), null);
  pair.load(pair.b, 5);
  pair.answered(pair.b);
  pair.heal();
  const outcome = succeed(pair.a);
  pair.until('it is decided', () => outcome.done);
  t.match(outcome.refusal?.message, /promoted meanwhile/);
  t.equal(pair.a.running.role, 'secondary');
});

eachSeed('resume: the peer was promoted and demoted meanwhile', {}, (pair, t) => {
  primaryPair(pair);
  pair.partition();
  die(pair);
  pair.until('the loss', () => pair.b.phase === 'none');
  t.equal(pair.promote(pair.b), null);
  pair.load(pair.b, 5);
  pair.answered(pair.b);
  pair.stop(pair.b);
  pair.b.boot();
  pair.heal();
  const outcome = succeed(pair.a);
  pair.until('it is decided', () => outcome.done);
  t.match(outcome.refusal?.message, /promoted meanwhile/);
});

eachSeed('resume: the peer is not promoted beside it, without force', {}, (pair, t) => {
  primaryPair(pair);
  die(pair);
  const outcome = succeed(pair.a);
  const passing = ['none', 'hello', 'verdict'];
  pair.until('a handshake', () => !passing.includes(pair.b.phase));
  t.match(pair.promote(pair.b), /the peer is primary|brought up to date/);
  pair.until('it is decided', () => outcome.done);
  t.equal(outcome.refusal, null);
  t.equal(coreStatus(pair.a.running).role, 'primary');
});
