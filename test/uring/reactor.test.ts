/** Node's own event loop goes on under a reactor, idle or busy; and a process can end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as net from 'node:net';
import t, { type Test } from 'tap';
import { addressOf } from '../../lib/base/libc.ts';
import { type Reactor, RingOpcode } from '../../lib/uring/reactor.ts';
import { bounded } from '../fixtures/fuse-lab.ts';
import { plainNode } from '../fixtures/plain-node.ts';
import { needsRing, turningReactor } from '../fixtures/ring.ts';

/** A timer is late by 50 ms at most; what comes on top is for a machine that is busy. */
const lateMs = 50;
const slackMs = 150;

async function timed(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await bounded('it', run());
  return performance.now() - start;
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Then waits as long as one more turn may take. */
async function until(isSo: () => boolean): Promise<void> {
  for (let round = 0; round < 2000 && !isSo(); round++) await sleep(5);
  await sleep(lateMs + slackMs);
}

/** Operations that follow each other without end. */
function keepBusy(t: Test, reactor: Reactor): () => number {
  const fd = fs.openSync('/dev/null', 'r+');
  const memory = Buffer.alloc(4096);
  let count = 0;
  let isOver = false;
  const op = { completed: (): void => {
    count++;
    if (!isOver) reactor.ring.prepare(op, RingOpcode.write, fd, addressOf(memory), 4096, 0);
  } };
  t.teardown(() => { isOver = true; });
  for (let index = 0; index < 8; index++) op.completed();
  return () => count;
}

async function echo(t: Test): Promise<() => Promise<unknown>> {
  const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
  await bounded('connect', once(socket, 'connect'));
  t.teardown(() => {
    socket.destroy();
    server.close();
  });
  return () => {
    socket.write('x');
    return once(socket, 'data');
  };
}

async function everythingRuns(t: Test, how: string): Promise<void> {
  const talk = await echo(t);
  const works: [what: string, mostMs: number, run: () => Promise<unknown>][] = [
    ['a timer', 30 + lateMs + slackMs, () => sleep(30)],
    ['an immediate', lateMs + slackMs, () => new Promise((resolve) => setImmediate(resolve))],
    ['a promise', slackMs, () => Promise.resolve()],
    ['a file', slackMs, () => fs.promises.readFile('/proc/self/stat')],
    ['20 answers of a socket', 20 * 10 + slackMs, async () => {
      for (let index = 0; index < 20; index++) await talk();
    }],
  ];
  for (const [what, mostMs, run] of works) {
    const took: number[] = [];
    for (let round = 0; round < 4; round++) {
      await sleep(100);
      took.push(await timed(run));
    }
    // The machine may have been busy with something else in some of them.
    t.ok(Math.min(...took) < mostMs, `${how}: ${what} in ${took.map(Math.round).join()} ms`);
  }
}

t.test('reactor: Node goes on while the ring is idle', needsRing(), async (t) => {
  turningReactor(t);
  await everythingRuns(t, 'idle');
});

t.test('reactor: Node goes on while the ring is busy', needsRing(), async (t) => {
  const count = keepBusy(t, turningReactor(t));
  const before = count();
  await everythingRuns(t, 'busy');
  t.ok(count() - before > 1000, 'and so does the ring');
});

t.test('reactor: the ring goes on while Node is busy', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const fd = fs.openSync('/dev/null', 'r+');
  t.teardown(() => fs.closeSync(fd));
  const memory = Buffer.alloc(16);
  let isOver = false;
  const spin = (): void => void (isOver || setImmediate(spin));
  spin();
  const took = await timed(async () => {
    for (let index = 0; index < 200; index++) {
      await new Promise((resolve) => reactor.ring.prepare(
        { completed: resolve }, RingOpcode.write, fd, addressOf(memory), 16, 0,
      ));
    }
  });
  isOver = true;
  t.ok(took < 200 * 5 + slackMs, `${took} ms`);
});

t.test('reactor: an idle one sleeps', needsRing(), async (t) => {
  turningReactor(t);
  await sleep(50);
  const before = process.cpuUsage();
  await sleep(500);
  const { user, system } = process.cpuUsage(before);
  t.ok(user + system < 200_000, `${user + system} us of half a second`);
});

