/**
 * A primary that works through its peer, and what is lost besides: its disk once more, the peer,
 * the handshake, the role. Nothing is taken for more than it is, and nothing hangs.
 */
import { MiB } from '../../lib/format/limits.ts';
import { DiscardSide } from '../../lib/core/operator.ts';
import { coreStatus } from '../../lib/core/status.ts';
import { DataState, PeerState } from '../../lib/format/superblock.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { SimLedger } from '../fixtures/sim-ledger.ts';
import { equal, served, work } from '../fixtures/sim-remote.ts';

eachSeed('remote: a copy lost again in the session that made it whole', { seeds: 10 },
  (pair, t) => {
    const ledger = new SimLedger(2 * MiB);
    pair.primary();
    const generations = new Set<bigint>();
    for (let round = 0; round < 2; round++) {
      work(pair, ledger, 20);
      pair.a.running.operator.detach((refusal) => t.equal(refusal, null));
      work(pair, ledger, 20);
      pair.until('served', () => served(pair));
      pair.pass(600);
      t.ok(served(pair), 'nothing of the copy before goes on');
      pair.answered(pair.a);
      const { generation } = pair.b.running.context.store.value;
      t.notOk(generations.has(generation), 'a generation of its own');
      generations.add(generation);
      if (round > 0) break;
      const answer = pair.a.attach();
      pair.until('attached', () => answer.done);
      equal(pair, ledger);
    }
    // The copy that was given up twice must not be taken for the newer one.
    pair.a.crash(true, false);
    pair.b.crash(true, false);
    pair.a.start();
    pair.b.start();
    pair.complete();
    const problem = ledger.problem(pair.a.data()) ?? ledger.problem(pair.b.data());
    t.equal(problem, null);
  });

eachSeed('remote: a copy lost while it becomes whole: what waits for that goes on', { seeds: 20 },
  (pair, t) => {
    const ledger = new SimLedger(2 * MiB);
    pair.primary();
    pair.a.running.operator.detach(() => undefined);
    pair.until('served', () => served(pair));
    const answer = pair.a.attach();
    pair.until('attached', () => answer.done);
    pair.until('it is about to be whole', () => pair.a.phase === 'rejoining');
    work(pair, ledger, 20);
    let lost = false;
    pair.a.running.operator.detach((refusal) => {
      lost = refusal === null;
    });
    work(pair, ledger, 20);
    pair.answered(pair.a);
    t.ok(lost);
    t.ok(served(pair));
    t.equal(pair.a.running.context.locks.heldCount, 0, 'no range is held for nobody');
  });

eachSeed('remote: contact breaks while the copy is detached: the operator is told', { seeds: 6 },
  (pair, t) => {
    pair.primary();
    pair.load(pair.a, 20);
    let told = '';
    pair.a.running.operator.detach((refusal) => {
      told = refusal === null ? coreStatus(pair.a.running).status : 'refused';
    });
    t.equal(told, '', 'the peer has not answered yet');
    pair.link?.cut();
    pair.until('told', () => told !== '');
    t.equal(told, 'failed', 'neither copy serves for now');
    pair.until('served', () => served(pair));
    pair.answered(pair.a);
  });

eachSeed('remote: the disk fails in the last moment of a stop, without a peer', { seeds: 20 },
  (pair, t) => {
    pair.primary();
    pair.load(pair.a, 30);
    pair.answered(pair.a);
    pair.flush(pair.a);
    pair.a.disk.latency = [5, 20];
    let isStopped = false;
    pair.a.running.stop(false, () => {
      isStopped = true;
    });
    pair.pass(pair.world.random.unit() * 60);
    pair.partition();
    pair.pass(pair.world.random.unit() * 20);
    pair.a.disk.fault = (op) => (op.kind === 'durable' ? 5 : 0);
    pair.until('it stops all the same', () => isStopped, 30_000);
    t.ok(isStopped);
  });

