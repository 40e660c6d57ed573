/**
 * Those who follow `hastctl events`: each gets the present state of its resources, then what
 * changes. While somebody is there every resource is asked for its status twice a second, and at
 * once where its worker or its supervisor says that something happened; without anybody, never.
 */
import type { ResourceStatus } from '../format/status.ts';
import type { StateEvent, StateNow } from '../format/state-event.ts';
import type { Notice } from './worker-keeper.ts';

export interface Watched {
  readonly name: string;
  /** Must not throw, and end in bounded time. */
  status(): Promise<ResourceStatus>;
}

type Send = (event: StateEvent) => void;

interface Watcher {
  names: ReadonlySet<string>;
  send: Send;
}

interface Look {
  done: Promise<void>;
  again: boolean;
  /** A worker ended meanwhile: what comes is about a state that is over. */
  isOver: boolean;
}

interface Known {
  now: StateNow;
  detail: string;
}

const fields = [
  'role', 'status', 'connection', 'localDisk', 'peerDisk', 'peerRole', 'needsHuman', 'worker',
] as const satisfies (keyof StateNow)[];
const lookMsDefault = 500;
const syncs = { syncstart: 'started', syncdone: 'done', syncintr: 'interrupted' } as const;

export class Watchers {
  readonly #all: () => readonly Watched[];
  readonly #lookMs: number;
  readonly #watchers = new Set<Watcher>();
  readonly #known = new Map<string, Known>();
  /** A look at a resource that is under way, and whether another one must follow. */
  readonly #looking = new Map<string, Look>();
  /** How the last worker ended, until its successor's change is told. */
  readonly #ends = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(all: () => readonly Watched[], lookMs: number = lookMsDefault) {
    this.#all = all;
    this.#lookMs = lookMs;
  }

  get count(): number {
    return this.#watchers.size;
  }

  /** Begins with the present state; returns what ends it. `send` must not block. */
  async follow(names: readonly string[], send: Send): Promise<() => void> {
    const chosen = this.#all().filter(({ name }) => names.includes(name));
    await Promise.all(chosen.map(async (one) => {
      if (!this.#known.has(one.name) || this.#watchers.size === 0) await this.#look(one);
    }));
    const watcher = { names: new Set(names), send };
    for (const name of names) {
      const known = this.#known.get(name);
      if (known !== undefined) send(nowEvent(name, known));
    }
    this.#watchers.add(watcher);
    this.#timer ??= setInterval(() => this.#lookAtAll(), this.#lookMs);
    return () => {
      if (!this.#watchers.delete(watcher) || this.#watchers.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
      this.#known.clear();
      this.#ends.clear();
    };
  }

  noticed(name: string, notice: Notice): void {
    if (this.#watchers.size === 0) return;
    if (notice.kind === 'ended') {
      this.#ends.set(name, notice.why);
      const look = this.#looking.get(name);
      if (look !== undefined) look.isOver = true;
    }
    if (notice.kind === 'event' && notice.event in syncs) {
      const to = syncs[notice.event as keyof typeof syncs];
      this.#tell({ ...eventOf(name), kind: 'sync', to });
    }
    const one = this.#all().find((watched) => watched.name === name);
    if (one !== undefined) void this.#look(one);
  }

  #lookAtAll(): void {
    const all = this.#all();
    for (const one of all) void this.#look(one);
    const names = new Set(all.map(({ name }) => name));
    for (const name of this.#known.keys()) if (!names.has(name)) this.#known.delete(name);
  }

  #look(one: Watched): Promise<void> {
    const current = this.#looking.get(one.name);
    if (current !== undefined) {
      current.again = true;
      return current.done;
    }
    const look: Look = { done: Promise.resolve(), again: false, isOver: false };
    look.done = this.#lookNow(one, look).finally(() => this.#looking.delete(one.name));
    this.#looking.set(one.name, look);
    return look.done;
  }

  async #lookNow(one: Watched, look: Look): Promise<void> {
    do {
      look.again = look.isOver = false;
      const status = await one.status();
      // The end of a worker fails its status first, and is noticed then.
      await new Promise((resolve) => setImmediate(resolve));
      if (!look.isOver) this.#compare(one.name, status);
    } while (look.again);
  }

  #compare(name: string, { detail, ...status }: ResourceStatus): void {
    const now = Object.fromEntries(fields.map((field) => [field, status[field]])) as
      unknown as StateNow;
    const before = this.#known.get(name)?.now;
    this.#known.set(name, { now, detail });
    if (before === undefined) return;
    for (const kind of fields) {
      const [from, to] = [before[kind], now[kind]];
      if (from === to) continue;
      const end = kind === 'worker' ? this.#ends.get(name) : undefined;
      if (kind === 'worker') this.#ends.delete(name);
      this.#tell({ ...eventOf(name), kind, from, to, why: end ?? detail });
    }
  }

  #tell(event: StateEvent & { resource: string }): void {
    for (const { names, send } of this.#watchers) if (names.has(event.resource)) send(event);
  }
}

function eventOf(resource: string): StateEvent & { resource: string } {
  const time = Date.now() / 1000;
  return { schema: 1, time, resource, kind: 'now', from: null, to: null, why: '' };
}

function nowEvent(name: string, { now, detail }: Known): StateEvent {
  return { ...eventOf(name), to: now.status, why: detail, state: now };
}
