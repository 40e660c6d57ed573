/**
 * Bounds on what strangers, and whoever has the address of a peer, may hold or ask for: places of
 * connections that have not said what they want, and connections to one worker.
 */
import type * as net from 'node:net';

/** Sockets, the oldest first, and where each came from. Holds at most `max`. */
export class WaitingRoom {
  readonly #max: number;
  readonly #sockets = new Map<net.Socket, string>();

  constructor(max: number) {
    this.#max = max;
  }

  [Symbol.iterator](): Iterator<net.Socket> {
    return this.#sockets.keys();
  }

  /**
   * Takes it until it is closed, or leave(). Where the room is full, gives the one that has to go:
   * the oldest of the address that has most. So neither silence nor a flood of one address keeps
   * the others out, and of one address those who speak at once come through.
   */
  enter(socket: net.Socket, ip: string): net.Socket | null {
    const out = this.#sockets.size < this.#max ? null : this.#tooMany();
    if (out !== null) this.#sockets.delete(out);
    this.#sockets.set(socket, ip);
    socket.once('close', () => this.leave(socket));
    return out;
  }

  leave(socket: net.Socket): void {
    this.#sockets.delete(socket);
  }

  #tooMany(): net.Socket | null {
    const counts = new Map<string, number>();
    for (const ip of this.#sockets.values()) counts.set(ip, (counts.get(ip) ?? 0) + 1);
    let most = 0;
    let found: net.Socket | null = null;
    for (const [socket, ip] of this.#sockets) {
      const count = counts.get(ip) ?? 0;
      if (count > most) {
        most = count;
        found = socket;
      }
    }
    return found;
  }
}

/** Lets `max` calls per key through in each `ms`. Keys are few: names of resources. */
export class Throttle {
  readonly #max: number;
  readonly #ms: number;
  readonly #keys = new Map<string, { since: number; count: number }>();

  constructor(max: number, ms: number) {
    this.#max = max;
    this.#ms = ms;
  }

  allows(key: string): boolean {
    const now = performance.now();
    let entry = this.#keys.get(key);
    if (entry === undefined || now - entry.since >= this.#ms) {
      entry = { since: now, count: 0 };
      this.#keys.set(key, entry);
    }
    return ++entry.count <= this.#max;
  }
}
