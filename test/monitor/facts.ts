/** Facts as a busy pair gives them, for what is made of them. */
import { SimPair } from '../fixtures/sim-pair.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { coreStatistics } from '../../lib/core/statistics.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import type { NodeFacts, ResourceFacts } from '../../lib/monitor/facts.ts';
import { resourceConfig } from '../daemon/world.ts';

/** Every kind of request was seen in every stage in which it can be. */
export function busyFacts(name = 'shared'): ResourceFacts {
  const pair = new SimPair({ mode: 'memsync' }).primary();
  for (let index = 0; index < 40; index++) {
    pair.run(pair.a, AppOp.write, index * 4096, 4096, Buffer.alloc(4096, index));
    pair.run(pair.a, AppOp.discard, 0, 4096);
  }
  pair.run(pair.a, AppOp.read, 0, 4096, Buffer.alloc(4096));
  pair.flush(pair.a);
  const idle = idleStatus(resourceConfig(name), `/dev/hast/${name}`, 'primary', '');
  const status = {
    ...idle, statistics: { ...idle.statistics, badFrames: 0 },
    status: 'syncing' as const, connection: 'syncing' as const, syncPercent: 12.5,
    syncRate: 1e6, syncEta: 30, dirtyBytes: 4096, mediaSize: 2 ** 30, disconnectedSince: 1e9,
    authentication: 'tls' as const, certificateExpires: 4e9,
  };
  return { status, statistics: coreStatistics(pair.a.running, 0), hasAnswered: true,
    workerDeaths: 2 };
}

export function nodeFacts(...resources: ResourceFacts[]): NodeFacts {
  return { node: 'h1', release: '0.1.0', startedAt: 1.5e12, resources };
}

/** Without a worker. */
export function idleFacts(name: string): ResourceFacts {
  const status = idleStatus(resourceConfig(name), `/dev/hast/${name}`, 'init', '');
  return { status, statistics: null, hasAnswered: true, workerDeaths: 0 };
}
