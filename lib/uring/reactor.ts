/**
 * HOT PATH. Everything one thread waits for, in one system call: the ring's operations and Node's
 * own event loop. `npm run bench`, write-1 on fullsync: 31 to 72 us (p50);
 * docs/decisions/016-one-thread-and-a-ring.md has the reasons.
 *
 * A turn runs from Node's check phase (setImmediate), in rounds: submit, wait, take completions,
 * let their owners say what follows. While turns follow each other Node's loop never sleeps by
 * itself: it is polled once between two turns, and its epoll descriptor is one of the things waited
 * for.
 *
 * - What a round's callbacks leave to Node (promises, process.nextTick, setImmediate) waits for the
 *   end of the turn: `turnMs` at most.
 * - A turn sleeps longer only before its first completion, and after `quietTurns` in which nothing
 *   happened: Node has run by then what was put off, and what that put off. Callbacks of Node's
 *   poll phase show by the epoll descriptor, whose poll is under way whenever a turn ends.
 * - Node's timers do not wake the ring. The one whose time matters is `deadline`; every other is
 *   late by `sleepMsMax` at most, and so is what its callback puts off.
 */
import * as fs from 'node:fs';
import { BusyPoll } from './busy-poll.ts';
import { Ring, RingOpcode, type RingOp } from './ring.ts';

export { RingOpcode, type Ring, type RingOp };

/** Something that gathers work during a turn. */
export interface TurnEnd {
  turnEnd(): void;
}

const POLLIN = 1;
/** How long a turn goes on once something was there. */
const turnMs = 1;
const quietTurns = 2;
const sleepMsMax = 20;
const findMs = 500;
/** Between two looks: another thread had the processor. */
const takenAwayMs = 0.02;

class UvPoll implements RingOp {
  isArmed = false;
  fired = false;

  completed(): void {
    this.isArmed = false;
    this.fired = true;
  }
}

export class Reactor {
  readonly ring: Ring;
  readonly busyPoll = new BusyPoll();
  /** Monotonic milliseconds (performance.now) of the next timer that must be in time, or null. */
  deadline: () => number | null = () => null;
  /**
   * Node's loop has work that shows by no descriptor: turns are as short as can be, none sleeps.
   */
  nodeIsBusy: () => boolean = () => false;
  /**
   * Called at the end of each round, before what `later` named, and after it again: that may have
   * completed something.
   */
  onRound: () => void = () => undefined;
  readonly #uvFd: number;
  readonly #uvPoll = new UvPoll();
  #later: TurnEnd[] = [];
  #isRunning = false;
  /** A turn will come: also after stop(), which the turn then notices. */
  #isDue = false;
  /** Turns in a row without a completion. */
  #quiet = 0;

  private constructor(ring: Ring, uvFd: number) {
    this.ring = ring;
    this.#uvFd = uvFd;
  }

  /** null where this process cannot have one: no io_uring, or an event loop of another kind. */
  static open(): Reactor | null {
    const ring = Ring.open();
    if (ring === null) return null;
    const uvFd = findEventLoop(ring);
    return uvFd === null ? null : new Reactor(ring, uvFd);
  }

  /** Keeps the process busy until stop(). */
  start(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    if (this.#isDue) return;
    this.#isDue = true;
    setImmediate(this.#turn);
  }

  stop(): void {
    this.#isRunning = false;
  }

  /** `work.turnEnd()` is called once, at the end of this round or at the beginning of the next. */
  later(work: TurnEnd): void {
    this.#later.push(work);
  }

  readonly #turn = (): void => {
    if (!this.#isRunning) {
      this.#isDue = false;
      return;
    }
    const { ring } = this;
    const uvPoll = this.#uvPoll;
    const leaveAt = performance.now() + turnMs;
    let isFirst = true;
    this.#quiet = uvPoll.fired ? 0 : this.#quiet + 1;
    uvPoll.fired = false;
    do {
      this.#endRound();
      if (!uvPoll.isArmed) this.#arm();
      if (ring.hasNews) {
        ring.submit();
      } else {
        const milliseconds = isFirst ? this.#sleepMs() : leaveAt - performance.now();
        if (milliseconds > 0) this.#wait(milliseconds);
        else ring.submit();
      }
      const completions = ring.reap();
      if (completions === 0) break;
      this.busyPoll.round(completions);
      isFirst = false;
      this.#quiet = 0;
    } while (!uvPoll.fired && performance.now() < leaveAt && !this.nodeIsBusy());
    setImmediate(this.#turn);
  };

  #wait(milliseconds: number): void {
    const { ring, busyPoll } = this;
    const since = performance.now();
    let slept = true;
    if (busyPoll.pays) {
      if (ring.prepared > 0) ring.submit();
      this.#look(Math.min(milliseconds, busyPoll.milliseconds));
      slept = !ring.hasNews;
    }
    if (slept) ring.submitAndWait(milliseconds);
    else ring.submit();
    busyPoll.waited(performance.now() - since, slept);
  }

  #look(milliseconds: number): void {
    const { ring, busyPoll } = this;
    let now = performance.now();
    const until = now + milliseconds;
    let isThere = false;
    while (!isThere && now < until) {
      const before = now;
      isThere = ring.hasNews;
      now = performance.now();
      if (now - before > takenAwayMs) busyPoll.interrupted();
    }
  }

  #arm(): void {
    this.#uvPoll.isArmed = true;
    this.ring.prepare(this.#uvPoll, RingOpcode.pollAdd, this.#uvFd, 0, 0, 0, POLLIN);
  }

  #sleepMs(): number {
    if (this.#quiet <= quietTurns || this.nodeIsBusy()) return 0;
    const deadline = this.deadline();
    if (deadline === null) return sleepMsMax;
    return Math.min(sleepMsMax, deadline - performance.now());
  }

  #endRound(): void {
    this.onRound();
    while (this.#later.length > 0) {
      const later = this.#later;
      this.#later = [];
      for (const work of later) work.turnEnd();
      this.onRound();
    }
  }
}

/**
 * The epoll descriptor of this thread's event loop, which Node does not tell: the one that becomes
 * readable when a call on a thread of the pool has ended.
 */
function findEventLoop(ring: Ring): number | null {
  const candidates = fs.readdirSync('/proc/self/fd').map(Number).filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventpoll]';
    } catch {
      return false;
    }
  });
  const found: number[] = [];
  let open = candidates.length;
  for (const fd of candidates) {
    ring.prepare({
      completed: (result) => {
        open--;
        if (result > 0) found.push(fd);
      },
    }, RingOpcode.pollAdd, fd, 0, 0, 0, POLLIN);
  }
  fs.stat('/', () => undefined);
  const giveUpAt = performance.now() + findMs;
  while (open > 0 && found.length === 0 && performance.now() < giveUpAt) {
    ring.submitAndWait(findMs);
    ring.reap();
  }
  return found[0] ?? null;
}
