/**
 * HOT PATH. A reader thread: blocks in read(/dev/fuse), answers control requests by itself and
 * hands READ, WRITE, FSYNC and FALLOCATE to the engine through its ring. `npm run bench` without an
 * io_uring: see direct-frontend.ts.
 *
 * - It never waits for the engine except for a free slot, so the file system answers `stat`
 *   and `ls` while every request of the volume stalls.
 * - It ends in one of three ways, each told by an `end` message: unmounted, stopped (it answered
 *   a wake request while stopping), or an error. Whatever it throws is an error.
 * - A slot is made resident, whole, before the kernel reads into it for the first time: a page
 *   fault there while the process is being killed ends the request with EIO instead of leaving
 *   it to the next process (Linux fs/fuse/dev.c, fuse_copy_fill). Slots are taken lowest first,
 *   so the resident size follows the depth of the queue.
 */
import * as os from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { errorText, HastError } from '../base/errors.ts';
import { copyUnique } from './decode.ts';
import { READ_NOT_MOUNTED_YET, READ_UNMOUNTED, readRequest, writeReply } from './device.ts';
import { EIO } from './errno.ts';
import { makeResident } from './memory.ts';
import { Outcome, Session, type Negotiated } from './session.ts';
import {
  REQUEST_AT, REQUEST_SIZE_MAX, SLOT_SIZE, SlotMemory, SlotPool, SlotRing, StopMode,
  type SharedSlots,
} from './slots.ts';

export interface IoThreadData {
  hastIoThread: true;
  fuseFd: number;
  reader: number;
  volumeSize: number;
  shared: SharedSlots;
  /** What a former process settled with the kernel; null where INIT is still to come. */
  negotiated: Negotiated | null;
}

/** To the engine. `work` carries nothing: the rings do. */
export type IoThreadMessage =
  | { type: 'work' }
  /** INIT was answered: the file can be used. */
  | { type: 'ready'; negotiated: Negotiated }
  /** Buffers cannot be kept in memory; said once. */
  | { type: 'unlocked'; errno: number }
  | { type: 'end'; error: string | null; errno: string | undefined };

/** A lost wake-up would cost this much, not the request. */
const SLOT_WAIT_MS = 1000;
const MOUNT_POLL_MS = 10;
const MOUNT_WAIT_MS = 30_000;

const workMessage: IoThreadMessage = { type: 'work' };

class Reader {
  readonly #fd: number;
  readonly #extraSlot: number;
  readonly #session: Session;
  readonly #memory: SlotMemory;
  readonly #pool: SlotPool;
  readonly #ring: SlotRing;
  readonly #send: (message: IoThreadMessage) => void;
  /** 1 for slots of which every page is resident, indexed by slot. */
  readonly #resident: Uint8Array;
  #unlockedSent = false;
  #readySent = false;
  #notMountedMs = 0;

  constructor(data: IoThreadData, send: (message: IoThreadMessage) => void) {
    const { shared } = data;
    this.#fd = data.fuseFd;
    this.#extraSlot = shared.slots + data.reader;
    this.#session = new Session(data.volumeSize);
    this.#session.negotiated = data.negotiated;
    this.#memory = new SlotMemory(shared);
    this.#pool = new SlotPool(shared);
    this.#ring = new SlotRing(shared, data.reader);
    this.#send = send;
    this.#resident = new Uint8Array(shared.slots + shared.readers);
  }

  /** Returns when unmounted or stopped. */
  run(): void {
    this.#sayReady();
    let slot = -1;
    for (;;) {
      if (slot < 0) slot = this.#takeSlot();
      const at = slot * SLOT_SIZE + REQUEST_AT;
      const length = readRequest(this.#fd, this.#memory.bytes, at, REQUEST_SIZE_MAX);
      if (length === READ_UNMOUNTED) return;
      if (length === READ_NOT_MOUNTED_YET) {
        if (this.#pool.stopMode !== StopMode.none) return;
        this.#waitForMount();
      }
      if (length < 0) continue;
      if (this.#handle(slot, at, length)) slot = -1;
      if (this.#session.wake && this.#pool.stopMode !== StopMode.none) return;
    }
  }

  #takeSlot(): number {
    const taken = this.#pool.take(SLOT_WAIT_MS);
    const slot = taken < 0 ? this.#extraSlot : taken;
    if (this.#resident[slot] === 0) this.#makeResident(slot);
    return slot;
  }

  #makeResident(slot: number): void {
    const at = slot * SLOT_SIZE;
    const errno = makeResident(this.#memory.bytes.subarray(at, at + SLOT_SIZE));
    this.#resident[slot] = 1;
    if (errno === 0 || this.#unlockedSent) return;
    this.#unlockedSent = true;
    this.#send({ type: 'unlocked', errno });
  }

  #sayReady(): void {
    const { negotiated } = this.#session;
    if (this.#readySent || negotiated === null) return;
    this.#readySent = true;
    this.#send({ type: 'ready', negotiated });
  }

  /** True when the slot went to the engine. */
  #handle(slot: number, at: number, length: number): boolean {
    const session = this.#session;
    const outcome = session.handle(this.#memory.view, at, length);
    if (outcome === Outcome.silence) return false;
    if (outcome === Outcome.work) {
      if (this.#pool.stopMode !== StopMode.failRequests) {
        this.#handOver(slot, at);
        return true;
      }
      session.fail(EIO);
    }
    writeReply(this.#fd, session.reply, 0, session.replySize);
    this.#sayReady();
    if (session.refusal !== null) throw new HastError('HAST_E_UNSUPPORTED', session.refusal);
    return false;
  }

  #handOver(slot: number, at: number): void {
    const { op, offset, length } = this.#session.work;
    const view = this.#memory.view;
    copyUnique(view, at, view, SlotMemory.uniqueAt(slot));
    this.#memory.setWork(slot, op, offset, length);
    this.#ring.push(slot);
    if (this.#pool.claimWake()) this.#send(workMessage);
  }

  /** Somebody else mounts the descriptor; until then every read fails at once. */
  #waitForMount(): void {
    if (this.#notMountedMs >= MOUNT_WAIT_MS) {
      throw new HastError('HAST_E_TIMEOUT', 'the FUSE descriptor was not mounted in time');
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, MOUNT_POLL_MS);
    this.#notMountedMs += MOUNT_POLL_MS;
  }
}

function runThread(data: IoThreadData): void {
  const port = parentPort;
  assert(port !== null, 'not a thread');
  const send = (message: IoThreadMessage): void => port.postMessage(message);
  try {
    assert(os.endianness() === 'LE', 'big-endian machines are not supported');
    new Reader(data, send).run();
    send({ type: 'end', error: null, errno: undefined });
  } catch (error) {
    const errno = error instanceof HastError ? error.errno : undefined;
    send({ type: 'end', error: errorText(error), errno });
  }
}

function isIoThreadData(data: unknown): data is IoThreadData {
  return typeof data === 'object' && data !== null && 'hastIoThread' in data;
}

if (parentPort !== null && isIoThreadData(workerData)) runThread(workerData);