eachSeed('remote: a new disk lost in its first handshake is not in the peer\'s map', { seeds: 6 },
  (pair, t) => {
    const { a, b } = pair.primary();
    pair.load(a, 40);
    pair.answered(a);
    a.running.operator.detach(() => undefined);
    pair.until('served', () => served(pair));
    const disk = a.newDisk({ ...a.image, copyId: 77n });
    a.attach(disk);
    pair.until('b has heard of it', () => b.running.session?.peer?.copyId === 77n);
    a.running.operator.detach((refusal) => t.equal(refusal, null));
    pair.until('served again', () => served(pair));
    t.not(b.running.context.store.value.peerCopyId, 77n);
    a.attach(disk);
    pair.complete();
    pair.pass(100);
    t.equal(pair.difference(), -1, 'all of it was copied');
  });

eachSeed('remote: the disk and the peer are lost in such a promotion', { mediaSize: 4 * MiB },
  (pair, t) => {
    pair.primary();
    pair.partition();
    for (let at = 0; at < 4; at++) pair.a.write(at * MiB, Buffer.alloc(MiB, at + 1));
    pair.answered(pair.a);
    pair.stop(pair.a);
    pair.a.boot();
    pair.heal();
    pair.until('syncing', () => pair.b.phase === 'syncing');
    const answer = pair.b.promote(false);
    pair.until('it relies on the peer', () => pair.b.running.role === 'primary');
    pair.b.disk.fault = (op) => (op.kind === 'durable' ? 5 : 0);
    pair.until('the disk is lost', () => pair.b.running.isDiskless);
    pair.partition();
    pair.until('an answer', () => answer.done);
    t.not(answer.refusal, null);
    t.match(coreStatus(pair.b.running), {
      role: 'secondary', status: 'failed', localDisk: 'failed', needsHuman: true,
    });
    t.ok(pair.b.running.failed, 'it takes part in nothing before a new start');
    // What an operator does: hastctl attach, with a disk that works.
    pair.b.crash(false);
    pair.b.disk.fault = () => 0;
    pair.b.start();
    pair.heal();
    pair.complete();
    t.equal(pair.difference(), -1);
  });

eachSeed('remote: requests that fail while a disk is filled leave marks',
  { seeds: 40, core: { onNoData: 'fail' } }, (pair, t) => {
    const { random } = pair.world;
    pair.primary();
    pair.load(pair.a, 30);
    pair.answered(pair.a);
    pair.a.running.operator.detach(() => undefined);
    pair.until('served', () => served(pair));
    pair.a.attach(pair.a.newDisk({ ...pair.a.image, copyId: random.id64() }));
    pair.until('it is filled', () => pair.a.running.session?.remote?.pull != null);
    pair.load(pair.a, 40);
    pair.pass(random.unit() * 2);
    // One disk is slow: what it was given lands long after the request has failed.
    random.pick([pair.a, pair.b]).disk.latency = [50, 900];
    pair.load(pair.a, 20);
    pair.pass(random.unit() * 2);
    pair.partition();
    pair.answered(pair.a);
    if (random.chance(0.5)) pair.pass(random.unit() * 1500);
    if (random.chance(0.5)) {
      pair.stop(pair.a);
      pair.a.start();
    }
    pair.heal();
    pair.complete();
    pair.pass(2000);
    t.equal(pair.difference(), -1);
  });

eachSeed('remote: a primary whose keeper was promoted meanwhile answers nothing more', { seeds: 6 },
  (pair, t) => {
    pair.primary();
    pair.load(pair.a, 10);
    pair.answered(pair.a);
    pair.a.running.operator.detach(() => undefined);
    pair.until('served', () => served(pair));
    pair.load(pair.a, 10);
    pair.answered(pair.a);
    pair.partition();
    pair.b.crash(pair.world.random.chance(0.5));
    pair.b.boot();
    pair.mustPromote(pair.b);
    const late = pair.load(pair.a, 5);
    if (pair.world.random.chance(0.5)) {
      // A new disk has no history of its own.
      pair.a.attach(pair.a.newDisk({ ...pair.a.image, copyId: pair.world.random.id64() }));
    }
    pair.load(pair.b, 5);
    pair.answered(pair.b);
    pair.stop(pair.b);
    pair.b.boot();
    pair.heal();
    pair.until('the refusal', () => pair.a.running.refusal !== null);
    t.equal(pair.a.running.refusal?.reason, 'primary-is-behind');
    pair.answered(pair.a);
    t.ok(late.every((one) => one.errno === 5));
  });

