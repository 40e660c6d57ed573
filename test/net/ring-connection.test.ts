/** The link on a ring: what PeerConnection does, with the descriptor in hands of its own. */
import * as crypto from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as net from 'node:net';
import t, { type Test } from 'tap';
import type { LinkPort } from '../../lib/core/ports.ts';
import { FrameType, plainFrame, type Frame } from '../../lib/format/frame.ts';
import { PrefaceAnswer, prefaceSize } from '../../lib/format/preface.ts';
import { encodeFrame, FrameReader, type WireOptions } from '../../lib/format/wire.ts';
import { dial } from '../../lib/net/connector.ts';
import { openConnection } from '../../lib/net/open-connection.ts';
import { RingConnection } from '../../lib/net/ring-connection.ts';
import type { Reactor } from '../../lib/uring/reactor.ts';
import { bounded } from '../fixtures/fuse-lab.ts';
import { needsRing, turningReactor } from '../fixtures/ring.ts';

const MiB = 1 << 20;
const options: WireOptions = { checksum: 'crc32', compression: 'none', compressor: null };

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function until(what: string, condition: () => boolean, boundMs = 10_000): Promise<void> {
  const end = performance.now() + boundMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${boundMs} ms`);
    await sleep(5);
  }
}

function descriptors(): number {
  return fs.readdirSync('/proc/self/fd').length;
}

/** Both ends of a connection, paused. */
async function sockets(t: Test): Promise<[net.Socket, net.Socket]> {
  const server = net.createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const near = net.connect({ host: '127.0.0.1', port });
  const [[far]] = await bounded('connect', Promise.all([
    once(server, 'connection') as Promise<[net.Socket]>, once(near, 'connect'),
  ]));
  server.close();
  for (const socket of [near, far]) {
    socket.on('error', () => undefined);
    t.teardown(() => socket.destroy());
  }
  return [near, far];
}

/** Its payload is the receiver's memory until the call returns. */
function copyOf(frame: Frame): Frame {
  const { payload, payloadOffset, size } = frame;
  const copy = payload && Buffer.from(payload.subarray(payloadOffset, payloadOffset + size));
  return { ...frame, payload: copy };
}

/** A link, with what it received and why it ended. */
class Side {
  readonly port: LinkPort;
  readonly received: Frame[] = [];
  readonly reasons: string[] = [];
  onFrame: () => void = () => undefined;

  constructor(t: Test, socket: net.Socket, reactor: Reactor | null, rest: Buffer | null = null) {
    this.port = openConnection(socket, options, {
      frame: (frame) => this.take(frame),
      closed: (reason) => this.reasons.push(reason),
    }, rest, reactor);
    t.equal(this.port instanceof RingConnection, reactor !== null);
    t.teardown(() => this.port.close());
  }

  take(frame: Frame): void {
    this.received.push(copyOf(frame));
    this.onFrame();
  }
}

/** A frame with `size` bytes, or none; every other with headroom. */
function frameOf(seq: number, size: number): Frame {
  if (size === 0) return plainFrame(FrameType.keepalive, seq);
  const lead = seq % 2 === 0 ? 0 : 4096;
  const payload = crypto.randomBytes(lead + size);
  const where = { payload, payloadOffset: lead, headroom: lead, size };
  return { ...plainFrame(FrameType.write, seq), ...where };
}

function mixed(count: number): Frame[] {
  const sizes = [0, 512, MiB, 4096, 0, 65_536, 513, MiB];
  return Array.from({ length: count }, (_, seq) => frameOf(seq, sizes[seq % 8] as number));
}

function bytesOf(frames: Frame[]): Buffer {
  const pieces: Buffer[] = [];
  for (const frame of frames) encodeFrame(frame, options, (piece) => pieces.push(piece));
  return Buffer.concat(pieces);
}

function same(frames: Frame[], received: Frame[]): boolean {
  return frames.length === received.length && frames.every((frame, index) => {
    const { seq, size, payload } = received[index] as Frame;
    const sent = frame.payload?.subarray(frame.payloadOffset, frame.payloadOffset + frame.size);
    return seq === frame.seq && size === frame.size &&
      (sent === undefined ? payload === null : payload?.equals(sent) === true);
  });
}

t.test('ring connection: frames of all sizes, both ways at once', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  for (const other of [reactor, null]) {
    const [near, far] = await sockets(t);
    const a = new Side(t, near, reactor);
    const b = new Side(t, far, other);
    const [there, back] = [mixed(120), mixed(90)];
    for (const [index, frame] of there.entries()) {
      a.port.send(frame);
      const answer = back[index];
      if (answer !== undefined) b.port.send(answer);
      if (index % 7 === 0) await sleep(1);
    }
    await until('frames', () => a.received.length === 90 && b.received.length === 120);
    t.ok(same(there, b.received) && same(back, a.received), other === null ? 'to Node' : 'to ring');
    t.strictSame([a.reasons, b.reasons], [[], []]);
  }
});

t.test('ring connection: a receiver slower than the sender', needsRing(), async (t) => {
  const [near, far] = await sockets(t);
  const a = new Side(t, near, turningReactor(t));
  const frames = mixed(160);
  for (const frame of frames) a.port.send(frame);
  const got: Frame[] = [];
  const reader = new FrameReader(options, (frame) => got.push({ ...frame }));
  await sleep(200);
  let chunks = 0;
  far.on('data', (chunk) => {
    reader.push(chunk);
    if (++chunks % 40 !== 0) return;
    far.pause();
    setTimeout(() => far.resume(), 10);
  });
  far.resume();
  await until('frames', () => got.length === frames.length, 20_000);
  t.ok(got.every(({ seq }, index) => seq === index));
  for (const frame of got) {
    frame.payload &&= frame.payload.subarray(frame.payloadOffset, frame.payloadOffset + frame.size);
  }
  t.ok(same(frames, got));
});

t.test('ring connection: bytes that came before it was opened', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const frames = mixed(12);
  const bytes = bytesOf(frames);
  for (const first of [0, 1, 63, 64, 100, 70_000, bytes.length]) {
    const server = net.createServer((socket) => {
      t.teardown(() => socket.destroy());
      socket.on('error', () => undefined);
      socket.once('data', (chunk) => {
        if (chunk.length !== prefaceSize) t.fail('the preface came in pieces');
        socket.write(Buffer.concat([Buffer.of(PrefaceAnswer.ok), bytes.subarray(0, first)]));
        setTimeout(() => socket.write(bytes.subarray(first)), first % 3 * 10);
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const received: Frame[] = [];
    const link = await bounded('dial', new Promise<LinkPort>((resolve, reject) => {
      dial({
        host: '127.0.0.1', port, family: 0, source: null, timeoutMs: 2000, resource: 'shared',
        node: 'a', isPrimary: true, wire: options, reactor,
      }, (result) => {
        if ('failed' in result) return reject(new Error(result.failed));
        const handler = {
          frame: (frame: Frame) => {
            received.push(copyOf(frame));
          },
          closed: () => undefined,
        };
        // At once, or when Node has read on.
        setTimeout(() => resolve(result.open(handler)), first % 2 * 30);
      });
    }));
    await until('frames', () => received.length === frames.length);
    t.ok(same(frames, received), `${first} bytes with the answer`);
    link.close();
    server.close();
  }
});

t.test('ring connection: the peer closes, or is gone', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const before = descriptors();
  for (const how of ['end', 'reset', 'reset while sending'] as const) {
    const [near, far] = await sockets(t);
    const side = new Side(t, near, reactor);
    const frames = mixed(10);
    far.write(bytesOf(frames));
    await until('frames', () => side.received.length === frames.length);
    t.ok(same(frames, side.received));
    if (how === 'reset while sending') for (const frame of mixed(100)) side.port.send(frame);
    await sleep(50);
    if (how === 'end') far.end();
    else far.resetAndDestroy();
    await until('the end', () => side.reasons.length > 0);
    t.match(side.reasons[0], how === 'end' ? /the peer closed/ : /connection error/, how);
    side.port.send(frameOf(1, 512));
    side.port.close();
    await sleep(50);
    t.equal(side.reasons.length, 1, 'once');
    far.destroy();
  }
  await until('the descriptors', () => descriptors() <= before);
});

t.test('ring connection: close while a send is under way', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const before = descriptors();
  for (const delayMs of [0, 1, 100]) {
    const [near, far] = await sockets(t);
    const side = new Side(t, near, reactor);
    const frames = mixed(200);
    const total = bytesOf(frames).length;
    for (const frame of frames) side.port.send(frame);
    if (delayMs > 0) await sleep(delayMs);
    side.port.close();
    side.port.send(frameOf(1, 512));
    await until('the descriptor', () => descriptors() <= before + 1);
    let got = 0;
    far.on('data', (chunk) => { got += chunk.length; });
    const ended = new Promise((resolve) => far.once('close', resolve));
    far.resume();
    await bounded('the end', ended);
    t.ok(got < total, `${delayMs} ms: ${got} of ${total} bytes had left`);
    t.same([side.received, side.reasons], [[], []], 'nothing is called');
  }
  await until('the descriptors', () => descriptors() <= before);
});

t.test('ring connection: finish delivers everything, then ends', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const before = descriptors();
  for (const early of [false, true]) {
    const [near, far] = await sockets(t);
    const side = new Side(t, near, reactor);
    if (!early) await sleep(20);
    const frames = mixed(64);
    for (const frame of frames) side.port.send(frame);
    side.port.finish();
    side.port.send(frameOf(1, 512));
    // What the peer still sends means nothing, and stops nothing.
    far.write(bytesOf(mixed(20)));
    await sleep(200);
    const chunks: Buffer[] = [];
    far.on('data', (chunk: Buffer) => chunks.push(chunk));
    const end = once(far, 'end');
    far.resume();
    await bounded('the end', end);
    t.ok(Buffer.concat(chunks).equals(bytesOf(frames)), early ? 'before it had begun' : 'later');
    far.destroy();
    t.same([side.received, side.reasons], [[], []], 'nothing is called');
  }
  await until('the descriptors', () => descriptors() <= before);
  const [near, far] = await sockets(t);
  const side = new Side(t, near, reactor);
  for (const frame of mixed(200)) side.port.send(frame);
  side.port.finish();
  await until('a peer that does not read is left', () => descriptors() <= before + 1, 4000);
  far.destroy();
});

t.test('ring connection: noise ends it with a reason, once', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const damaged = bytesOf([frameOf(1, 4096)]);
  damaged[100] = (damaged[100] as number) ^ 1;
  const noises: [Buffer, RegExp][] = [
    [Buffer.alloc(4096, 0x55), /no frame here/], [damaged, /does not match its crc32/],
  ];
  for (const [noise, reason] of noises) {
    const [near, far] = await sockets(t);
    const side = new Side(t, near, reactor);
    const frames = mixed(5);
    far.write(Buffer.concat([bytesOf(frames), noise, bytesOf(frames)]));
    await until('the end', () => side.reasons.length > 0);
    await sleep(30);
    t.ok(same(frames, side.received), 'what came before it counts, what follows does not');
    t.equal(side.reasons.length, 1);
    t.match(side.reasons[0], reason);
    const [near2] = await sockets(t);
    const opened = new Side(t, near2, reactor, noise);
    t.equal(opened.reasons.length, 0, 'never before the constructor returned');
    await until('the end', () => opened.reasons.length > 0);
    t.match(opened.reasons, [reason]);
  }
});

t.test('ring connection: closed from within a frame', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  const before = descriptors();
  for (const how of ['close', 'finish'] as const) {
    const [near, far] = await sockets(t);
    const side = new Side(t, near, reactor);
    side.onFrame = () => {
      side.port.send(plainFrame(FrameType.keepalive, 9));
      if (side.received.length === 3) side.port[how]();
    };
    far.write(bytesOf(mixed(40)));
    far.resume();
    await bounded('the end', new Promise((resolve) => far.once('close', resolve)));
    await sleep(20);
    t.equal(side.received.length, 3, how);
    t.same(side.reasons, []);
  }
  await until('the descriptors', () => descriptors() <= before);
});
