/**
 * Goal: what is counted and timed is what happened, on both nodes and in every mode.
 * Method: simulated pairs, whose clock makes a network and a disk of known speed.
 */
import t from 'tap';
import { parseReply } from '../../lib/control/validate.ts';
import { Kind, latencyBounds, Latencies, Stage } from '../../lib/core/latencies.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { coreStatistics } from '../../lib/core/statistics.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import type {
  LatencyHistogram, LatencyStage, RequestKind, ResourceStatistics,
} from '../../lib/format/statistics.ts';
import { resourceConfig } from '../daemon/world.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

const KiB = 1024;

function of(node: SimNode): ResourceStatistics {
  return coreStatistics(node.running, 0);
}

function histogram(
  { latencies }: ResourceStatistics, stage: LatencyStage, kind: RequestKind,
): LatencyHistogram | undefined {
  return latencies.find((one) => one.stage === stage && one.kind === kind);
}

t.test('latencies: each duration is in the bucket whose bounds hold it', async (t) => {
  t.ok(latencyBounds.every((bound, at) => at === 0 || bound > (latencyBounds[at - 1] as number)));
  t.equal(latencyBounds[0], 8e-6);
  const top = latencyBounds.at(-1) as number;
  t.ok(top > 60 && top < 120);
  const durations = [0, 7.9e-6, 8e-6, 11e-6, 12e-6, 1e-3, 0.5, 1, 42, 67, 68, 1e4, 1e7, -1];
  for (const seconds of [...durations, ...latencyBounds]) {
    const latencies = new Latencies();
    latencies.record(Stage.peer, Kind.write, seconds * 1000);
    const [found, ...others] = latencies.histograms();
    t.same(others, []);
    t.match(found, { stage: 'peer', kind: 'write', count: 1 });
    const at = found?.buckets.indexOf(1) ?? -1;
    const above = latencyBounds[at] ?? Infinity;
    const below = at === 0 ? -Infinity : latencyBounds[at - 1] as number;
    // Whole microseconds: a bound may fall a hair short of itself.
    t.ok(seconds < above + 1e-6 && seconds >= below - 1e-6, `${seconds} s`);
    t.equal(found?.buckets.length, latencyBounds.length + 1);
  }
});

t.test('statistics: the reply as the schema wants it', async (t) => {
  const status = idleStatus(resourceConfig('shared'), '/dev/hast/shared', 'init', '');
  const pair = new SimPair().primary();
  pair.run(pair.a, AppOp.write, 0, 4 * KiB, Buffer.alloc(4 * KiB, 1));
  const statistics = of(pair.a);
  const line = JSON.stringify({ schema: 1, ok: true, resources: [{ status, statistics }] });
  t.match(await parseReply(line, 'statistics'), { ok: true });
});

