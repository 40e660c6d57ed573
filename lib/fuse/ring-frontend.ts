/**
 * HOT PATH. The direct front end without threads: the engine's own thread reads /dev/fuse and
 * answers, through its ring. `npm run bench`, read-32: local 0.75 to 0.96 of a bare loop device;
 * docs/decisions/016-one-thread-and-a-ring.md has the reasons.
 *
 * - Reads that find nothing wait in the ring. Each request wakes all that wait, so there are as
 *   many as rounds found requests lately: one at depth 1. The description is set to O_NONBLOCK:
 *   a request may be withdrawn between the ring's look and its read, which would wait then.
 * - A slot is free when its request is done and its reply has left: the reply's bytes are in it.
 * - The slots are made resident before the first request. Later, the thread that serves the device
 *   could wait for memory, and the memory for what the device has not written yet. (Why pages must
 *   be there before the kernel reads into them: io-thread.ts.) Those of the reserve are when one
 *   is needed.
 * - Requests complete exactly once, and a request answered while a disk may still use its slot
 *   keeps it; one of the reserve joins in its place (see direct-frontend.ts).
 */
import * as util from 'node:util';
import { assert } from '../base/assert.ts';
import { HastError } from '../base/errors.ts';
import { addressOf, setNonBlocking } from '../base/libc.ts';
import type { Volume } from '../core/ports.ts';
import {
  type Reactor, type Ring, RingOpcode, type RingOp, type TurnEnd,
} from '../uring/reactor.ts';
import { copyUnique } from './decode.ts';
import { requestResend, writeReplyParts } from './device.ts';
import type { DirectFrontendOptions } from './direct-frontend.ts';
import { EIO } from './errno.ts';
import type { Frontend, FrontendStats } from './frontend.ts';
import { alignedMemory, makeResident, prepareMemory } from './memory.ts';
import { Outcome, Session, TRANSFER_SIZE_MAX, type Negotiated } from './session.ts';
import { SlotRequest, type SlotOwner } from './slot-request.ts';
import { REQUEST_AT, REQUEST_SIZE_MAX, SLOT_SIZE, SlotMemory } from './slots.ts';

const SLOTS_DEFAULT = 40;
/** Reads under way at most. */
const READS_MAX = 16;
const MOUNT_POLL_MS = 10;
const MOUNT_WAIT_MS = 30_000;

const EPERM = 1;
const ENOENT = 2;
const EINTR = 4;
const EAGAIN = 11;
const ENODEV = 19;
const ECONNABORTED = 103;
const ECANCELED = 125;

/** What the ring does for one slot: a read into it, or the reply of what was read. */
class SlotOp implements RingOp {
  readonly #slot: number;
  readonly #told: (slot: number, result: number) => void;

  constructor(slot: number, told: (slot: number, result: number) => void) {
    this.#slot = slot;
    this.#told = told;
  }

  completed(result: number): void {
    this.#told(this.#slot, result);
  }
}

const ignored: RingOp = { completed: () => undefined };

export class RingFrontend implements Frontend, SlotOwner, TurnEnd {
  readonly memory: SlotMemory;
  readonly stats: FrontendStats;
  negotiated: Negotiated | null;
  readonly #ring: Ring;
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #base: number;
  readonly #isSuccessor: boolean;
  readonly #bytes: SharedArrayBuffer;
  readonly #onUnlocked: ((errno: number) => void) | undefined;
  readonly #requests: SlotRequest[] = [];
  readonly #reads: SlotOp[] = [];
  readonly #replies: SlotOp[] = [];
  /** Free slots, the next one last; and those that replace held ones. */
  readonly #free: number[] = [];
  readonly #reserve: number[] = [];
  readonly #resident: Uint8Array;
  /** Replies of a slot that have not left; a slot released before waits for them. */
  readonly #replying: Uint8Array;
  readonly #isReleased: Uint8Array;
  #saidUnlocked = false;
  #volume: Volume | null = null;
  #session: Session | null = null;
  #ready: ((error: Error | null) => void) | null = null;
  #endListener: ((error: Error | null) => void) | null = null;
  #ended = false;
  #inFlight = 0;
  #unreplaced = 0;
  /** Reads under way, how many there are to be, and how many found a request in this round. */
  #reading = 0;
  #wanted = 1;
  #found = 0;
  #isAsked = false;
  /** Waits for the mount. */
  #pause: NodeJS.Timeout | null = null;
  /** The number of the read into a slot, or -1. */
  readonly #readIds: number[] = [];
  #notMountedMs = 0;
  #failing = false;
  #stopDone: ((ended: boolean) => void) | null = null;

