/**
 * Every request of the applications and what its answer promises, for each of the two copies.
 * The rules are the F-table's: see docs/simulator.md.
 */
import { AppOp } from '../../lib/core/ports.ts';
import type { SimNode, SimRequest } from '../fixtures/sim-node.ts';
import { CopyView, idAt, idReader, type Entry } from './copy-view.ts';
import type { StreamLog } from './stream-log.ts';

const sector = 512;

export interface LedgerHost {
  /** An error is a legitimate answer to this request. */
  mayFail(node: SimNode, request: SimRequest, era: number): boolean;
  /** A write or zero is about to be submitted. */
  writing(node: SimNode): void;
  /** A write, zero or flush was acknowledged on `node`. */
  acknowledged(node: SimNode, alone: boolean): void;
  /** A write was acknowledged by a primary that relies on the peer's copy. */
  acknowledgedRemotely(node: SimNode, entry: Entry): void;
  /** A sign of what happens to sessions: it changes with each. */
  era(): number;
  /** Its peer was promoted meanwhile: what it still reads may be old. */
  mayBeOld(node: SimNode): boolean;
}

export class Ledger {
  readonly views: Readonly<Record<string, CopyView>>;
  /** Of an asynchronous follower: what was sent to it. */
  readonly streams: Record<string, StreamLog | null> = {};
  writes = 0;
  flushes = 0;
  reads = 0;
  failed = 0;
  readonly #host: LedgerHost;
  readonly #initialIds: readonly number[];
  readonly #isAsync: boolean;
  /** By id: first and last sector; id 0 is unused. */
  readonly #first: number[] = [0];
  readonly #last: number[] = [0];
  /** By node: writes that are not answered. */
  readonly #open: Record<string, Set<Entry>>;
  #events = 1;
  #zeroed = false;

  constructor(size: number, initial: Record<string, number>, isAsync: boolean, host: LedgerHost) {
    this.#host = host;
    this.#isAsync = isAsync;
    this.#initialIds = Object.values(initial);
    this.#open = Object.fromEntries(Object.keys(initial).map((name) => [name, new Set()]));
    this.views = Object.fromEntries(
      Object.entries(initial).map(([name, id]) => [name, new CopyView(size, id)]),
    );
  }

  /** A write was submitted once, or the copies began with different bytes. */
  get hasBegun(): boolean {
    return this.#first.length > 1 || this.#zeroed || this.#initialIds[0] !== 0;
  }

