/** The parent's part of a switchover, with programs that stand in for hastctl. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { silentLogger } from '../../lib/base/log.ts';
import { Switchovers } from '../../lib/daemon/switchovers.ts';
import type { SwitchoverSaid } from '../../lib/format/switchover.ts';

interface Side {
  switchovers: Switchovers;
  said: SwitchoverSaid[];
  /** What hastctl was called with. */
  calls(): string[];
}

/** `script` is run as hastctl; `deliver` gets what is said, and may throw. */
function side(test: Test, script: string, deliver: (said: SwitchoverSaid) => void): Side {
  const file = path.join(test.testdir({}), 'calls');
  const said: SwitchoverSaid[] = [];
  const program = `echo "$*" >> "$0"; ${script}`;
  return {
    said,
    switchovers: new Switchovers({
      log: silentLogger, hastctl: ['sh', '-c', program, file], reachMs: 300,
      tell: async (_, say) => {
        said.push(say);
        deliver(say);
      },
    }),
    calls: () => fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trim().split('\n') : [],
  };
}

/** Two nodes that always hear each other. */
function pairOf(test: Test, script: string): { asking: Side; asked: Side } {
  const asked: Side = side(test, script, (said) => asking.switchovers.receive('shared', said));
  const asking: Side = side(test, 'exit 1', (said) => asked.switchovers.receive('shared', said));
  return { asking, asked };
}

t.test('switchovers: the peer does it, and what it printed comes back', async (t) => {
  const { asking, asked } = pairOf(t, 'echo done; echo why >&2');
  t.same(await asking.switchovers.ask('shared', 'take-over'), { code: 0, text: 'done\nwhy\n' });
  t.same(asked.calls(), ['up shared']);
  await asking.switchovers.ask('shared', 'hand-over');
  t.same(asked.calls(), ['up shared', 'switchover --peer-asked shared']);
});

t.test('switchovers: who cannot take over leaves the role again', async (t) => {
  const { asking, asked } = pairOf(t, 'echo "$1"; [ "$1" = down ] || exit 74');
  const answer = await asking.switchovers.ask('shared', 'take-over');
  t.same(answer, { code: 74, text: 'up\ndown\n' });
  t.same(asked.calls(), ['up shared', 'down shared']);
});

t.test('switchovers: a question that comes again is the same one', async (t) => {
  const heard: SwitchoverSaid[] = [];
  const node = side(t, 'sleep 0.3; exit 3', (said) => heard.push(said));
  const ask = (id: number): void =>
    node.switchovers.receive('shared', { kind: 'ask', id, what: 'hand-over' });
  ask(1);
  ask(1);
  ask(2);
  t.match(heard, [{ id: 2, code: 75, text: /another switchover/ }], 'busy');
  while (heard.length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  ask(1);
  t.match(heard.slice(1), [{ id: 1, code: 3 }, { id: 1, code: 3 }], 'answered again');
  t.equal(node.calls().length, 1, 'done once');
});

t.test('switchovers: a lost answer is not taken for one', async (t) => {
  let mayHear = true;
  const refused = new HastError('HAST_E_REFUSED', 'the peer is not connected');
  const away = side(t, '', () => { throw refused; });
  await t.rejects(away.switchovers.ask('shared', 'take-over'), {
    code: 'HAST_E_REFUSED', message: 'the peer was not reached: the peer is not connected',
  });
  const lost = side(t, '', () => {
    if (!mayHear) throw refused;
    mayHear = false;
  });
  await t.rejects(lost.switchovers.ask('shared', 'take-over'), {
    code: 'HAST_E_TIMEOUT', message: 'the peer was asked, and then: the peer is not connected',
  });
  // Nobody can know whether a worker that died had sent it.
  const died = side(t, '', () => { throw new HastError('HAST_E_INTERNAL', 'the worker ended'); });
  await t.rejects(died.switchovers.ask('shared', 'take-over'), { code: 'HAST_E_TIMEOUT' });
});
