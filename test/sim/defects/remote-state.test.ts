/**
 * Goal: a primary whose own copy is absent, stale or being filled serves the peer's data, answers
 * everything, and never shows an old byte.
 * Method: the ledger knows which write each read may find; disks fail, links break, nodes restart.
 */
import { limits, MiB } from '../../../lib/format/limits.ts';
import { AppOp } from '../../../lib/core/ports.ts';
import { coreStatus } from '../../../lib/core/status.ts';
import {
  allModes, compared, imageSuperblock, noticed, remoteState, scenario, settled, SimLedger,
  type DiskOp, type SimNode, type SimPair,
} from './scenario.ts';

const failures: Record<string, (op: DiskOp, dataOffset: number) => boolean> = {
  write: (op, dataOffset) => op.kind === 'write' && op.offset >= dataOffset,
  flush: (op) => op.kind === 'flush',
  metadata: (op) => op.kind === 'durable',
  everything: () => true,
};

/** `count` writes of the ledger at random places, in flight together. */
function ledgerWrites(pair: SimPair, node: SimNode, ledger: SimLedger, count: number): void {
  const { random } = pair.world;
  const { size } = node.running.volume;
  for (let index = 0; index < count; index++) {
    const length = 512 * (1 + random.int(32));
    ledger.write(node, 512 * random.int((size - length) / 512), length);
  }
}

/** Reads the whole volume through `node`; the ledger throws where a read is old or fails. */
function readAll(pair: SimPair, node: SimNode, ledger: SimLedger): void {
  const { size } = node.running.volume;
  for (let at = 0; at < size; at += 65_536) ledger.read(node, at, 65_536);
  pair.answered(node);
}

/** A complete pair with written data whose primary's disk then fails. */
function detached(
  pair: SimPair, fails: (op: DiskOp, dataOffset: number) => boolean,
): SimLedger {
  pair.primary();
  const { dataOffset } = pair.a.geometry;
  const ledger = new SimLedger(pair.a.running.volume.size);
  ledgerWrites(pair, pair.a, ledger, 30);
  pair.answered(pair.a);
  ledger.flush(pair.a);
  pair.answered(pair.a);
  pair.a.disk.fault = (op) => (fails(op, dataOffset) ? 5 : 0);
  ledgerWrites(pair, pair.a, ledger, 10);
  ledger.flush(pair.a);
  pair.until('the local copy is given up', () => pair.a.events.includes('detach'), 20_000);
  pair.answered(pair.a);
  return ledger;
}

/*
 * A local write or flush error is a success in the original and the copy goes on being read
 * (primary.c local_send_thread, "local errors"). Ours detaches it: every request is answered from
 * and by the peer, in every mode, and the peer knows durably that the primary's copy is old. "As
 * the original" is a read of the primary's own disk.
 */
for (const [kind, fails] of Object.entries(failures)) {
  compared(`S5-local-error-goes-on-through-the-peer/${kind}`,
    { modes: allModes, mediaSize: 2 * MiB }, (pair, t) => {
      const ledger = detached(pair, fails);
      t.ok(remoteState(pair.a.running));
      t.equal(coreStatus(pair.a.running).status, 'diskless');
      t.notOk(pair.a.running.failed);
      const other = imageSuperblock(pair.b.disk.durable);
      t.not(other.generation, imageSuperblock(pair.a.disk.durable).generation);
      for (let round = 0; round < 3; round++) {
        ledgerWrites(pair, pair.a, ledger, 20);
        readAll(pair, pair.a, ledger);
        ledger.flush(pair.a);
        pair.answered(pair.a);
      }
      t.equal(ledger.problem(pair.b.data()), null);
      const original = ledger.problem(pair.a.data());
      // Answered means durable there, flushed or not: it is the only copy.
      ledgerWrites(pair, pair.a, ledger, 20);
      pair.answered(pair.a);
      pair.b.crash(true);
      t.equal(ledger.problem(pair.b.data()), null);
      return original === null ? 0 : 1;
    });
}

/*
 * Nothing in the original remembers that the primary's copy is old (primary.c): after a restart
 * it is the source again, and its old bytes go over the peer's good ones. Ours: the detached copy
 * is no candidate alone, becomes the target, and gets the union of both maps.
 */
