/**
 * A small HTTP server for what may be read without a password. It answers GET and HEAD, keeps
 * nothing of a request, and bounds all a client can take: connections, header bytes, the time for
 * a request, the time and the requests of a connection. Who asks again at once gets the same
 * bytes, so a flood costs no more work than one client.
 */
import * as http from 'node:http';
import { HastError, errnoName, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatAddress, type TcpAddress } from '../config/address.ts';

export interface Page {
  status: number;
  type: string;
  body: Buffer;
}

export interface WebServerOptions {
  log: Logger;
  /** Null: there is no such page. May reject. Must end in bounded time. */
  answer(path: string): Promise<Page | null>;
  limits?: Partial<typeof webLimits>;
}

export const webLimits = {
  connectionsMax: 32,
  headerBytesMax: 8192,
  /** From the connection, or the end of the request before, to the end of a request's header. */
  requestMs: 5000,
  /** Nothing was read or written on a connection. */
  idleMs: 10_000,
  /** A connection ends then, whatever it does. */
  connectionMs: 60_000,
  connectionRequestsMax: 100,
};

/** The page brings all it needs: nothing is asked of anybody else, and nobody frames it. */
const headers = {
  'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; " +
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; " +
    "frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
};

export class WebServer {
  readonly #log: Logger;
  readonly #answer: WebServerOptions['answer'];
  readonly #limits: typeof webLimits;
  #server: http.Server | null = null;
  #address: TcpAddress | null = null;

  constructor({ log, answer, limits }: WebServerOptions) {
    this.#log = log;
    this.#answer = answer;
    this.#limits = { ...webLimits, ...limits };
  }

  /** For tests that listen on port 0; 0 while it does not listen. */
  get port(): number {
    const address = this.#server?.address();
    return address != null && typeof address === 'object' ? address.port : 0;
  }

  /**
   * Listens there and nowhere else; null: nowhere. Throws HAST_E_ADDRESS_IN_USE where that cannot
   * be had; then nothing has changed.
   */
  async listen(address: TcpAddress | null): Promise<void> {
    const before = { server: this.#server, address: this.#address };
    // Linux does not bind 0.0.0.0:PORT beside 127.0.0.1:PORT.
    const isSamePort = before.server !== null && address?.port === this.port;
    if (isSamePort) this.close();
    try {
      this.#server = address === null ? null : await this.#bind(address);
      this.#address = address;
    } catch (error) {
      if (isSamePort && before.address !== null) {
        this.#server = await this.#bind(before.address);
        this.#address = before.address;
      }
      throw error;
    }
    if (!isSamePort && before.server !== null) end(before.server);
    if (address !== null) this.#log.info({ metrics: formatAddress(address) }, 'serving metrics');
  }

  close(): void {
    if (this.#server !== null) end(this.#server);
    this.#server = null;
    this.#address = null;
  }

  #bind(address: TcpAddress): Promise<http.Server> {
    const server = pageServer(this.#log, this.#answer, this.#limits);
    const { host, port, family } = address;
    return new Promise((resolve, reject) => {
      server.once('error', (cause) => reject(bindError(address, cause)));
      server.listen({ host, port, ipv6Only: family === 'tcp6', exclusive: true }, () => {
        server.removeAllListeners('error');
        server.on('error', (error) => {
          this.#log.error({ error: errorText(error) }, 'the metrics address failed');
        });
        resolve(server);
      });
    });
  }
}

/** Not listening yet. What comes in is given to it as the event `connection`. */
export function pageServer(
  log: Logger, answer: WebServerOptions['answer'], limits: typeof webLimits,
): http.Server {
  const { headerBytesMax, requestMs, idleMs, connectionMs } = limits;
  const server = http.createServer({
    maxHeaderSize: headerBytesMax, requestTimeout: requestMs, headersTimeout: requestMs,
    keepAliveTimeout: idleMs, connectionsCheckingInterval: Math.min(1000, requestMs),
  }, (request, response) => {
    serve(log, answer, request, response).catch((error: unknown) => {
      log.error({ path: request.url, error: errorText(error) }, 'a page failed');
      response.destroy();
    });
  });
  server.maxConnections = limits.connectionsMax;
  server.maxRequestsPerSocket = limits.connectionRequestsMax;
  server.timeout = idleMs;
  server.on('connection', (socket) => {
    socket.on('error', () => socket.destroy());
    const timer = setTimeout(() => socket.destroy(), connectionMs);
    socket.once('close', () => clearTimeout(timer));
  });
  return server;
}

async function serve(
  log: Logger, answer: WebServerOptions['answer'],
  request: http.IncomingMessage, response: http.ServerResponse,
): Promise<void> {
  const isBodied = request.headers['content-length'] !== undefined ||
    request.headers['transfer-encoding'] !== undefined;
  // What a client sends beyond its header is not read.
  if (isBodied) response.setHeader('Connection', 'close');
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    send(response, textPage(405, 'only GET and HEAD\n'), true);
    return;
  }
  const path = (request.url ?? '/').split('?', 1)[0] as string;
  const page = await answer(path).catch((error: unknown) => {
    log.error({ path, error: errorText(error) }, 'a page failed');
    return textPage(500, 'failed: see the log of hastd\n');
  });
  send(response, page ?? textPage(404, 'no such page\n'), request.method === 'GET');
}

export function textPage(status: number, text: string): Page {
  return { status, type: 'text/plain; charset=utf-8', body: Buffer.from(text) };
}

/**
 * The same answer for everybody who asks while it is made, and afterwards for `ms`, or four
 * times as long as it took: making it never takes more than a fifth of the time.
 */
export function shared<T>(ms: number, make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => {
    if (made !== null) return made;
    const begun = performance.now();
    const current = make();
    made = current;
    const forget = (): void => {
      if (made === current) made = null;
    };
    current.then(() => {
      setTimeout(forget, Math.max(ms, 4 * (performance.now() - begun))).unref();
    }, forget);
    return current;
  };
}

function send(response: http.ServerResponse, page: Page, hasBody: boolean): void {
  response.writeHead(page.status, {
    'Content-Type': page.type, 'Content-Length': page.body.length,
  });
  response.end(hasBody ? page.body : undefined);
}

function end(server: http.Server): void {
  server.close();
  server.closeAllConnections();
}

function bindError(address: TcpAddress, cause: Error): HastError {
  const why = errnoName(cause) ?? cause.message;
  return new HastError(
    'HAST_E_ADDRESS_IN_USE', `cannot serve metrics at ${formatAddress(address)} (${why})`,
    { cause, hint: "change 'metrics', or end what has that address" },
  );
}
