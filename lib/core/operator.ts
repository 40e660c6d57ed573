/**
 * What an operator may ask of a running core beside the role: detach and attach of the local
 * copy, the statement that the peer is gone, pause of a resync, and the way out of a split brain.
 */
import { WireRole } from '../format/hello.ts';
import { SuperblockFlag } from '../format/superblock.ts';
import { refuseTexts } from './generation.ts';
import { attachmentProblem } from './remote-state.ts';
import { openAttachment } from './open-attachment.ts';
import type { DiskPort, UndoSink, UndoSource } from './ports.ts';
import { PutBack } from './put-back.ts';
import { Resolution } from './resolution.ts';
import type { Resource } from './resource.ts';
import { Switchover } from './switchover.ts';

/** Why a command was not carried out, and what to do instead. */
export interface Refusal {
  message: string;
  hint: string;
}

export type CommandDone = (refusal: Refusal | null) => void;

export const DiscardSide = { local: 1, peer: 2 } as const;
export type DiscardSide = (typeof DiscardSide)[keyof typeof DiscardSide];

export interface ResolveRequest {
  /** Whose writes since the fork are given up. */
  discard: DiscardSide;
  /** Only says what would be copied. */
  dryRun: boolean;
  undo: UndoSink | null;
}

/** Bytes and extents that one side wrote since the fork. */
export interface SideWrites {
  bytes: number;
  /** Byte ranges of the volume, ascending, at most `limits` of them; see `more`. */
  ranges: { offset: number; length: number }[];
  /** Ranges beyond those listed. */
  more: number;
}

export type ResolveResult =
  | { refusal: Refusal }
  | {
    refusal: null;
    /** Ids of the two copies when it was decided; hexadecimal. */
    localGeneration: string;
    peerGeneration: string;
    local: SideWrites;
    peer: SideWrites;
    /** What the losing copy gets: the union of both; all of it where a map is lost. */
    copyBytes: number;
    /** The union is the whole volume, because a map does not speak of this peer. */
    full: boolean;
  };

const attachHint = 'replace the disk, then: hastctl attach NAME';
/** A new disk must show its metadata within `disk-timeout`, but never sooner than this. */
const attachMsMin = 5000;

export class Operator {
  /** A decision between split copies that is being carried out. */
  resolution: Resolution | null = null;
  readonly switchover: Switchover;
  readonly #resource: Resource;

  constructor(resource: Resource) {
    this.#resource = resource;
    this.switchover = new Switchover(resource);
  }

  /** A resync that runs stops sending; one that begins waits. Not kept over a restart. */
  pauseResync(paused: boolean): void {
    const resource = this.#resource;
    resource.resyncPaused = paused;
    resource.pace.paused = paused;
    resource.context.log.info({ paused }, 'resync');
    resource.session?.pump();
  }

  /** Stops using the local copy; a primary goes on through its complete peer. */
  detach(done: CommandDone): void {
    const resource = this.#resource;
    if (resource.isDiskless || resource.failed) {
      done(resource.isDiskless ? null : { message: resource.failure, hint: attachHint });
      return;
    }
    const why = 'detached by an operator';
    // A disk that fails has no choice; an operator waits for a peer that is there.
    const isServed = resource.session?.isComplete === true || resource.remote.isActive;
    if (isServed && resource.remote.lose(why, 'detached')) {
      // Who asks for the status next is to see what became of it, not a pair on its way there.
      resource.remote.whenAnswered(() => done(null));
      return;
    }
    if (resource.role === 'primary') {
      if (resource.session?.isComplete === true && !resource.session.supportsRemote) {
        done({
          message: refuseTexts['remote-not-supported'],
          hint: 'upgrade the peer first, or make it the primary: its own copy is complete',
        });
        return;
      }
      done({
        message: 'the peer has no complete copy that could take over',
        hint: 'wait until hastctl status says complete: hastctl wait --synced NAME',
      });
      return;
    }
    resource.giveUpCopy(why);
    done(null);
  }