eachSeed('remote: what waited for a copy to be whole is marked once when another is attached',
  { seeds: 10 }, (pair, t) => {
    const ledger = new SimLedger(2 * MiB);
    const { a } = pair.primary();
    const attached = (): boolean => a.attach().done;
    a.running.operator.detach(() => undefined);
    pair.until('served', () => served(pair));
    pair.until('attached', attached);
    pair.until('it is about to be whole', () => a.phase === 'rejoining');
    work(pair, ledger, 20);
    a.running.operator.detach(() => undefined);
    work(pair, ledger, 10);
    pair.until('served again', () => served(pair));
    const answer = a.attach();
    work(pair, ledger, 20);
    pair.until('attached again', () => answer.done);
    work(pair, ledger, 20);
    equal(pair, ledger);
    pair.pass(9000);
    t.ok(pair.isUnmarked(a), 'nothing is held for nobody');
  });

eachSeed('remote: a half-filled copy that was forced and wins: what it lacked is overwritten there',
  { seeds: 20 }, (pair, t) => {
    const { a, b } = pair.primary();
    pair.load(a, 30);
    pair.answered(a);
    a.running.operator.detach(() => undefined);
    pair.until('served', () => served(pair));
    pair.load(a, 10);
    pair.answered(a);
    a.running.operator.pauseResync(pair.world.random.chance(0.8));
    a.attach();
    pair.until('it is to be filled', () => a.running.session?.remote?.pull != null);
    pair.pass(pair.world.random.unit());
    pair.partition();
    a.crash(pair.world.random.chance(0.5));
    a.start();
    pair.until('a runs again', () => a.resource !== null);
    t.not(pair.promote(a), null, 'refused without force');
    pair.mustPromote(a, true);
    t.ok(a.running.context.tracker.localStale.isEmpty, 'nothing is stale in a copy that counts');
    pair.load(a, 3);
    pair.answered(a);
    pair.heal();
    pair.until('refused', () => b.running.refusal?.reason === 'split-brain');
    let refusal: unknown = 'none yet';
    b.running.operator.resolve(
      { discard: DiscardSide.local, dryRun: false, undo: null }, (result) => {
        ({ refusal } = result);
      });
    pair.until('the decision is made', () => refusal !== 'none yet');
    t.equal(refusal, null);
    pair.complete();
    t.equal(pair.difference(), -1, 'both copies are equal');
    pair.pass(9000);
    t.ok(pair.isUnmarked(a), 'and nothing is marked');
  });

eachSeed('remote: a copy made whole in the last moment of a session has nothing stale here',
  { seeds: 10 }, (pair, t) => {
    const { a, b } = pair.primary();
    a.running.operator.detach(() => undefined);
    pair.until('served', () => served(pair));
    pair.load(a, 10);
    pair.answered(a);
    a.running.operator.pauseResync(true);
    a.attach();
    pair.until('it is to be filled', () => a.running.session?.remote?.pull != null);
    a.crash(false);
    a.start();
    pair.until('its copy is whole', () => a.phase === 'adopting');
    a.disk.watch = ({ kind }) => {
      if (kind === 'durable' && a.phase === 'adopting') pair.partition();
    };
    const { store } = a.running.context;
    pair.until('on record', () => store.value.dataState === DataState.consistent);
    pair.pass(5);
    t.equal(a.phase, 'none', 'nobody heard of it');
    t.not(b.running.context.store.value.peerState, PeerState.complete);
    pair.mustPromote(a, true);
    pair.load(a, 10);
    pair.answered(a);
    pair.heal();
    pair.complete();
    t.equal(pair.difference(), -1);
    pair.pass(9000);
    t.ok(pair.isUnmarked(a), 'nothing is marked');
  });
