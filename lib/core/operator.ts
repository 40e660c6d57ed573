/**
 * What an operator may ask of a running core beside the role: detach and attach of the local
 * copy, the statement that the peer is gone, pause of a resync, and the way out of a split brain.
 */
import type { DiskPort, UndoSink, UndoSource } from './ports.ts';
import type { Resource } from './resource.ts';

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

const notYet: Refusal = { message: 'not in this build', hint: 'use a newer one' };

export class Operator {
  readonly #resource: Resource;

  constructor(resource: Resource) {
    this.#resource = resource;
  }

  /** A resync that runs stops sending; one that begins waits. Not kept over a restart. */
  pauseResync(paused: boolean): void {
    void paused;
    void this.#resource;
  }

  /** Stops using the local copy; a primary goes on through its complete peer. */
  detach(done: CommandDone): void {
    done(notYet);
  }

  /** A primary without a local copy takes `disk`, which the peer brings up to date. */
  attach(disk: DiskPort, localSize: number, done: CommandDone): void {
    void disk;
    void localSize;
    done(notYet);
  }

  /** The operator says that the peer is certainly off; kept until the peer returns. */
  peerGone(done: CommandDone): void {
    done(notYet);
  }

  /** Ends a split brain: needs the peer; answers when the copying has begun (or the dry run). */
  resolve(request: ResolveRequest, done: (result: ResolveResult) => void): void {
    void request;
    done({ refusal: notYet });
  }

  /** Puts back what a resolution overwrote; the peer must be connected and nobody primary. */
  undo(source: UndoSource, done: CommandDone): void {
    void source;
    done(notYet);
  }
}
