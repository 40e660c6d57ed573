/**
 * HOT PATH. The front end that speaks FUSE itself: starts the reader threads and is the engine's
 * end of the shared slots. `npm run bench`, write-32 without a ring: local 0.3 to 0.4 of bare;
 * docs/decisions/006-front-ends.md has more.
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
import { setNonBlocking } from '../base/libc.ts';
import type { Volume } from '../core/ports.ts';
import { requestResend, writeReply, writeReplyParts } from './device.ts';
import type { Frontend, FrontendStats } from './frontend.ts';
import type { IoThreadData, IoThreadMessage } from './io-thread.ts';
import { prepareMemory } from './memory.ts';
import { TRANSFER_SIZE_MAX, WAKE_PREFIX, type Negotiated } from './session.ts';
import { SlotRequest, type SlotOwner } from './slot-request.ts';
import {
  createSharedSlots, SlotMemory, SlotPool, SlotRing, StopMode, type SharedSlots,
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
const STOP_WAIT_MS = 5_000;

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
    // A process before this one may have read without waiting; where that cannot be undone,
    // reading costs time and works.
    setNonBlocking(this.fuseFd, false);
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

  reply(_slot: number, at: number, size: number): void {
    try {
      writeReply(this.fuseFd, this.memory.bytes, at, size);
    } catch (error) {
      this.failed(error);
    }
  }

  replyWith(_slot: number, at: number, size: number, data: Buffer): void {
    try {
      writeReplyParts(this.fuseFd, [this.memory.bytes.subarray(at, at + size), data]);
    } catch (error) {
      this.failed(error);
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
