/** When a worker looks for news before it sleeps: waits are short, and there is little to do. */
import t from 'tap';
import { BusyPoll } from '../../lib/uring/busy-poll.ts';

function polling(): BusyPoll {
  const poll = new BusyPoll();
  poll.milliseconds = 0.05;
  return poll;
}

function waits(poll: BusyPoll, count: number, milliseconds: number, slept: boolean): void {
  for (let index = 0; index < count; index++) poll.waited(milliseconds, slept);
}

t.test('busy poll: begins after short waits, ends after long ones', async (t) => {
  const poll = polling();
  t.notOk(poll.pays, 'not before anything is known');
  waits(poll, 4, 0.09, true);
  t.ok(poll.pays, 'what took 90 us with the wake-up would have been seen within 50');
  waits(poll, 100, 0.01, false);
  t.ok(poll.pays);
  waits(poll, 3, 400, true);
  t.notOk(poll.pays, 'three long waits are enough, however long it went well');
  waits(poll, 4, 0.3, true);
  t.notOk(poll.pays, 'a peer that is far away');
});

t.test('busy poll: one long wait among short ones does not end it', async (t) => {
  const poll = polling();
  waits(poll, 8, 0.03, false);
  for (let round = 0; round < 100; round++) {
    waits(poll, 3, 0.03, false);
    poll.waited(1, true);
    if (!poll.pays) t.fail(`round ${round}: a flush after each write`);
  }
  for (let round = 0; round < 100; round++) {
    poll.waited(0.03, true);
    poll.waited(1, true);
  }
  t.notOk(poll.pays, 'every second one does');
});

t.test('busy poll: not where much is under way', async (t) => {
  const poll = polling();
  waits(poll, 8, 0.01, false);
  for (let round = 0; round < 50; round++) poll.round(1);
  t.ok(poll.pays);
  for (let round = 0; round < 50; round++) poll.round(12);
  t.notOk(poll.pays);
  for (let round = 0; round < 50; round++) poll.round(2);
  t.ok(poll.pays, 'and again when there is little');
});

t.test('busy poll: not while threads of the kernel work', async (t) => {
  const poll = polling();
  waits(poll, 8, 0.01, false);
  poll.began();
  poll.began();
  t.notOk(poll.pays);
  waits(poll, 8, 1, true);
  poll.ended();
  t.notOk(poll.pays, 'the other one');
  poll.ended();
  t.ok(poll.pays, 'how long they took is no matter');
});

t.test('busy poll: not where others want the processor', async (t) => {
  const poll = polling();
  waits(poll, 8, 0.01, false);
  for (let round = 0; round < 5; round++) {
    poll.interrupted();
    poll.waited(0.03, false);
  }
  t.notOk(poll.pays);
  waits(poll, 4, 0.03, true);
  t.ok(poll.pays, 'it is tried again');
});

t.test('busy poll: never, where it is switched off', async (t) => {
  const poll = new BusyPoll();
  waits(poll, 100, 0, true);
  t.notOk(poll.pays);
});
