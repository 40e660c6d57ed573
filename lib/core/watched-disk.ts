/**
 * A disk port that knows since when its oldest operation has been under way, so that a disk that
 * does not answer is noticed (`disk-timeout`), and how long each took.
 *
 * Hot path: one call per operation; the records are pooled.
 * `npm run bench`, write-32 on fullsync: all JavaScript is 7 % of the processors' time.
 */
import { Kind, Stage } from './latencies.ts';
import type { Measures } from './measures.ts';
import type { DiskPort, Done, DurableWrite } from './ports.ts';

/** The disk of a core: one it watches, or none. */
export interface CoreDisk extends DiskPort {
  /** Monotonic milliseconds when the oldest operation under way began; null where there is none. */
  readonly busySince: number | null;
}

class WatchedOp {
  since = 0;
  /** null: metadata, which are not measured. */
  kind: Kind | null = null;
  before: WatchedOp | null = null;
  after: WatchedOp | null = null;
  done: Done | null = null;
  readonly #disk: WatchedDisk;

  constructor(disk: WatchedDisk) {
    this.#disk = disk;
  }

  readonly onDone = (errno: number): void => {
    const done = this.done as Done;
    this.#disk.ended(this, errno);
    done(errno);
  };
}

export class WatchedDisk implements CoreDisk {
  readonly #disk: DiskPort;
  readonly #measures: Measures;
  readonly #pool: WatchedOp[] = [];
  #oldest: WatchedOp | null = null;
  #newest: WatchedOp | null = null;

  constructor(disk: DiskPort, measures: Measures) {
    this.#disk = disk;
    this.#measures = measures;
  }

  get busySince(): number | null {
    return this.#oldest === null ? null : this.#oldest.since;
  }

  read(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void {
    this.#disk.read(offset, buffer, bufferOffset, length, this.#begin(done, Kind.read));
  }

  write(offset: number, buffer: Buffer, bufferOffset: number, length: number, done: Done): void {
    this.#disk.write(offset, buffer, bufferOffset, length, this.#begin(done, Kind.write));
  }

  flush(done: Done): void {
    this.#disk.flush(this.#begin(done, Kind.flush));
  }

  zero(offset: number, length: number, discard: boolean, done: Done): void {
    this.#disk.zero(offset, length, discard, this.#begin(done, Kind.discard));
  }

  writeDurable(offset: number, buffer: Buffer, done: Done): void {
    this.#disk.writeDurable(offset, buffer, this.#begin(done, null));
  }

  writeAllDurable(writes: readonly DurableWrite[], done: Done): void {
    this.#disk.writeAllDurable(writes, this.#begin(done, null));
  }

  ended(op: WatchedOp, errno: number): void {
    const { kind, since } = op;
    const now = this.#measures.tick();
    if (kind !== null && errno === 0) {
      this.#measures.latencies.record(Stage.local, kind, now - since);
    }
    if (op.before === null) this.#oldest = op.after;
    else op.before.after = op.after;
    if (op.after === null) this.#newest = op.before;
    else op.after.before = op.before;
    op.before = null;
    op.after = null;
    op.done = null;
    this.#pool.push(op);
  }

  #begin(done: Done, kind: Kind | null): Done {
    const op = this.#pool.pop() ?? new WatchedOp(this);
    op.done = done;
    op.kind = kind;
    op.since = this.#measures.tick();
    op.before = this.#newest;
    if (this.#newest === null) this.#oldest = op;
    else this.#newest.after = op;
    this.#newest = op;
    return op.onDone;
  }
}

/** ENODEV. */
export const errnoNoDevice = 19;

/** The disk of a node without a local copy: every operation fails, in the next turn. */
export class AbsentDisk implements CoreDisk {
  readonly busySince = null;
  readonly #later: (run: () => void) => void;

  constructor(later: (run: () => void) => void) {
    this.#later = later;
  }

  read(_offset: number, _buffer: Buffer, _at: number, _length: number, done: Done): void {
    this.#fail(done);
  }

  write(_offset: number, _buffer: Buffer, _at: number, _length: number, done: Done): void {
    this.#fail(done);
  }

  flush(done: Done): void {
    this.#fail(done);
  }

  zero(_offset: number, _length: number, _discard: boolean, done: Done): void {
    this.#fail(done);
  }

  writeDurable(_offset: number, _buffer: Buffer, done: Done): void {
    this.#fail(done);
  }

  writeAllDurable(_writes: readonly DurableWrite[], done: Done): void {
    this.#fail(done);
  }

  #fail(done: Done): void {
    this.#later(() => done(errnoNoDevice));
  }
}