  /** A primary without a local copy takes `disk`, which the peer brings up to date. */
  attach(disk: DiskPort, localSize: number, done: CommandDone): void {
    const { context, isDiskless, remote, failed, failure } = this.#resource;
    if (failed) {
      done({
        message: failure,
        hint: 'replace the disk, then: hastctl role secondary --force NAME, which takes the ' +
          'device away',
      });
      return;
    }
    if (!isDiskless) {
      done({ message: 'a local copy is attached', hint: 'hastctl detach NAME lets go of it' });
      return;
    }
    if (!remote.isConfirmed) {
      // The new disk could not tell the peer whose data it is to get.
      done({
        message: 'the peer has not taken over yet',
        hint: 'mend the connection to it; when hastctl status says diskless, try again',
      });
      return;
    }
    let isOver = false;
    const finish = (refusal: Refusal | null): void => {
      if (isOver) return;
      isOver = true;
      context.timers.clear('attach');
      done(refusal);
    };
    const waitMs = Math.max(context.options.diskTimeoutMs, attachMsMin);
    context.timers.set('attach', context.clock.now() + waitMs, () => finish({
      message: 'the new disk does not answer', hint: 'see the kernel log, and use another one',
    }));
    openAttachment(context, disk, localSize, (error, attachment) => {
      if (isOver) return;
      const problem = error ??
        attachmentProblem(context, attachment?.mediaSize ?? 0);
      if (problem !== null || attachment === null) {
        finish({ message: problem?.message ?? '', hint: problem?.hint ?? '' });
        return;
      }
      remote.attach(attachment, () => isOver, (errno) => finish(errno === 0 ? null : {
        message: `the metadata on the new disk cannot be written (errno ${errno})`,
        hint: 'see the kernel log, and use another one',
      }));
    });
  }

  /** The operator says that the peer is certainly off; kept until the peer returns. */
  peerGone(done: CommandDone): void {
    const resource = this.#resource;
    const { context, session, linker } = resource;
    if (session?.isConnected === true || linker.peerAnswers) {
      done({
        message: 'a hastd answers at the address of the peer',
        hint: 'it is not gone: hastctl status there tells what it does',
      });
      return;
    }
    const { flags } = context.store.value;
    context.store.update({ flags: flags | SuperblockFlag.peerGone }, (errno) => {
      if (errno !== 0) context.localFailed('metadata', errno);
      context.log.warn({}, 'an operator says that the peer is gone');
      done(errno === 0 ? null : { message: resource.failure, hint: attachHint });
    });
  }

  /** Ends a split brain: needs the peer; answers when the copying has begun (or the dry run). */
  resolve(request: ResolveRequest, done: (result: ResolveResult) => void): void {
    const resource = this.#resource;
    const problem = this.#resolveProblem();
    if (problem !== null) {
      done({ refusal: problem });
      return;
    }
    this.resolution = new Resolution(resource, request, (result) => {
      this.resolution = null;
      done(result);
    });
    this.resolution.start();
  }

  /** Puts back what a resolution overwrote; the peer must be connected and nobody primary. */
  undo(source: UndoSource, done: CommandDone): void {
    const { session, role } = this.#resource;
    const isIdle = session !== null && session.isComplete && role === 'secondary' &&
      session.peerRole === WireRole.secondary;
    if (isIdle) new PutBack(this.#resource, source, done).start();
    else {
      done({
        message: 'the pair must be complete, and neither node primary',
        hint: 'run hastctl role secondary NAME on the primary and wait for complete',
      });
    }
  }

  #resolveProblem(): Refusal | null {
    const { failed, failure, isDiskless, session } = this.#resource;
    if (this.resolution !== null) {
      return { message: 'a resolution is under way', hint: 'wait for it to end' };
    }
    if (failed || isDiskless) return { message: failure || 'no local copy', hint: attachHint };
    if (session?.isConnected === true) {
      return { message: 'the two copies are not split', hint: 'hastctl status tells the state' };
    }
    return null;
  }
}
