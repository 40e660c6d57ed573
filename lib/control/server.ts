/**
 * The daemon's side of the control socket. A client that sends noise, too much or nothing gets
 * an error line and is closed; it never delays another one.
 */
import * as fs from 'node:fs/promises';
import * as net from 'node:net';
import { HastError, errnoName, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Followers, lastLine } from './followers.ts';
import { readLine } from './line.ts';
import type { ControlReply, ControlRequest, ReplyOf } from './messages.ts';
import { checkSocketPath, controlSchema, lineBytesMax, toFailure } from './messages.ts';
import { parseRequest } from './validate.ts';

export interface ControlServerOptions {
  path: string;
  /** Number of the group that may connect beside root; null: none. */
  group?: number | null;
  log: Logger;
  /** Answers a request; what it throws becomes the error reply. Must end in bounded time. */
  handle(request: ControlRequest): Promise<ReplyOf[keyof ReplyOf]>;
  /** Sends events after the reply to `events`; returns what ends it. `send` never blocks. */
  follow?(request: EventsRequest, send: (event: object) => void): Promise<() => void>;
  /** A client must have sent its whole request, and taken the reply, within this. */
  clientMs?: number;
  connectionsMax?: number;
  /** Of these, how many may follow events: there is always room for a command. */
  followersMax?: number;
}

type EventsRequest = Extract<ControlRequest, { command: 'events' }>;

export interface ControlServer {
  /** Stops listening, removes the socket and ends the clients that still wait. */
  close(): Promise<void>;
}

const defaultClientMs = 5000;
const defaultConnectionsMax = 64;
const defaultFollowersMax = 32;
const probeMs = 2000;

/** Throws HAST_E_BUSY where a daemon answers at `path`; a socket left behind is replaced. */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  checkSocketPath(options.path);
  await removeStale(options.path);
  const clients = new Set<net.Socket>();
  const followers = new Followers(options.followersMax ?? defaultFollowersMax);
  const clientsMax = options.connectionsMax ?? defaultConnectionsMax;
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    if (clients.size >= clientsMax) {
      options.log.warn({ clientsMax }, 'too many control connections: one is refused');
      socket.destroy();
      return;
    }
    clients.add(socket);
    socket.once('close', () => clients.delete(socket));
    void serve(socket, options, followers);
  });
  await listen(server, options.path);
  if (options.group != null) await admit(server, options.path, options.group);
  server.on('error', (error) => {
    options.log.error({ error: errorText(error) }, 'the control socket failed');
  });
  return {
    close: () => new Promise((resolve) => {
      server.close(() => resolve()); // libuv removes the socket file
      for (const socket of clients) socket.destroy();
    }),
  };
}

async function serve(
  socket: net.Socket, options: ControlServerOptions, followers: Followers,
): Promise<void> {
  const timeoutMs = options.clientMs ?? defaultClientMs;
  let reply: ControlReply;
  try {
    const line = await readLine(socket, { bytesMax: lineBytesMax, timeoutMs });
    const request = await parseRequest(line);
    if (request.command === 'events') followers.refuseIfFull();
    reply = { schema: controlSchema, ok: true, ...await options.handle(request) };
    if (request.command === 'events' && options.follow !== undefined) {
      const { follow } = options;
      await followers.serve(socket, reply, timeoutMs, (send) => follow(request, send));
      return;
    }
  } catch (error) {
    if (!(error instanceof HastError)) {
      options.log.error({ error: errorText(error) }, 'a control request failed unexpectedly');
    }
    const failure = toFailure(error);
    options.log.debug({ error: failure.message }, 'a control request was answered with an error');
    reply = { schema: controlSchema, ok: false, error: failure };
  }
  lastLine(socket, reply, timeoutMs);
}

function listen(server: net.Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (cause: Error): void => {
      reject(new HastError(
        'HAST_E_ADDRESS_IN_USE',
        `cannot listen on the control socket ${path} (${errnoName(cause) ?? cause.message})`,
        { cause, hint: 'run hastd as root, or name another one with control or rundir' },
      ));
    };
    server.once('error', onError);
    // The socket is bound before listen() returns; nobody but root may ever connect.
    const mask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off('error', onError);
        resolve();
      });
    } finally {
      process.umask(mask);
    }
  });
}

/** The group first: in between nobody gets in who must not. */
async function admit(server: net.Server, path: string, group: number): Promise<void> {
  try {
    await fs.chown(path, process.getuid?.() ?? 0, group);
    await fs.chmod(path, 0o660);
  } catch (cause) {
    server.close();
    throw new HastError('HAST_E_IO', `the control socket cannot be given to group ${group}`, {
      cause, hint: "run hastd as root, or take 'control-group' out",
    });
  }
}

async function removeStale(path: string): Promise<void> {
  const entry = await fs.lstat(path).catch(() => undefined);
  if (entry === undefined) return;
  if (!entry.isSocket()) {
    throw new HastError('HAST_E_ADDRESS_IN_USE', `${path} exists and is not a socket`, {
      hint: 'name another one with control or rundir',
    });
  }
  if (await answers(path)) {
    throw new HastError('HAST_E_BUSY', `another hastd answers at ${path}`, {
      hint: 'stop it first, or name another node or rundir',
    });
  }
  await fs.unlink(path);
}

/** Anything but a refused connection counts as somebody being there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    const done = (alive: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(alive);
    };
    const timer = setTimeout(() => done(true), probeMs);
    socket.once('connect', () => done(true));
    socket.once('error', (error) => {
      const name = errnoName(error);
      done(name !== 'ECONNREFUSED' && name !== 'ENOENT');
    });
  });
}
