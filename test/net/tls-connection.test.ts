/** The link on TLS: whole frames both ways, and decrypted bytes that nothing is allocated for. */
import * as net from 'node:net';
import type { TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { PrefaceAnswer } from '../../lib/format/preface.ts';
import type { Credentials } from '../../lib/net/credentials.ts';
import { answerSecured, secureAccepted, secureDialed, type Secured } from '../../lib/net/secure.ts';
import { TlsConnection } from '../../lib/net/tls-connection.ts';
import { bounded } from '../fixtures/fuse-lab.ts';
import { exchange, mixed, same, Side, sleep, sockets, until } from '../fixtures/link.ts';
import { needsRing, turningReactor } from '../fixtures/ring.ts';

interface End {
  socket: TLSSocket;
  rest: Buffer;
}

function credentialsOf(own: string, peer: string): Credentials {
  return { kind: 'secret', secret: Buffer.alloc(32, 7), own, peers: [peer] };
}

/** Both ends of a secured connection, paused: who dialed, and who was dialed. */
async function secured(t: Test): Promise<[End, End]> {
  const [near, far] = await sockets(t);
  const common = { resource: 'shared', preface: Buffer.from('preface'), timeoutMs: 5000 };
  const end = (result: Secured): End => {
    if ('failed' in result) throw new Error(result.failed);
    t.teardown(() => result.socket.destroy());
    return result;
  };
  const settle = (
    secure: typeof secureDialed, socket: net.Socket, own: string, peer: string,
  ): Promise<Secured> => new Promise((resolve) => {
    secure(socket, { ...common, credentials: credentialsOf(own, peer) }, (result) => {
      if (secure === secureAccepted && 'socket' in result) {
        answerSecured(result.socket, PrefaceAnswer.ok);
      }
      resolve(result);
    });
  });
  const both = [settle(secureDialed, near, 'a', 'b'), settle(secureAccepted, far, 'b', 'a')];
  const [dialed, accepted] = await bounded('the handshakes', Promise.all(both));
  return [end(dialed as Secured), end(accepted as Secured)];
}

/** Bytes that came in buffers which Node made for them. */
function countAllocated(socket: TLSSocket): () => number {
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => { bytes += chunk.length; });
  return () => bytes;
}

for (const onRing of [true, false]) {
  const where = onRing ? 'beside a ring' : 'without a ring';
  const options = onRing ? needsRing() : {};
  t.test(`TLS connection: frames of all sizes, both ways at once, ${where}`, options, async (t) => {
    const reactor = onRing ? turningReactor(t) : null;
    const [near, far] = await secured(t);
    const a = new Side(t, near.socket, reactor, near.rest);
    const b = new Side(t, far.socket, reactor, far.rest);
    t.ok(a.port instanceof TlsConnection && b.port instanceof TlsConnection);
    t.ok(await exchange(a, b), 'they arrive as they were sent');
    t.strictSame([a.reasons, b.reasons], [[], []]);
    b.port.finish();
    await until('the end', () => a.reasons.length > 0);
    t.same(a.reasons, ['the peer closed the connection'], 'once');
  });
}

t.test('TLS connection: what came before it was opened is first', async (t) => {
  for (const pauseMs of [0, 50]) {
    const [near, far] = await secured(t);
    const a = new Side(t, near.socket, null, near.rest);
    const frames = mixed(60);
    for (const frame of frames.slice(0, 30)) a.port.send(frame);
    if (pauseMs > 0) await sleep(pauseMs);
    const b = new Side(t, far.socket, null, far.rest);
    for (const frame of frames.slice(30)) a.port.send(frame);
    await until('frames', () => b.received.length === frames.length);
    t.ok(same(frames, b.received), `${pauseMs} ms`);
  }
});

t.test('TLS connection: what is decrypted goes where payloads lie', async (t) => {
  const [near, far] = await secured(t);
  const a = new Side(t, near.socket, null, near.rest);
  const allocated = countAllocated(far.socket);
  const b = new Side(t, far.socket, null, far.rest);
  await sleep(50);
  const frames = mixed(40);
  for (const frame of frames) a.port.send(frame);
  await until('frames', () => b.received.length === frames.length);
  t.ok(same(frames, b.received));
  t.equal(allocated(), 0, 'this Node.js shows what it takes: lib/net/tls-connection.ts');
});
