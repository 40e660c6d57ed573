/**
 * Goal: the two ends of a stream alone. The sender takes no acknowledgement that cannot be; the
 * receiver keeps the order that matters and answers each frame once; a session takes no frame out
 * of turn, whoever sends it.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import type { CoreContext } from '../../lib/core/context.ts';
import { PeerStream, type StreamItem } from '../../lib/core/peer-stream.ts';
import type { LinkHandler, LinkPort } from '../../lib/core/ports.ts';
import { Replica, type AckSink } from '../../lib/core/replica.ts';
import {
  bodyFrame, FrameFlag, FrameType, plainFrame, type Frame,
} from '../../lib/format/frame.ts';
import { decodeHello, encodeHello, encodeLineage } from '../../lib/format/hello.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import { encodePreface, decodePreface } from '../../lib/format/preface.ts';
import { blocksOf } from '../fixtures/sim-image.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

class FakeLink implements LinkPort {
  readonly sent: Frame[] = [];
  isOpen = true;

  send(frame: Frame): void {
    this.sent.push(frame);
  }

  close(): void {
    this.isOpen = false;
  }

  finish(): void {
    this.isOpen = false;
  }
}

class Item implements StreamItem {
  seq = 0;
  windowBytes = 0;
  sentAt = 0;
  received = 0;
  done = 0;
  lost = 0;

  peerReceived(): void {
    this.received++;
  }

  peerDone(): void {
    this.done++;
  }

  peerLost(): void {
    this.lost++;
  }
}

function makeStream(): { stream: PeerStream; link: FakeLink; context: CoreContext } {
  const { context } = new SimPair().a.boot().running;
  const link = new FakeLink();
  const { windowFrames, windowBytes } = limits;
  const stream = new PeerStream(context, link, windowFrames, windowBytes, false, 1n);
  return { stream, link, context };
}

function codeOf(run: () => void): string {
  try {
    run();
  } catch (error) {
    if (error instanceof HastError) return error.code;
    throw error;
  }
  return 'none';
}

function sendWrite(stream: PeerStream, item = new Item()): Item {
  stream.send(item, FrameType.write, 0, 0, 4096, Buffer.alloc(4096), 0, 0);
  return item;
}

t.test('peer-stream: acknowledgements by range, out of order, of flushes', async (t) => {
  const { stream, link } = makeStream();
  const items = Array.from({ length: 4 }, () => sendWrite(stream));
  stream.written(0, 4096);
  let flushed = 0;
  const epoch = stream.flush(0, (lost) => {
    if (!lost) flushed++;
  });
  t.same(link.sent.map((frame) => frame.seq), [1, 2, 3, 4, 5]);
  stream.received(2);
  t.same(items.map((one) => one.received), [1, 1, 0, 0]);
  stream.done(3, 4, 0);
  stream.received(4);
  t.same(items.map((one) => one.received), [1, 1, 0, 0]);
  t.equal(codeOf(() => stream.flushed(5)), 'HAST_E_PROTOCOL', 'a flush before what it covers');
  t.equal(codeOf(() => stream.done(5, 5, 0)), 'HAST_E_PROTOCOL', 'a flush is no write');
  stream.done(1, 2, 0);
  t.equal(codeOf(() => stream.flushed(4)), 'HAST_E_PROTOCOL', 'a write is no flush');
  t.ok(stream.hasUnflushed);
  stream.flushed(5);
  t.equal(flushed, 1);
  t.ok(stream.hasUnflushed, 'the local flush is still out');
  epoch.localFlushed();
  t.notOk(stream.hasUnflushed);
  t.same(items.map((one) => one.done), [1, 1, 1, 1]);
  t.equal(stream.unansweredFrames, 0);
  t.equal(stream.unansweredBytes, 0);
});

t.test('peer-stream: what is not flushed on both sides is stale in the end', async (t) => {
  const { stream, context } = makeStream();
  const { peerStale } = context.tracker;
  stream.written(0, 4096);
  const covered = stream.flush(0, () => undefined);
  stream.flushed(1);
  covered.localFlushed();
  stream.written(4096, 4096);
  const items = Array.from({ length: 3 }, () => sendWrite(stream));
  let lost = 0;
  let room = 0;
  stream.flush(0, (isLost) => {
    if (isLost) lost++;
  });
  stream.written(3 * 4096, 512);
  stream.whenRoom({ onRoom: () => void room++ });
  stream.done(3, 3, 0);
  t.ok(peerStale.isEmpty);
  stream.end();
  t.same(blocksOf(peerStale), [1, 3]);
  t.same(items.map((one) => one.lost), [1, 0, 1]);
  t.equal(lost, 1);
  t.equal(room, 1);
  t.ok(stream.ended);
});

t.test('peer-stream: garbage is refused, never believed', async () => {
  const seq = fc.oneof(fc.nat(12), fc.constantFrom(0, 4095, 4096, 4097, 2 ** 32, 2 ** 53 - 1));
  const step = fc.record({ kind: fc.nat(4), first: seq, last: seq });
  fc.assert(fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
    const { stream } = makeStream();
    const items: Item[] = [];
    let open = 0;
    let flushes = 0;
    for (const { kind, first, last } of steps) {
      if (kind === 0) {
        items.push(sendWrite(stream));
        open++;
      } else if (kind === 1) {
        stream.flush(0, () => void flushes--);
        flushes++;
      } else {
        const before = items.filter((one) => one.done === 1).length;
        const run = [
          () => stream.received(first), () => stream.done(first, last, 0),
          () => stream.flushed(first),
        ][kind - 2] as () => void;
        const code = codeOf(run);
        if (code !== 'none' && code !== 'HAST_E_PROTOCOL') throw new Error(code);
        open -= items.filter((one) => one.done === 1).length - before;
        // A real session ends at the first bad one.
        if (code !== 'none') break;
      }
      if (items.some((one) => one.done > 1 || one.received > 1)) throw new Error('twice');
      if (stream.unansweredFrames !== open + flushes) throw new Error('miscounted');
    }
  }), { numRuns: 150 });
});

interface Ran {
  frames: Frame[];
  acks: string[];
  disk: Buffer;
  wanted: Buffer;
}

/** Random frames through a replica; throws where the order on the disk is wrong. */
function runReplica(seed: number): Ran {
  const pair = new SimPair({ seed });
  const { random } = pair.world;
  const { context } = pair.a.boot().running;
  const acks: string[] = [];
  const sink: AckSink = {
    written: (seq) => void acks.push(`w${seq}`),
    flushed: (seq) => void acks.push(`f${seq}`),
    failed: (seq) => void acks.push(`x${seq}`),
    received: (seq) => void acks.push(`r${seq}`),
    readDone: () => undefined,
  };
  const replica = new Replica(context, sink, 2048, 64 * MiB);
  const wanted = Buffer.alloc(context.mediaSize);
  const frames: Frame[] = [];
  let barriers: number[] = [];
  pair.a.disk.watch = (op) => {
    if (op.kind === 'read') return;
    // Nothing behind a barrier starts before the barrier is done.
    barriers = barriers.filter((seq) => !acks.includes(`f${seq}`));
    const marker = op.buffer === null ? 0 : op.buffer.readUInt32LE(op.bufferOffset);
    if (op.kind === 'write' && barriers.some((seq) => seq < marker)) {
      throw new Error(`frame ${marker} overtook a barrier`);
    }
  };
  for (let seq = 1; seq <= 120; seq++) {
    const kind = random.unit();
    const length = 512 * (1 + random.int(40));
    const offset = 512 * random.int((64 * 1024) / 512);
    const base = { seq, arg: 0, payloadOffset: 0, headroom: 0, payload: null };
    let frame: Frame;
    if (kind < 0.12) {
      const flags = random.chance(0.5) ? FrameFlag.barrier : 0;
      if (flags !== 0) barriers.push(seq);
      frame = { ...base, type: FrameType.flush, flags, offset: 0, size: 0 };
    } else if (kind < 0.25) {
      const type = random.pick([FrameType.zero, FrameType.discard]);
      frame = { ...base, type, flags: 0, offset, size: length };
      wanted.fill(0, offset, offset + length);
    } else {
      const mark = Buffer.alloc(4);
      mark.writeUInt32LE(seq);
      const payload = Buffer.alloc(length, mark);
      const flags = random.chance(0.5) ? FrameFlag.wantRecvAck : 0;
      frame = { ...base, type: FrameType.write, flags, offset, size: length, payload };
      payload.copy(wanted, offset);
    }
    frames.push(frame);
    replica.receive(frame);
    if (random.chance(0.3)) pair.pass(random.unit());
  }
  let isDrained = false;
  replica.drained(() => {
    isDrained = true;
  });
  pair.until('drained', () => isDrained);
  return { frames, acks, disk: pair.a.data(), wanted };
}

