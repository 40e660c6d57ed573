/**
 * Nodes are upgraded one at a time: a node that is held to less, or whose peer is of a later
 * release, works with it in every operation, in the reduced way that docs/wire-protocol.md tells.
 */
import { MiB } from '../../lib/format/limits.ts';
import { FrameType, type Frame } from '../../lib/format/frame.ts';
import { helloStruct } from '../../lib/format/hello.ts';
import { Feature, ownProtocol, type Protocol } from '../../lib/format/protocol.ts';
import { AppOp } from '../../lib/core/ports.ts';
import { coreStatus } from '../../lib/core/status.ts';
import { crc32 } from '../../lib/base/checksum.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { SimLedger } from '../fixtures/sim-ledger.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import type { SimPair } from '../fixtures/sim-pair.ts';
import { equal, served, work } from '../fixtures/sim-remote.ts';

const modes = ['fullsync', 'memsync', 'async'] as const;
const held = (features: number): Protocol => ({ versionMin: 1, versionMax: 1, features });
/** A later release, as far as one can be foreseen. */
const later: Protocol = { versionMin: 1, versionMax: 7, features: 0xffff_ffff };

/** Types of all frames on all links. */
function watchFrames(pair: SimPair): Set<number> {
  const types = new Set<number>();
  const { onLink } = pair;
  pair.onLink = (link, dialer) => {
    onLink(link, dialer);
    for (const end of link.ends) {
      const { tap } = end;
      end.tap = (frame) => {
        tap?.(frame);
        types.add(frame.type);
      };
    }
  };
  return types;
}

function stopAndBoot(pair: SimPair, node: SimNode): void {
  pair.stop(node);
  node.boot();
}

/** Writes, an outage, its resync, and both roles exchanged; nothing may fail. */
function liveThrough(pair: SimPair, ledger: SimLedger): void {
  pair.primary();
  work(pair, ledger, 40);
  ledger.flush(pair.a);
  equal(pair, ledger);
  pair.partition();
  work(pair, ledger, 30);
  pair.answered(pair.a);
  pair.heal();
  equal(pair, ledger);
  // The other way round: `b` was the target, and is the primary and the source now.
  stopAndBoot(pair, pair.a);
  pair.complete();
  pair.mustPromote(pair.b);
  pair.load(pair.b, 20);
  pair.answered(pair.b);
  pair.partition();
  pair.load(pair.b, 10);
  pair.answered(pair.b);
  pair.heal();
  pair.complete();
  pair.flush(pair.b);
  stopAndBoot(pair, pair.b);
  pair.complete();
  if (pair.difference() !== -1) throw new Error(`block ${pair.difference()} differs`);
  pair.pass(8000);
  if (!pair.isUnmarked(pair.b) || !pair.isUnmarked(pair.a)) throw new Error('marks are left');
}

const heldSets = [
  { features: 0, names: [], absent: [FrameType.number, FrameType.detach] },
  { features: Feature.remote, names: ['remote'], absent: [FrameType.number] },
  { features: Feature.numbers, names: ['numbers'], absent: [FrameType.detach] },
] as const;

for (const mode of modes) {
  for (const { features, names, absent } of heldSets) {
    for (const side of ['primary', 'secondary'] as const) {
      const protocols = side === 'primary'
        ? [held(features), ownProtocol] as const
        : [ownProtocol, held(features)] as const;
      eachSeed(`protocol: a ${side} with features ${features} and a free peer (${mode})`,
        { mode, protocols, seeds: 3 }, (pair, t) => {
          const types = watchFrames(pair);
          const ledger = new SimLedger(2 * MiB);
          liveThrough(pair, ledger);
          for (const node of [pair.a, pair.b]) {
            const { protocol, protocolFeatures } = coreStatus(node.running);
            t.same({ protocol, protocolFeatures }, { protocol: 1, protocolFeatures: names });
          }
          t.same(absent.filter((type) => types.has(type)), [], 'nothing that was not agreed on');
        });
    }
  }
}

/** Puts what `change` makes of it into every hello of `node`. */
function changeHellos(pair: SimPair, node: SimNode, change: (body: Buffer) => Buffer): void {
  pair.onLink = (link, dialer) => {
    const end = link.ends[dialer === node ? 0 : 1];
    end.tap = (frame: Frame) => {
      if (frame.type !== FrameType.hello || frame.payload === null) return;
      frame.payload = change(frame.payload);
      frame.size = frame.payload.length;
    };
  };
}

const reservedAt = helloStruct.offset.reserved464;

