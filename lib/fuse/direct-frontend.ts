/**
 * HOT PATH. The front end that speaks FUSE itself: starts the reader threads and is the engine's
 * end of the shared slots. Measured in docs/decisions/006-front-ends.md.
 *
 * - One `SlotRequest` per slot, made once: no allocation, promise or closure per request.
 * - A reply is one write() from the engine's thread. A slot is free only after it: the payload
 *   of a READ lies in it until then.
 * - Requests complete exactly once; a second `complete` is a bug of the volume (assertion).
 * - A request answered while a disk may still use its slot (completeHeld) keeps the slot, and one
 *   of the reserve joins the pool in its place: a disk that hangs with every slot must not stop
 *   what is served without it.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Worker } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { HastError } from '../base/errors.ts';
import { AppOp, type AppRequest, type Volume } from '../core/ports.ts';
import { requestResend, writeReply, writeReplyParts } from './device.ts';
import { EIO, replyErrno } from './errno.ts';
import type { Frontend, FrontendStats } from './frontend.ts';
import type { IoThreadData, IoThreadMessage } from './io-thread.ts';
import { prepareMemory } from './memory.ts';
import { TRANSFER_SIZE_MAX, WAKE_PREFIX, type Negotiated } from './session.ts';
import {
  createSharedSlots, PAYLOAD_AT, READ_REPLY_AT, REQUEST_HEAD_SIZE, SLOT_SIZE, SlotMemory,
  SlotPool, SlotRing, StopMode, type SharedSlots,
} from './slots.ts';

export interface DirectFrontendOptions {
  /** An open /dev/fuse description, mounted at `mountPoint` by somebody else. */
  fuseFd: number;
  mountPoint: string;
  /** Default 1: small requests are bound by the loop driver; 2 help transfers of 1 MiB. */
  readers?: number;
  /** Requests in flight at most. Default 64. */
  slots?: number;
  /**
   * The process that served the mounted description is dead: what it had read and not answered is
   * asked for again. What it had settled with the kernel; null where it did not come so far.
   */
  takeOver?: { negotiated: Negotiated | null };
  /** Told once where buffers can be swapped out: the errno of mlock. */
  onUnlocked?: (errno: number) => void;
}

const SLOTS_DEFAULT = 64;
/** The contract's limit for one range operation; larger ones are made of several. */
const RANGE_SIZE_MAX = 4 * 1024 ** 3;
const STOP_WAIT_MS = 5_000;

/** What a request needs of its front end. */
interface SlotOwner {
  readonly fuseFd: number;
  readonly memory: SlotMemory;
  readonly volume: Volume;
  released(slot: number): void;
  /** The slot is answered and not free: its release comes by `heldReleased`. */
  held(): void;
  heldReleased(slot: number): void;
  failed(error: unknown): void;
}

class SlotRequest implements AppRequest {
  op: AppOp = AppOp.read;
  offset = 0;
  length = 0;
  readonly buffer: Buffer;
  readonly bufferOffset: number;
  readonly headroom = REQUEST_HEAD_SIZE;
  /** Lent to the volume. */
  busy = false;
  /** The kernel has its answer although the volume has not finished. */
  #answered = false;
  /** Answered, and the slot still belongs to a disk operation. */
  #held = false;
  /** Bytes of a range operation that follow the piece in flight. */
  #rest = 0;
  readonly #slot: number;
  readonly #owner: SlotOwner;

  constructor(slot: number, owner: SlotOwner) {
    this.#slot = slot;
    this.#owner = owner;
    this.buffer = owner.memory.bytes;
    this.bufferOffset = slot * SLOT_SIZE + PAYLOAD_AT;
  }

  /** Takes up what the reader left in the slot. */
  load(): void {
    const memory = this.#owner.memory;
    const slot = this.#slot;
    assert(!this.busy, 'a slot was handed over twice');
    this.busy = true;
    this.#answered = false;
    this.op = memory.workOp(slot) as AppOp;
    this.offset = memory.workOffset(slot);
    const length = memory.workLength(slot);
    this.length = Math.min(length, RANGE_SIZE_MAX);
    this.#rest = length - this.length;
  }

