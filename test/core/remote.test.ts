/**
 * A primary whose own copy does not count: its disk failed or was detached, or it was promoted on
 * a copy that is still being filled. The application notices nothing.
 */
import { MiB } from '../../lib/format/limits.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { coreStatus } from '../../lib/core/status.ts';
import { SuperblockFlag } from '../../lib/format/superblock.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { SimLedger } from '../fixtures/sim-ledger.ts';
import { equal, served, work } from '../fixtures/sim-remote.ts';

const modes = ['fullsync', 'memsync', 'async'] as const;

for (const mode of modes) {
  for (const kind of ['write', 'flush', 'durable'] as const) {
    eachSeed(`remote: the primary's disk fails (${kind}, ${mode}): no request does`,
      { mode, seeds: 10 }, (pair, t) => {
        const ledger = new SimLedger(2 * MiB);
        pair.primary();
        work(pair, ledger, 30);
        pair.a.disk.fault = (op) => (op.kind === kind ? 5 : 0);
        work(pair, ledger, 60);
        ledger.flush(pair.a);
        pair.answered(pair.a);
        t.ok(served(pair));
        t.equal(coreStatus(pair.a.running).status, 'diskless');
        t.not(pair.b.running.context.store.value.flags & SuperblockFlag.keeper, 0);
        t.same(pair.a.events.filter((event) => event === 'detach'), ['detach']);
        work(pair, ledger, 60);
        pair.answered(pair.a);
        const problem = ledger.problem(pair.b.data());
        if (problem !== null) throw new Error(problem);
        // Cut in the middle of it: what was not answered is sent again.
        work(pair, ledger, 40);
        pair.link?.cut();
        work(pair, ledger, 40);
        pair.answered(pair.a);
        // The same disk, mended.
        pair.a.disk.fault = () => 0;
        const answer = pair.a.attach();
        work(pair, ledger, 60);
        pair.until('attached', () => answer.done);
        t.equal(answer.refusal, null);
        work(pair, ledger, 60);
        equal(pair, ledger);
        t.equal(coreStatus(pair.a.running).status, 'complete');
        t.equal(pair.b.running.context.store.value.flags & SuperblockFlag.keeper, 0);
      });
  }
}

eachSeed('remote: a new disk is filled while the application works', { seeds: 10 }, (pair, t) => {
  const ledger = new SimLedger(2 * MiB);
  pair.primary();
  work(pair, ledger, 60);
  pair.answered(pair.a);
  let detached = '';
  pair.a.running.operator.detach((refusal) => {
    detached = refusal === null ? coreStatus(pair.a.running).status : 'refused';
  });
  work(pair, ledger, 40);
  pair.until('detached', () => detached !== '');
  t.equal(detached, 'diskless', 'the answer comes when the peer serves');
  t.ok(served(pair));
  const image = { ...pair.a.image, copyId: pair.world.random.id64() };
  const answer = pair.a.attach(pair.a.newDisk(image));
  work(pair, ledger, 40);
  pair.until('attached', () => answer.done);
  t.equal(answer.refusal, null);
  work(pair, ledger, 100);
  equal(pair, ledger);
  // And it is a copy: the other one may go.
  pair.b.crash(true);
  work(pair, ledger, 20);
  pair.answered(pair.a);
  pair.b.boot();
  equal(pair, ledger);
});

eachSeed('remote: cuts and crashes of the peer while a disk is filled', { seeds: 20 }, (pair) => {
  const ledger = new SimLedger(2 * MiB);
  pair.primary();
  work(pair, ledger, 60);
  pair.answered(pair.a);
  pair.a.running.operator.detach(() => undefined);
  work(pair, ledger, 40);
  pair.until('served', () => served(pair));
  const image = { ...pair.a.image, copyId: pair.world.random.id64() };
  pair.a.attach(pair.a.newDisk(image));
  for (let round = 0; round < 4; round++) {
    work(pair, ledger, 30);
    pair.pass(pair.world.random.unit() * 30);
    if (pair.world.random.chance(0.5)) {
      pair.link?.cut();
    } else {
      pair.b.crash(pair.world.random.chance(0.5));
      pair.pass(pair.world.random.unit() * 20);
      pair.b.boot();
    }
  }
  equal(pair, ledger);
});

