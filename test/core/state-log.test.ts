/**
 * Goal: a scripted outage gives one line for each change of the status, with from, to and why, on
 * both nodes, and nothing for I/O. Method: two cores in the simulated world, their logs recorded.
 */
import t from 'tap';
import type { Logger } from '../../lib/base/log.ts';
import type { SimNode, SimRequest } from '../fixtures/sim-node.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

const MiB = 1024 * 1024;

interface Line {
  level: string;
  message: string;
  from?: string;
  to?: string;
  why?: string;
}

/** Everything above debug. */
function record(node: SimNode): Line[] {
  const lines: Line[] = [];
  const add = (level: string) => (fields: object, message: string): void => {
    lines.push({ level, message, ...fields });
  };
  const ignore = (): void => undefined;
  const log: Logger = {
    trace: ignore, debug: ignore, info: add('info'), warn: add('warn'), error: add('error'),
  };
  node.log = log;
  return lines;
}

const states = (lines: readonly Line[]): string[] => lines
  .filter(({ message }) => message === 'the status is').map(({ from, to }) => `${from} ${to}`);

function write(pair: SimPair, node: SimNode, count: number): void {
  let left = count;
  for (let index = 0; index < count; index++) {
    const request = node.write(4096 * index, Buffer.alloc(4096, index + 1));
    request.onDone = (one: SimRequest) => {
      if (one.errno === 0) left--;
    };
  }
  pair.until('the writes', () => left === 0);
}

t.test('state log: an outage, line by line', async (t) => {
  const pair = new SimPair({ mediaSize: MiB, seed: 11 });
  const [a, b] = [record(pair.a), record(pair.b)];
  pair.primary().complete();
  t.same(states(a), ['starting waiting', 'waiting complete']);
  t.same(states(b), ['starting waiting', 'waiting syncing', 'syncing complete']);
  t.ok(a.every(({ level }) => level === 'info'));

  a.length = b.length = 0;
  write(pair, pair.a, 200);
  pair.pass(5000);
  t.same([a, b], [[], []], 'nothing is said of I/O');

  pair.partition();
  pair.pass(1000);
  write(pair, pair.a, 50);
  pair.pass(5000);
  t.same(states(a), ['complete degraded']);
  t.same(states(b), ['complete waiting']);
  for (const lines of [a, b]) {
    const line = lines.find(({ message }) => message === 'the status is');
    t.match(line, { level: 'warn', why: /.../ });
  }
  const [countA, countB] = [a.length, b.length];
  pair.pass(600_000);
  t.same([a.length, b.length], [countA, countB], 'an outage that lasts is not repeated');

  a.length = b.length = 0;
  pair.heal();
  pair.complete();
  pair.pass(1000);
  t.same(states(a), ['degraded syncing', 'syncing complete']);
  t.same(states(b), ['waiting syncing', 'syncing complete']);
  t.ok(a.length + b.length <= 8, JSON.stringify([...a, ...b], null, 1));
  for (const { message, why } of [...a, ...b]) {
    if (message === 'the status is') t.ok(why, 'it says why');
  }
});
