/**
 * Goal: nothing a client does keeps another one, or hastd, waiting.
 * Method: raw sockets against a server whose bounds are short.
 */
import * as http from 'node:http';
import * as net from 'node:net';
import t from 'tap';
import type { Test } from 'tap';
import { silentLogger } from '../../lib/base/log.ts';
import type { TcpAddress } from '../../lib/config/address.ts';
import { shared, textPage, WebServer, type Page } from '../../lib/monitor/web-server.ts';

const loopback: TcpAddress = { family: 'tcp', host: '127.0.0.1', port: 0 };
const big = Buffer.alloc(32 * 1024 * 1024, 'x');

t.jobs = 4;
const it = (name: string, run: (test: Test) => Promise<void>): void => {
  void t.test(name, { buffered: true }, run);
};

async function pages(path: string): Promise<Page | null> {
  if (path === '/') return textPage(200, 'well\n');
  if (path === '/big') return { status: 200, type: 'text/plain', body: big };
  if (path === '/broken') throw new Error('broken');
  return null;
}

async function served(test: Test, limits: Partial<Record<string, number>> = {}) {
  const server = new WebServer({ log: silentLogger, answer: pages, limits });
  await server.listen(loopback);
  test.teardown(() => server.close());
  return server;
}

/** All that the server says to these bytes until it closes. */
async function say(port: number, text: string): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.on('error', () => undefined);
  socket.write(text);
  await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(chunks).toString();
}

async function get(port: number, path: string, method = 'GET') {
  return await new Promise<{ status: number; headers: http.IncomingHttpHeaders; text: string }>(
    (resolve, reject) => {
      const request = http.request({ port, path, method, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => resolve({
          status: response.statusCode ?? 0, headers: response.headers,
          text: Buffer.concat(chunks).toString(),
        }));
      });
      request.on('error', reject);
      request.end();
    },
  );
}

it('web: pages, methods, and headers that keep a browser at home', async (test) => {
  const { port } = await served(test);
  const well = await get(port, '/?query');
  test.match(well, { status: 200, text: 'well\n' });
  test.match(well.headers, {
    'content-security-policy': /default-src 'none'/, 'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
  });
  test.match(await get(port, '/', 'HEAD'), { status: 200, text: '' });
  test.match(await get(port, '/nothing'), { status: 404 });
  test.match(await get(port, '/../../etc/passwd'), { status: 404 });
  test.match(await get(port, '/broken'), { status: 500, text: /log/ });
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']) {
    test.match(await get(port, '/', method), { status: 405, headers: { allow: 'GET, HEAD' } });
  }
});

it('web: noise, large headers and bodies are refused', async (test) => {
  const { port } = await served(test, { requestMs: 2000, idleMs: 2000 });
  test.match(await say(port, '\u0016\u0003\u0001 is no HTTP\r\n\r\n'), /^HTTP\/1.1 400/);
  test.match(await say(port, `GET / HTTP/1.1\r\nHost: h\r\nX: ${'x'.repeat(9000)}\r\n\r\n`),
    /^HTTP\/1.1 431/);
  test.match(await say(port, `GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n`),
    /^HTTP\/1.1 200[^]*Connection: close/);
  test.match(await get(port, '/'), { status: 200 });
});

it('web: who sends slowly, or nothing, is closed', async (test) => {
  const { port } = await served(test, { requestMs: 300, idleMs: 300, connectionMs: 2000 });
  test.equal(await say(port, ''), '', 'silence');
  const half = await say(port, 'GET / HTTP/1.1\r\nHost: h\r\n');
  test.match(half, /^(HTTP\/1.1 408|$)/, 'half a header');
  const drip = net.connect(port, '127.0.0.1');
  drip.on('error', () => undefined);
  drip.write('GET / HTTP/1.1\r\n');
  const timer = setInterval(() => drip.write('X: y\r\n'), 50);
  await new Promise((resolve) => drip.once('close', resolve).resume());
  clearInterval(timer);
  test.pass('a header that never ends');
});

it('web: a connection has an end, and so many requests', async (test) => {
  const { port } = await served(test, { connectionMs: 500, connectionRequestsMax: 3 });
  const asked = 'GET / HTTP/1.1\r\nHost: h\r\n\r\n';
  const answers = (await say(port, asked.repeat(5))).match(/^HTTP\/1.1 200/gm) ?? [];
  test.equal(answers.length, 3, 'three of five');
  const drip = net.connect(port, '127.0.0.1');
  drip.on('error', () => undefined);
  drip.write(asked);
  await new Promise((resolve) => drip.once('close', resolve).resume());
  test.pass('one that is kept open');
});

it('web: who does not read what it asked for is closed, and others are served', async (test) => {
  const { port } = await served(test, { idleMs: 500, connectionMs: 1500, connectionsMax: 8 });
  const greedy = Array.from({ length: 6 }, () => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write('GET /big HTTP/1.1\r\nHost: h\r\n\r\n');
    socket.pause();
    return socket;
  });
  await Promise.all(greedy.map((socket) => new Promise((resolve) => {
    socket.once('connect', resolve);
  })));
  test.match(await get(port, '/'), { status: 200 });
  const closed = greedy.map((socket) => new Promise((resolve) => {
    socket.once('close', resolve);
    // What is in the kernel is read only when the server is done with it.
    setTimeout(() => socket.resume(), 2500);
  }));
  await Promise.all(closed);
});

it('web: a flood of connections is bounded, and over when it is over', async (test) => {
  const { port } = await served(test, { connectionsMax: 4, requestMs: 500, idleMs: 500 });
  const flood = Array.from({ length: 40 }, () => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    return new Promise((resolve) => socket.once('close', resolve).resume());
  });
  await Promise.all(flood);
  test.match(await get(port, '/'), { status: 200 });
});

it('web: the address is had, or nothing changes', async (test) => {
  const other = net.createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  test.teardown(() => other.close());
  const taken = { ...loopback, port: (other.address() as net.AddressInfo).port };
  const server = await served(test);
  const { port } = server;
  await test.rejects(server.listen(taken), {
    code: 'HAST_E_ADDRESS_IN_USE', message: /cannot serve metrics at .*EADDRINUSE/, hint: /metrics/,
  });
  await test.rejects(server.listen({ ...loopback, host: '192.0.2.1' }), {
    message: /EADDRNOTAVAIL/,
  });
  test.match(await get(port, '/'), { status: 200 }, 'where it was');
  await server.listen({ family: 'tcp', host: '0.0.0.0', port });
  test.equal(server.port, port, 'the same port on more addresses');
  test.match(await get(port, '/'), { status: 200 });
  await test.rejects(server.listen({ family: 'tcp', host: '192.0.2.1', port }));
  test.match(await get(port, '/'), { status: 200 }, 'and back again');
  await server.listen(null);
  await test.rejects(get(port, '/'), { code: 'ECONNREFUSED' });
  await server.listen(loopback);
  test.match(await get(server.port, '/'), { status: 200 });
});

it('web: those who ask at the same time share one answer', async (test) => {
  let made = 0;
  const ask = shared(50, async () => {
    made++;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return made;
  });
  test.same(await Promise.all([ask(), ask(), ask()]), [1, 1, 1]);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  test.equal(await ask(), 2);
  let failures = 0;
  const fails = shared(1000, () => Promise.reject(new Error(`${++failures}`)));
  await test.rejects(fails(), { message: '1' });
  await test.rejects(fails(), { message: '2' }, 'a failure is not kept');
});
