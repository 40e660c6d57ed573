/** The shared memory's bookkeeping: first alone, then between two threads at full speed. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import {
  createSharedSlots, READ_REPLY_AT, SLOT_SIZE, SlotMemory, SlotPool, SlotRing, StopMode,
} from '../../lib/fuse/slots.ts';
import { Bytes } from '../fixtures/fuse-bytes.ts';

t.test('slots: the lowest free one is taken, each once', async (t) => {
  const pool = new SlotPool(createSharedSlots(40, 2));
  t.equal(pool.freeCount, 40);
  for (let slot = 0; slot < 40; slot++) t.equal(pool.tryTake(), slot);
  t.equal(pool.tryTake(), -1);
  for (const slot of [39, 3, 31, 32]) pool.release(slot);
  t.strictSame([pool.take(1), pool.take(1), pool.take(1), pool.take(1)], [3, 31, 32, 39]);
  t.equal(pool.freeCount, 0);
});

t.test('slots: giving back twice is a bug, the extra slots of readers never join', async (t) => {
  const pool = new SlotPool(createSharedSlots(4, 2));
  const slot = pool.tryTake();
  pool.release(slot);
  t.throws(() => pool.release(slot), /free already/);
  pool.release(4);
  pool.release(5);
  t.equal(pool.freeCount, 4);
});

t.test('slots: waiting for one ends when the front end stops', async (t) => {
  const pool = new SlotPool(createSharedSlots(1, 1));
  pool.tryTake();
  pool.stop(StopMode.failRequests);
  t.equal(pool.stopMode, StopMode.failRequests);
  t.equal(pool.take(10_000), -1);
});

t.test('slots: exactly one reader wakes a sleeping engine', async (t) => {
  const pool = new SlotPool(createSharedSlots(1, 1));
  t.equal(pool.claimWake(), true, 'it sleeps at first');
  t.equal(pool.claimWake(), false);
  pool.engineSleeps();
  pool.engineWakes();
  t.equal(pool.claimWake(), false);
});

t.test('slots: a ring keeps order, over the wrap of its counters too', async (t) => {
  const shared = createSharedSlots(4, 2);
  const [first, second] = [new SlotRing(shared, 0), new SlotRing(shared, 1)];
  t.equal(first.isEmpty, true);
  for (let round = 0; round < 100; round++) {
    for (let slot = 0; slot < 6; slot++) first.push(slot);
    second.push(round % 4);
    t.strictSame([0, 1, 2, 3, 4, 5, -1].map(() => first.pop()), [0, 1, 2, 3, 4, 5, -1]);
    t.equal(second.pop(), round % 4);
  }
  const control = new Int32Array(shared.control);
  const start = control.length - 2 * (2 + 8);
  control[start] = control[start + 1] = 0x7fff_fffe;
  for (let slot = 0; slot < 4; slot++) first.push(slot);
  t.strictSame([0, 1, 2, 3, 4].map(() => first.pop()), [0, 1, 2, 3, -1]);
});

t.test('slots: replies, byte by byte', async (t) => {
  const memory = new SlotMemory(createSharedSlots(2, 1));
  const unique = 0xffff_ffff_0000_0001n;
  const at = SLOT_SIZE;
  memory.view.setBigUint64(SlotMemory.uniqueAt(1), unique, true);
  memory.setWork(1, 5, 2 ** 45 + 1, 2 ** 33);
  t.strictSame([memory.workOp(1), memory.workOffset(1), memory.workLength(1)],
    [5, 2 ** 45 + 1, 2 ** 33]);
  const written = memory.encodeReply(1, 0, 4096);
  t.equal(memory.bytes.toString('hex', at, at + written),
    new Bytes().u32(24, 0).u64(unique).u32(4096, 0).done().toString('hex'));
  const failed = memory.encodeReply(1, 28, 0);
  t.equal(memory.bytes.toString('hex', at, at + failed),
    new Bytes().u32(16, -28).u64(unique).done().toString('hex'));
  t.equal(memory.encodeReadReply(1, 512), 528);
  t.equal(memory.bytes.toString('hex', at + READ_REPLY_AT, at + READ_REPLY_AT + 16),
    new Bytes().u32(528, 0).u64(unique).done().toString('hex'));
});

// Method: a thread takes, fills and pushes slots as a reader does; this side pops, checks that
// each carries the next number, and gives them back in another order, sleeping when it may.
t.test('slots: two threads, no slot lost, doubled or reordered', async (t) => {
  const shared = createSharedSlots(8, 1);
  const rounds = 100_000;
  const pool = new SlotPool(shared);
  const ring = new SlotRing(shared, 0);
  const memory = new SlotMemory(shared);
  const worker = new Worker(new URL('../fixtures/fuse-slots-thread.js', import.meta.url), {
    workerData: { shared, rounds },
  });
  let next = 0;
  let wrong = 0;
  const held: number[] = [];
  const drain = (): void => {
    do {
      pool.engineWakes();
      for (let slot = ring.pop(); slot >= 0; slot = ring.pop()) {
        if (memory.workOffset(slot) !== next++) wrong++;
        held.push(slot);
        if (held.length > next % 8) for (const one of held.splice(0).reverse()) pool.release(one);
      }
      for (const one of held.splice(0)) pool.release(one);
      pool.engineSleeps();
    } while (!ring.isEmpty);
  };
  worker.on('message', drain);
  await once(worker, 'exit');
  drain();
  t.equal(next, rounds);
  t.equal(wrong, 0);
  t.equal(pool.freeCount, 8);
});
