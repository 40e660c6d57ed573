/**
 * What two hastds say of a switchover passes between two cores, once the handshake is accepted and
 * both know it; everything else is refused, or ends the session.
 */
import t from 'tap';
import { plainFrame, bodyFrame, FrameType, type Frame } from '../../lib/format/frame.ts';
import { Feature, ownProtocol } from '../../lib/format/protocol.ts';
import {
  decodeSwitchover, encodeSwitchover, type SwitchoverSaid,
} from '../../lib/format/switchover.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

const MiB = 1024 * 1024;

function say(pair: SimPair, from: 'a' | 'b', said: SwitchoverSaid): string | null {
  let message: string | null = '';
  pair[from].running.operator.switchover.say(said, (refusal) => {
    message = refusal === null ? null : refusal.message;
  });
  return message;
}

/** What the node's hastd would hear. */
function listen(pair: SimPair, node: 'a' | 'b'): SwitchoverSaid[] {
  const heard: SwitchoverSaid[] = [];
  const { events } = pair[node].running.context;
  events.switchover = (said) => heard.push(said);
  return heard;
}

const ask = { kind: 'ask', id: 2 ** 40 + 1, what: 'take-over' } as const;

t.test('switchover: questions and answers pass in both directions', async (t) => {
  const pair = new SimPair({ mediaSize: MiB, seed: 1 }).primary();
  const [a, b] = [listen(pair, 'a'), listen(pair, 'b')];
  t.equal(say(pair, 'a', ask), null);
  t.equal(say(pair, 'b', { ...ask, what: 'hand-over' }), null);
  pair.pass(100);
  t.same(b, [ask]);
  t.same(a, [{ ...ask, what: 'hand-over' }]);
  for (const text of ['', 'shared: mount  0.03 s\n']) {
    const answer = { kind: 'answer', id: ask.id, code: 77, text } as const;
    t.equal(say(pair, 'b', answer), null);
    pair.pass(100);
    t.same(a.at(-1), answer);
  }
  t.equal(pair.a.running.role, 'primary', 'nothing is done by the core');
  t.ok(pair.a.running.session?.isComplete);
});

t.test('switchover: not to a peer that is away, or does not know it', async (t) => {
  const pair = new SimPair({ mediaSize: MiB, seed: 2 }).primary();
  pair.stop(pair.b);
  pair.pass(1000);
  t.equal(say(pair, 'a', ask), 'the peer is not connected');
  const old = { ...ownProtocol, features: ownProtocol.features & ~Feature.switchover };
  const mixed = new SimPair({ mediaSize: MiB, seed: 3, protocols: [ownProtocol, old] }).primary();
  t.equal(say(mixed, 'a', ask), 'the peer runs a release that knows no switchover');
  // Sent all the same, it ends the session of a node that does not know it.
  mixed.a.running.session?.send(encodeSwitchover(ask));
  const { session } = mixed.b.running;
  mixed.pass(100);
  t.equal(session?.phase, 'ended');
});

t.test('switchover: without a hastd the question is answered all the same', async (t) => {
  const pair = new SimPair({ mediaSize: MiB, seed: 4 }).primary();
  const heard = listen(pair, 'a');
  say(pair, 'a', ask);
  pair.pass(100);
  t.same(heard, [{ kind: 'answer', id: ask.id, code: 69, text: 'not here' }]);
});

t.test('facts: asked and told by the same way, only where both know it', async (t) => {
  const question = { kind: 'ask-facts', id: 2 ** 41 + 3 } as const;
  const pair = new SimPair({ mediaSize: MiB, seed: 6 }).primary();
  const [a, b] = [listen(pair, 'a'), listen(pair, 'b')];
  t.equal(say(pair, 'b', question), null);
  const facts = { kind: 'facts', id: question.id, text: '{"node":"a"}' } as const;
  t.equal(say(pair, 'a', facts), null);
  pair.pass(100);
  t.same([a, b], [[question], [facts]]);
  const alone = new SimPair({ mediaSize: MiB, seed: 7 }).primary();
  const heard = listen(alone, 'a');
  say(alone, 'a', question);
  alone.pass(100);
  t.same(heard, [{ kind: 'facts', id: question.id, text: '' }], 'no hastd there');
  const old = { ...ownProtocol, features: ownProtocol.features & ~Feature.facts };
  const mixed = new SimPair({ mediaSize: MiB, seed: 8, protocols: [ownProtocol, old] }).primary();
  t.match(say(mixed, 'a', question), /cannot be asked about itself/);
  t.equal(say(mixed, 'a', ask), null, 'a switchover goes on working');
});

t.test('switchover: nonsense is refused, text is made printable and cut', async (t) => {
  const bad: Frame[] = [
    plainFrame(FrameType.switchover, 0, 0), plainFrame(FrameType.switchover, 0, 3),
    plainFrame(FrameType.switchoverDone, 0, 256),
    plainFrame(FrameType.facts, 0, 1), plainFrame(FrameType.factsDone, 0, 1),
  ];
  for (const frame of bad) t.throws(() => decodeSwitchover(frame), { code: 'HAST_E_PROTOCOL' });
  const escape = bodyFrame(FrameType.switchoverDone, Buffer.from('a\u001b[2Jb\n\u00fc\r'), 1);
  t.match(decodeSwitchover(escape), { text: 'a?[2Jb\n\u00fc?' });
  const long = encodeSwitchover({ kind: 'answer', id: 1, code: 0, text: 'x'.repeat(100_000) });
  t.equal(long.size, 8192);
  t.throws(() => {
    const pair = new SimPair({ mediaSize: MiB, seed: 5 }).primary();
    const { session } = pair.b.running;
    if (session === null) throw new Error('no session');
    session.phase = 'verdict';
    pair.b.running.operator.switchover.take(session, encodeSwitchover(ask));
  }, { message: 'a switchover during the handshake' });
});
