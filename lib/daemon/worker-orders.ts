/** The worker's part of what an operator asks for beside the role: the core, and undo files. */
import { HastError, errorText } from '../base/errors.ts';
import type { Resolution, ResolveSide } from '../control/messages.ts';
import {
  DiscardSide, type Operator, type Refusal, type ResolveRequest, type ResolveResult,
} from '../core/operator.ts';
import type { Resource } from '../core/resource.ts';
import type { Order } from './worker-protocol.ts';

type UndoSink = NonNullable<ResolveRequest['undo']>;
type UndoSource = Parameters<Operator['undo']>[0];

/** What an undo file says of itself: whose data it holds, and what was kept instead. */
export interface UndoInfo {
  resource: string;
  mediaSize: number;
  /** Seconds since 1970. */
  createdAt: number;
  /** A DiscardSide, as the operator said it on this node. */
  discarded: number;
  copyId: bigint;
  generation: bigint;
  keptCopyId: bigint;
  keptGeneration: bigint;
}

/** `abandon` removes a file that was not sealed. */
export type UndoWriter = UndoSink & { abandon(): void };
/** `verify` reads all of it before the first range is given out; `problem` says what is wrong. */
type UndoReader = UndoSource & {
  readonly info: UndoInfo;
  readonly problem: string;
  verify(done: (errno: number) => void): void;
  close(): void;
};

/** Both reject with a HastError. */
export interface UndoFiles {
  create(file: string, info: UndoInfo): Promise<UndoWriter>;
  open(file: string): Promise<UndoReader>;
}

/** What an order needs of the worker. */
export interface OrderHost {
  readonly resource: Resource;
  readonly undoFiles: UndoFiles;
  attach(done: (error: HastError | null) => void): void;
}

export type OrderDone = (error: HastError | null, resolution: Resolution | null) => void;

/** Calls `done` once, later. Nothing that goes wrong here ends the worker. */
export function carryOut(order: Order, host: OrderHost, done: OrderDone): void {
  run(order, host).then((resolution) => done(null, resolution), (error: unknown) => {
    const known = error instanceof HastError;
    done(known ? error : new HastError('HAST_E_INTERNAL', errorText(error)), null);
  });
}

async function run(order: Order, host: OrderHost): Promise<Resolution | null> {
  const { operator } = host.resource;
  switch (order.kind) {
    case 'resync':
      operator.pauseResync(order.paused);
      return null;
    case 'detach':
      await settled((done) => operator.detach(done));
      return null;
    case 'peer-gone':
      await settled((done) => operator.peerGone(done));
      return null;
    case 'attach':
      await new Promise<void>((resolve, reject) => {
        host.attach((error) => {
          if (error === null) resolve();
          else reject(error);
        });
      });
      return null;
    case 'resolve':
      return await resolveSplitBrain(order, host);
    case 'switchover':
      await settled((done) => operator.switchover.say(order.say, done));
      return null;
    case 'undo':
      await putBack(order.file, host);
      return null;
  }
}

export function refused({ message, hint }: Refusal): HastError {
  return new HastError('HAST_E_REFUSED', message, hint === '' ? {} : { hint });
}

function settled(ask: (done: (refusal: Refusal | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    ask((refusal) => {
      if (refusal === null) resolve();
      else reject(refused(refusal));
    });
  });
}

/** The file is made after the core said what it would do, and removed if it then refuses. */
async function resolveSplitBrain(
  { discard, dryRun, undo }: Extract<Order, { kind: 'resolve' }>,
  { resource, undoFiles }: OrderHost,
): Promise<Resolution> {
  const ask = async (isDry: boolean, sink: UndoSink | null): Promise<Resolution> => {
    const request = { discard: DiscardSide[discard], dryRun: isDry, undo: sink };
    const result = await new Promise<ResolveResult>((resolve) => {
      resource.operator.resolve(request, resolve);
    });
    if (result.refusal !== null) throw refused(result.refusal);
    const { localGeneration, peerGeneration, local, peer, copyBytes, full } = result;
    return { localGeneration, peerGeneration, local, peer, copyBytes, full };
  };
  if (undo === null || dryRun) return await ask(dryRun, null);
  const planned = await ask(true, null);
  const writer = await undoFiles.create(undo, undoInfo(resource, discard, planned));
  try {
    return await ask(false, writer);
  } catch (error) {
    writer.abandon();
    throw error;
  }
}

function undoInfo(resource: Resource, discard: ResolveSide, planned: Resolution): UndoInfo {
  const { store, options, mediaSize, clock } = resource.context;
  const { copyId, peerCopyId } = store.value;
  if (peerCopyId === 0n) {
    throw new HastError('HAST_E_REFUSED', 'this copy does not know the id of the peer’s copy', {
      hint: 'resolve without --undo',
    });
  }
  const local = { id: copyId, generation: BigInt(`0x${planned.localGeneration}`) };
  const peer = { id: peerCopyId, generation: BigInt(`0x${planned.peerGeneration}`) };
  const [given, kept] = discard === 'local' ? [local, peer] : [peer, local];
  return {
    resource: options.resource, mediaSize, createdAt: clock.wallSeconds(),
    discarded: DiscardSide[discard],
    copyId: given.id, generation: given.generation,
    keptCopyId: kept.id, keptGeneration: kept.generation,
  };
}

async function putBack(file: string, { resource, undoFiles }: OrderHost): Promise<void> {
  const { options, mediaSize } = resource.context;
  const reader = await undoFiles.open(file);
  try {
    if (reader.info.resource !== options.resource || reader.info.mediaSize !== mediaSize) {
      throw new HastError(
        'HAST_E_REFUSED', `${file} belongs to resource ${reader.info.resource}`,
        { hint: `a file that hastctl resolve --undo made for ${options.resource}` },
      );
    }
    const errno = await new Promise<number>((resolve) => reader.verify(resolve));
    if (errno !== 0) {
      throw new HastError('HAST_E_CORRUPT', reader.problem, { hint: 'nothing was put back' });
    }
    await settled((done) => resource.operator.undo(reader, done));
  } finally {
    reader.close();
  }
}
