/**
 * Speaks a worker's side of lib/daemon/worker-protocol.ts without disk, network or FUSE.
 * `local` of the resource says how it misbehaves, as words separated by commas. It ends with
 * its parent, and after a minute in any case.
 */
import type * as net from 'node:net';
import type { ResourceConfig } from '../../lib/config/model.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import type { ParentMessage, WorkerMessage } from '../../lib/daemon/worker-protocol.ts';

const seen: string[] = [];
let resource: ResourceConfig | undefined;

function say(message: WorkerMessage, then?: () => void): void {
  process.send?.(message, undefined, {}, () => then?.());
}

function fail(code: 'HAST_E_CORRUPT' | 'HAST_E_NO_METADATA' | 'HAST_E_IO'): void {
  say({ type: 'failed', code, message: `fake ${code}`, hint: 'fake hint' }, () => process.exit(1));
}

function misbehaves(word: string): boolean {
  return resource?.local.split(',').includes(word) ?? false;
}

function start(message: Extract<ParentMessage, { type: 'start' }>): void {
  resource = message.resource;
  if (misbehaves('hang-start')) return;
  if (misbehaves('die-start')) process.exit(3);
  if (misbehaves('corrupt')) return fail('HAST_E_CORRUPT');
  if (misbehaves('no-metadata')) return fail('HAST_E_NO_METADATA');
  say({ type: 'ready' });
}

function promote({ force }: Extract<ParentMessage, { type: 'promote' }>): void {
  if (misbehaves('hang-promote')) return;
  if (misbehaves('die-promote')) process.exit(4);
  if (misbehaves('refuse') && !force) {
    const code = 'HAST_E_PROMOTE_REFUSED';
    return say({ type: 'refused', code, message: 'fake refusal', hint: 'hastctl peer-gone it' });
  }
  say({ type: 'promoted' });
}

/** Says what it was given: the first one settles with the kernel, the next is told. */
function serve({ takeOver }: Extract<ParentMessage, { type: 'serve' }>): void {
  if (misbehaves('fail-serve')) return fail('HAST_E_IO');
  if (takeOver !== null && misbehaves('die-take-over')) process.exit(6);
  const flags2 = misbehaves('old-kernel') ? 0 : 1 << 7;
  const settled = { minor: 45, flags: 1, flags2, maxWrite: 4096 };
  say({ type: 'serving', negotiated: resource?.frontend === 'direct' ? settled : null });
}

function resume(): void {
  if (misbehaves('hang-resume')) return;
  if (misbehaves('die-resume')) process.exit(7);
  if (misbehaves('refuse-resume')) {
    const message = 'the peer was promoted meanwhile';
    return say({ type: 'refused', code: 'HAST_E_PROMOTE_REFUSED', message, hint: '' });
  }
  say({ type: 'promoted' });
}

function status(): void {
  if (resource === undefined || misbehaves('mute')) return;
  const idle = idleStatus(resource, '', 'secondary', JSON.stringify(seen));
  const localDisk = misbehaves('detached') ? 'detached' : 'up-to-date';
  say({
    type: 'status', status: { ...idle, localDisk, status: 'complete', connection: 'connected' },
  });
}

function order({ id, order: { kind } }: Extract<ParentMessage, { type: 'order' }>): void {
  if (misbehaves('hang-order')) return;
  if (misbehaves('die-order')) process.exit(5);
  if (misbehaves('refuse-order')) {
    const message = `fake refusal of ${kind}`;
    return say({ type: 'declined', id, code: 'HAST_E_REFUSED', message, hint: 'not now' });
  }
  if (kind !== 'resolve') return say({ type: 'ordered', id, resolution: null });
  const local = { bytes: 4096, ranges: [{ offset: 8192, length: 4096 }], more: 0 };
  const peer = { bytes: 1048576, ranges: [{ offset: 0, length: 4096 }], more: 7 };
  const generations = { localGeneration: '00000000000000aa', peerGeneration: '00000000000000bb' };
  const resolution = { ...generations, local, peer, copyBytes: 1052672, full: false };
  // The answer to another order, and to no order, must not be taken for this one.
  say({ type: 'ordered', id: id + 1, resolution: null });
  say({ type: 'ordered', id, resolution });
}

/** Two cells: one that the peer lacks, one clean. */
function map({ id }: Extract<ParentMessage, { type: 'map' }>): void {
  const cut = { peerStale: [4096, 0], localStale: [0, 0], hot: [32_768, 0], syncingAt: -1 };
  say({ type: 'map', id, map: { mediaSize: 65_536, cellBytes: 32_768, ...cut } });
}

/** Takes the connection, and sends back what comes over it. */
function peer(socket: net.Socket): void {
  socket.on('error', () => undefined);
  socket.write(Uint8Array.of(0));
  socket.pipe(socket);
}

function receive(message: ParentMessage, handle: unknown): void {
  const more = message.type === 'start' ? `:${message.fuseFd}${message.resumes ? ':resumes' : ''}`
    : message.type === 'serve' && message.takeOver !== null ? `:${message.takeOver.maxWrite}`
    : message.type === 'order' ? `:${message.order.kind}` : '';
  if (message.type !== 'status') seen.push(`${message.type}${more}`);
  switch (message.type) {
    case 'start': return start(message);
    case 'promote': return promote(message);
    case 'resume': return resume();
    case 'serve': return serve(message);
    case 'status': return status();
    case 'order': return order(message);
    case 'map': return map(message);
    case 'peer': return peer(handle as net.Socket);
    case 'reload':
      if (misbehaves('refuse-reload')) {
        return say({ type: 'failed', code: 'HAST_E_CONFIG', message: 'fake reload' });
      }
      resource = message.resource;
      return say({ type: 'reloaded' });
    case 'stop':
      if (!misbehaves('hang-stop')) process.exit(0);
  }
}

process.on('message', (message, handle) => receive(message as ParentMessage, handle));
process.on('disconnect', () => process.exit(0));
say({ type: 'loaded' });
process.on('SIGUSR1', () => say({ type: 'event', event: 'connect' }));
process.on('SIGALRM', () => say({ type: 'event', event: 'split-brain' }));
process.on('SIGUSR2', () => fail('HAST_E_CORRUPT'));
process.on('SIGTTIN', () => say({ type: 'event', event: 'detach' }));
process.on('SIGWINCH', () => say({ type: 'unmounted' }));
setTimeout(() => process.exit(9), 60_000).unref();
