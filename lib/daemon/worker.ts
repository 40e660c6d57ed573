/**
 * The worker of one resource: lib/daemon/worker-protocol.ts on one side, the core and the front
 * end on the other. It starts nothing (no child process): its memory is lent to the kernel.
 */
import type * as net from 'node:net';
import * as path from 'node:path';
import { HastError, errorText } from '../base/errors.ts';
import { authenticationOf } from '../config/authentication.ts';
import type { PromoteDone } from '../core/role-change.ts';
import { volumeMap } from '../core/volume-map.ts';
import { withFields } from './log-fields.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import { createDirectFrontend, type DirectFrontendOptions } from '../fuse/direct-frontend.ts';
import { UndoFileReader, UndoFileWriter } from '../disk/undo-file.ts';
import type { Frontend } from '../fuse/frontend.ts';
import { createNativeFrontend } from '../fuse/native-frontend.ts';
import { RingFrontend } from '../fuse/ring-frontend.ts';
import type { Negotiated } from '../fuse/session.ts';
import { Reactor } from '../uring/reactor.ts';
import { heldProtocol } from './held-protocol.ts';
import { named } from './named.ts';
import { createLogger } from './logger.ts';
import { holdMountNamespace } from './mount-namespace.ts';
import { ParentLink } from './parent-link.ts';
import { Runner } from './runner.ts';
import { workerFile } from './worker-files.ts';
import { leaveMemoryOutOfDumps } from './worker-rights.ts';
import {
  adoptionVersion, type Order, type ParentMessage, type StartMessage, type WorkerMemo,
  type WorkerMessage,
} from './worker-protocol.ts';

const exitSoftware = 70;
/** Exit code of hastctl without a daemon, for the peer. */
const noDaemonCode = 71;
/** For tests and comparisons: `off` lets threads do the I/O. */
const ringVariable = 'HAST_RING';
const stuckMessageMs = 500;

const log = createLogger();
/** null where this machine has none: threads do the I/O then. */
let reactor: Reactor | null = null;
let started: StartMessage | null = null;
let runner: Runner | null = null;
let frontend: Frontend | null = null;
let stopping = false;
/** What the parent was told last; a worker that comes no further ends with its parent. */
let state: WorkerMemo['state'] | 'starting' | 'promoting' = 'starting';
let isDetached = false;
let isUnmounted = false;
/** Of a worker that succeeds a dead primary's: the answer, and whether the parent asked for it. */
let resumed: WorkerMessage | null = null;
let isResumeAsked = false;

function send(message: WorkerMessage, then?: () => void): void {
  parent.send(message, then);
}

function leave(code: number, threadsEnded: boolean): void {
  if (threadsEnded) {
    if (code === 0) parent.leave(() => process.exit(0));
    else process.exit(code);
    return;
  }
  // process.exit() waits for a thread that sits in the kernel, of ours or of the pool: nothing
  // waits for SIGKILL.
  const kill = (): void => {
    process.kill(process.pid, 'SIGKILL');
  };
  setTimeout(kill, stuckMessageMs);
  send({ type: 'stuck' }, kill);
}

/** With the resource's name in the commands that it names. */
function ownWords(text: string): string {
  return started === null ? text : named(text, started.resource.name);
}

function fail(error: unknown): void {
  const known = error instanceof HastError
    ? error
    : new HastError('HAST_E_INTERNAL', errorText(error), { cause: error });
  log.error({ code: known.code, hint: known.hint, stack: stackOf(error) }, known.message);
  send({
    type: 'failed', code: known.code, message: known.message,
    ...(known.hint === undefined ? {} : { hint: ownWords(known.hint) }),
  }, () => leave(exitSoftware, frontend === null));
}

function stackOf(error: unknown): string | undefined {
  return error instanceof HastError || !(error instanceof Error) ? undefined : error.stack;
}

