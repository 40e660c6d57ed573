/** What `hastctl events` shows, one object a line; schema 1. New kinds and fields may be added. */

/** What one resource is at a moment: the fields of its status that events tell the changes of. */
export interface StateNow {
  role: string;
  status: string;
  connection: string;
  localDisk: string;
  peerDisk: string;
  peerRole: string;
  needsHuman: boolean;
  /** pid, or null without one. */
  worker: number | null;
}

export interface StateEvent {
  schema: 1;
  /** Seconds since 1970, with a fraction. */
  time: number;
  /** null: of hastd itself. */
  resource: string | null;
  /**
   * `now`: the first of a resource, with its state. A field of `StateNow`: it changed. `worker`
   * also where one ended, with the reason. `sync`: a resync started, done, or interrupted, on the
   * node that is its source. `daemon`: hastd went or came; hastctl says this one.
   */
  kind: 'now' | 'sync' | 'daemon' | keyof StateNow;
  from: string | number | boolean | null;
  to: string | number | boolean | null;
  /** Why, as status says it; empty where nothing is to be said. */
  why: string;
  /** Of `now`. */
  state?: StateNow;
}
