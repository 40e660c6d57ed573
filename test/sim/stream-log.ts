/**
 * What an asynchronous primary sent over one connection, in order, and how much of it the peer
 * confirmed by a flush. Answers whether an image is a past moment of that stream plus any part
 * of the epoch that was open then.
 */
import { FrameFlag, FrameType, isRangeFrame, type Frame } from '../../lib/format/frame.ts';
import { idAt } from './copy-view.ts';

const sector = 512;

interface Sent {
  position: number;
  epoch: number;
  id: number;
}

export class StreamLog {
  /** By sector, in order. */
  readonly #sectors = new Map<number, Sent[]>();
  /** By sector: what the peer held, in its cache and durably, before the first of them. */
  readonly #before = new Map<number, [number, number]>();
  readonly #peer: (sector: number) => [number, number];
  /** By sequence number of a flush: how many frames were sent before it. */
  readonly #flushes = new Map<number, number>();
  #position = 0;
  #epoch = 0;
  /** Everything sent before this position is durable at the peer. */
  #confirmed = 0;
  #base: ((at: number) => number) | null = null;

  /** `peer` reads a sector of the receiver's copy: cached and durable. */
  constructor(peer: (sector: number) => [number, number]) {
    this.#peer = peer;
  }

  /** A frame of the sender. */
  sent(frame: Frame): void {
    if (frame.type === FrameType.flush) {
      this.#flushes.set(frame.seq, this.#position);
      if ((frame.flags & FrameFlag.barrier) !== 0) this.#epoch++;
      return;
    }
    if (!isRangeFrame(frame.type) || frame.type === FrameType.read) return;
    this.#position++;
    const { offset, size, payload, payloadOffset } = frame;
    for (let at = 0; at < size; at += sector) {
      const index = (offset + at) / sector;
      const id = payload === null ? 0 : idAt(payload, payloadOffset + at);
      const list = this.#sectors.get(index) ?? [];
      if (list.length === 0) {
        this.#sectors.set(index, list);
        this.#before.set(index, this.#peer(index));
      }
      list.push({ position: this.#position, epoch: this.#epoch, id });
    }
  }

  /** A frame of the receiver. */
  answered(frame: Frame): void {
    if (frame.type !== FrameType.flushAck) return;
    this.#confirmed = Math.max(this.#confirmed, this.#flushes.get(frame.seq) ?? 0);
  }

  /** What the copy holds, now that it is complete, in sectors that the stream never touches. */
  setBase(base: (at: number) => number): void {
    this.#base = base;
  }

  /** What is wrong with a copy of `sectors` sectors, or null. */
  problem(read: (at: number) => number, sectors: number): string | null {
    const base = this.#base;
    if (base === null) return null;
    for (let at = 0; at < sectors; at++) {
      if (!this.#sectors.has(at) && read(at) !== base(at)) {
        return `sector ${at} holds write ${read(at)} and was never sent, it held ${base(at)}`;
      }
    }
    let low = -1;
    let high = Infinity;
    for (const [at, list] of this.#sectors) {
      const id = read(at);
      const [from, to, next] = occurrence(list, id, this.#before.get(at) ?? []);
      if (from === null) return `sector ${at} holds write ${id}, which was not sent`;
      if (next !== null && next <= this.#confirmed) {
        return `sector ${at} holds write ${id}, older than what the peer confirmed`;
      }
      low = Math.max(low, from - 1);
      high = Math.min(high, to - 1);
      if (low > high) return `no moment of the stream fits: sector ${at} holds write ${id}`;
    }
    return null;
  }
}

/**
 * In which epochs the sector could hold `id`: from (of the write itself), to (of the write that
 * replaced it), and the position of the latter. Of several occurrences the widest span.
 */
function occurrence(
  list: readonly Sent[], id: number, before: readonly number[],
): [number | null, number, number | null] {
  let from: number | null = null;
  let to = Infinity;
  let next: number | null = null;
  if (before.includes(id)) {
    from = 0;
    const replaced = list[0] as Sent;
    to = replaced.epoch;
    next = replaced.position;
  }
  for (let index = 0; index < list.length; index++) {
    const one = list[index] as Sent;
    if (one.id !== id) continue;
    from ??= one.epoch;
    const replaced = list.slice(index + 1).find((later) => later.id !== id);
    to = replaced?.epoch ?? Infinity;
    next = replaced?.position ?? null;
  }
  return [from, to, next];
}
