/** The link on a ring: what PeerConnection does, with the descriptor in hands of its own. */
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as net from 'node:net';
import t from 'tap';
import type { LinkPort } from '../../lib/core/ports.ts';
import { FrameType, plainFrame, type Frame } from '../../lib/format/frame.ts';
import { PrefaceAnswer, prefaceSize } from '../../lib/format/preface.ts';
import { FrameReader } from '../../lib/format/wire.ts';
import { dial } from '../../lib/net/connector.ts';
import { RingConnection } from '../../lib/net/ring-connection.ts';
import { bounded } from '../fixtures/fuse-lab.ts';
import {
  bytesOf, copyOf, exchange, frameOf, linkOptions, mixed, same, Side, sleep, sockets, until,
} from '../fixtures/link.ts';
import { needsRing, turningReactor } from '../fixtures/ring.ts';

function descriptors(): number {
  return fs.readdirSync('/proc/self/fd').length;
}

t.test('ring connection: frames of all sizes, both ways at once', needsRing(), async (t) => {
  const reactor = turningReactor(t);
  for (const other of [reactor, null]) {
    const [near, far] = await sockets(t);
    const a = new Side(t, near, reactor);
    const b = new Side(t, far, other);
    t.same([a, b].map(({ port }) => port instanceof RingConnection), [true, other !== null]);
    t.ok(await exchange(a, b), other === null ? 'to Node' : 'to ring');
    t.strictSame([a.reasons, b.reasons], [[], []]);
  }
});

t.test('ring connection: a receiver slower than the sender', needsRing(), async (t) => {
  const [near, far] = await sockets(t);
  const a = new Side(t, near, turningReactor(t));
  const frames = mixed(160);
  for (const frame of frames) a.port.send(frame);
  const got: Frame[] = [];
  const reader = new FrameReader(linkOptions, (frame) => got.push({ ...frame }));
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
        node: 'a', isPrimary: true, wire: linkOptions, reactor,
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