  /** Bound once, so that the volume may pass it on as a function. */
  readonly complete = (errno: number): void => {
    assert(this.busy && !this.#held, 'a request completed twice');
    if (errno === 0 && this.#rest > 0 && !this.#answered) {
      setImmediate(() => this.#continueRange());
      return;
    }
    if (!this.#answered) this.#reply(replyErrno(errno));
    this.busy = false;
    this.#owner.released(this.#slot);
  };

  /**
   * See AppRequest. Of a range operation in several pieces the rest was not begun: without an
   * errno of its own it ends with EIO, as nothing may say that the whole range is done.
   */
  completeHeld(errno: number, data: Buffer | null): () => void {
    assert(this.busy && !this.#held, 'a request completed twice');
    this.#held = true;
    if (!this.#answered) this.#replyHeld(errno === 0 && this.#rest > 0 ? EIO : errno, data);
    this.#answered = true;
    this.#rest = 0;
    this.#owner.held();
    let released = false;
    return () => {
      assert(!released, 'a held request was released twice');
      released = true;
      this.busy = false;
      this.#held = false;
      this.#owner.heldReleased(this.#slot);
    };
  }

  /** Answers now; the volume goes on owning the slot until it completes. */
  failNow(): void {
    if (!this.busy || this.#answered) return;
    this.#reply(EIO);
    this.#answered = true;
  }

  #continueRange(): void {
    this.offset += this.length;
    this.length = Math.min(this.#rest, RANGE_SIZE_MAX);
    this.#rest -= this.length;
    this.#owner.volume.submit(this);
  }

  /** The payload comes from elsewhere: a disk may be writing into the slot at this moment. */
  #replyHeld(errno: number, data: Buffer | null): void {
    if (this.op !== AppOp.read || errno !== 0) {
      this.#reply(replyErrno(errno));
      return;
    }
    assert(data !== null && data.length >= this.length, 'a read without its data');
    const { memory, fuseFd } = this.#owner;
    const at = this.#slot * SLOT_SIZE;
    const size = memory.encodeReplyBefore(this.#slot, this.length);
    try {
      const head = memory.bytes.subarray(at, at + size);
      writeReplyParts(fuseFd, [head, data.subarray(0, this.length)]);
    } catch (error) {
      this.#owner.failed(error);
    }
  }

  #reply(errno: number): void {
    const { memory, fuseFd } = this.#owner;
    const slot = this.#slot;
    const base = slot * SLOT_SIZE;
    try {
      if (this.op === AppOp.read && errno === 0) {
        const size = memory.encodeReadReply(slot, this.length);
        writeReply(fuseFd, memory.bytes, base + READ_REPLY_AT, size);
      } else {
        const written = this.op === AppOp.write && errno === 0 ? this.length : 0;
        writeReply(fuseFd, memory.bytes, base, memory.encodeReply(slot, errno, written));
      }
    } catch (error) {
      this.#owner.failed(error);
    }
  }
}

class DirectFrontend implements Frontend, SlotOwner {
  readonly fuseFd: number;
  readonly memory: SlotMemory;
  readonly stats: FrontendStats;
  negotiated: Negotiated | null;
  readonly #isSuccessor: boolean;
  readonly #mountPoint: string;
  #onUnlocked: ((errno: number) => void) | undefined;
  readonly #shared: SharedSlots;
  readonly #pool: SlotPool;
  readonly #rings: SlotRing[] = [];
  readonly #requests: SlotRequest[] = [];
  /** Slots outside the pool, one to replace each that is held; as many as the pool has. */
  readonly #reserve: number[] = [];
  #volume: Volume | null = null;
  #ready: ((error: Error | null) => void) | null = null;
  #endListener: ((error: Error | null) => void) | null = null;
  #ended = false;
  #liveReaders = 0;
  #inFlight = 0;
  /** Held slots for which the reserve had none. */
  #unreplaced = 0;
  #stopDone: ((ended: boolean) => void) | null = null;
  #stopTimer: NodeJS.Timeout | null = null;

  constructor(options: DirectFrontendOptions) {
    this.fuseFd = options.fuseFd;
    this.#isSuccessor = options.takeOver !== undefined;
    this.#onUnlocked = options.onUnlocked;
    this.negotiated = options.takeOver?.negotiated ?? null;
    this.#mountPoint = options.mountPoint;
    const inUse = options.slots ?? SLOTS_DEFAULT;
    this.#shared = createSharedSlots(2 * inUse, options.readers ?? 1);
    this.memory = new SlotMemory(this.#shared);
    this.#pool = new SlotPool(this.#shared);
    const { slots, readers } = this.#shared;
    for (let slot = 0; slot < slots + readers; slot++) {
      this.#requests.push(new SlotRequest(slot, this));
    }
    for (let slot = 0; slot < slots; slot++) this.#reserve.push(this.#pool.tryTake());
    for (const slot of this.#reserve.splice(0, inUse)) this.#pool.release(slot);
    const inFlight = (): number => this.#inFlight;
    const idle = (): number => this.#pool.freeCount;
    this.stats = {
      get inFlight() {
        return inFlight();
      },
      get idle() {
        return idle();
      },
    };
  }

  get volume(): Volume {
    assert(this.#volume !== null, 'the front end was not started');
    return this.#volume;
  }

  start(volume: Volume, ready: (error: Error | null) => void): void {
    assert(this.#volume === null, 'the front end was started twice');
    this.#volume = volume;
    const refusal = this.#takeOver();
    if (refusal !== null) {
      setImmediate(ready, refusal);
      return;
    }
    this.#ready = ready;
    prepareMemory(this.#shared.memory);
    for (let reader = 0; reader < this.#shared.readers; reader++) this.#startReader(reader);
  }

  onEnd(listener: (error: Error | null) => void): void {
    this.#endListener = listener;
  }

  stop(done: (ended: boolean) => void, fail = false): void {
    assert(this.#stopDone === null, 'the front end was stopped twice');
    this.#stopDone = done;
    this.#pool.stop(fail ? StopMode.failRequests : StopMode.keepServing);
    if (fail) for (const request of this.#requests) request.failNow();
    if (this.#liveReaders === 0) {
      setImmediate(() => this.#finishStop(true));
      return;
    }
    this.#stopTimer = setTimeout(() => this.#finishStop(false), STOP_WAIT_MS);
    // A thread in read() notices nothing, so each gets a request: exactly one, because one that
    // comes after the last reader has ended would block a thread of Node's pool for ever.
    for (let reader = 0; reader < this.#liveReaders; reader++) {
      fs.stat(path.join(this.#mountPoint, `${WAKE_PREFIX}${reader}`), () => undefined);
    }
  }

  released(slot: number): void {
    this.#inFlight--;
    this.#pool.release(slot);
  }

  held(): void {
    const slot = this.#reserve.pop();
    if (slot === undefined) this.#unreplaced++;
    else this.#pool.release(slot);
  }

  heldReleased(slot: number): void {
    this.#inFlight--;
    // The extra slot of a reader belongs to no pool: what replaced it stays there.
    if (slot >= this.#shared.slots) return;
    if (this.#unreplaced > 0) {
      this.#unreplaced--;
      this.#pool.release(slot);
    } else {
      this.#reserve.push(slot);
    }
  }

  failed(error: unknown): void {
    this.#end(error instanceof Error ? error : new Error(String(error)));
  }

  /** Why the connection cannot be taken over, or null: also where it is this process's own. */
  #takeOver(): Error | null {
    if (!this.#isSuccessor) return null;
    if (this.negotiated !== null && this.negotiated.maxWrite > TRANSFER_SIZE_MAX) {
      return new HastError('HAST_E_UNSUPPORTED', 'the requests of this mount are too large');
    }
    try {
      requestResend(this.fuseFd);
      return null;
    } catch (error) {
      return error as Error;
    }
  }

  #startReader(reader: number): void {
    const data: IoThreadData = {
      hastIoThread: true,
      fuseFd: this.fuseFd,
      reader,
      volumeSize: this.volume.size,
      shared: this.#shared,
      negotiated: this.negotiated,
    };
    this.#rings.push(new SlotRing(this.#shared, reader));
    const worker = new Worker(new URL('./io-thread.js', import.meta.url), { workerData: data });
    this.#liveReaders++;
    let saidEnd = false;
    worker.on('message', (message: IoThreadMessage) => {
      if (message.type === 'end') saidEnd = true;
      this.#onMessage(message);
    });
    worker.on('error', (cause) => {
      this.failed(new HastError('HAST_E_INTERNAL', 'a FUSE reader thread failed', { cause }));
    });
    worker.on('exit', () => {
      if (!saidEnd) this.failed(new HastError('HAST_E_INTERNAL', 'a FUSE reader thread vanished'));
      this.#onReaderExit();
    });
  }

  #onMessage(message: IoThreadMessage): void {
    if (message.type === 'work') {
      this.#drain();
    } else if (message.type === 'ready') {
      this.negotiated = message.negotiated;
      this.#ready?.(null);
      this.#ready = null;
    } else if (message.type === 'unlocked') {
      this.#onUnlocked?.(message.errno);
      this.#onUnlocked = undefined;
    } else if (message.error !== null) {
      const options = message.errno === undefined ? {} : { errno: message.errno };
      this.failed(new HastError('HAST_E_DEVICE', message.error, options));
    }
  }

  /** What was handed over before the thread ended is still in its ring. */
  #onReaderExit(): void {
    this.#liveReaders--;
    this.#drain();
    if (this.#liveReaders > 0) return;
    if (this.#stopDone === null) this.#end(null);
    else this.#finishStop(true);
  }

  /** Submits everything in the rings, then sleeps until a reader's message. */
  #drain(): void {
    do {
      this.#pool.engineWakes();
      for (const ring of this.#rings) {
        for (let slot = ring.pop(); slot >= 0; slot = ring.pop()) this.#submit(slot);
      }
      this.#pool.engineSleeps();
    } while (this.#rings.some(isFilled));
  }

  #submit(slot: number): void {
    const request = this.#requests[slot];
    assert(request !== undefined, 'a slot outside the memory');
    request.load();
    this.#inFlight++;
    this.volume.submit(request);
  }

  #end(error: Error | null): void {
    if (this.#ended || this.#stopDone !== null) return;
    this.#ended = true;
    this.#ready?.(error ?? new HastError('HAST_E_DEVICE', 'unmounted before it could be used'));
    this.#ready = null;
    this.#endListener?.(error);
  }

  #finishStop(ended: boolean): void {
    if (this.#stopTimer !== null) clearTimeout(this.#stopTimer);
    this.#stopTimer = null;
    const done = this.#stopDone;
    this.#stopDone = () => undefined;
    done?.(ended);
  }
}

function isFilled(ring: SlotRing): boolean {
  return !ring.isEmpty;
}

export function createDirectFrontend(options: DirectFrontendOptions): Frontend {
  return new DirectFrontend(options);
}
