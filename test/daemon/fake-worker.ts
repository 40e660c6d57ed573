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

function status(): void {
  if (resource === undefined || misbehaves('mute')) return;
  const idle = idleStatus(resource, '', 'secondary', JSON.stringify(seen));
  say({ type: 'status', status: { ...idle, status: 'complete', connection: 'connected' } });
}

/** Takes the connection, and sends back what comes over it. */
function peer(socket: net.Socket): void {
  socket.on('error', () => undefined);
  socket.write(Uint8Array.of(0));
  socket.pipe(socket);
}

function receive(message: ParentMessage, handle: unknown): void {
  const fd = message.type === 'start' ? `:${message.fuseFd}` : '';
  if (message.type !== 'status') seen.push(`${message.type}${fd}`);
  switch (message.type) {
    case 'start': return start(message);
    case 'promote': return promote(message);
    case 'serve': return misbehaves('fail-serve') ? fail('HAST_E_IO') : say({ type: 'serving' });
    case 'status': return status();
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
process.on('SIGUSR1', () => say({ type: 'event', event: 'connect' }));
process.on('SIGUSR2', () => fail('HAST_E_CORRUPT'));
setTimeout(() => process.exit(9), 60_000).unref();
