/**
 * The parent's connection to one worker process: a child of its own, or a worker that an earlier
 * parent started and that went on without it. It carries messages and sockets and says how the
 * process ended; lib/daemon/worker-process.ts gives them their meaning.
 */
import * as childProcess from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import { HastError, errorText } from '../base/errors.ts';
import { openProcess, reapChild, signalProcess, takeDescriptor } from '../base/libc.ts';
import { within } from './deadline.ts';
import { MessageSocket } from './message-socket.ts';
import { isAlive } from './process-state.ts';
import { withFewRights } from './worker-rights.ts';
import {
  adoptionVersion, type ParentMessage, type WorkerMemo, type WorkerMessage,
} from './worker-protocol.ts';

/** Threads of the worker's pool: blocking disk calls must not wait for each other. */
const threadPoolSize = '16';
/** An ended process whose channel stays open: its messages are waited for this long. */
const drainMs = 1000;
/** An adopted worker takes a connection that it is told of within this. */
const takeMs = 5000;
/** How often the end of a process is looked for whose socket closed. */
const goneMs = 10;

/** How a worker is started. */
export interface WorkerProgram {
  command: string;
  args: string[];
}

export interface LinkHandler {
  message(message: WorkerMessage): void;
  /** The process has ended; both null where nobody can know how. */
  ended(code: number | null, signal: string | null): void;
  /** The process never was. */
  failed(why: string): void;
}

export interface WorkerLink {
  readonly pid: number | null;
  readonly isOpen: boolean;
  /** To be called once, at once. */
  listen(handler: LinkHandler): void;
  send(message: ParentMessage, onError: (error: Error) => void): void;
  /** Gives an accepted connection away; the socket is not usable here afterwards. */
  sendSocket(preface: Uint8Array, socket: net.Socket): void;
  kill(): void;
  /** A copy of descriptor `fd` of the process; -1 where it cannot be had. */
  descriptor(fd: number): number;
}

export class ChildLink implements WorkerLink {
  readonly #child: childProcess.ChildProcess;

  /** `fuseFd` becomes descriptor 3 of the worker; null where it mounts by itself. */
  constructor(program: WorkerProgram, fuseFd: number | null) {
    // fuse-native mounts, for which it needs what others do not.
    const { command, args } = fuseFd === null
      ? program : withFewRights(program.command, program.args);
    this.#child = childProcess.spawn(command, args, {
      stdio: ['ignore', 'inherit', 'inherit', fuseFd ?? 'ignore', 'ipc'],
      env: { ...process.env, UV_THREADPOOL_SIZE: threadPoolSize },
      serialization: 'advanced', // the preface travels as bytes
      detached: true, // a terminal's Ctrl-C reaches the parent only, which ends workers in order
    });
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  get isOpen(): boolean {
    return this.#child.connected;
  }

  listen(handler: LinkHandler): void {
    const child = this.#child;
    child.once('exit', (code, signal) => {
      // 'close' follows when the channel is drained: the last message comes before the end.
      setTimeout(() => handler.ended(code, signal), drainMs).unref();
    });
    child.once('close', (code, signal) => handler.ended(code, signal));
    child.on('error', (error) => {
      // Also raised where a signal or a message cannot be sent: only a process that never
      // started ends here.
      if (child.pid === undefined) handler.failed(errorText(error));
    });
    child.on('message', (message) => handler.message(message as WorkerMessage));
  }

  send(message: ParentMessage, onError: (error: Error) => void): void {
    this.#child.send(message, (error) => {
      if (error !== null) onError(error);
    });
  }

  sendSocket(preface: Uint8Array, socket: net.Socket): void {
    stopReading(socket);
    this.#child.send({ type: 'peer', preface }, socket, { keepOpen: false }, (error) => {
      if (error !== null) socket.destroy();
    });
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  descriptor(): number {
    return -1; // it has none that this process did not give it
  }
}

/**
 * A worker without a parent. Its socket closes when the kernel has let go of all its threads: from
 * then on nothing of it can land.
 */
export class AdoptedLink implements WorkerLink {
  readonly #messages: MessageSocket;
  #pid = 0;
  #processFd = -1;
  #handler: LinkHandler | null = null;
  #onMemo: ((memo: WorkerMemo) => void) | null = null;
  #onClosed: ((error: Error) => void) | null = null;
  /** It said that it ends in order. */
  #hasLeft = false;
  readonly #taken = new Map<number, () => void>();
  #handedOver = 0;

