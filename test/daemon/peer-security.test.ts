/**
 * Who gets in: a dialer and PeerSecurity of the other node over loopback, with certificates,
 * secrets, neither, and somebody in between. Both sides must say why, and what to do.
 */
import { createHash } from 'node:crypto';
import * as net from 'node:net';
import * as tls from 'node:tls';
import t, { type Test } from 'tap';
import { crc32 } from '../../lib/base/checksum.ts';
import { silentLogger } from '../../lib/base/log.ts';
import type { Authentication } from '../../lib/config/model.ts';
import type { ConnectResult, LinkPort } from '../../lib/core/ports.ts';
import { PeerSecurity } from '../../lib/daemon/peer-security.ts';
import { FrameType, plainFrame, type Frame } from '../../lib/format/frame.ts';
import { decodePreface, encodePreface, PrefaceAnswer, prefaceSize } from
  '../../lib/format/preface.ts';
import type { WireOptions } from '../../lib/format/wire.ts';
import { dial } from '../../lib/net/connector.ts';
import { loadCredentials } from '../../lib/net/credentials.ts';
import { openConnection } from '../../lib/net/open-connection.ts';
import { Authority } from '../../lib/pairing/certificates.ts';
import { writePair, writeSecret, writeTls, type TlsPaths } from '../fixtures/credentials.ts';
import { resourceConfig, until } from './world.ts';

const wire: WireOptions = { checksum: 'crc32', compression: 'none', compressor: null };
const silence = { frame: (): void => undefined, closed: (): void => undefined };

type Files = TlsPaths | string | null;

function authentication(files: Files, own: string, peer: string): Authentication {
  if (files === null) return { kind: 'none' };
  const common = { own, peers: [peer], stamp: '' };
  if (typeof files === 'string') return { kind: 'secret', file: files, ...common };
  return { kind: 'tls', ...files, ...common };
}

interface Door {
  port: number;
  failures: string[];
  frames: Frame[];
  closed: string[];
  /** How many of these ended because of what came. */
  bad: number;
  links: LinkPort[];
}

/** Node h2: takes connections as its worker does. */
async function door(test: Test, files: Files, peer = 'h1'): Promise<Door> {
  const here: Door = { port: 0, failures: [], frames: [], closed: [], bad: 0, links: [] };
  const security = new PeerSecurity({
    log: silentLogger,
    resource: resourceConfig('shared', { authentication: authentication(files, 'h2', peer) }),
    onFailure: (text) => here.failures.push(text),
  });
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    const read = (): void => {
      const raw = socket.read(prefaceSize) as Buffer | null;
      if (raw === null || raw.length !== prefaceSize) return;
      socket.off('readable', read);
      security.admit(decodePreface(raw), raw, socket, ({ socket: inner, rest, answer }) => {
        answer(PrefaceAnswer.ok);
        here.links.push(openConnection(inner, wire, {
          frame: (frame) => here.frames.push({ ...frame }),
          closed: (reason, isBad = false) => {
            here.closed.push(reason);
            if (isBad) here.bad++;
          },
        }, rest, null));
      });
    };
    socket.on('readable', read);
  });
  test.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  here.port = (server.address() as net.AddressInfo).port;
  return here;
}

/** Node h1. */
async function knock(
  test: Test, port: number, files: Files, names: readonly [string, string] = ['h1', 'h2'],
): Promise<{ failed: string; link: LinkPort | null; closed: string[] }> {
  const chosen = authentication(files, ...names);
  const result = await new Promise<ConnectResult>((resolve) => {
    dial({
      host: '127.0.0.1', port, family: 0, source: null, timeoutMs: 10_000, resource: 'shared',
      node: names[0], isPrimary: true, wire,
      credentials: chosen.kind === 'none' ? null : loadCredentials(chosen),
    }, resolve);
  });
  const closed: string[] = [];
  if ('failed' in result) return { failed: result.failed, link: null, closed };
  const link = result.open({ ...silence, closed: (reason) => closed.push(reason) });
  test.teardown(() => link.close());
  return { failed: '', link, closed };
}

