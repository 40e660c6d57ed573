/**
 * The link on real sockets (loopback): dialing, its failures in words, frames in every wire
 * option, and noise.
 */
import * as net from 'node:net';
import t, { type Test } from 'tap';
import type { ConnectResult, LinkHandler, LinkPort } from '../../lib/core/ports.ts';
import { FrameType, plainFrame, type Frame } from '../../lib/format/frame.ts';
import { PrefaceAnswer, prefaceSize } from '../../lib/format/preface.ts';
import type { WireOptions } from '../../lib/format/wire.ts';
import { PeerConnection } from '../../lib/net/connection.ts';
import { dial } from '../../lib/net/connector.ts';
import { lz4Compressor } from '../../lib/net/lz4.ts';

const wire = (over: Partial<WireOptions> = {}): WireOptions =>
  ({ checksum: 'crc32', compression: 'none', compressor: lz4Compressor, ...over });

interface Served {
  port: number;
  sockets: net.Socket[];
}

function serve(t: Test, onSocket: (socket: net.Socket) => void): Promise<Served> {
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      resolve({ port: (server.address() as net.AddressInfo).port, sockets });
    });
  });
}

function dialTo(port: number, timeoutMs = 2000, options = wire()): Promise<ConnectResult> {
  return new Promise((resolve) => {
    dial({
      host: '127.0.0.1', port, family: 0, source: null, timeoutMs, resource: 'shared', node: 'a',
      isPrimary: true, wire: options,
    }, resolve);
  });
}

/** Answers the preface with `answer` and what follows it at once. */
function answering(answer: Buffer): (socket: net.Socket) => void {
  return (socket) => {
    let got = 0;
    socket.on('data', (chunk) => {
      got += chunk.length;
      if (got === prefaceSize) socket.write(answer);
    });
  };
}

t.test('dial: every failure is told apart', async (t) => {
  const closed = await serve(t, (socket) => socket.destroy());
  const result = await dialTo(closed.port);
  t.match(result, { failed: /closed the connection|connection/, answered: true });
  const refusing = await serve(t, answering(Buffer.of(PrefaceAnswer.roleInit)));
  t.match(await dialTo(refusing.port), { failed: /role init/, answered: true });
  const silent = await serve(t, () => undefined);
  const late = { failed: /does not answer the preface/, answered: false };
  t.match(await dialTo(silent.port, 1000), late);
  const gone = await serve(t, () => undefined);
  const unused = await new Promise<number>((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
  t.match(await dialTo(unused), { failed: /no hastd listens/, answered: false });
  t.ok(gone.port > 0);
});

/** A connected pair of links; what each side receives. */
async function pair(t: Test, options: WireOptions) {
  const received: Frame[] = [];
  let closed = '';
  let server: LinkPort | undefined;
  const handler: LinkHandler = {
    frame: (frame) => {
      const { payload, payloadOffset, size } = frame;
      const copy = payload === null ? null
        : Buffer.from(payload.subarray(payloadOffset, payloadOffset + size));
      received.push({ ...frame, payload: copy });
    },
    closed: (reason) => { closed = reason; },
  };
  const { port, sockets } = await serve(t, (socket) => {
    socket.once('data', () => {
      socket.pause();
      socket.write(Buffer.of(PrefaceAnswer.ok));
      server = new PeerConnection(socket, options, handler, null);
    });
  });
  const result = await dialTo(port, 2000, options);
  if (!('open' in result)) throw new Error('no connection');
  const client = result.open({ frame: () => undefined, closed: () => undefined });
  t.teardown(() => {
    client.close();
    server?.close();
  });
  return { client, received, socket: sockets[0] as net.Socket, closedBecause: () => closed };
}

async function until(condition: () => boolean): Promise<void> {
  for (let round = 0; round < 500 && !condition(); round++) {
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
}

t.test('connection: frames arrive whole in every checksum and compression', async (t) => {
  for (const checksum of ['none', 'crc32', 'sha256'] as const) {
    for (const compression of ['none', 'hole', 'lzf'] as const) {
      const { client, received } = await pair(t, wire({ checksum, compression }));
      const text = Buffer.alloc(300_000, 'compressible text ');
      const noise = Buffer.from(Array.from({ length: 5000 }, (_, at) => (at * 7919) & 255));
      const payloads = [text, noise, Buffer.alloc(1 << 20), Buffer.alloc(512, 1)];
      payloads.forEach((payload, index) => {
        const lead = Buffer.alloc(index % 2 === 0 ? 0 : 4096);
        client.send({
          ...plainFrame(FrameType.write, index + 1), size: payload.length,
          payload: Buffer.concat([lead, payload]), payloadOffset: lead.length,
          headroom: lead.length,
        });
      });
      client.send(plainFrame(FrameType.flush, 5));
      await until(() => received.length === 5);
      t.same(received.map((frame) => frame.seq), [1, 2, 3, 4, 5], `${checksum} ${compression}`);
      t.ok(payloads.every((payload, at) => received[at]?.payload?.equals(payload)), 'same bytes');
    }
  }
});

t.test('connection: noise ends it with a reason, once', async (t) => {
  const { client, closedBecause, received } = await pair(t, wire());
  client.send(plainFrame(FrameType.keepalive));
  await until(() => received.length === 1);
  const raw = client as unknown as { send(frame: Frame): void };
  raw.send({ ...plainFrame(FrameType.keepalive), type: 200 as never });
  await until(() => closedBecause() !== '');
  t.match(closedBecause(), /impossible type/);
});

t.test('lz4: garbage and wrong lengths are refused before anything is allocated', async (t) => {
  const packed = lz4Compressor.compress(Buffer.alloc(8192, 'abc'));
  t.ok(packed !== null && packed.length < 1024);
  if (packed === null) return;
  t.ok(lz4Compressor.decompress(packed, 8192).equals(Buffer.alloc(8192, 'abc')));
  t.throws(() => lz4Compressor.decompress(packed, 8191), { code: 'HAST_E_PROTOCOL' });
  const bomb = Buffer.from(packed);
  bomb.writeUInt32LE(0xffff_fff0);
  t.throws(() => lz4Compressor.decompress(bomb, 8192), { code: 'HAST_E_PROTOCOL' });
  t.throws(() => lz4Compressor.decompress(Buffer.of(0, 32, 0, 0, 255, 255), 8192),
    { code: 'HAST_E_PROTOCOL' });
  t.equal(lz4Compressor.compress(Buffer.alloc(100)), null, 'small blocks are left alone');
});
