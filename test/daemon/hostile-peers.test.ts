/**
 * Goal: whoever can connect can hold up neither hastd nor the peers of other resources, and takes
 * no more than a bounded part of hastd's memory and descriptors.
 * Method: a real listener on loopback addresses; floods of every kind beside a peer that wants in.
 */
import * as net from 'node:net';
import t, { type Test } from 'tap';
import { Listener } from '../../lib/daemon/listener.ts';
import { PeerAddresses } from '../../lib/daemon/peer-addresses.ts';
import { Throttle, WaitingRoom } from '../../lib/daemon/waiting-room.ts';
import { encodePreface, PrefaceAnswer } from '../../lib/format/preface.ts';
import { recordingLog, until } from './world.ts';

const peerOfA = '127.0.0.2';
const peerOfB = '127.0.0.3';
const stranger = '127.0.0.4';
const unreadMax = 32;
const flood = 600;

async function world(test: Test) {
  const { log, lines } = recordingLog();
  const handed: string[] = [];
  const resource = (name: string, host: string) => [name, {
    remote: { family: 'tcp', host, port: 8457 } as const,
    state: 'ready' as const,
    handOver: (_: Uint8Array, socket: net.Socket) => {
      handed.push(name);
      socket.end(Uint8Array.of(PrefaceAnswer.ok));
    },
  }] as const;
  const targets = new Map([resource('a', peerOfA), resource('b', peerOfB)]);
  let lookups = 0;
  const lookup = async (): Promise<string[]> => {
    lookups++;
    throw new Error('no such host');
  };
  const listener = new Listener({
    log, targets: () => targets, addresses: new PeerAddresses(log, lookup), unreadMax,
    prefaceMs: 60_000,
  });
  await listener.listen([{ family: 'tcp4', host: '0.0.0.0', port: 0 }]);
  const clients: net.Socket[] = [];
  test.teardown(() => {
    for (const client of clients) client.destroy();
    listener.close();
  });
  const dial = (from: string): net.Socket => {
    const socket = net.connect({ port: listener.port, host: '127.0.0.1', localAddress: from });
    socket.on('error', () => undefined);
    clients.push(socket);
    return socket;
  };
  /** The answer to a preface; undefined where the connection ends without one. */
  const ask = (from: string, name: string): Promise<number | undefined> => {
    const socket = dial(from);
    socket.write(encodePreface(name, 'h2', 1));
    return new Promise((resolve) => {
      socket.once('data', ([answer]) => resolve(answer));
      socket.once('close', () => resolve(undefined));
    });
  };
  return { listener, lines, handed, dial, ask, clients, lookups: () => lookups, targets };
}

const connected = (sockets: readonly net.Socket[]): Promise<unknown> =>
  Promise.all(sockets.map((socket) => new Promise((resolve) => {
    socket.once('connect', resolve).once('close', resolve);
  })));

t.test('hostile peers: silence and single bytes keep nobody out', async (test) => {
  const { dial, ask, clients } = await world(test);
  const silent = Array.from({ length: flood }, () => dial(peerOfA));
  await connected(silent);
  test.equal(await ask(peerOfB, 'b'), PrefaceAnswer.ok, 'the peer of another resource');
  test.equal(await ask(peerOfA, 'a'), PrefaceAnswer.ok, 'and the real one at the same address');
  // A byte now and then does not make a connection younger.
  const slow = Array.from({ length: unreadMax }, () => dial(peerOfA));
  await connected(slow);
  const preface = encodePreface('a', 'h2', 1);
  const timer = setInterval(() => {
    for (const socket of slow) if (!socket.destroyed) socket.write(preface.subarray(0, 1));
  }, 20);
  test.teardown(() => clearInterval(timer));
  test.equal(await ask(peerOfB, 'b'), PrefaceAnswer.ok);
  test.equal(await ask(peerOfA, 'a'), PrefaceAnswer.ok);
  const open = (): number => clients.filter(({ destroyed }) => !destroyed).length;
  await until('all but a few are closed', () => open() <= 2 * unreadMax + 8);
});

t.test('hostile peers: strangers are refused, however many', async (test) => {
  const { dial, ask, lines, clients } = await world(test);
  // They read their answers, or never see the end.
  await connected(Array.from({ length: flood }, () => dial(stranger).resume()));
  test.equal(await ask(peerOfA, 'a'), PrefaceAnswer.ok);
  const open = (): number => clients.filter(({ destroyed }) => !destroyed).length;
  await until('they are all closed', () => open() === 0);
  test.ok(lines.filter((line) => line.includes('is refused')).length <= 2, 'one line for all');
});

t.test('hostile peers: a worker is given a bounded number of connections', async (test) => {
  const { ask, handed } = await world(test);
  const startedAt = performance.now();
  const answers = await Promise.all(Array.from({ length: 25 }, () => ask(peerOfA, 'a')));
  const seconds = Math.ceil((performance.now() - startedAt) / 1000);
  const passed = handed.filter((name) => name === 'a').length;
  test.ok(passed >= 1 && passed <= 16 * (seconds + 1), `${passed} of 25 in ${seconds} s`);
  test.same(answers.filter((answer) => answer !== PrefaceAnswer.ok &&
    answer !== PrefaceAnswer.busy), [], 'the others hear that it is busy');
  test.equal(await ask(peerOfB, 'b'), PrefaceAnswer.ok, 'another worker has its own bound');
});

t.test('hostile peers: a name that cannot be resolved is not asked for each time', async (test) => {
  const { ask, lookups, targets, lines } = await world(test);
  const [, a] = [...targets][0] ?? [];
  if (a === undefined) throw new Error('no target');
  Object.assign(a, { remote: { ...a.remote, host: 'gone.example' } });
  for (let round = 0; round < 20; round++) await ask(stranger, 'a');
  test.ok(lookups() <= 10, `${lookups()} lookups for 20 connections`);
  test.ok(lines.filter((line) => line.includes('resolved')).length <= 10);
});

t.test('hostile peers: who has to go', async (test) => {
  const room = new WaitingRoom(3);
  const sockets = Array.from({ length: 5 }, () => new net.Socket());
  const [one, two, three, four, five] = sockets as [
    net.Socket, net.Socket, net.Socket, net.Socket, net.Socket];
  test.equal(room.enter(one, 'x'), null);
  test.equal(room.enter(two, 'y'), null);
  test.equal(room.enter(three, 'y'), null);
  test.equal(room.enter(four, 'x'), two, 'the oldest of those with most');
  room.leave(three);
  test.equal(room.enter(five, 'y'), null);
  room.leave(four);
  test.equal(room.enter(new net.Socket(), 'z'), null);
  test.equal(room.enter(new net.Socket(), 'x'), one, 'the oldest again');
  const left = [...room].map((socket) => sockets.indexOf(socket));
  test.same(left.sort(), [-1, -1, 4]);
  const throttle = new Throttle(2, 60_000);
  test.same(['k', 'k', 'k', 'l'].map((key) => throttle.allows(key)), [true, true, false, true]);
});