function start(message: StartMessage): void {
  started = message;
  const { name } = message.resource;
  // fuse-native hands its requests over by ways of Node's that a ring would slow down.
  const isRing = message.resource.frontend === 'direct' && process.env[ringVariable] !== 'off';
  reactor = isRing ? Reactor.open() : null;
  if (isRing && reactor === null) log.info({}, 'no io_uring: threads do the I/O');
  reactor?.start();
  runner = new Runner({
    resource: message.resource,
    node: message.node,
    log: withFields(log, () => ({ resource: name, role: runnerRole() })),
    onEvent: ({ kind }) => {
      if (kind === 'attach' || kind === 'detach') isDetached = kind === 'detach';
      send({ type: 'event', event: kind });
    },
    onSwitchover: passOn,
    protocol: heldProtocol(process.env),
    undoFiles: { create: UndoFileWriter.create, open: UndoFileReader.open },
    inflightFile: workerFile(path.dirname(message.mountPoint), name, 'inflight'),
    ...(message.resumes ? { onResumed } : {}),
    reactor,
  });
  runner.start((error) => {
    if (error !== null) {
      fail(error);
      return;
    }
    showRole();
    state = message.resumes ? 'resuming' : 'secondary';
    parent.listen(message.socket);
    send({ type: 'ready' });
  });
}

/** To the parent, which can run what is asked for; without one the peer shall not wait. */
function passOn(said: SwitchoverSaid): void {
  if (parent.isOpen) {
    const isFacts = said.kind === 'facts' || said.kind === 'ask-facts';
    send({ type: isFacts ? 'facts' : 'switchover', said });
    return;
  }
  if (said.kind === 'ask-facts') {
    const nothing = { kind: 'facts', id: said.id, text: '' } as const;
    runner?.order({ kind: 'switchover', say: nothing }, () => undefined);
  }
  if (said.kind !== 'ask') return;
  const text = 'hastctl: error: no hastd is there to do it; try: start hastd there\n';
  const say = { kind: 'answer', id: said.id, code: noDaemonCode, text } as const;
  runner?.order({ kind: 'switchover', say }, () => undefined);
}

/** The original's process titles: scripts look for them with ps. */
function showRole(): void {
  process.title = `hastd: ${started?.resource.name ?? ''} (${runnerRole()})`;
}

function runnerRole(): string {
  try {
    return runner?.resource.role ?? 'init';
  } catch {
    return 'init';
  }
}

function onResumed(refusal: Parameters<PromoteDone>[0]): void {
  showRole();
  resumed = promotionAnswer(refusal);
  if (isResumeAsked) send(resumed);
}

function serve(
  current: Runner, { resource, mountPoint, fuseFd, resumes }: StartMessage,
  negotiated: Negotiated | null,
): void {
  const onUnlocked = (errno: number): void => {
    log.warn({ errno }, 'the buffers can be swapped out: raise the limit of locked memory');
  };
  const made = resource.frontend === 'direct' && fuseFd !== null
    ? directFrontend({
      fuseFd, mountPoint, onUnlocked, ...(resumes ? { takeOver: { negotiated } } : {}),
    })
    : createNativeFrontend({ mountPoint });
  frontend = made;
  made.onEnd((error) => {
    if (stopping) return;
    if (error !== null) {
      fail(error);
      return;
    }
    isUnmounted = true;
    send({ type: 'unmounted' });
  });
  made.start(current.resource.volume, (error) => {
    if (error === null) {
      state = 'serving';
      send({ type: 'serving', negotiated: made.negotiated });
      return;
    }
    frontend = null;
    send({ type: 'failed', code: 'HAST_E_DEVICE', message: errorText(error) });
  });
}

function directFrontend(options: DirectFrontendOptions): Frontend {
  return reactor === null ? createDirectFrontend(options) : new RingFrontend(options, reactor);
}

function stop(force: boolean): void {
  if (stopping) return;
  stopping = true;
  const end = (threadsEnded: boolean): void => {
    if (runner === null) leave(0, threadsEnded);
    else runner.stop(force, (closed) => leave(0, threadsEnded && closed));
  };
  if (frontend === null) end(true);
  else frontend.stop(end, force);
}