for (const mode of modes) {
  for (const side of ['primary', 'secondary'] as const) {
    const protocols = side === 'primary'
      ? [later, ownProtocol] as const
      : [ownProtocol, later] as const;
    eachSeed(`protocol: a ${side} of a later release is held to ours (${mode})`,
      { mode, protocols, seeds: 3 }, (pair, t) => {
        const newer = side === 'primary' ? pair.a : pair.b;
        changeHellos(pair, newer, (body) => {
          const longer = Buffer.alloc(body.length + 128, 0xa5);
          body.copy(longer);
          longer.fill(0x5a, reservedAt, body.length);
          return longer;
        });
        pair.onPreface = (raw, dialer) => {
          if (dialer !== newer) return;
          raw.fill(0x77, 17, 32);
          raw.fill(0x77, 232, 256);
          raw.writeUInt32LE(0, 8);
          raw.writeUInt32LE(crc32(raw), 8);
        };
        liveThrough(pair, new SimLedger(2 * MiB));
        for (const node of [pair.a, pair.b]) {
          const { protocol, protocolFeatures } = coreStatus(node.running);
          t.same({ protocol, protocolFeatures },
            { protocol: 1, protocolFeatures: ['remote', 'numbers', 'switchover', 'facts'] });
        }
      });
  }
}

eachSeed('protocol: a node of this version keeps its reserved bytes zero', {}, (pair, t) => {
  changeHellos(pair, pair.b, (body) => {
    const bad = Buffer.from(body);
    bad[reservedAt] = 1;
    return bad;
  });
  pair.boot();
  pair.pass(5000);
  t.not(pair.a.phase, 'complete');
  t.equal(pair.b.phase === 'complete', false);
  t.equal(coreStatus(pair.a.running).protocol, null);
});

eachSeed('protocol: no version in common is said by name', {
  protocols: [ownProtocol, { versionMin: 2, versionMax: 3, features: 3 }],
}, (pair, t) => {
  pair.boot();
  pair.pass(5000);
  t.match(coreStatus(pair.a.running).detail, /no protocol version in common/);
});

eachSeed('protocol: a frame of a feature that was not agreed on ends the session', {
  protocols: [ownProtocol, held(0)],
}, (pair, t) => {
  pair.primary();
  const reasons: string[] = [];
  pair.b.onEvent = (event) => {
    if (event.kind === 'disconnect') reasons.push(event.reason);
  };
  const { session } = pair.a.running;
  session?.send({
    type: FrameType.number, flags: 0, seq: 0, offset: 0, size: 0, arg: 0, payload: null,
    payloadOffset: 0, headroom: 0,
  });
  pair.until('it ends', () => reasons.length > 0);
  t.match(reasons[0], /not agreed on/);
  pair.complete();
});

// What goes without `remote`.

for (const linked of [true, false]) {
  eachSeed(`protocol: without 'remote' a failed disk ends the primary (linked: ${linked})`, {
    protocols: [ownProtocol, held(Feature.numbers)], core: { onNoData: 'fail' },
  }, (pair, t) => {
    pair.primary();
    pair.load(pair.a, 20);
    pair.answered(pair.a);
    pair.flush(pair.a);
    const before = Buffer.from(pair.b.data());
    if (!linked) {
      pair.partition();
      pair.until('the loss is seen', () => pair.a.phase === 'none');
    }
    pair.a.disk.fault = (op) => (op.kind === 'write' || op.kind === 'durable' ? 5 : 0);
    const request = pair.a.write(4096, Buffer.alloc(4096, 7));
    pair.until('it is answered', () => request.isDone);
    t.equal(request.errno, 5, 'no write is acknowledged that nobody keeps');
    t.notOk(served(pair));
    t.equal(coreStatus(pair.a.running).status, 'failed');
    t.ok(pair.b.data().equals(before) || linked, 'and a peer that is away has nothing of it');
  });
}

eachSeed("protocol: without 'remote' no half copy is promoted, and detach says why", {
  protocols: [ownProtocol, held(Feature.numbers)],
}, (pair, t) => {
  pair.primary();
  let answer: { message: string } | null = null;
  pair.a.running.operator.detach((refusal) => {
    answer = refusal;
  });
  pair.pass(10);
  t.match(answer, { message: /cannot serve a primary/ });
  pair.load(pair.a, 40);
  pair.answered(pair.a);
  pair.stop(pair.a);
  pair.a.boot();
  pair.complete();
  pair.partition();
  pair.mustPromote(pair.b, true);
  pair.load(pair.b, 40);
  pair.answered(pair.b);
  pair.stop(pair.b);
  pair.b.boot();
  pair.heal();
  pair.until('a is the target', () => pair.a.phase === 'syncing');
  t.match(pair.promote(pair.a), /brought up to date/);
  pair.complete();
});

eachSeed("protocol: without 'remote' a bad block is still read from the peer", {
  protocols: [ownProtocol, held(0)],
}, (pair, t) => {
  pair.primary();
  const data = Buffer.alloc(8192, 0x3c);
  t.equal(pair.run(pair.a, AppOp.write, 65536, 8192, data).errno, 0);
  pair.flush(pair.a);
  let faults = 1;
  pair.a.disk.fault = (op) => (op.kind === 'read' && faults-- > 0 ? 5 : 0);
  const read = pair.run(pair.a, AppOp.read, 65536, 8192);
  t.equal(read.errno, 0);
  t.ok(read.data?.equals(data));
});
