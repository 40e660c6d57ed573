/**
 * What only the front end on a ring can get wrong: who shares its ring, waiting for the mount,
 * more requests than slots, and replies that are under way when it stops.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import type { AppRequest, Volume } from '../../lib/core/ports.ts';
import { mountFuse, openFuseDevice } from '../../lib/fuse/mount.ts';
import { RingFrontend } from '../../lib/fuse/ring-frontend.ts';
import { type Reactor, RingOpcode } from '../../lib/uring/reactor.ts';
import { needsKind } from '../fixtures/fuse-kinds.ts';
import { bounded, command, Lab, succeed } from '../fixtures/fuse-lab.ts';
import { turningReactor } from '../fixtures/ring.ts';

const SIZE = 4 * 1024 * 1024;
const POLLIN = 1;

const idleVolume: Volume = {
  size: SIZE,
  submit(request) {
    setImmediate(() => request.complete(0));
  },
};

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Operations that wait for ever, of somebody else on the same ring; what came of them. */
async function bystanders(t: Test, reactor: Reactor, count: number): Promise<number[]> {
  const fifo = path.join(t.testdir({}), 'fifo');
  await succeed('mkfifo', [fifo]);
  const fd = fs.openSync(fifo, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
  t.teardown(() => fs.closeSync(fd));
  const results: number[] = [];
  for (let index = 0; index < count; index++) {
    const op = { completed: (result: number): void => void results.push(result) };
    reactor.ring.prepare(op, RingOpcode.pollAdd, fd, 0, 0, 0, POLLIN);
  }
  return results;
}

t.test('ring front end: stopping cancels nothing of others', needsKind('ring'), async (t) => {
  const reactor = turningReactor(t);
  const fd = openFuseDevice();
  t.teardown(() => fs.closeSync(fd));
  const frontend = new RingFrontend({ fuseFd: fd, mountPoint: t.testdir({}) }, reactor);
  frontend.start(idleVolume, () => t.fail('never ready'));
  await sleep(30);
  const results = await bystanders(t, reactor, 20);
  await sleep(30);
  t.equal(await bounded('stop', new Promise((resolve) => frontend.stop(resolve))), true);
  await sleep(30);
  t.strictSame(results, [], 'they go on waiting');
});

t.test('ring front end: more requests than slots', needsKind('ring'), async (t) => {
  for (const slots of [1, 2, 5]) {
    const lab = new Lab();
    try {
      await lab.serve(SIZE, { kind: 'ring', slots, delayMsMax: 2 });
      const file = await fs.promises.open(lab.file, 'r+');
      const block = 32 * 1024;
      const contents = Array.from({ length: 64 }, (_, index) => Buffer.alloc(block, 1 + index));
      await bounded('writes', Promise.all(contents.map((content, index) =>
        file.write(content, 0, block, index * block))));
      const backs = await bounded('reads', Promise.all(contents.map((_, index) =>
        file.read(Buffer.alloc(block), 0, block, index * block))));
      t.ok(backs.every(({ buffer }, index) => buffer.equals(contents[index] as Buffer)));
      await file.close();
      // A slot is free when its reply has left: the last one may be on its way.
      const giveUpAt = performance.now() + 2000;
      let now = await lab.counters();
      while (now.idle < slots && performance.now() < giveUpAt) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        now = await lab.counters();
      }
      t.ok(now.counters.inFlightMax <= slots, `at most ${slots} at once`);
      t.strictSame([now.inFlight, now.idle], [0, slots]);
    } finally {
      await lab.close();
    }
  }
});

t.test('ring front end: what fails at a stop is answered first', needsKind('ring'), async (t) => {
  for (const slots of [1, 2, 64]) {
    const reactor = turningReactor(t);
    const mountPoint = t.testdir({});
    const fd = openFuseDevice();
    const taken: AppRequest[] = [];
    const volume: Volume = { size: SIZE, submit: (request) => void taken.push(request) };
    const frontend = new RingFrontend({ fuseFd: fd, mountPoint, slots }, reactor);
    const ready = new Promise((resolve) => frontend.start(volume, resolve));
    try {
      await mountFuse(fd, mountPoint);
      t.equal(await bounded('ready', ready), null);
      const args = ['if=/dev/zero', `of=${mountPoint}/volume`, 'conv=notrunc', 'bs=4k', 'count=1'];
      const users = [1, 2, 3].map(() => command('dd', args));
      while (taken.length < Math.min(slots, 3)) await sleep(5);
      t.equal(await bounded('stop', new Promise((done) => frontend.stop(done, true))), true);
      fs.closeSync(fd);
      const ends = await bounded('users', Promise.all(users));
      const failed = ends.filter(({ stderr }) => /Input\/output error/.test(stderr));
      t.ok(failed.length >= Math.min(slots, 3), `${slots} slots: ${ends.map((e) => e.stderr)}`);
    } finally {
      reactor.stop();
      await command('umount', ['-l', mountPoint]);
    }
  }
});