  private constructor(socket: net.Socket) {
    this.#messages = new MessageSocket(socket, {
      message: (message) => this.#receive(message as WorkerMessage),
      closed: (why) => this.#closed(why),
    });
  }

  /**
   * Takes over the worker that listens at `path`. Null where none does. Throws HAST_E_TIMEOUT,
   * HAST_E_PROTOCOL or HAST_E_UNSUPPORTED where one does and cannot be taken over.
   */
  static async connect(
    path: string, timeoutMs: number,
  ): Promise<{ link: AdoptedLink; memo: WorkerMemo } | null> {
    const socket = await connectTo(path);
    if (socket === null) return null;
    const link = new AdoptedLink(socket);
    try {
      const memo = await within(timeoutMs, `the answer of the worker at ${path}`, link.#adopt());
      link.#pid = memo.pid;
      if (memo.version !== adoptionVersion) {
        throw new HastError('HAST_E_UNSUPPORTED', `the worker ${memo.pid} is of another release`, {
          hint: 'install that release again, and end the use of the device before the next upgrade',
        });
      }
      const { errno, fd } = openProcess(memo.pid);
      if (errno !== 0) {
        throw new HastError('HAST_E_UNSUPPORTED', `pidfd_open(2) fails with errno ${errno}`, {
          hint: 'Linux 5.6 or later is needed to take a worker over',
        });
      }
      link.#processFd = fd;
      return { link, memo };
    } catch (error) {
      link.#messages.close();
      throw error;
    }
  }

  get pid(): number {
    return this.#pid;
  }

  get isOpen(): boolean {
    return this.#messages.isOpen;
  }

  listen(handler: LinkHandler): void {
    this.#handler = handler;
  }

  send(message: ParentMessage, onError: (error: Error) => void): void {
    this.#messages.send(message, (error) => {
      if (error !== null) onError(error);
    });
  }

  /** The worker takes its copy of the descriptor: the connection stays open here until it has. */
  sendSocket(preface: Uint8Array, socket: net.Socket): void {
    stopReading(socket);
    const fd = handleOf(socket)?.fd ?? -1;
    if (fd < 0) {
      socket.destroy();
      return;
    }
    const id = ++this.#handedOver;
    const done = (): void => {
      clearTimeout(timer);
      this.#taken.delete(id);
      socket.destroy();
    };
    const timer = setTimeout(done, takeMs);
    this.#taken.set(id, done);
    const text = Buffer.from(preface).toString('base64');
    const inode = fs.fstatSync(fd).ino;
    this.send({ type: 'peer-at', id, preface: text, pid: process.pid, fd, inode }, done);
  }

  kill(): void {
    if (this.isOpen) signalProcess(this.#processFd, os.constants.signals.SIGKILL);
  }

  descriptor(fd: number): number {
    return takeDescriptor(this.#processFd, fd).fd;
  }

  #adopt(): Promise<WorkerMemo> {
    return new Promise((resolve, reject) => {
      this.#onMemo = resolve;
      this.#onClosed = reject;
      this.send({ type: 'adopt', version: adoptionVersion }, reject);
    });
  }

  #receive(message: WorkerMessage): void {
    if (message.type === 'adopted') this.#onMemo?.(message.memo);
    else if (message.type === 'taken') this.#taken.get(message.id)?.();
    else if (message.type === 'left') this.#hasLeft = true;
    else this.#handler?.message(message);
  }

  #closed(why: string): void {
    for (const done of this.#taken.values()) done();
    this.#onClosed?.(new HastError('HAST_E_PROTOCOL', `the worker is gone: ${why}`));
    if (this.#processFd < 0) return;
    // It is dead, or sent what is no message: nothing of it may go on beside a successor.
    signalProcess(this.#processFd, os.constants.signals.SIGKILL);
    this.#whenGone();
  }

  #whenGone(): void {
    if (isAlive(this.#pid) && signalProcess(this.#processFd, 0) === 0) {
      setTimeout(() => this.#whenGone(), goneMs);
      return;
    }
    // It may be a child of this very process, before it became another program.
    reapChild(this.#pid);
    fs.close(this.#processFd, () => undefined);
    this.#processFd = -1;
    this.#handler?.ended(this.#hasLeft ? 0 : null, null);
  }
}

/** Null where nobody listens. */
function connectTo(path: string): Promise<net.Socket | null> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(null));
  });
}

type SocketHandle = { fd: number; readStop(): number } | null;

/** Node has no public way to a socket's descriptor. */
function handleOf(socket: net.Socket): SocketHandle {
  return (socket as unknown as { _handle: SocketHandle })._handle;
}

/**
 * From here on no byte leaves the kernel for this process. Without it, what the peer sends
 * between the worker's answer and the moment this process drops its copy of the descriptor
 * would be read here and lost. Node has no public call for it: net.Socket#pause stops the
 * stream but lets the handle read on until the buffer is full.
 */
function stopReading(socket: net.Socket): void {
  handleOf(socket)?.readStop();
}
