/** One ring, without a reactor: every entry has its own completion, whatever the pressure. */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { addressOf } from '../../lib/base/libc.ts';
import { IOSQE_IO_LINK, Ring, RingOpcode } from '../../lib/uring/ring.ts';
import { succeed } from '../fixtures/fuse-lab.ts';
import { needsRing } from '../fixtures/ring.ts';

const GiB = 2 ** 30;
const submissions = 1024;
const POLLIN = 1;
const ENOENT = 2;
const ECANCELED = 125;

/** A ring and what came of its operations, in order: [name, result]. */
class Watched {
  readonly ring: Ring;
  readonly results: [number, number][] = [];

  constructor() {
    const ring = Ring.open();
    if (ring === null) throw new Error('no ring');
    this.ring = ring;
  }

  add(
    name: number, opcode: RingOpcode, fd: number, address = 0, length = 0, offset = 0, more = 0,
    flags = 0,
  ): number {
    const op = { completed: (result: number): void => void this.results.push([name, result]) };
    return this.ring.prepare(op, opcode, fd, address, length, offset, more, flags);
  }

  /** Until so many have completed in all. */
  finish(count: number): void {
    const end = performance.now() + 10_000;
    while (this.results.length < count) {
      this.ring.submitAndWait(100);
      while (this.ring.reap() > 0);
      if (performance.now() > end) throw new Error(`${this.results.length} of ${count}`);
    }
  }

  /** What has completed after a while. */
  settle(milliseconds = 50): [number, number][] {
    const end = performance.now() + milliseconds;
    do {
      this.ring.submitAndWait(Math.max(1, end - performance.now()));
      while (this.ring.reap() > 0);
    } while (performance.now() < end);
    return this.results;
  }
}

function openIn(t: Test, name: string, flags: number | string): number {
  const fd = fs.openSync(name, flags);
  t.teardown(() => fs.closeSync(fd));
  return fd;
}

/** Nothing to be read yet. */
async function fifo(t: Test): Promise<{ fd: number; name: string }> {
  const name = path.join(t.testdir({}), 'fifo');
  await succeed('mkfifo', [name]);
  return { fd: openIn(t, name, fs.constants.O_RDWR | fs.constants.O_NONBLOCK), name };
}

t.test('ring: more entries than the queue has room for', needsRing(), async (t) => {
  const watched = new Watched();
  const fd = openIn(t, path.join(t.testdir({ file: '' }), 'file'), 'r+');
  const count = 3 * submissions + 5;
  const memory = Buffer.alloc(count * 4);
  for (let index = 0; index < count; index++) memory.writeUInt32LE(index, index * 4);
  const address = addressOf(memory);
  for (let index = 0; index < count; index++) {
    watched.add(index, RingOpcode.write, fd, address + index * 4, 4, index * 4);
    if (watched.results.length > 0) t.fail('completed from within prepare');
  }
  t.ok(watched.ring.prepared > 0 && watched.ring.prepared <= submissions);
  watched.finish(count);
  t.equal(new Set(watched.results.map(([name]) => name)).size, count, 'each once');
  t.ok(watched.results.every(([, result]) => result === 4));
  const back = Buffer.alloc(memory.length);
  fs.readSync(fd, back, 0, back.length, 0);
  t.ok(back.equals(memory));
  t.strictSame([watched.ring.prepared, watched.ring.reap()], [0, 0]);
});

t.test('ring: more completions than their queue has room for', needsRing(), async (t) => {
  const watched = new Watched();
  const fd = openIn(t, '/dev/null', 'r+');
  const memory = Buffer.alloc(64);
  const count = 20_000;
  for (let index = 0; index < count; index++) {
    watched.add(index, RingOpcode.write, fd, addressOf(memory), 1 + index % 64);
  }
  watched.ring.submit();
  t.ok(watched.ring.hasNews, 'some wait in the kernel');
  watched.finish(count);
  t.equal(new Set(watched.results.map(([name]) => name)).size, count, 'each once');
  t.ok(watched.results.every(([name, result]) => result === 1 + name % 64), 'its own result');
});

t.test('ring: operations prepared from a completion', needsRing(), async (t) => {
  const watched = new Watched();
  const fd = openIn(t, '/dev/null', 'r+');
  const memory = Buffer.alloc(64);
  let more = 5;
  const again = (): void => {
    for (let index = 0; index < 1500; index++) {
      watched.add(index, RingOpcode.write, fd, addressOf(memory), 7);
    }
    if (--more === 0) return;
    watched.ring.prepare({ completed: again }, RingOpcode.write, fd, addressOf(memory), 1, 0);
  };
  again();
  watched.finish(5 * 1500);
  t.ok(watched.results.every(([, result]) => result === 7));
});

t.test('ring: completions come in any order', needsRing(), async (t) => {
  const watched = new Watched();
  const { fd } = await fifo(t);
  const zero = openIn(t, '/dev/zero', 'r');
  const memory = Buffer.alloc(128);
  watched.add(1, RingOpcode.pollAdd, fd, 0, 0, 0, POLLIN);
  watched.add(2, RingOpcode.read, zero, addressOf(memory), 100, 0);
  t.strictSame(watched.settle(), [[2, 100]]);
  fs.writeSync(fd, 'x');
  watched.add(3, RingOpcode.read, zero, addressOf(memory), 50, 0);
  watched.finish(3);
  t.same(new Map(watched.results), new Map([[2, 100], [1, POLLIN], [3, 50]]));
});