compared('S5-stale-copy-serves-after-a-restart', { modes: allModes, mediaSize: 2 * MiB },
  (pair, t) => {
    const ledger = detached(pair, failures['write'] as never);
    ledgerWrites(pair, pair.a, ledger, 20);
    ledger.flush(pair.a);
    pair.answered(pair.a);
    const power = pair.world.random.chance(0.5);
    pair.a.crash(power, false);
    pair.a.disk.fault = () => 0;
    const original = ledger.problem(pair.a.data());
    noticed(pair, pair.b);
    pair.connected = false;
    pair.a.boot();
    t.not(pair.promote(pair.a), null, 'it cannot know what it missed');
    pair.connected = true;
    settled(pair);
    t.equal(ledger.problem(pair.a.data()), null);
    t.equal(ledger.problem(pair.b.data()), null);
    return original === null ? 0 : 1;
  });

/*
 * While its copy is gone the original's primary acknowledges with whatever is left (primary.c:
 * one success of two). Ours acknowledges nothing while the peer is away, sends it again in order
 * when the peer is back, and loses nothing; with `on-no-data fail` the answer is an error at
 * once.
 */
scenario('S5-nothing-is-acknowledged-without-a-copy', { modes: allModes, mediaSize: 2 * MiB },
  (pair, t) => {
    const ledger = detached(pair, failures['everything'] as never);
    pair.partition();
    noticed(pair, pair.a);
    const wait = ledger.write(pair.a, 0, 4096);
    const read = pair.a.submit(AppOp.read, MiB, 4096);
    pair.pass(30_000);
    t.notOk(wait.isDone || read.isDone, 'they wait');
    t.not(coreStatus(pair.a.running).status, 'complete');
    pair.heal();
    pair.answered(pair.a);
    t.same([wait.errno, read.errno], [0, 0]);
    readAll(pair, pair.a, ledger);
    pair.a.options.onNoData = 'fail';
    pair.a.running.optionsChanged(false);
    pair.partition();
    noticed(pair, pair.a);
    t.equal(pair.run(pair.a, AppOp.write, 0, 4096, Buffer.alloc(4096)).errno, 5);
  });

/*
 * A sector the local disk cannot read is fetched from the peer by the original, each time anew,
 * and never written (primary.c: "a bad local sector"). Ours writes the peer's data over it; the
 * next read is local. Without a complete peer the request gets EIO, and the copy is kept.
 */
scenario('S5-bad-sector-never-rewritten', { mediaSize: 2 * MiB, modes: allModes }, (pair, t) => {
  pair.primary();
  const ledger = new SimLedger(pair.a.running.volume.size);
  ledger.write(pair.a, 0, 512 * 1024);
  pair.answered(pair.a);
  const { dataOffset } = pair.a.geometry;
  const bad = dataOffset + 64 * limits.blockSize;
  let isBad = true;
  const hits = (op: DiskOp): boolean => op.offset <= bad && op.offset + op.length > bad;
  pair.a.disk.watch = (op) => {
    if ((op.kind === 'write' || op.kind === 'zero') && hits(op)) isBad = false;
  };
  pair.a.disk.fault = (op) => (isBad && op.kind === 'read' && hits(op) ? 5 : 0);
  ledger.read(pair.a, 62 * limits.blockSize, 4 * limits.blockSize);
  pair.answered(pair.a);
  pair.pass(500);
  t.equal(isBad, false, 'rewritten');
  t.notOk(pair.a.running.failed || pair.a.events.includes('detach'));
  let peerReads = 0;
  pair.b.disk.watch = (op) => {
    if (op.kind === 'read') peerReads++;
  };
  ledger.read(pair.a, 62 * limits.blockSize, 4 * limits.blockSize);
  pair.answered(pair.a);
  t.equal(peerReads, 0, 'the second read is local');
  settled(pair);
  isBad = true;
  pair.partition();
  noticed(pair, pair.a);
  const read = pair.run(pair.a, AppOp.read, 64 * limits.blockSize, 4096);
  t.equal(read.errno, 5);
  t.notOk(pair.a.running.failed, 'the copy is kept');
  isBad = false;
  pair.heal();
  settled(pair);
});

