/**
 * Two cores in this process, on real files and a real connection over loopback, each with its
 * status page; there is no device. What a page shows is what these say.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { Test } from 'tap';
import { silentLogger } from '../../lib/base/log.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { coreStatistics } from '../../lib/core/statistics.ts';
import { volumeMap } from '../../lib/core/volume-map.ts';
import { createCopy } from '../../lib/disk/create.ts';
import { Listener } from '../../lib/daemon/listener.ts';
import { PeerAddresses } from '../../lib/daemon/peer-addresses.ts';
import { Runner } from '../../lib/daemon/runner.ts';
import { Watchers } from '../../lib/daemon/watchers.ts';
import { MiB } from '../../lib/format/limits.ts';
import type { StateEvent } from '../../lib/format/state-event.ts';
import { Pages } from '../../lib/monitor/pages.ts';
import { WebServer } from '../../lib/monitor/web-server.ts';
import { resourceConfig, until } from '../daemon/world.ts';

const name = 'shared';
const blockBytes = 64 * 1024;

export class PageNode {
  readonly runner: Runner;
  readonly server: WebServer;
  /** Bytes written, in an order that leaves gaps. */
  #writes = 0;

  constructor(runner: Runner, server: WebServer) {
    this.runner = runner;
    this.server = server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.server.port}/`;
  }

  get status(): string {
    return this.runner.status().status;
  }

  async promote(force = false): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.runner.resource.promote(force, 10_000, (refusal) => {
        if (refusal === null) resolve();
        else reject(new Error(refusal.message));
      });
    });
  }

  write(offset: number, length = blockBytes): Promise<number> {
    const buffer = Buffer.alloc(length + 4096, 1 + this.#writes++ % 255);
    return new Promise((resolve) => {
      this.runner.resource.volume.submit({
        op: AppOp.write, offset, length, buffer, bufferOffset: 4096, headroom: 4096,
        complete: resolve,
        completeHeld: (errno) => {
          resolve(errno);
          return () => undefined;
        },
      });
    });
  }
}

export class RealPair {
  readonly a: PageNode;
  readonly b: PageNode;
  /** Nobody reaches the other one while it is false. */
  connected = true;

  private constructor(a: PageNode, b: PageNode) {
    this.a = a;
    this.b = b;
  }

  /** Complete, with `a` as primary. Everything ends with the test. */
  static async start(test: Test, mediaSize = 64 * MiB): Promise<RealPair> {
    const folder = test.testdir({});
    const listeners = ['a', 'b'].map((node) => new Listener({
      log: silentLogger, addresses: new PeerAddresses(silentLogger),
      targets: () => new Map([[name, {
        remote: { family: 'tcp', host: '127.0.0.1', port: 1 },
        state: pair.connected ? 'ready' : 'init',
        handOver: (preface, socket) => pair[node as 'a' | 'b'].runner.takePeer(preface, socket),
      }]]),
    }));
    for (const listener of listeners) {
      await listener.listen([{ family: 'tcp', host: '127.0.0.1', port: 0 }]);
      test.teardown(() => listener.close());
    }
    const make = async (node: string, peerPort: number): Promise<PageNode> => {
      const local = path.join(folder, node);
      fs.closeSync(fs.openSync(local, 'w'));
      fs.truncateSync(local, mediaSize + 16 * MiB);
      await createCopy({ resource: name, local, mediaSize });
      const remote = { family: 'tcp', host: '127.0.0.1', port: peerPort } as const;
      return await makeNode(test, node, local, remote);
    };
    const [portA = 0, portB = 0] = listeners.map(({ port }) => port);
    const pair: RealPair = new RealPair(await make('a', portB), await make('b', portA));
    for (const node of [pair.a, pair.b]) await startNode(test, node);
    await until('the pair is complete', () =>
      pair.a.status === 'complete' && pair.b.status === 'complete');
    await pair.a.promote();
    return pair;
  }

  cut(): void {
    this.connected = false;
    for (const { runner } of [this.a, this.b]) runner.resource.session?.end('the cable is cut');
  }

  heal(): void {
    this.connected = true;
    for (const { runner } of [this.a, this.b]) runner.resource.linker.start();
  }
}

async function makeNode(
  test: Test, node: string, local: string,
  remote: { family: 'tcp'; host: string; port: number },
): Promise<PageNode> {
  const config = resourceConfig(name, { local, remote, timeout: 5 });
  const runner: Runner = new Runner({
    resource: config, node, log: silentLogger,
    onEvent: () => watchers.noticed(name, { kind: 'state' }),
  });
  const status = async () => ({ ...runner.status(), local: '/dev/sdb1' });
  const watchers = new Watchers(() => [{ name, status }], 100);
  const events: StateEvent[] = [];
  const pages = await Pages.open({
    facts: async () => ({
      node, release: '0.1.0', startedAt: Date.now(),
      resources: [{
        status: await status(), statistics: coreStatistics(runner.resource, 0), hasAnswered: true,
        workerDeaths: 0,
      }],
    }),
    map: async (_, cells) => volumeMap(runner.resource, cells),
    events: () => events,
  });
  const server = new WebServer({ log: silentLogger, answer: (one) => pages.answer(one) });
  await server.listen({ family: 'tcp', host: '127.0.0.1', port: 0 });
  test.teardown(() => server.close());
  follow.set(runner, async () => {
    const end = await watchers.follow([name], (event) => {
      if (event.kind !== 'now') events.push(event);
    });
    test.teardown(end);
  });
  return new PageNode(runner, server);
}

/** What is to be done once a runner has started. */
const follow = new WeakMap<Runner, () => Promise<void>>();

async function startNode(test: Test, { runner }: PageNode): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    runner.start((error) => (error === null ? resolve() : reject(error)));
  });
  test.teardown(() => new Promise((resolve) => runner.stop(true, resolve)));
  await follow.get(runner)?.();
}