  constructor(options: DirectFrontendOptions, reactor: Reactor) {
    this.#ring = reactor.ring;
    this.#reactor = reactor;
    this.#fd = options.fuseFd;
    this.#isSuccessor = options.takeOver !== undefined;
    this.negotiated = options.takeOver?.negotiated ?? null;
    this.#onUnlocked = options.onUnlocked;
    const inUse = options.slots ?? SLOTS_DEFAULT;
    const slots = 2 * inUse;
    this.#bytes = alignedMemory(slots * SLOT_SIZE);
    this.memory = new SlotMemory({ memory: this.#bytes });
    this.#base = addressOf(this.memory.bytes);
    this.#resident = new Uint8Array(slots);
    this.#replying = new Uint8Array(slots);
    this.#isReleased = new Uint8Array(slots);
    const onRead = (slot: number, result: number): void => this.#wasRead(slot, result);
    const onReply = (slot: number, result: number): void => this.#replied(slot, result);
    for (let slot = slots - 1; slot >= 0; slot--) {
      this.#requests[slot] = new SlotRequest(slot, this);
      this.#reads[slot] = new SlotOp(slot, onRead);
      this.#readIds[slot] = -1;
      this.#replies[slot] = new SlotOp(slot, onReply);
      (slot < inUse ? this.#free : this.#reserve).push(slot);
    }
    const inFlight = (): number => this.#inFlight;
    const idle = (): number => this.#free.length + this.#reading;
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
    this.#session = new Session(volume.size);
    this.#session.negotiated = this.negotiated;
    const refusal = this.#prepare();
    if (refusal !== null) {
      setImmediate(ready, refusal);
      return;
    }
    this.#ready = ready;
    setImmediate(() => {
      this.#sayReady();
      this.#readMore();
    });
  }

  onEnd(listener: (error: Error | null) => void): void {
    this.#endListener = listener;
  }

  /** No thread of this front end is ever in the kernel, so it always ends. */
  stop(done: (ended: boolean) => void, fail = false): void {
    assert(this.#stopDone === null, 'the front end was stopped twice');
    this.#stopDone = done;
    this.#failing = fail;
    if (fail) for (const request of this.#requests) request.failNow();
    if (this.#pause !== null) clearTimeout(this.#pause);
    // A read that finds nothing waits in the ring, in spite of O_NONBLOCK.
    for (const id of this.#readIds) if (id >= 0) this.#ring.cancel(ignored, id);
    if (this.#reading === 0) setImmediate(() => this.#finishStop());
  }

  reply(slot: number, at: number, size: number): void {
    this.#replying[slot] = (this.#replying[slot] as number) + 1;
    const op = this.#replies[slot] as SlotOp;
    this.#ring.prepare(op, RingOpcode.write, this.#fd, this.#base + at, size, 0);
  }

  replyWith(_slot: number, at: number, size: number, data: Buffer): void {
    try {
      writeReplyParts(this.#fd, [this.memory.bytes.subarray(at, at + size), data]);
    } catch (error) {
      this.#fail(error);
    }
  }

  #replied(slot: number, result: number): void {
    const left = (this.#replying[slot] as number) - 1;
    this.#replying[slot] = left;
    // Who waited for it knows already: it was withdrawn, or the connection is gone.
    const isRefused = result < 0 && result !== -ENOENT && result !== -ENODEV &&
      result !== -ECONNABORTED;
    if (isRefused) this.#fail(deviceError('the kernel refused a FUSE reply', -result));
    if (left === 0 && this.#isReleased[slot] === 1) this.#giveBack(slot);
  }

  released(slot: number): void {
    this.#inFlight--;
    if (this.#replying[slot] === 0) this.#giveBack(slot);
    else this.#isReleased[slot] = 1;
  }

  held(): void {
    const slot = this.#reserve.pop();
    if (slot === undefined) this.#unreplaced++;
    else this.#giveBack(slot);
  }

  heldReleased(slot: number): void {
    this.#inFlight--;
    if (this.#unreplaced === 0) {
      this.#reserve.push(slot);
      return;
    }
    this.#unreplaced--;
    if (this.#replying[slot] === 0) this.#giveBack(slot);
    else this.#isReleased[slot] = 1;
  }

  #wasRead(slot: number, result: number): void {
    this.#readIds[slot] = -1;
    this.#reading--;
    if (result > 0) {
      this.#found++;
      this.#handle(slot, result);
    } else {
      this.#free.push(slot);
      this.#nothingRead(-result);
    }
    if (this.#stopDone === null) this.#ask();
    else if (this.#reading === 0) this.#finishStop();
  }

  /** The round is over: what it found says how many reads are to wait. */
  turnEnd(): void {
    this.#isAsked = false;
    const found = this.#found;
    this.#found = 0;
    this.#wanted = found < this.#wanted ? Math.max(1, found) : Math.min(READS_MAX, 2 * found);
    this.#readMore();
  }

  #ask(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    this.#reactor.later(this);
  }

  #nothingRead(errno: number): void {
    switch (errno) {
      // ENOENT: a request was withdrawn while it was read.
      case EAGAIN: case EINTR: case ENOENT: case ECANCELED: return;
      case ENODEV: case ECONNABORTED: this.#end(null); return;
      case EPERM: this.#notMounted(); return;
      case 0: this.#fail(deviceError('the descriptor is not /dev/fuse', 0)); return;
      default: this.#fail(deviceError('reading /dev/fuse failed', errno));
    }
  }

  /** Somebody else mounts the descriptor; until then every read fails at once. */
  #notMounted(): void {
    if (this.#pause !== null) return;
    if (this.#notMountedMs >= MOUNT_WAIT_MS) {
      this.#fail(new HastError('HAST_E_TIMEOUT', 'the FUSE descriptor was not mounted in time'));
      return;
    }
    this.#notMountedMs += MOUNT_POLL_MS;
    this.#pause = setTimeout(() => {
      this.#pause = null;
      this.#readMore();
    }, MOUNT_POLL_MS);
  }

  /** Where no slot is free, the next one that is given back goes on. */
  #readMore(): void {
    if (this.#ended || this.#stopDone !== null || this.#pause !== null) return;
    while (this.#reading < this.#wanted) {
      const slot = this.#free.pop();
      if (slot === undefined) return;
      this.#read(slot);
    }
  }

  #read(slot: number): void {
    if (this.#resident[slot] === 0) this.#makeResident(slot);
    const address = this.#base + slot * SLOT_SIZE + REQUEST_AT;
    const op = this.#reads[slot] as SlotOp;
    this.#readIds[slot] = this.#ring.prepare(
      op, RingOpcode.read, this.#fd, address, REQUEST_SIZE_MAX, 0,
    );
    this.#reading++;
  }

  #handle(slot: number, length: number): void {
    const { memory } = this;
    const session = this.#session as Session;
    const at = slot * SLOT_SIZE + REQUEST_AT;
    const outcome = session.handle(memory.view, at, length);
    if (outcome === Outcome.silence) {
      this.#free.push(slot);
      return;
    }
    if (outcome === Outcome.work) {
      if (!this.#failing) {
        this.#submit(slot, at);
        return;
      }
      session.fail(EIO);
    }
    const base = slot * SLOT_SIZE;
    session.reply.copy(memory.bytes, base, 0, session.replySize);
    this.#isReleased[slot] = 1;
    this.reply(slot, base, session.replySize);
    this.#sayReady();
    if (session.refusal !== null) this.#fail(new HastError('HAST_E_UNSUPPORTED', session.refusal));
  }

  #submit(slot: number, at: number): void {
    const { op, offset, length } = (this.#session as Session).work;
    const { view } = this.memory;
    copyUnique(view, at, view, SlotMemory.uniqueAt(slot));
    this.memory.setWork(slot, op, offset, length);
    const request = this.#requests[slot] as SlotRequest;
    request.load();
    this.#inFlight++;
    this.volume.submit(request);
  }

  #giveBack(slot: number): void {
    this.#isReleased[slot] = 0;
    this.#free.push(slot);
    if (this.#reading < this.#wanted) this.#readMore();
  }

  #makeResident(slot: number): void {
    const at = slot * SLOT_SIZE;
    const errno = makeResident(this.memory.bytes.subarray(at, at + SLOT_SIZE));
    this.#resident[slot] = 1;
    if (errno === 0 || this.#saidUnlocked) return;
    this.#saidUnlocked = true;
    this.#onUnlocked?.(errno);
  }

  /** Why the connection cannot be served, or null. */
  #prepare(): Error | null {
    prepareMemory(this.#bytes);
    for (const slot of this.#free) this.#makeResident(slot);
    if (this.#isSuccessor) {
      if (this.negotiated !== null && this.negotiated.maxWrite > TRANSFER_SIZE_MAX) {
        return new HastError('HAST_E_UNSUPPORTED', 'the requests of this mount are too large');
      }
      try {
        requestResend(this.#fd);
      } catch (error) {
        return error as Error;
      }
    }
    const errno = setNonBlocking(this.#fd, true);
    if (errno !== 0) return deviceError('the FUSE descriptor cannot be set up', errno);
    return null;
  }

  #sayReady(): void {
    const negotiated = this.#session?.negotiated ?? null;
    if (this.#ready === null || negotiated === null) return;
    this.negotiated = negotiated;
    const ready = this.#ready;
    this.#ready = null;
    ready(null);
  }

  #fail(error: unknown): void {
    this.#end(error instanceof Error ? error : new Error(String(error)));
  }

  #end(error: Error | null): void {
    if (this.#ended || this.#stopDone !== null) return;
    this.#ended = true;
    this.#ready?.(error ?? new HastError('HAST_E_DEVICE', 'unmounted before it could be used'));
    this.#ready = null;
    this.#endListener?.(error);
  }

  #finishStop(): void {
    const done = this.#stopDone;
    this.#stopDone = () => undefined;
    done?.(true);
  }
}

function deviceError(what: string, errno: number): HastError {
  if (errno === 0) return new HastError('HAST_E_DEVICE', what);
  return new HastError('HAST_E_DEVICE', `${what} (errno ${errno})`, {
    errno: util.getSystemErrorName(-errno),
  });
}
