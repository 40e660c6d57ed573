/**
 * A worker's connection to its parent. The first is Node's IPC channel of the parent that started
 * it. When that parent is gone the worker goes on, and a later one connects to the socket at which
 * it listens: see docs/lifecycle.md. What a worker says unasked meanwhile is kept for it.
 */
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import { errorText } from '../base/errors.ts';
import { openProcess, takeDescriptor } from '../base/libc.ts';
import type { Logger } from '../base/log.ts';
import { MessageSocket } from './message-socket.ts';
import { workerFolderMode } from './worker-files.ts';
import type { ParentMessage, WorkerMemo, WorkerMessage } from './worker-protocol.ts';

/** Events beyond it are dropped, the oldest first: nobody is there for a long time. */
const keptMax = 64;

export interface ParentLinkHandler {
  receive(message: ParentMessage, socket: net.Socket | undefined): void;
  /** There is no parent any more. */
  lost(): void;
  /** Null: it is ending, nobody takes it over. */
  memo(): WorkerMemo | null;
}

export class ParentLink {
  readonly #handler: ParentLinkHandler;
  readonly #log: Logger;
  #adopter: MessageSocket | null = null;
  /** Came while there was a parent: its turn is when that one is gone. */
  #next: MessageSocket | null = null;
  #file: string | null = null;
  #server: net.Server | null = null;
  readonly #kept: WorkerMessage[] = [];

  constructor(handler: ParentLinkHandler, log: Logger) {
    this.#handler = handler;
    this.#log = log;
    process.on('message', (message: ParentMessage, handle: unknown) => {
      handler.receive(message, handle as net.Socket | undefined);
    });
    process.on('disconnect', () => {
      if (this.#adopter === null) this.#parentLost();
    });
  }

  /** Somebody listens. */
  get isOpen(): boolean {
    return process.connected || this.#adopter !== null;
  }

  /** True where a later parent can find this worker. */
  get canBeAdopted(): boolean {
    return this.#server !== null;
  }

  /** `then`: it is on its way, or nobody will ever get it. */
  send(message: WorkerMessage, then?: () => void): void {
    if (this.#adopter !== null) {
      this.#adopter.send(message, () => then?.());
      return;
    }
    if (process.send !== undefined && process.connected) {
      process.send(message, () => then?.());
      return;
    }
    if (message.type === 'event') {
      this.#kept.push(message);
      if (this.#kept.length > keptMax) this.#kept.shift();
    }
    then?.();
  }

  /** The last message to whoever does not see the exit code. */
  leave(then: () => void): void {
    if (this.#file !== null) fs.rmSync(this.#file, { force: true });
    if (this.#adopter === null) then();
    else this.#adopter.send({ type: 'left' }, then);
  }

  /** Waits for a later parent at `file`; whatever a dead worker left there is replaced. */
  listen(file: string): void {
    const server = net.createServer((socket) => this.#connected(socket));
    server.on('error', (error) => {
      this.#server = null;
      this.#log.warn({ error: errorText(error) }, 'this worker cannot outlive its parent');
    });
    fs.mkdirSync(path.dirname(file), { recursive: true, mode: workerFolderMode });
    fs.rmSync(file, { force: true });
    this.#server = server;
    this.#file = file;
    server.listen(file);
  }

  #connected(socket: net.Socket): void {
    const messages: MessageSocket = new MessageSocket(socket, {
      message: (message) => this.#receive(messages, message as ParentMessage),
      closed: () => this.#ended(messages),
    });
  }

  #receive(from: MessageSocket, message: ParentMessage): void {
    if (message.type === 'adopt') this.#adopt(from);
    else if (from !== this.#adopter) from.close();
    else if (message.type === 'peer-at') this.#take(from, message);
    else this.#handler.receive(message, undefined);
  }

  /** A parent that lives keeps its workers, whoever else asks for them. */
  #adopt(by: MessageSocket): void {
    if (this.isOpen) {
      this.#next = by;
      return;
    }
    const memo = this.#handler.memo();
    if (memo === null) {
      by.close();
      return;
    }
    this.#adopter = by;
    by.send({ type: 'adopted', memo });
    for (const message of this.#kept.splice(0)) by.send(message);
    this.#log.info({}, 'a new parent took this worker over');
  }

  #take(from: MessageSocket, { id, preface, pid, fd, inode }: PeerAt): void {
    const parent = openProcess(pid);
    const taken = parent.errno === 0 ? takeDescriptor(parent.fd, fd) : parent;
    if (parent.errno === 0) fs.closeSync(parent.fd);
    from.send({ type: 'taken', id });
    if (taken.errno !== 0) {
      this.#log.error({ errno: taken.errno }, 'a connection of the peer cannot be taken over');
      return;
    }
    // The parent may have given it up, and have another one at this number by now.
    if (fs.fstatSync(taken.fd).ino !== inode) {
      fs.closeSync(taken.fd);
      return;
    }
    const socket = new net.Socket({ fd: taken.fd, readable: true, writable: true });
    this.#handler.receive({ type: 'peer', preface: Buffer.from(preface, 'base64') }, socket);
  }

  #ended(messages: MessageSocket): void {
    if (messages === this.#next) this.#next = null;
    if (messages !== this.#adopter) return;
    this.#adopter = null;
    this.#parentLost();
  }

  #parentLost(): void {
    this.#handler.lost();
    const next = this.#next;
    this.#next = null;
    if (next !== null) this.#adopt(next);
  }
}

type PeerAt = Extract<ParentMessage, { type: 'peer-at' }>;