t.test('ring: cancelling ends what waits, and nothing else', needsRing(), async (t) => {
  const watched = new Watched();
  const { fd } = await fifo(t);
  const heard: number[] = [];
  const op = { completed: (result: number): void => void heard.push(result) };
  const first = watched.add(1, RingOpcode.pollAdd, fd, 0, 0, 0, POLLIN);
  watched.add(2, RingOpcode.pollAdd, fd, 0, 0, 0, POLLIN);
  watched.ring.cancel(op, first);
  t.strictSame(watched.settle(), [[1, -ECANCELED]]);
  t.strictSame(heard, [0]);
  watched.ring.cancel(op, 100_000);
  t.strictSame(watched.settle(), [[1, -ECANCELED]]);
  t.strictSame(heard, [0, -ENOENT]);
  fs.writeSync(fd, 'x');
  watched.finish(2);
  t.strictSame(watched.results[1], [2, POLLIN]);
});

/** A poll of an empty fifo with a write linked to it; the write must wait. */
async function linkAfter(t: Test, entriesBefore: number): Promise<void> {
  const watched = new Watched();
  const { fd } = await fifo(t);
  const nothing = openIn(t, '/dev/null', 'r+');
  const memory = addressOf(Buffer.alloc(64));
  for (let index = 0; index < entriesBefore; index++) {
    watched.add(1000, RingOpcode.write, nothing, memory, 1);
  }
  watched.add(1, RingOpcode.pollAdd, fd, 0, 0, 0, POLLIN, IOSQE_IO_LINK);
  watched.add(2, RingOpcode.write, nothing, memory, 5);
  const linked = (): [number, number][] => watched.results.filter(([name]) => name < 1000);
  watched.settle();
  t.strictSame(linked(), [], `${entriesBefore} entries before it: both wait`);
  fs.writeSync(fd, 'x');
  watched.settle();
  t.strictSame(linked(), [[1, POLLIN], [2, 5]], 'one after the other');
}

t.test('ring: a linked entry begins after the one before', needsRing(), async (t) => {
  await linkAfter(t, 0);
  await linkAfter(t, submissions - 2);
  // The two would be in different submissions, which ends a chain.
  await linkAfter(t, submissions - 1);
  const watched = new Watched();
  const nothing = openIn(t, '/dev/null', 'r+');
  watched.add(1, RingOpcode.read, -1, 0, 1, 0, 0, IOSQE_IO_LINK);
  watched.add(2, RingOpcode.write, nothing, addressOf(Buffer.alloc(8)), 8);
  watched.add(3, RingOpcode.write, nothing, addressOf(Buffer.alloc(8)), 8);
  watched.finish(3);
  const results = new Map(watched.results);
  t.ok((results.get(1) as number) < 0);
  t.strictSame([results.get(2), results.get(3)], [-ECANCELED, 8], 'only what was linked fails');
});

t.test('ring: an entry that the kernel refuses at once', needsRing(), async (t) => {
  const watched = new Watched();
  const nothing = openIn(t, '/dev/null', 'r+');
  const memory = addressOf(Buffer.alloc(64));
  const count = 2500;
  for (let index = 0; index < count; index++) {
    const opcode = index % 100 === 50 ? 250 as RingOpcode : RingOpcode.write;
    watched.add(index, opcode, nothing, memory, 9);
  }
  watched.finish(count);
  t.ok(watched.results.every(([name, result]) => (name % 100 === 50 ? result < 0 : result === 9)));
});

t.test('ring: offsets, lengths and addresses above 2^32', needsRing(), async (t) => {
  const watched = new Watched();
  const name = path.join(t.testdir({ file: '' }), 'file');
  const fd = openIn(t, name, 'r+');
  fs.ftruncateSync(fd, 40 * GiB);
  // So large that it is mapped, and not part of the heap at low addresses.
  const memory = Buffer.allocUnsafeSlow(1 << 26);
  t.ok(addressOf(memory) > 2 ** 32);
  const places = [2 ** 31, 2 ** 32 - 4, 2 ** 32, 2 ** 32 + 2 ** 31, 9 * 2 ** 32 + 12];
  for (const [index, offset] of places.entries()) {
    memory.writeUInt32LE(index + 1, index * 4);
    watched.add(index, RingOpcode.write, fd, addressOf(memory) + index * 4, 4, offset);
  }
  watched.finish(places.length);
  for (const [index, offset] of places.entries()) {
    const back = Buffer.alloc(4);
    fs.readSync(fd, back, 0, 4, offset);
    t.equal(back.readUInt32LE(), index + 1, `at ${offset}`);
  }
  // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE; the address is the length, and the length the mode.
  watched.add(9, RingOpcode.fallocate, fd, 5 * 2 ** 32, 3, 2 ** 32);
  watched.finish(places.length + 1);
  t.equal(watched.results.at(-1)?.[1], 0);
  const values = places.map((offset) => {
    const back = Buffer.alloc(4);
    fs.readSync(fd, back, 0, 4, offset);
    return back.readUInt32LE();
  });
  t.strictSame(values, [1, 2, 0, 0, 5]);
});

t.test('ring: waiting ends with the time, or with a completion', needsRing(), async (t) => {
  const watched = new Watched();
  const { fd, name } = await fifo(t);
  const took = (milliseconds: number): number => {
    const start = performance.now();
    watched.ring.submitAndWait(milliseconds);
    return performance.now() - start;
  };
  watched.add(1, RingOpcode.pollAdd, fd, 0, 0, 0, POLLIN);
  for (const milliseconds of [0.2, 20, 1050]) {
    const time = took(milliseconds);
    t.ok(time >= milliseconds * 0.9 && time < milliseconds + 5000, `${milliseconds}: ${time}`);
    t.equal(watched.ring.reap(), 0);
  }
  spawn('sh', ['-c', `sleep 0.1; echo > ${name}`], { stdio: 'ignore' });
  t.ok(took(9000) < 5000, 'it came');
  watched.finish(1);
  t.ok(took(1) < 5000);
});
