/** Each layer between this node and a peer, on loopback, against real listeners. */
import * as net from 'node:net';
import t, { type Test } from 'tap';
import { Listener, type PeerTarget } from '../../lib/daemon/listener.ts';
import { PeerAddresses } from '../../lib/daemon/peer-addresses.ts';
import { probePeer } from '../../lib/daemon/peer-probe.ts';
import { recordingLog } from './world.ts';

const local = { family: 'tcp', host: '127.0.0.1' } as const;

async function serve(test: Test, onSocket: (socket: net.Socket) => void): Promise<number> {
  const server = net.createServer(onSocket);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.teardown(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

function probe(host: string, port: number, source: string | null = null) {
  const from = source === null ? null : { ...local, host: source, port: 0 };
  return probePeer({ remote: { ...local, host, port }, source: from }, 'h1');
}

async function listening(test: Test, allowed: string): Promise<{ port: number; lines: string[] }> {
  const { log, lines } = recordingLog();
  const target: PeerTarget = {
    remote: { ...local, host: allowed, port: 1 }, state: 'ready',
    handOver: () => { throw new Error('a probe reached a worker'); },
  };
  const listener = new Listener({
    log, addresses: new PeerAddresses(log), targets: () => new Map([['shared', target]]),
  });
  await listener.listen([{ ...local, port: 0 }]);
  test.teardown(() => listener.close());
  return { port: listener.port, lines };
}

t.test('probe: a hastd that knows us, and one that does not', async (t) => {
  const well = await listening(t, '127.0.0.1');
  t.match(await probe('127.0.0.1', well.port), { ok: true, milliseconds: Number });
  t.notMatch(well.lines, [/refused/], 'nothing is logged for it');
  const stranger = await listening(t, '192.0.2.1');
  t.match(await probe('127.0.0.1', stranger.port), {
    ok: false, layer: 'hastd', text: /does not accept this address/, hint: /from 127\.0\.0\.1/,
  });
});

t.test('probe: what does not work is named by its layer', async (t) => {
  t.match(await probePeer({ remote: null, source: null }, 'h1'), { ok: false, layer: 'none' });
  t.match(await probe('no-such-host.invalid', 8457), {
    ok: false, layer: 'name', text: /cannot be resolved/, hint: /\/etc\/hosts/,
  });
  const port = await serve(t, (socket) => socket.destroy());
  t.match(await probe('127.0.0.1', port), { ok: false, layer: 'answer' });
  t.match(await probe('127.0.0.1', port, '192.0.2.77'), {
    ok: false, layer: 'connect', text: /'source'/,
  });
  const gone = net.createServer();
  await new Promise<void>((resolve) => gone.listen(0, '127.0.0.1', resolve));
  const { port: closed } = gone.address() as net.AddressInfo;
  await new Promise((resolve) => gone.close(resolve));
  t.match(await probe('127.0.0.1', closed), {
    ok: false, layer: 'connect', text: /no hastd listens/, hint: /systemctl start hastd/,
  });
  const silent = await serve(t, (socket) => {
    socket.on('error', () => undefined);
    socket.resume();
    t.teardown(() => socket.destroy());
  });
  const mute = await probe('127.0.0.1', silent);
  t.match(mute, { ok: false, layer: 'answer', text: /does not answer/ });
});
