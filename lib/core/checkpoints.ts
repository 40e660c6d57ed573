/**
 * Every two seconds: what only waits for a flush is flushed, and marks that are clean by then go,
 * so that an idle volume ends with nothing marked.
 *
 * A flush that nobody asked for keeps the disk busy for a quarter of the time at most: an
 * application that writes much would lose it to them. They bound what is marked at a
 * disconnection, and what a peer has to be sent that lost what it had not flushed.
 */
import type { PeerStream } from './peer-stream.ts';
import type { Resource } from './resource.ts';

const checkpointMs = 2000;
/** How long a flush puts off the next one: so many times what this disk took, up to a bound. */
const restPerFlush = 3;
const restMsMax = 10_000;

export class Checkpoints {
  readonly #resource: Resource;
  #restsUntil = 0;

  constructor(resource: Resource) {
    this.#resource = resource;
  }

  start(): void {
    const { timers, clock } = this.#resource.context;
    timers.set('checkpoint', clock.now() + checkpointMs, () => this.#run());
  }

  stop(): void {
    this.#resource.context.timers.clear('checkpoint');
  }

  #run(): void {
    const { failed, isDiskless, session, context } = this.#resource;
    if (failed) return;
    this.start();
    if (isDiskless) return;
    const { tracker } = context;
    const stream = session?.stream ?? null;
    const isOpen = stream !== null && !stream.ended && stream.epochsInFlight === 0;
    if (tracker.hasLocalUnflushed) {
      if (tracker.isIdle) this.#flushLocal();
    } else if (isOpen && stream.hasUnflushed) {
      this.#flushBoth(stream);
    } else if (isOpen && stream.hasSettled) {
      this.#settle();
    } else if (tracker.isIdle) {
      tracker.checkpoint(() => undefined);
    }
  }

  #flushBoth(stream: PeerStream): void {
    const { io, context } = this.#resource;
    const { clock } = context;
    const begun = clock.now();
    if (begun < this.#restsUntil) return;
    context.measures.checkpoints++;
    io.flushBoth(stream, () => this.#settle(), () => {
      const now = clock.now();
      this.#restsUntil = now + Math.min(restMsMax, restPerFlush * (now - begun));
    });
  }

  #settle(): void {
    const { session, context } = this.#resource;
    session?.numbers.settle(() => context.tracker.checkpoint(() => undefined));
  }

  /** What arrived from the peer is flushed here, so that its marks can go. */
  #flushLocal(): void {
    const { context } = this.#resource;
    const { tracker, disk, measures } = context;
    measures.checkpoints++;
    const flush = tracker.localFlushBegins();
    disk.flush((errno) => {
      // The copy was given up meanwhile: its flush says nothing.
      if (disk !== context.disk) return;
      if (errno !== 0) {
        context.localFailed('flush', errno);
        return;
      }
      tracker.localFlushDone(flush);
      tracker.checkpoint(() => undefined);
    });
  }
}
