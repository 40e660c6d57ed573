/** One node of a run with what the simulation knows of it beside the core. */
import { layoutFor } from '../../lib/format/superblock.ts';
import type { SimDisk } from '../fixtures/sim-disk.ts';
import type { SimNode, SimRequest } from '../fixtures/sim-node.ts';
import { App } from './app.ts';
import type { CopyView } from './copy-view.ts';
import { DurableMeta } from './durable-meta.ts';
import type { SimRun } from './run.ts';

export interface DiskError {
  kinds: readonly string[];
  /** How many more operations fail; Infinity for a disk that is gone. */
  left: number;
}

export class Machine {
  readonly node: SimNode;
  readonly app: App;
  meta!: DurableMeta;
  phase = 'none';
  role: 'primary' | 'secondary' | 'none' = 'none';
  /** Number of the present reign; 0 where this node is not primary. */
  reign = 0;
  /** Durable generation before the promotion of this reign. */
  before = 0n;
  isPromoting = false;
  /** The promotion under way, or the latest one, was forced. */
  isForcing = false;
  isStopping = false;
  isAttaching = false;
  /** The peer's copy is the one that counts for this primary; and served it. */
  isRemote = false;
  wasServed = false;
  /** The peer was promoted while this primary relied on its copy. */
  isOrphaned = false;
  /** Its disk was refused. */
  isDiskBad = false;
  /** The device was taken away by force: requests end with EIO. */
  isForced = false;
  /** A successor of its primary's process is to take over, or decides whether it may. */
  isResuming = false;
  /** Which start of one is due. */
  resumeLife: object | null = null;
  /** What the kernel sends again to it. */
  kept: SimRequest[] = [];
  /** A restart is scheduled. */
  isDown = false;
  /** A disk operation of the running process failed, or metadata were damaged. */
  diskErrors = 0;
  error: DiskError | null = null;
  /** Some sector of its disk was unreadable once. */
  readErrors = false;
  /** An image of the disk taken earlier. */
  image: Buffer | null = null;
  /** Writes acknowledged in the run when it was taken; -1 where it is of half a copy. */
  imageWrites = -1;
  splitBrains = 0;
  /** Called when a write to the data of its disk begins. */
  guard: () => void = () => undefined;
  /** The source's generation that this copy was told to take, and what only the source had. */
  adopting: { generation: bigint; unique: number } | null = null;
  /** The disk it was made equal to was replaced since then. */
  isSourceLost = false;
  /** What the source held when its power was cut, while this copy was being made equal to it. */
  sourceBefore: CopyView | null = null;

  readonly #run: SimRun;

  constructor(run: SimRun, node: SimNode) {
    this.#run = run;
    this.node = node;
    this.app = new App(run, node);
    this.watchDisk();
  }

  get name(): string {
    return this.node.name;
  }

  get dataOffset(): number {
    const { mediaSize, keepDirty } = this.node.image;
    return layoutFor(mediaSize, keepDirty).dataOffset;
  }

  get isWorking(): boolean {
    const { resource } = this.node;
    return resource !== null && resource.role === 'primary' && !resource.failed &&
      !this.isStopping && !this.isPromoting;
  }

  /** Hears what its core says. */
  listen(): void {
    const { node } = this;
    const run = this.#run;
    node.linger = true;
    if (run.trace.isRead) node.log = run.trace.logger(node.name);
    node.onEvent = (event) => {
      run.trace.line(node.name, `event ${event.kind}`);
      if (event.kind === 'split-brain') {
        this.splitBrains++;
        run.counts.splitBrains++;
        run.forks.flagged(this);
      }
      if (event.kind === 'syncdone') run.counts.syncs++;
    };
  }

  /** The disk was put in, or its bytes were exchanged. */
  watchDisk(): void {
    const { disk, image } = this.node;
    const { marks, options } = this.#run;
    const { mediaSize, keepDirty, extentSize } = image;
    const meta = new DurableMeta(disk.durable, mediaSize, keepDirty, extentSize);
    this.meta = meta;
    const end = this.dataOffset + mediaSize;
    disk.earlyRate = options.earlyRate;
    disk.latency = options.diskMs[this.name === 'a' ? 0 : 1];
    disk.observer = {
      issued: (offset, length) => {
        if (offset >= this.dataOffset && offset < end) this.guard();
        marks.touched(offset, length);
      },
      stored: (offset, length) => {
        if (meta.changed(offset, length)) marks.metadataChanged();
        else marks.touched(offset, length);
      },
    };
    const metadata = layoutFor(mediaSize, keepDirty).hotOffset;
    disk.watch = (op) => {
      const isMark = op.kind === 'durable' && op.offset >= metadata && op.offset < this.dataOffset;
      if (!isMark || !disk.isDirty(metadata, this.dataOffset - metadata)) return;
      this.#run.fail(`${this.name} writes over marks that it read and never made durable`);
    };
    disk.onDropped = (sectors) => {
      const view = this.#run.ledger.view(this.node);
      for (const sector of sectors) view.rollBack(sector - this.dataOffset / 512);
      // An acknowledgement that is on its way speaks of what was there before.
      view.leader = null;
    };
    this.#inject(disk);
  }

  #inject(disk: SimDisk): void {
    disk.fault = (op) => {
      const { error } = this;
      if (error === null || !error.kinds.includes(op.kind)) return 0;
      if (--error.left <= 0) this.error = null;
      this.diskErrors++;
      this.#run.counts.diskFaults++;
      this.#run.trace.line(this.name, `disk: ${op.kind} at ${op.offset} fails`);
      return 5;
    };
  }

  metadataFlipped(offset: number): void {
    if (this.meta.changed(offset, 1)) this.#run.marks.metadataChanged();
  }

  heal(): void {
    const { disk } = this.node;
    this.error = null;
    disk.latent.clear();
    disk.dropsOnFlushError = false;
    disk.latency = [0.02, 0.6];
    disk.release();
  }
}