  /** The copy holds something that was written; what nobody was told of does not count. */
  hasData(view: CopyView): boolean {
    const { open, base } = view;
    return [...open.values()].some(({ list }) => list.some(({ acked }) => acked > 0)) ||
      base.some((id) => id !== 0 && !this.#initialIds.includes(id));
  }

  view(node: SimNode): CopyView {
    return this.views[node.name] as CopyView;
  }

  /** The copy whose data `node` serves: the peer's, where it relies on that. */
  truth(node: SimNode): CopyView {
    if (node.resource?.remote.isActive !== true) return this.view(node);
    return this.views[this.#nameOfPeer(node)] as CopyView;
  }

  /** What `node` has not answered may be on the copy that it relies on. */
  pushOpen(node: SimNode): void {
    const truth = this.truth(node);
    for (const entry of this.#open[node.name] ?? []) if (!truth.has(entry)) truth.push(entry);
  }

  /** The process of `node` ended: its requests are answered by nobody. */
  forgetOpen(node: SimNode): void {
    this.#open[node.name]?.clear();
  }

  #nameOfPeer(node: SimNode): string {
    return Object.keys(this.views).find((name) => name !== node.name) as string;
  }

  /** The copy that follows what `node` acknowledges, or null. */
  #follower(node: SimNode): CopyView | null {
    for (const view of Object.values(this.views)) {
      if (view.leader === node.name) return view;
    }
    return null;
  }

  write(node: SimNode, offset: number, length: number): SimRequest {
    const id = this.#first.length;
    this.#first.push(offset / sector);
    this.#last.push((offset + length) / sector);
    const mark = Buffer.alloc(4);
    mark.writeUInt32LE(id);
    return this.#change(node, AppOp.write, offset, length, id, Buffer.alloc(length, mark));
  }

  zero(node: SimNode, op: AppOp, offset: number, length: number): SimRequest {
    this.#zeroed = true;
    return this.#change(node, op, offset, length, 0, null);
  }

  flush(node: SimNode): SimRequest {
    const since = this.#events;
    const era = this.#host.era();
    const request = node.submit(AppOp.flush, 0, 0);
    chain(request, () => {
      if (!this.#succeeded(node, request, era)) return;
      this.flushes++;
      if (node.running.remote.isActive) {
        this.#host.acknowledged(node, false);
        this.#events++;
        return;
      }
      const alone = node.running.aloneRecorded;
      this.#host.acknowledged(node, alone);
      this.#events++;
      this.view(node).settle(since, 'acked');
      const follower = this.#follower(node);
      if (follower?.kind === 'exact' && !alone) follower.settle(since, 'counted');
    });
    return request;
  }

  /** Submits what the process before did not answer. */
  again(node: SimNode, { op, offset, length, buffer, bufferOffset }: SimRequest): SimRequest {
    if (op === AppOp.read) return this.read(node, offset, length);
    if (op === AppOp.flush) return this.flush(node);
    if (op !== AppOp.write) return this.zero(node, op, offset, length);
    const data = Buffer.from(buffer.subarray(bufferOffset));
    return this.#change(node, op, offset, length, data.readUInt32LE(0), data);
  }

  read(node: SimNode, offset: number, length: number): SimRequest {
    const view = this.truth(node);
    const first = offset / sector;
    const count = length / sector;
    // Only sectors with more than one candidate can change what is allowed.
    const before = new Map<number, Set<number>>();
    for (let at = first; at < first + count; at++) {
      const open = view.open.get(at);
      const ids = open === undefined
        ? [view.base[at] as number]
        : open.list.slice(open.hidden).map((entry) => entry.id);
      before.set(at, new Set(ids));
    }
    const era = this.#host.era();
    const request = node.submit(AppOp.read, offset, length);
    chain(request, () => {
      if (!this.#succeeded(node, request, era)) return;
      this.reads++;
      if (this.#host.mayBeOld(node)) return;
      const now = this.truth(node);
      for (let index = 0; index < count; index++) {
        const id = idAt(request.data as Buffer, index * sector);
        const at = first + index;
        if (before.get(at)?.has(id) === true || now.allows(at, id, false)) continue;
        throw new Error(
          `a read of sector ${at} on ${node.name} found write ${id}, allowed: ` +
          `${[...(before.get(at) ?? [])].join(', ')}; now ${now.allowedText(at, false)}`,
        );
      }
    });
    return request;
  }

  /** Some write, or the creation, put this number into this sector once. */
  wasWritten(at: number, id: number): boolean {
    if (id === 0 || this.#initialIds.includes(id)) return true;
    const first = this.#first[id];
    return id > 0 && first !== undefined && at >= first && at < (this.#last[id] as number);
  }

  /** The first sector of the copy that no promise allows, as text; or null. */
  problem(node: SimNode, image: Buffer, dataOffset: number, stable: boolean): string | null {
    const view = this.view(node);
    const read = idReader(image, dataOffset);
    if (view.kind === 'stream') {
      const log = this.streams[node.name];
      const text = log?.problem(read, view.sectors) ?? null;
      if (text !== null) return text;
    }
    for (let at = 0; at < view.sectors; at++) {
      const id = read(at);
      const fits = view.kind === 'exact' ? view.allows(at, id, stable) : this.wasWritten(at, id);
      if (fits) continue;
      const allowed = view.kind === 'exact' ? view.allowedText(at, stable) : 'whatever was written';
      return `sector ${at} (block ${at >> 3}) of ${node.name} holds write ${id}, ` +
        `allowed: ${allowed}`;
    }
    return null;
  }

  /** As problem(), of a few sectors of an exact copy on stable storage. */
  sectorProblem(
    view: CopyView, image: Buffer, dataOffset: number, first: number, last: number,
  ): string | null {
    for (let at = first; at < last; at++) {
      const id = idAt(image, dataOffset + at * sector);
      if (!view.allows(at, id, true)) {
        return `sector ${at} holds write ${id}, allowed: ${view.allowedText(at, true)}`;
      }
    }
    return null;
  }

  /** After a power cut: what is there is durable, and must be a state that was promised. */
  collapse(node: SimNode, image: Buffer, dataOffset: number): void {
    const view = this.view(node);
    const problem = this.problem(node, image, dataOffset, true);
    if (problem !== null) throw new Error(`after a power cut: ${problem}`);
    if (view.kind === 'exact') view.adopt(image, dataOffset);
    view.leader = null;
  }

  #change(
    node: SimNode, op: AppOp, offset: number, length: number, id: number, data: Buffer | null,
  ): SimRequest {
    const first = offset / sector;
    const last = first + length / sector;
    const entry: Entry = { id, first, last, acked: 0, counted: 0 };
    this.#host.writing(node);
    this.truth(node).push(entry);
    const { aloneRecorded, session, remote } = node.running;
    const follower = remote.isActive ? null : this.#follower(node);
    if (follower?.kind === 'exact' && (session !== null || !aloneRecorded)) follower.push(entry);
    const era = this.#host.era();
    this.#open[node.name]?.add(entry);
    const request = node.submit(op, offset, length, data);
    chain(request, () => this.#changed(node, request, entry, era));
    return request;
  }

  #changed(node: SimNode, request: SimRequest, entry: Entry, era: number): void {
    this.#open[node.name]?.delete(entry);
    if (!this.#succeeded(node, request, era)) return;
    this.writes++;
    if (node.running.remote.isActive) {
      this.#host.acknowledged(node, false);
      entry.acked = entry.counted = ++this.#events;
      const truth = this.truth(node);
      truth.raise(entry);
      truth.makeDurable(entry);
      truth.unique++;
      this.#host.acknowledgedRemotely(node, entry);
      return;
    }
    const alone = node.running.aloneRecorded;
    this.#host.acknowledged(node, alone);
    entry.acked = ++this.#events;
    const view = this.view(node);
    view.raise(entry);
    if (alone) {
      view.unique++;
      return;
    }
    // Asynchronous: the follower may lack it, which is what the mode is.
    if (this.#isAsync) return;
    const follower = this.#follower(node);
    if (follower?.kind !== 'exact') return;
    entry.counted = this.#events;
    follower.raise(entry);
  }

  #succeeded(node: SimNode, request: SimRequest, era: number): boolean {
    if (request.errno === 0) return true;
    this.failed++;
    if (!this.#host.mayFail(node, request, era)) {
      throw new Error(`a request (op ${request.op}) on ${node.name} failed: ${request.errno}`);
    }
    return false;
  }
}

function chain(request: SimRequest, then: () => void): void {
  const { onDone } = request;
  if (request.isDone) {
    then();
    return;
  }
  request.onDone = () => {
    onDone?.(request);
    then();
  };
}