async function arrives(test: Test, here: Door, link: LinkPort | null): Promise<void> {
  link?.send(plainFrame(FrameType.keepalive));
  await until('a frame', () => here.frames.length > 0);
  test.equal(here.frames[0]?.type, FrameType.keepalive);
  test.same(here.failures, []);
}

/** What the node that was dialed says of it. */
async function told(test: Test, here: Door, ...patterns: RegExp[]): Promise<void> {
  await until('what the other node says', () => here.failures.length >= patterns.length);
  test.match(here.failures.splice(0), patterns);
}

t.test('certificates and secrets: two nodes that belong together', async (test) => {
  const directory = test.testdir();
  const [h1, h2] = await writePair(directory, ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const secret = writeSecret(directory);
  for (const [mine, theirs] of [[h1, h2], [secret, secret], [null, null]] as const) {
    const here = await door(test, theirs);
    const { link, failed } = await knock(test, here.port, mine);
    test.equal(failed, '');
    await arrives(test, here, link);
  }
});

t.test('certificates: who is refused, and what both nodes are told', async (test) => {
  const directory = test.testdir({ other: {}, old: {}, names: {} });
  const [h1, h2] = await writePair(directory, ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const others = await writePair(`${directory}/other`, ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const authority = await Authority.create('test');
  const past = { from: new Date('2020-01-01'), to: new Date('2021-01-01') };
  const issue = async (name: string, validity = {}) => writeTls(
    `${directory}/old`, name, await authority.issue([name], validity), authority.certificate,
  );
  const old = { h1: await issue('h1', past), h2: await issue('h2') };
  const expired = await door(test, old.h2);
  test.match(await knock(test, expired.port, old.h1), {
    failed: /this node's certificate is not valid at this time.*hastctl pair init/,
  });
  await told(test, expired, /peer's certificate \("DNS:h1"\).*Jan {2}1 .* 2021.*clocks/);
  const strange = await door(test, h2);
  test.match(await knock(test, strange.port, others[0]), {
    failed: /no CA in this node's 'ca' file vouches for the peer's certificate/,
  });
  await told(test, strange, /no CA in this node's 'ca' file vouches for .*'ca' file, or pair/);
  // The CA of both, but another machine's certificate.
  const renamed = await door(test, h2, 'h3');
  test.match(await knock(test, renamed.port, h1), {
    failed: /this node's certificate bears another name than the 'on' section of the peer/,
  });
  await told(test, renamed, /peer's certificate is for "DNS:h1", and not for h3.*'on' section/);
  const impostor = await door(test, h2);
  test.match(await knock(test, impostor.port, h1, ['h1', 'h3']), {
    failed: /peer's certificate is for "DNS:h2", and not for h3/,
  });
  await told(test, impostor, /this node's certificate bears another name/);
  test.same([...expired.frames, ...strange.frames, ...renamed.frames, ...impostor.frames], []);
});

/** A TLS client that does what the peer's program would not. */
async function clientWithout(
  test: Test, port: number, options: tls.ConnectionOptions,
): Promise<string> {
  const raw = net.connect(port, '127.0.0.1');
  test.teardown(() => raw.destroy());
  raw.on('error', () => undefined);
  raw.write(encodePreface('shared', 'h1', 1, undefined, 1));
  await new Promise((resolve) => raw.once('data', resolve));
  raw.pause();
  return await new Promise((resolve) => {
    const client = tls.connect({ socket: raw, rejectUnauthorized: false, ...options });
    client.on('error', (error) => resolve((error as NodeJS.ErrnoException).code ?? ''));
    client.on('secureConnect', () => client.write(Buffer.of(PrefaceAnswer.ok)));
    client.on('data', (chunk: Buffer) => resolve(`answer ${chunk[0] ?? -1}`));
    client.on('close', () => resolve('closed'));
  });
}

t.test('certificates: no certificate, an older TLS, noise, silence', async (test) => {
  const [h1, h2] = await writePair(test.testdir(), ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const here = await door(test, h2);
  // What another preface would be called: the handshake does not fit to the one that was sent.
  const other = await clientWithout(test, here.port, { ALPNProtocols: ['hast/1 00'] });
  test.equal(other, 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL');
  await told(test, here, /changed on its way/);
  const old = await clientWithout(test, here.port, { maxVersion: 'TLSv1.2' });
  test.equal(old, 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  await told(test, here, /does not speak TLS 1.3/);
  const preface = encodePreface('shared', 'h1', 1, undefined, 1);
  const name = `hast/1 ${createHash('sha256').update(preface).digest('hex')}`;
  const bare = await clientWithout(test, here.port, { ALPNProtocols: [name] });
  test.equal(bare, `answer ${PrefaceAnswer.certificateMissing}`);
  await told(test, here, /shows no certificate: set 'cert' and 'key' there/);
  const noise = net.connect(here.port, '127.0.0.1');
  test.teardown(() => noise.destroy());
  noise.on('error', () => undefined);
  noise.write(Buffer.concat([preface, Buffer.alloc(600, 'HSTF')]));
  await told(test, here, /does not use TLS/);
  const mute = Array.from({ length: 9 }, () => net.connect(here.port, '127.0.0.1'));
  for (const socket of mute) {
    socket.on('error', () => undefined).on('close', () => undefined).resume();
    test.teardown(() => socket.destroy());
    socket.write(preface);
  }
  await told(test, here, ...Array<RegExp>(8).fill(/takes longer than 5 s/));
  const { link } = await knock(test, here.port, h1);
  await arrives(test, here, link);
});

t.test('no downgrade: the two nodes are set to different ways', async (test) => {
  const directory = test.testdir();
  const [h1, h2] = await writePair(directory, ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const secret = writeSecret(directory);
  const cases = [
    [h1, null, /peer does not use TLS: .* neither TLS nor a secret and this node TLS; set the same/,
      /the peer uses TLS and this node neither TLS nor a secret; set the same/],
    [null, h2, /the peer uses TLS and this node neither/, /the peer does not use TLS: /],
    [secret, null, /does not use a secret: /, /the peer uses a secret and this node neither/],
    [null, secret, /the peer uses a secret and this node neither/, /does not use a secret: /],
    [h1, secret, /does not use TLS: the peer uses a secret/, /not use a secret: the peer uses/],
  ] as const;
  for (const [mine, theirs, said, heard] of cases) {
    const here = await door(test, theirs);
    const { failed, link } = await knock(test, here.port, mine);
    test.equal(link, null);
    test.match(failed, said);
    await told(test, here, heard);
    test.same(here.links, []);
  }
});

t.test('secret: another one, other names, another resource', async (test) => {
  const directory = test.testdir();
  const [one, two] = [writeSecret(directory, 'one'), writeSecret(directory, 'two')];
  const cases = [[two, 'h1', ['h1', 'h2']], [one, 'h3', ['h1', 'h2']]] as const;
  for (const [theirs, peer, names] of cases) {
    const here = await door(test, theirs, peer);
    test.match(await knock(test, here.port, one, names), {
      failed: /different secrets: copy the file/,
    });
    await told(test, here, /different secrets: copy the file/);
  }
  // Our own connection, sent back to us.
  const mirror = await door(test, one, 'h2');
  test.match(await knock(test, mirror.port, one, ['h2', 'h2']), { failed: '' }, 'same names');
  const own = await door(test, one, 'h1');
  test.match(await knock(test, own.port, one, ['h2', 'h1']), { failed: /different secrets/ });
});

/** Somebody at the peer's address who has a certificate of his own making, and no secret. */
async function impostor(test: Test, names: readonly string[]): Promise<number> {
  const authority = await Authority.create('his own');
  const { certificate: cert, key } = await authority.issue(names);
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.once('readable', () => {
      socket.read(prefaceSize);
      socket.write(Buffer.of(PrefaceAnswer.ok));
      const inner = tls.createServer({
        cert, key, ALPNCallback: ({ protocols }) => protocols[0],
      });
      inner.on('tlsClientError', () => undefined);
      inner.on('secureConnection', (secured) => {
        secured.on('error', () => undefined);
        secured.on('data', () => secured.write(Buffer.of(PrefaceAnswer.ok)));
      });
      inner.emit('connection', socket);
    });
  });
  test.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as net.AddressInfo).port;
}

t.test('secret, certificates: an impostor with a certificate of his own', async (test) => {
  const directory = test.testdir();
  const [h1] = await writePair(directory, ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const port = await impostor(test, ['h2']);
  test.match(await knock(test, port, writeSecret(directory)), {
    link: null, failed: /has no secret: it shows a certificate/,
  });
  test.match(await knock(test, port, h1), { link: null, failed: /no CA in this node's/ });
});

/** Between the nodes: may change what h1 sends, counted from the first byte. */
async function between(
  test: Test, port: number, change: (chunk: Buffer, at: number) => void,
): Promise<number> {
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => {
    const out = net.connect(port, '127.0.0.1');
    sockets.push(socket, out);
    for (const one of [socket, out]) one.on('error', () => undefined);
    let at = 0;
    socket.on('data', (chunk) => {
      change(chunk, at);
      at += chunk.length;
      out.write(chunk);
    });
    out.on('data', (chunk) => socket.write(chunk));
    socket.on('close', () => out.destroy());
    out.on('close', () => socket.destroy());
  });
  test.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as net.AddressInfo).port;
}

t.test('in between: a changed preface does not get through', async (test) => {
  const directory = test.testdir();
  const [h1, h2] = await writePair(directory, ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const secret = writeSecret(directory);
  for (const [mine, theirs] of [[h1, h2], [secret, secret]] as const) {
    const here = await door(test, theirs);
    const port = await between(test, here.port, (chunk, at) => {
      if (at > 0) return;
      chunk[16] = 0; // secondary, where primary was said
      chunk.writeUInt32LE(0, 8);
      chunk.writeUInt32LE(crc32(chunk.subarray(0, prefaceSize)), 8);
    });
    test.match(await knock(test, port, mine), { failed: /changed on its way/ });
    await told(test, here, /changed on its way.*look at the network/);
    test.same(here.links, []);
  }
});

t.test('in between: one changed bit ends the connection, nothing of it arrives', async (test) => {
  const secret = writeSecret(test.testdir());
  const here = await door(test, secret);
  let isArmed = false;
  const port = await between(test, here.port, (chunk) => {
    if (isArmed) chunk[chunk.length >> 1] = (chunk[chunk.length >> 1] ?? 0) ^ 1;
    isArmed = false;
  });
  const { link, closed } = await knock(test, port, secret);
  await arrives(test, here, link);
  isArmed = true;
  link?.send({
    ...plainFrame(FrameType.write, 1), size: 4096, payload: Buffer.alloc(4160, 7),
    payloadOffset: 64,
  });
  await until('the end', () => here.closed.length > 0 && closed.length > 0);
  test.match(here.closed, [/connection error/]);
  test.equal(here.frames.length, 1, 'the write did not come through');
});

t.test('within TLS too what is no frame ends the connection, and is counted', async (test) => {
  const secret = writeSecret(test.testdir());
  const here = await door(test, secret);
  const { link } = await knock(test, here.port, secret);
  // No such type.
  link?.send(plainFrame(77 as FrameType));
  await until('the end', () => here.closed.length > 0);
  test.equal(here.bad, 1, here.closed.join());
  test.same(here.frames, []);
});

t.test('large and small frames in turn, in both directions, in order', async (test) => {
  const [h1, h2] = await writePair(test.testdir(), ['h1', 'h2']) as [TlsPaths, TlsPaths];
  const here = await door(test, h2);
  const { link } = await knock(test, here.port, h1);
  const sizes = Array.from({ length: 300 }, (_, index) => [16, 4096, 1 << 20][index % 3 && 1] ?? 16)
    .map((size, index) => index % 50 === 49 ? 1 << 20 : size);
  for (const [index, size] of sizes.entries()) {
    link?.send({
      ...plainFrame(FrameType.write, index + 1), offset: 0, size,
      payload: Buffer.alloc(size + 64, index), payloadOffset: 64, headroom: 64,
    });
  }
  link?.finish();
  await until('all of them', () => here.closed.length > 0);
  const arrived = here.frames.map(({ seq, size }) => [seq, size]);
  test.same(arrived, sizes.map((size, at) => [at + 1, size]));
});
