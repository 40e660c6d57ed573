/** The states of a resource in the parent, and the only ways between them. */
import type { RoleWord } from '../control/messages.ts';

export type SupervisorState =
  /** No worker. */
  | 'init'
  /** A worker is started and not ready yet. */
  | 'starting'
  /** A worker runs as secondary. */
  | 'secondary'
  /** The worker is asked to be primary, or the device is being built. */
  | 'promoting'
  /** The device is there. */
  | 'primary'
  /**
   * Primary whose worker ended: the next is being started, or a timer does it. The device is
   * there, and what its users ask for waits.
   */
  | 'reviving'
  /** Primary whose new worker asks the peer before it serves the device. */
  | 'resuming'
  /** The device is being taken away, then the worker is ended. */
  | 'leaving'
  /** The worker is being ended; no device is shown. */
  | 'stopping'
  /** Secondary whose worker ended; a timer starts the next. */
  | 'backoff'
  /** Secondary whose worker cannot work; a person must act. */
  | 'failed';

export type SupervisorEvent =
  | 'start' | 'ready' | 'undone' | 'lost' | 'broken'
  | 'promote' | 'refused' | 'undo' | 'shown'
  | 'died' | 'resumed'
  | 'leave' | 'kept' | 'stop' | 'stopped'
  /** Of a parent that begins: what an earlier one left. */
  | 'adopted-secondary' | 'adopted-primary' | 'adopted-resuming' | 'adopted-dead';

type Edges = Partial<Record<SupervisorEvent, SupervisorState>>;

export const transitions: Readonly<Record<SupervisorState, Edges>> = {
  init: {
    start: 'starting', 'adopted-secondary': 'secondary', 'adopted-primary': 'primary',
    'adopted-resuming': 'resuming', 'adopted-dead': 'reviving',
  },
  starting: { ready: 'secondary', undone: 'init', lost: 'backoff', broken: 'failed' },
  secondary: { promote: 'promoting', stop: 'stopping', lost: 'backoff', broken: 'failed' },
  promoting: { refused: 'secondary', undo: 'stopping', shown: 'primary' },
  primary: { leave: 'leaving', died: 'reviving' },
  reviving: { ready: 'resuming', leave: 'leaving' },
  resuming: { resumed: 'primary', died: 'reviving', leave: 'leaving' },
  leaving: { kept: 'primary', stopped: 'init' },
  stopping: { stopped: 'init' },
  backoff: { start: 'starting', stop: 'init' },
  failed: { start: 'starting', stop: 'init' },
};

/** The role each state means to hastctl, to the peer and to hooks. */
export const roleOf: Readonly<Record<SupervisorState, RoleWord>> = {
  init: 'init',
  starting: 'secondary',
  secondary: 'secondary',
  promoting: 'secondary',
  primary: 'primary',
  reviving: 'primary',
  resuming: 'primary',
  leaving: 'primary',
  stopping: 'secondary',
  backoff: 'secondary',
  failed: 'secondary',
};