t.test('replica: overlapping frames in order, barriers hold, one answer each', async (t) => {
  for (let seed = 1; seed <= 10; seed++) {
    const { frames, acks, disk, wanted } = runReplica(seed);
    t.ok(disk.equals(wanted), `seed ${seed}`);
    const answers = acks.filter((one) => !one.startsWith('r'));
    const expected = frames.map((one) => `${one.type === FrameType.flush ? 'f' : 'w'}${one.seq}`);
    t.same([...answers].sort(), expected.sort());
    const wants = frames.filter((one) => (one.flags & FrameFlag.wantRecvAck) !== 0);
    t.same(acks.filter((one) => one.startsWith('r')), wants.map((one) => `r${one.seq}`));
    for (const [at, one] of answers.entries()) {
      if (!one.startsWith('f')) continue;
      const seq = Number(one.slice(1));
      const before = new Set(answers.slice(0, at).map((text) => Number(text.slice(1))));
      for (let index = 1; index < seq; index++) {
        if (!before.has(index)) t.fail(`${one} before ${index}`);
      }
    }
  }
});

t.test('replica: frames that cannot be are refused', async (t) => {
  const { context } = new SimPair().a.boot().running;
  const sink: AckSink = {
    written: () => undefined, flushed: () => undefined, failed: () => undefined,
    received: () => undefined, readDone: () => undefined,
  };
  const size = context.mediaSize;
  const frame = (change: Partial<Frame>): Frame => ({
    ...plainFrame(FrameType.write, 1), size: 512, payload: Buffer.alloc(512), ...change,
  });
  for (const bad of [
    frame({ seq: 2 }), frame({ seq: 0 }), frame({ offset: size }), frame({ offset: size - 511 }),
    frame({ offset: 2 ** 53 - 1 }), frame({ size: 0 }), frame({ payload: null }),
    frame({ type: FrameType.discard, size: size + 1, payload: null }),
  ]) {
    const replica = new Replica(context, sink, 4, MiB);
    t.equal(codeOf(() => replica.receive(bad)), 'HAST_E_PROTOCOL');
    // The session that follows waits for this one to be drained.
    t.equal(replica.pending, 0);
  }
  const flood = (payload: Buffer, count: number): string => {
    const replica = new Replica(new SimPair().a.boot().running.context, sink, 4, MiB);
    return codeOf(() => {
      const { length } = payload;
      for (let seq = 1; seq < count; seq++) replica.receive(frame({ seq, size: length, payload }));
    });
  };
  t.equal(flood(Buffer.alloc(512), 10_000), 'HAST_E_PROTOCOL', 'more frames than the window');
  t.equal(flood(Buffer.alloc(MiB), 50), 'HAST_E_PROTOCOL', 'more bytes than the window');
});

