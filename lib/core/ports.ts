/**
 * The contract between the core and everything outside it. The core calls these ports and is
 * called back by them; it does no I/O, reads no clock and draws no random number otherwise.
 *
 * Rules of every port:
 * - a callback is never called before the call that took it has returned;
 * - each callback is called exactly once, unless the whole core is dropped (crash, stop);
 * - buffers are lent until the callback.
 */
import type { Frame } from '../format/frame.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import type { UndoInfo } from '../format/undo.ts';

/** Memory that outlives the process that writes it, but not this boot of its machine. */
export interface SurvivingMemory {
  /** `inflightBytes` long (lib/format/inflight.ts). Lent for the life of the core. */
  readonly bytes: Uint8Array;
  /** Names this boot: `bootIdBytes` long. */
  readonly boot: Uint8Array;
  /**
   * What is in it was left by the process before, whose primary role this one takes over. Where it
   * is not set, the contents mean nothing.
   */
  readonly inherited: boolean;
}

/** What the file system above asks for. `zero` and `discard` both end with zeros to read. */
export const AppOp = { read: 1, write: 2, flush: 3, zero: 4, discard: 5 } as const;
export type AppOp = (typeof AppOp)[keyof typeof AppOp];

/**
 * One request of the application, owned by the front end and lent to the volume from
 * `submit` until `complete`. Front ends keep a pool of them.
 */
export interface AppRequest {
  op: AppOp;
  /** Byte offset in the volume; any alignment. */
  offset: number;
  /** Bytes; 0 for flush. Reads and writes: at most 1 MiB. zero/discard: up to 4 GiB. */
  length: number;
  /** Payload memory of reads (filled before `complete(0)`) and writes. */
  buffer: Buffer;
  bufferOffset: number;
  /** Bytes before `bufferOffset` that may be overwritten until `complete` (for a header). */
  headroom: number;
  /** errno as a positive number, 0 for success. Called exactly once. */
  complete(errno: number): void;
  /**
   * As complete(), while a disk that does not answer may still read or write `buffer`: the memory
   * is not used again before the returned function is called. A read is answered from `data`.
   */
  completeHeld(errno: number, data: Buffer | null): () => void;
}

/** What a front end serves: one linear range of bytes. */
export interface Volume {
  /** Bytes; constant for the life of the front end. */
  readonly size: number;
  /**
   * Takes the request over. Ranges outside `size` complete with EINVAL. Overlapping writes in
   * flight are put into one order; a flush covers every write completed before it was submitted.
   */
  submit(request: AppRequest): void;
}

/** errno 0 is success. */
export type Done = (errno: number) => void;

/** Bytes for one place in `local`. */
export interface DurableWrite {
  offset: number;
  raw: Buffer;
}

/**
 * The local copy. Offsets are absolute in `local`. Each transfer is complete or an error:
 * never short.
 */
export interface DiskPort {
  read(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void;
  write(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void;
  /** Makes every write completed before this call durable. */
  flush(done: Done): void;
  /** The range reads as zeros afterwards; `discard` also gives the space back where it can. */
  zero(offset: number, length: number, discard: boolean, done: Done): void;
  /** A write that is durable when it is done (O_DSYNC); used for metadata only. */
  writeDurable(offset: number, buffer: Buffer, done: Done): void;
  /**
   * As writeDurable, of at least one, none over another, in no order. Done when all of them are
   * durable; after an error any of them may be.
   */
  writeAllDurable(writes: readonly DurableWrite[], done: Done): void;
}

/** One connection to the peer, after the preface. Frames keep their order. */
export interface LinkPort {
  /** Queues the frame. Its payload is lent until the link has sent it or is closed. */
  send(frame: Frame): void;
  /** Ends the connection at once; the handler hears nothing more. */
  close(): void;
  /** Ends it after what is queued was sent, bounded by a few seconds. */
  finish(): void;
}

/** What the core hears of a link. */
export interface LinkHandler {
  frame(frame: Frame): void;
  /** The connection ended, or what came is no frame (`isBad`). Called at most once. */
  closed(reason: string, isBad?: boolean): void;
}

export type OpenLink = (handler: LinkHandler) => LinkPort;

export type ConnectResult =
  | { open: OpenLink }
  /** `answered`: something at the peer's address spoke, so a hastd may be alive there. */
  | { failed: string; answered: boolean };

export interface ConnectPort {
  /** One attempt, bounded by the resource's timeout. */
  connect(isPrimary: boolean, done: (result: ConnectResult) => void): void;
}

export interface ClockPort {
  /** Monotonic milliseconds. */
  now(): number;
  /** Wall clock, seconds since 1970: for display only, nothing depends on it. */
  wallSeconds(): number;
}

export interface RandomPort {
  /** A random 64-bit id, never 0. */
  id64(): bigint;
  /** A number in [0, 1): back-off jitter. */
  unit(): number;
}

/** Events in the original's words, for hooks and logs. */
export type ResourceEvent =
  | { kind: 'connect' }
  | { kind: 'disconnect'; reason: string }
  | { kind: 'syncstart' }
  | { kind: 'syncdone' }
  | { kind: 'syncintr' }
  | { kind: 'split-brain' }
  /** Beyond the original's: the local copy is no longer used; it is in use again. */
  | { kind: 'detach' }
  | { kind: 'attach' };

export interface EventPort {
  event(event: ResourceEvent): void;
  /** What the peer says of a switchover. Without it a question is answered with "not here". */
  switchover?(said: SwitchoverSaid): void;
}

export interface TurnPort {
  /** Asks for one call of `Resource.turnEnd()` when the present inputs have been taken. */
  request(): void;
  /** `Resource.nextDeadline()` may be earlier than it was. */
  deadlineChanged(): void;
}

/**
 * Keeps what is about to be overwritten. `add` is called one at a time; `seal` makes everything
 * added durable and the file whole.
 */
export interface UndoSink {
  add(offset: number, data: Buffer, dataOffset: number, length: number,
    done: (errno: number) => void): void;
  seal(done: (errno: number) => void): void;
}

/** One that an UndoStore made. */
export interface KeptSink extends UndoSink {
  /** Where it is, for the operator. */
  readonly name: string;
  /** Removes it, sealed or not, while nothing is under way. */
  abandon(): void;
}

/** Where the core keeps what it overwrites without having been asked for it. */
export interface UndoStore {
  /** `sink` is null where `errno` is not 0. */
  create(info: UndoInfo, done: (errno: number, sink: KeptSink | null) => void): void;
}

/** Reads back what an UndoSink kept, in order; a null range is the end. */
export interface UndoSource {
  next(done: (errno: number, range: { offset: number; data: Buffer } | null) => void): void;
}