/** The parent is gone. The volume and the copy are served on until the next one comes. */
function orphaned(): void {
  if (stopping) return;
  const isSettled = state === 'secondary' || state === 'resuming' || state === 'serving';
  if (isSettled && parent.canBeAdopted) {
    log.warn({ state }, 'the parent is gone: this worker goes on, start hastd again');
    return;
  }
  endAlone();
}

/**
 * Nobody could take the device away in order any more. The front end is not asked to stop: it wakes
 * its readers through the own mount, and a SIGKILL in that moment would leave a thread that waits
 * for ever for an answer, with /dev/fuse and the lock of the copy held.
 */
function endAlone(): void {
  stopping = true;
  log.warn({ state }, 'the parent is gone: this worker ends');
  if (runner === null) leave(0, frontend === null);
  else runner.stop(true, (closed) => leave(0, frontend === null && closed));
}

function memo(): WorkerMemo | null {
  if (stopping || started === null || state === 'starting' || state === 'promoting') return null;
  const negotiated = frontend?.negotiated ?? null;
  return {
    version: adoptionVersion, pid: process.pid, start: started, state, negotiated, isDetached,
    isUnmounted,
  };
}

function promote(current: Runner, force: boolean, timeoutMs: number): void {
  state = 'promoting';
  current.resource.promote(force, timeoutMs, (refusal) => {
    if (refusal !== null) state = 'secondary';
    showRole();
    send(promotionAnswer(refusal));
  });
}

function promotionAnswer(refusal: Parameters<PromoteDone>[0]): WorkerMessage {
  if (refusal === null) return { type: 'promoted' };
  const { message, hint } = refusal;
  return { type: 'refused', code: 'HAST_E_PROMOTE_REFUSED', message, hint: ownWords(hint) };
}

function order(current: Runner, id: number, asked: Order): void {
  current.order(asked, (error, resolution) => {
    if (error === null) {
      send({ type: 'ordered', id, resolution });
      return;
    }
    const { code, message, hint = '' } = error;
    // Tried again many times while the peer is away.
    const level = asked.kind === 'switchover' ? 'debug' : 'warn';
    log[level]({ order: asked, code, error: message }, 'an order was not carried out');
    send({ type: 'declined', id, code, message, hint: ownWords(hint) });
  });
}

function receive(message: ParentMessage, socket: net.Socket | undefined): void {
  if (message.type === 'start') {
    start(message);
    return;
  }
  if (message.type === 'stop') {
    stop(message.force);
    return;
  }
  if (runner === null || started === null) {
    socket?.destroy();
    throw new HastError('HAST_E_INTERNAL', `'${message.type}' before 'start'`);
  }
  switch (message.type) {
    case 'peer':
      // The peer may have gone while the socket was handed over.
      if (socket !== undefined) runner.takePeer(message.preface, socket);
      return;
    case 'promote': promote(runner, message.force, message.timeoutMs); return;
    case 'resume':
      isResumeAsked = true;
      if (resumed !== null) send(resumed);
      return;
    case 'serve': serve(runner, started, message.takeOver); return;
    case 'reload':
      runner.reload(message.resource);
      started.resource = message.resource;
      send({ type: 'reloaded', authentication: authenticationOf(message.resource).kind });
      return;
    case 'order': order(runner, message.id, message.order); return;
    case 'map': {
      const { id, cells } = message;
      send({ type: 'map', id, map: volumeMap(runner.resource, cells) });
      return;
    }
    case 'status': {
      const status = runner.status();
      const idle = frontend?.stats.idle ?? 0;
      status.statistics.queueIdle = idle;
      send({
        type: 'status', status: { ...status, detail: ownWords(status.detail) },
        statistics: runner.statistics(idle),
      });
      return;
    }
  }
}

leaveMemoryOutOfDumps();
holdMountNamespace();
const parent = new ParentLink({
  receive: (message, socket) => {
    try {
      receive(message, socket);
    } catch (error) {
      fail(error);
    }
  },
  lost: orphaned,
  memo,
}, log);
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
// Sent to a whole process group or cgroup: the parent decides when a worker ends.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
send({ type: 'loaded' });