t.test('session: a peer that says anything in any order is dropped, nothing worse', async (t) => {
  const shapes = fc.record({
    type: fc.constantFrom(...Object.values(FrameType), 99), seq: fc.nat(3), arg: fc.nat(5),
    body: fc.constantFrom('none', 'hello', 'lineage', 'bits', 'short'), offset: fc.nat(4),
  });
  let ended = 0;
  fc.assert(fc.property(fc.array(shapes, { maxLength: 12 }), fc.boolean(), (steps, early) => {
    const pair = new SimPair();
    const node = pair.a.boot();
    const mine = node.running.hello();
    const lineage = { generation: 7n, history: mine.history };
    const bodies: Record<string, Buffer> = {
      none: Buffer.alloc(0), short: Buffer.alloc(3), bits: Buffer.alloc(1024, 0xff),
      hello: encodeHello({ ...mine, copyId: mine.copyId + 1n, node: 'b', generation: 7n }),
      lineage: encodeLineage(lineage),
    };
    const link = new FakeLink();
    let handler: LinkHandler | null = null;
    const preface = decodePreface(encodePreface('shared', 'b', 1));
    node.running.incoming(preface, () => (one) => {
      handler = one;
      return link;
    }, () => undefined);
    if (!early) pair.pass(20);
    for (const { type, seq, arg, offset, body } of steps) {
      const frame = bodyFrame(type as Frame['type'], bodies[body] as Buffer, arg, offset);
      frame.seq = seq;
      (handler as LinkHandler | null)?.frame(frame);
      pair.pass(1);
    }
    if (!link.isOpen) ended++;
    pair.pass(8000);
    if (node.running.failed) throw new Error(node.running.failure);
  }), { numRuns: 150 });
  t.ok(ended > 50, `${ended} ended`);
});

t.test('hello: every field that cannot be is refused', async (t) => {
  const hello = new SimPair().a.boot().running.hello();
  t.same(decodeHello(encodeHello(hello)), hello);
  for (const change of [
    { copyId: 0n }, { role: 2 }, { windowFrames: 0 }, { windowBytes: limits.payloadBytesMax - 1 },
    { timeout: 0 }, { dataState: 0 }, { dataState: 3 }, { versionMin: 2 }, { versionMax: 0 },
    { marked: 2 }, { attachment: 2, role: 1 }, { attachment: 1, role: 0 }, { resolve: 4 },
    { resolve: 1, resolveLocal: 5n }, { resolve: 2, resolvePeer: 5n }, { resolveLocal: 5n },
    { resolvePeer: 5n },
  ]) {
    const raw = encodeHello({ ...hello, ...change });
    t.equal(codeOf(() => void decodeHello(raw)), 'HAST_E_PROTOCOL', Object.keys(change).join());
  }
  t.equal(codeOf(() => void decodeHello(Buffer.alloc(639))), 'HAST_E_PROTOCOL');
});