/**
 * Both secondary, `b` the target of a sync from `a` that has just begun and stands still, for the
 * source's reads are held: release() lets it go on. The ledger of what `a` has.
 */
function behind(pair: SimPair): SimLedger {
  pair.primary();
  const ledger = new SimLedger(pair.a.running.volume.size);
  pair.partition();
  const { size } = pair.a.running.volume;
  for (let at = 0; at < size; at += MiB) ledger.write(pair.a, at, MiB);
  ledger.flush(pair.a);
  pair.answered(pair.a);
  pair.stop(pair.a);
  pair.a.boot();
  const { dataOffset } = pair.a.geometry;
  pair.a.disk.holds = (op) => op.kind === 'read' && op.offset >= dataOffset;
  pair.a.disk.latency = [1, 5];
  pair.heal();
  pair.until('b is being filled', () => pair.b.phase === 'syncing', 20_000);
  return ledger;
}

/*
 * With the secondary as sync source the original's primary never queues a read at all (primary.c
 * ggate_recv_thread: the loop starts at component 1 and stops before 1): every read hangs and its
 * slot is lost. Ours reads what is valid here here and the rest from the peer, while the copying
 * goes on. A hanging read fails pair.answered().
 */
scenario('S5-reads-hang-during-sync-from-secondary', { modes: allModes, mediaSize: 8 * MiB },
  (pair, t) => {
    const ledger = behind(pair);
    pair.mustPromote(pair.b);
    t.ok(remoteState(pair.b.running));
    pair.a.disk.release();
    const before = pair.world.now();
    readAll(pair, pair.b, ledger);
    t.ok(pair.world.now() - before < 5000, 'no read waits for the end of the copying');
    ledgerWrites(pair, pair.b, ledger, 30);
    readAll(pair, pair.b, ledger);
    settled(pair);
    t.notOk(remoteState(pair.b.running));
    readAll(pair, pair.b, ledger);
    t.equal(ledger.problem(pair.a.data()), null);
    t.equal(ledger.problem(pair.b.data()), null);
  });

/*
 * The same pair in async: the local write of a sync request takes the early-completion path with
 * no request behind it, the kernel answers ENOENT and the original's worker exits, its device
 * with it (primary.c write_complete, 71). Ours: async plus that sync, under load and with breaks,
 * ends complete with the same primary.
 */
scenario('S5-async-and-sync-from-secondary-kills-worker', { mode: 'async', mediaSize: 8 * MiB },
  (pair, t) => {
    const ledger = behind(pair);
    pair.mustPromote(pair.b);
    pair.a.disk.release();
    const primary = pair.b.running;
    for (let round = 0; round < 4; round++) {
      ledgerWrites(pair, pair.b, ledger, 20);
      if (round === 1) pair.link?.cut();
      ledger.flush(pair.b);
      pair.answered(pair.b);
    }
    settled(pair);
    t.equal(pair.b.running, primary, 'the same core');
    t.equal(primary.role, 'primary');
    t.notOk(primary.failed);
    readAll(pair, pair.b, ledger);
    t.equal(ledger.problem(pair.a.data()), null);
    t.equal(ledger.problem(pair.b.data()), null);
  });

/*
 * The guard of both: such a primary of ours acknowledges nothing alone. The original finishes
 * what was in flight as a success of one copy (primary.c), here the copy that lacks the data.
 */
scenario('S5-half-filled-primary-acknowledges-alone', { modes: allModes, mediaSize: 8 * MiB },
  (pair, t) => {
    const ledger = behind(pair);
    pair.mustPromote(pair.b);
    pair.partition();
    noticed(pair, pair.b);
    t.ok(remoteState(pair.b.running), 'cut in the middle of the copying');
    pair.a.disk.release();
    const write = ledger.write(pair.b, 0, 4096);
    pair.pass(30_000);
    t.notOk(write.isDone);
    pair.heal();
    settled(pair);
    t.equal(write.errno, 0);
    t.equal(ledger.problem(pair.a.data()), null);
    t.equal(ledger.problem(pair.b.data()), null);
  });
