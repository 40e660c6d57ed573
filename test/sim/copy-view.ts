/**
 * What one copy may hold, sector by sector, if it becomes the volume. Every write carries a number
 * of its own; a sector has a list of candidates in order of submission:
 *
 * - from `hidden` on: what a reader may see (the last acknowledged write and what came after it);
 * - the whole list: what a power cut may bring back (since the last flush that covers it).
 */
const sector = 512;

export interface Entry {
  readonly id: number;
  readonly first: number;
  readonly last: number;
  /** Stamp of its acknowledgement; 0 while there is none. */
  acked: number;
  /** The acknowledgement also promised the follower's copy. */
  counted: number;
}

interface OpenSector {
  list: Entry[];
  hidden: number;
}

/** The number in a sector; -1 where it is torn. */
export function idAt(image: Buffer, from: number): number {
  const id = image.readUInt32LE(from);
  return image.readUInt32LE(from + sector - 4) === id ? id : -1;
}

/** idAt() for each sector of a volume, faster: a run looks at some hundred thousand. */
export function idReader(image: Buffer, dataOffset: number): (at: number) => number {
  const words = new Uint32Array(image.buffer, image.byteOffset + dataOffset);
  const perSector = sector / 4;
  return (at) => {
    const id = words[at * perSector] as number;
    return words[(at + 1) * perSector - 1] === id ? id : -1;
  };
}

const settledEntry = (id: number): Entry => ({ id, first: 0, last: 0, acked: 0, counted: 0 });

export class CopyView {
  /**
   * exact: the lists hold. mixed: a half-finished copy, or a rolled back one: any sector may hold
   * anything that was ever written there. stream: an asynchronous follower, see StreamLog.
   */
  kind: 'exact' | 'mixed' | 'stream' = 'exact';
  /** Mixed by a person (rolled back, cloned), so that the core may not know. */
  isTainted = false;
  /** Name of the node whose acknowledgements promise this copy too. */
  leader: string | null = null;
  /** Acknowledged writes that only this copy holds. */
  unique = 0;
  /** A person decided that what only this copy holds may go. */
  isGivenUp = false;
  /** Took a generation of its own since both copies were equal. */
  hasForked = false;
  /** Was equal to the other copy once, since it was created. */
  isRelated = false;
  readonly base: Uint32Array;
  readonly open = new Map<number, OpenSector>();

  constructor(size: number, initialId: number) {
    this.base = new Uint32Array(size / sector).fill(initialId);
  }

  get sectors(): number {
    return this.base.length;
  }

  push(entry: Entry): void {
    for (let at = entry.first; at < entry.last; at++) {
      const open = this.open.get(at);
      if (open !== undefined) open.list.push(entry);
      else {
        const settled = settledEntry(this.base[at] as number);
        this.open.set(at, { list: [settled, entry], hidden: 0 });
      }
    }
  }

  /** The entry was acknowledged: a reader sees nothing older. */
  raise(entry: Entry): void {
    for (let at = entry.first; at < entry.last; at++) {
      const open = this.open.get(at);
      if (open === undefined) continue;
      const index = open.list.indexOf(entry);
      if (index > open.hidden) open.hidden = index;
    }
  }

  /** A flush covers every entry whose stamp is at most `since`. */
  settle(since: number, stamp: 'acked' | 'counted'): void {
    for (const [at, open] of this.open) {
      let keep = open.list.length - 1;
      while (keep > 0) {
        const value = (open.list[keep] as Entry)[stamp];
        if (value > 0 && value <= since) break;
        keep--;
      }
      if (keep === 0) continue;
      open.list.splice(0, keep);
      open.hidden = Math.max(0, open.hidden - keep);
      this.base[at] = (open.list[0] as Entry).id;
      if (open.list.length === 1) this.open.delete(at);
    }
  }

  has(entry: Entry): boolean {
    return this.open.get(entry.first)?.list.includes(entry) ?? false;
  }

  /** The entry is on stable storage: nothing older comes back. */
  makeDurable(entry: Entry): void {
    for (let at = entry.first; at < entry.last; at++) {
      const open = this.open.get(at);
      const index = open?.list.indexOf(entry) ?? -1;
      if (open === undefined || index < 1) continue;
      open.list.splice(0, index);
      open.hidden = Math.max(0, open.hidden - index);
      this.base[at] = entry.id;
      if (open.list.length === 1) this.open.delete(at);
    }
  }

  /** What was not flushed may be gone. */
  rollBack(at: number): void {
    const open = this.open.get(at);
    if (open !== undefined) open.hidden = 0;
  }

  rollBackAll(): void {
    for (const open of this.open.values()) open.hidden = 0;
  }

  allows(at: number, id: number, stable: boolean): boolean {
    const open = this.open.get(at);
    if (open === undefined) return this.base[at] === id;
    for (let index = stable ? 0 : open.hidden; index < open.list.length; index++) {
      if ((open.list[index] as Entry).id === id) return true;
    }
    return false;
  }

  allowedText(at: number, stable: boolean): string {
    const open = this.open.get(at);
    if (open === undefined) return String(this.base[at]);
    return open.list.slice(stable ? 0 : open.hidden).map((entry) => entry.id).join(', ');
  }

  /** What is there is the truth from here on. */
  adopt(image: Buffer, dataOffset: number): void {
    const read = idReader(image, dataOffset);
    for (let at = 0; at < this.base.length; at++) this.base[at] = read(at);
    this.open.clear();
  }

  /** The copy was made equal to the one of `other`. */
  cloneFrom(other: CopyView): void {
    this.base.set(other.base);
    this.open.clear();
    for (const [at, { list, hidden }] of other.open) {
      for (const entry of list) if (entry.counted === 0) entry.counted = entry.acked;
      this.open.set(at, { list: [...list], hidden });
    }
    this.kind = other.kind === 'mixed' ? 'mixed' : 'exact';
    this.isTainted = other.isTainted;
  }
}