eachSeed('remote: the primary dies, its keeper takes over without force', { seeds: 10 },
  (pair, t) => {
    const ledger = new SimLedger(2 * MiB);
    pair.primary();
    work(pair, ledger, 30);
    pair.a.disk.fault = (op) => (op.kind === 'write' ? 5 : 0);
    work(pair, ledger, 40);
    pair.answered(pair.a);
    pair.until('served', () => served(pair));
    work(pair, ledger, 20);
    pair.answered(pair.a);
    pair.a.crash(true);
    pair.until('noticed', () => pair.b.phase === 'none', 20_000);
    // Also after a power cut of its own: everything answered was durable here.
    pair.b.crash(true);
    pair.b.boot();
    pair.mustPromote(pair.b);
    const problem = ledger.problem(pair.b.data());
    if (problem !== null) throw new Error(problem);
    pair.load(pair.b, 10);
    pair.answered(pair.b);
    pair.a.disk.fault = () => 0;
    pair.a.boot();
    pair.complete();
    pair.pass(100);
    t.equal(pair.difference(), -1);
  });

eachSeed('remote: neither copy serves: requests wait, and go on', {}, (pair, t) => {
  const ledger = new SimLedger(2 * MiB);
  pair.primary();
  pair.a.disk.fault = (op) => (op.kind === 'write' ? 5 : 0);
  work(pair, ledger, 30);
  pair.until('served', () => served(pair));
  pair.answered(pair.a);
  pair.partition();
  work(pair, ledger, 10);
  const flush = ledger.flush(pair.a);
  pair.pass(30_000);
  t.notOk(flush.isDone);
  t.equal(coreStatus(pair.a.running).status, 'failed');
  pair.heal();
  pair.answered(pair.a);
  t.ok(served(pair));
});

eachSeed('remote: neither copy serves, on-no-data fail: EIO', {}, (pair, t) => {
  pair.a.options.onNoData = 'fail';
  pair.primary();
  pair.a.disk.fault = (op) => (op.kind === 'write' ? 5 : 0);
  pair.load(pair.a, 10);
  pair.answered(pair.a);
  pair.partition();
  const requests = pair.load(pair.a, 10);
  pair.answered(pair.a);
  t.ok(requests.every((one) => one.errno === 5));
});

eachSeed('remote: promoted on a copy that is being filled', { mediaSize: 4 * MiB, seeds: 10 },
  (pair, t) => {
    pair.primary();
    pair.partition();
    for (let at = 0; at < 4; at++) pair.a.write(at * MiB, Buffer.alloc(MiB, at + 1));
    pair.answered(pair.a);
    pair.stop(pair.a);
    pair.a.boot();
    pair.heal();
    pair.until('syncing', () => pair.b.phase === 'syncing');
    pair.mustPromote(pair.b);
    const read = pair.run(pair.b, AppOp.read, 3 * MiB + 4096, 4096);
    t.equal(read.errno, 0);
    t.ok(read.data?.equals(Buffer.alloc(4096, 4)));
    pair.load(pair.b, 30);
    pair.answered(pair.b);
    pair.complete();
    pair.pass(100);
    t.equal(pair.difference(), -1);
    t.equal(pair.b.running.role, 'primary');
  });

eachSeed('remote: bad blocks are read from the peer and rewritten', { seeds: 5 }, (pair, t) => {
  const ledger = new SimLedger(2 * MiB);
  pair.primary();
  work(pair, ledger, 60);
  pair.answered(pair.a);
  const { dataOffset } = pair.a.geometry;
  const bad = new Set([3, 7, 8, 100]);
  pair.a.disk.fault = (op) => {
    const first = Math.floor((op.offset - dataOffset) / 4096);
    const last = Math.floor((op.offset + op.length - 1 - dataOffset) / 4096);
    let errno = 0;
    for (let block = first; block <= last; block++) {
      if (op.kind === 'read' && bad.has(block)) errno = 5;
      else if (op.kind === 'write') bad.delete(block);
    }
    return errno;
  };
  for (const block of [3, 7, 8, 100]) ledger.read(pair.a, block * 4096 + 512, 1024);
  work(pair, ledger, 100);
  pair.answered(pair.a);
  pair.pass(100);
  t.equal(bad.size, 0);
  t.ok(pair.a.running.context.statistics.localReadErrors > 0);
  t.notOk(pair.a.running.isDiskless);
  equal(pair, ledger);
});