for (const mode of ['fullsync', 'memsync', 'async'] as const) {
  eachSeed(`statistics: requests, stages and the peer's part (${mode})`, { mode }, (pair, t) => {
    pair.primary();
    for (let index = 0; index < 64; index++) {
      pair.run(pair.a, AppOp.write, index * 8 * KiB, 4 * KiB, Buffer.alloc(4 * KiB, index));
    }
    pair.run(pair.a, AppOp.read, 0, 12 * KiB, Buffer.alloc(12 * KiB));
    pair.run(pair.a, AppOp.zero, 0, 64 * KiB);
    pair.run(pair.a, AppOp.discard, 0, 64 * KiB);
    pair.flush(pair.a);
    pair.pass(100);
    const [a, b] = [of(pair.a), of(pair.b)];
    t.same(a.requests, {
      read: { count: 1, bytes: 12 * KiB }, write: { count: 64, bytes: 256 * KiB },
      discard: { count: 2, bytes: 128 * KiB }, flush: { count: 1, bytes: 0 },
    });
    t.equal(a.failedRequests, 0);
    t.match(b.executed, {
      read: { count: 0 }, write: { count: 64, bytes: 256 * KiB },
      discard: { count: 2, bytes: 128 * KiB },
    });
    t.ok(b.executed.flush.count >= 1);
    t.equal(b.requests.write.count, 0, 'a secondary has no application');
    t.equal(histogram(a, 'total', 'write')?.count, 64);
    t.equal(histogram(a, 'local', 'write')?.count, 64);
    t.equal(histogram(b, 'local', 'write')?.count, 64);
    t.equal(histogram(a, 'peer', 'write')?.count, 64);
    const network = histogram(a, 'network', 'write');
    t.equal(network?.count, 3, 'one in seventeen');
    const disk = histogram(a, 'peer-disk', 'write');
    t.equal(disk?.count, 3);
    const mean = (one: LatencyHistogram | undefined): number => one === undefined ? NaN
      : one.sum / one.count;
    t.ok(mean(network) > 0);
    t.ok(mean(network) < mean(histogram(a, 'peer', 'write')) * 3, 'they are parts of it');
    t.same([a.queues.requests, a.queues.local, a.queues.send, b.queues.receive], [0, 0, 0, 0]);
    t.match([a, b], [
      { connects: 1, ioSuspended: false, secondsBehind: 0, oldestRequest: 0 },
      { connects: 1, ioSuspended: false, secondsBehind: null },
    ]);
    t.ok(a.mapUpdates > 0 && a.age > 0);
  });
}

eachSeed('statistics: what is at stake while the peer is away', {}, (pair, t) => {
  pair.primary();
  pair.run(pair.a, AppOp.write, 0, 4 * KiB, Buffer.alloc(4 * KiB, 1));
  pair.partition();
  pair.run(pair.a, AppOp.write, 8 * KiB, 4 * KiB, Buffer.alloc(4 * KiB, 2));
  const since = pair.world.now();
  pair.pass(20_000);
  const behind = of(pair.a).secondsBehind ?? -1;
  t.ok(Math.abs(behind - (pair.world.now() - since) / 1000) < 1, `${behind} s`);
  pair.heal();
  pair.complete();
  pair.pass(3000);
  t.match(of(pair.a), { secondsBehind: 0, connects: 2 });
  t.ok(of(pair.a).resyncBytes >= 4 * KiB);
  t.equal(of(pair.b).resyncBytes, of(pair.a).resyncBytes, 'sent there, received here');
  pair.run(pair.a, AppOp.write, 0, 4 * KiB, Buffer.alloc(4 * KiB, 3));
  pair.pass(5000);
  t.ok(of(pair.a).checkpoints > 0);
});

eachSeed('statistics: an async primary says how far its peer is behind', {
  mode: 'async', core: { asyncLagMs: 60_000 }, timeoutMs: 60_000,
}, (pair, t) => {
  pair.primary();
  pair.partition(true);
  pair.run(pair.a, AppOp.write, 0, 4 * KiB, Buffer.alloc(4 * KiB, 1));
  pair.pass(3000);
  const { secondsBehind, queues, ioSuspended } = of(pair.a);
  t.ok((secondsBehind ?? 0) > 2.9 && (secondsBehind ?? 0) < 3.2, `${secondsBehind} s`);
  t.ok(queues.send >= 1 && queues.sendBytes >= 4 * KiB);
  t.notOk(ioSuspended);
});

eachSeed('statistics: requests that wait for a person', {}, (pair, t) => {
  pair.primary();
  pair.partition();
  pair.run(pair.a, AppOp.write, 0, 4 * KiB, Buffer.alloc(4 * KiB, 1));
  pair.a.disk.fault = (op) => op.kind === 'write' ? 5 : 0;
  pair.a.write(4 * KiB, Buffer.alloc(4 * KiB, 1));
  pair.until('it failed', () => pair.a.running.failed);
  pair.pass(5000);
  const { ioSuspended, oldestRequest, queues, localErrors } = of(pair.a);
  t.ok(ioSuspended);
  t.ok(oldestRequest >= 4.9, `${oldestRequest} s`);
  t.equal(queues.requests, 1);
  t.ok(localErrors.write >= 1);
});