t.test('reactor: the deadline is kept', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const lates: number[] = [];
  for (let round = 0; round < 10; round++) {
    await sleep(100);
    const at = performance.now() + 75;
    reactor.deadline = () => at;
    await new Promise<void>((resolve) => setTimeout(resolve, 75));
    lates.push(performance.now() - at);
    reactor.deadline = () => null;
  }
  lates.sort((a, b) => a - b);
  t.ok((lates[1] as number) < 15, lates.map(Math.round).join());
});

t.test('reactor: what is asked for later is done once', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  let turns = 0;
  const once = { turnEnd: (): void => void turns++ };
  await sleep(100);
  reactor.later(once);
  await until(() => turns > 0);
  t.equal(turns, 1);
  const again = { turnEnd: (): void => void (++turns < 4 && reactor.later(again)) };
  reactor.later(again);
  await until(() => turns >= 4);
  t.equal(turns, 4, 'also from within');
});

t.test('reactor: stopped and started again it turns as before', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  reactor.deadline = () => performance.now();
  await sleep(10);
  reactor.stop();
  reactor.start();
  reactor.start();
  await sleep(10);
  let rounds = 0;
  reactor.onRound = () => void rounds++;
  for (let index = 0; index < 20; index++) await new Promise((resolve) => setImmediate(resolve));
  t.ok(rounds >= 18 && rounds <= 22, `${rounds} rounds in 20 turns of the loop`);
  reactor.onRound = () => undefined;
});

const program = (rest: string): string => `
import { Reactor } from ${JSON.stringify(new URL('../../lib/uring/reactor.js', import.meta.url))};
const reactor = Reactor.open();
reactor.start();
${rest}
`;

t.test('reactor: a process ends when it is stopped', needsRing(), async (t) => {
  const run = async (rest: string, ms: number): Promise<[number | null, string | null]> => {
    const child = spawn('env', [
      ...plainNode, '--input-type=module', '-e', program(rest),
    ], { stdio: 'inherit' });
    const timer = setTimeout(() => child.kill('SIGKILL'), ms);
    const end = await bounded('exit', once(child, 'exit')) as [number | null, string | null];
    clearTimeout(timer);
    return end;
  };
  t.strictSame(await run('setTimeout(() => reactor.stop(), 200);', 20_000), [0, null], 'stopped');
  t.strictSame(await run('setTimeout(() => process.exit(7), 200);', 20_000), [7, null], 'exit');
  t.strictSame(await run('', 3000), [null, 'SIGKILL'], 'not before');
});

t.test('reactor: a round ends with what its last work completed', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  let isAsked = false;
  let late = 0;
  let rounds = 0;
  reactor.onRound = () => {
    if (isAsked) rounds++;
    isAsked = false;
  };
  const work = { turnEnd: (): void => {
    isAsked = true;
    // Runs when the turn is over, a millisecond later.
    setImmediate(() => {
      if (isAsked) late++;
    });
  } };
  const fd = fs.openSync('/dev/null', 'r+');
  t.teardown(() => fs.closeSync(fd));
  const memory = Buffer.alloc(16);
  for (let index = 0; index < 50; index++) {
    await new Promise<void>((resolve) => reactor.ring.prepare({ completed: () => {
      reactor.later(work);
      resolve();
    } }, RingOpcode.write, fd, addressOf(memory), 16, 0));
    await sleep(3);
  }
  reactor.onRound = () => undefined;
  t.same([rounds, late], [50, 0]);
});

t.test('reactor: one that looks before it sleeps', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  reactor.busyPoll.milliseconds = 1;
  await everythingRuns(t, 'looking');
  const count = keepBusy(t, reactor);
  await sleep(100);
  t.ok(count() > 1000);
});

t.test('reactor: an idle one sleeps, however long it may look', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  reactor.busyPoll.milliseconds = 1;
  await sleep(200);
  const before = process.cpuUsage();
  await sleep(500);
  const { user, system } = process.cpuUsage(before);
  t.ok(user + system < 200_000, `${user + system} us of half a second`);
});