for (const kind of ['write', 'flush', 'read', 'durable'] as const) {
  eachSeed(`remote: a disk that hangs (${kind}) is given up after disk-timeout`, { seeds: 5 },
    (pair, t) => {
      pair.a.options.diskTimeoutMs = 3000;
      const ledger = new SimLedger(2 * MiB);
      pair.primary();
      work(pair, ledger, 30);
      pair.a.disk.holds = (op) => op.kind === kind;
      work(pair, ledger, 80);
      ledger.flush(pair.a);
      pair.answered(pair.a);
      t.ok(pair.a.running.isDiskless);
      const life = pair.a.disk;
      work(pair, ledger, 20);
      // Late answers of the disk change nothing.
      life.release();
      work(pair, ledger, 20);
      pair.answered(pair.a);
      const answer = pair.a.attach();
      pair.until('attached', () => answer.done);
      t.equal(answer.refusal, null);
      equal(pair, ledger);
    });
}

eachSeed('remote: a peer whose disk hangs is given up', {}, (pair, t) => {
  pair.b.options.diskTimeoutMs = 0;
  pair.a.options.diskTimeoutMs = 3000;
  const ledger = new SimLedger(2 * MiB);
  pair.primary();
  pair.b.disk.holds = (op) => op.kind === 'write';
  work(pair, ledger, 30);
  pair.answered(pair.a);
  t.not(pair.a.phase, 'complete');
  t.ok(pair.a.running.aloneRecorded);
});

for (const mode of modes) {
  eachSeed(`remote: the disk fails while the link is down (${mode}): the peer takes over`,
    { mode, seeds: 20 }, (pair, t) => {
      const ledger = new SimLedger(2 * MiB);
      pair.primary();
      work(pair, ledger, 40);
      pair.answered(pair.a);
      pair.until('all is there', () =>
        pair.a.running.session?.stream?.unansweredFrames === 0);
      pair.partition(pair.world.random.chance(0.5));
      pair.a.disk.fault = (op) => (op.kind === 'write' || op.kind === 'durable' ? 5 : 0);
      work(pair, ledger, 20);
      pair.pass(pair.world.random.unit() * 3000);
      pair.heal();
      pair.until('it goes on, or says why it cannot', () =>
        pair.a.open.size === 0 || pair.a.running.failed);
      if (pair.a.running.failed) {
        // It had answered something alone before the disk failed, or, in async, something that
        // never reached the peer: that cannot take over.
        t.ok(pair.a.running.aloneRecorded || mode === 'async');
        return;
      }
      pair.answered(pair.a);
      const problem = ledger.problem(pair.b.data());
      if (problem !== null) throw new Error(problem);
    });
}

eachSeed('remote: a peer that came back with less does not take over', {}, (pair, t) => {
  pair.primary();
  pair.load(pair.a, 10);
  pair.answered(pair.a);
  // Answered, and flushed nowhere.
  pair.b.crash(true);
  pair.a.disk.fault = (op) => (op.kind === 'write' || op.kind === 'durable' ? 5 : 0);
  const late = pair.a.write(0, Buffer.alloc(4096, 1));
  pair.pass(1000);
  pair.b.boot();
  pair.pass(20_000);
  t.notOk(late.isDone);
  t.ok(pair.a.running.failed);
});

eachSeed('remote: no disk is attached before the peer has taken over', {}, (pair, t) => {
  const ledger = new SimLedger(2 * MiB);
  pair.primary();
  work(pair, ledger, 20);
  pair.answered(pair.a);
  pair.a.running.operator.detach(() => undefined);
  pair.partition();
  const early = pair.a.attach(pair.a.newDisk({ ...pair.a.image, copyId: 77n }));
  t.ok(early.done && early.refusal !== null);
  pair.heal();
  pair.until('served', () => served(pair));
  const answer = pair.a.attach();
  pair.until('attached', () => answer.done);
  t.equal(answer.refusal, null);
  equal(pair, ledger);
});

eachSeed('remote: an operator detaches only while the peer is there', {}, (pair, t) => {
  pair.primary();
  pair.b.crash();
  pair.until('noticed', () => pair.a.phase === 'none');
  let refused = '';
  pair.a.running.operator.detach((refusal) => {
    refused = refusal?.message ?? 'detached';
  });
  t.match(refused, /no complete copy/);
  t.notOk(pair.a.running.isDiskless);
});
