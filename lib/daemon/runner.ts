/**
 * One resource in its worker: the core on real ports. Builds them, feeds the core's clock, and
 * turns the configuration into the core's options.
 */
import { randomBytes } from 'node:crypto';
import type * as net from 'node:net';
import * as os from 'node:os';
import { HastError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { defaults } from '../config/limits.ts';
import type { ResourceConfig } from '../config/model.ts';
import { formatAddress } from '../config/address.ts';
import type { CoreOptions } from '../core/context.ts';
import { openResource } from '../core/open-resource.ts';
import type { ConnectPort, ResourceEvent, SurvivingMemory } from '../core/ports.ts';
import type { Resource } from '../core/resource.ts';
import type { PromoteDone } from '../core/role-change.ts';
import { coreStatistics } from '../core/statistics.ts';
import { coreStatus } from '../core/status.ts';
import { openInflight, removeInflight } from '../disk/inflight-file.ts';
import { openLocal, type LocalFile } from '../disk/local.ts';
import { LocalDisk } from '../disk/local-disk.ts';
import type { OpenDisk } from '../disk/open-disk.ts';
import { RingDisk } from '../disk/ring-disk.ts';
import { decodePreface, PrefaceAnswer, prefaceVersionFits } from '../format/preface.ts';
import { ownProtocol, type Protocol } from '../format/protocol.ts';
import type { ResourceStatistics } from '../format/statistics.ts';
import type { ResourceStatus } from '../format/status.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import type { WireOptions } from '../format/wire.ts';
import { dial } from '../net/connector.ts';
import type { Credentials } from '../net/credentials.ts';
import { lz4Compressor } from '../net/lz4.ts';
import { openConnection } from '../net/open-connection.ts';
import type { Reactor } from '../uring/reactor.ts';
import { release } from './release.ts';
import { KeptFiles } from './kept-files.ts';
import { configText, PeerSecurity } from './peer-security.ts';
import { carryOut, refused, type OrderDone, type UndoFiles } from './worker-orders.ts';
import type { Order } from './worker-protocol.ts';

export interface RunnerOptions {
  resource: ResourceConfig;
  node: string;
  log: Logger;
  onEvent: (event: ResourceEvent) => void;
  /** What the peer says of a switchover. */
  onSwitchover?: (said: SwitchoverSaid) => void;
  /** What this node speaks; this program's own by default. */
  protocol?: Protocol;
  /** How what a resolution overwrites is kept. */
  undoFiles?: UndoFiles;
  /** The worker succeeds a primary's that died: told what came of it, see RoleChange.resume. */
  onResumed?: PromoteDone;
  /** Where a primary's process leaves what is under way to its successor; nowhere without. */
  inflightFile?: string;
  /** Does the I/O of disk and peer; threads of the pool and Node do where there is none. */
  reactor?: Reactor | null;
}

/** Writes of a primary wait for one attempt before it goes on alone. */
const dialMsMax = 5000;
/** How long a start waits for the lock of the copy, and how often it tries. */
const lockWaitMs = 3000;
const lockRetryMs = 100;
/** A disk that hangs keeps its descriptors: how long the end of the worker waits for them. */
const closeWaitMs = 2000;
/** A timer that is due at once runs after the inputs that wait already. */
const timerMinMs = 1;

const noUndoFile = new HastError('HAST_E_UNSUPPORTED', 'this worker keeps no undo files', {
  hint: 'resolve without --undo',
});
const noUndoFiles: UndoFiles = {
  create: () => Promise.reject(noUndoFile),
  open: () => Promise.reject(noUndoFile),
};

export class Runner {
  readonly #node: string;
  readonly #log: Logger;
  readonly #onEvent: (event: ResourceEvent) => void;
  readonly #onSwitchover: ((said: SwitchoverSaid) => void) | undefined;
  readonly #undoFiles: UndoFiles;
  readonly #onResumed: PromoteDone | undefined;
  readonly #inflightFile: string | undefined;
  readonly #reactor: Reactor | null;
  readonly #security: PeerSecurity;
  readonly #wire: WireOptions;
  readonly #coreOptions: CoreOptions;
  #config: ResourceConfig;
  /** The local copy; null where it is detached. */
  #disk: OpenDisk | null = null;
  /** Disks given back that do not let go yet. */
  #lingering = 0;
  #onLetGo: (() => void) | null = null;
  #attaching = false;
  #resource: Resource | null = null;
  #timer: NodeJS.Timeout | null = null;
  #timerAt = Infinity;
  #turnAsked = false;

  constructor(options: RunnerOptions) {
    this.#config = options.resource;
    this.#node = options.node;
    this.#log = options.log;
    this.#onEvent = options.onEvent;
    this.#onSwitchover = options.onSwitchover;
    this.#undoFiles = options.undoFiles ?? noUndoFiles;
    this.#onResumed = options.onResumed;
    this.#inflightFile = options.inflightFile;
    this.#reactor = options.reactor ?? null;
    this.#security = new PeerSecurity({
      log: options.log, resource: options.resource,
      onFailure: (text) => this.#resource?.linker.incomingFailed(text),
    });
    this.#drive();
    this.#wire = { checksum: 'crc32', compression: 'none', compressor: lz4Compressor };
    this.#coreOptions = {
      resource: options.resource.name, node: options.node,
      protocol: options.protocol ?? ownProtocol, mode: 'fullsync', timeoutMs: 0,
      alone: false, asyncLagBytes: 0, asyncLagMs: 0, diskTimeoutMs: 0, onNoData: 'stall',
      resyncRate: 0,
    };
    this.#applyConfig();
  }

  get resource(): Resource {
    if (this.#resource !== null) return this.#resource;
    throw new HastError('HAST_E_INTERNAL', 'the worker is not started');
  }

  /** Opens the copy and starts the core as secondary. Calls `done` with what stands against it. */
  start(done: (error: HastError | null) => void): void {
    openWhenFree(this.#config, (error, local) => {
      if (local === null) done(error);
      else this.#open(local, done);
    });
  }

  #open(local: LocalFile, done: (error: HastError | null) => void): void {
    const disk = this.#diskOn(local);
    this.#disk = disk;
    openResource({
      disk,
      localSize: local.size,
      connect: this.#connectPort(),
      clock: { now: () => performance.now(), wallSeconds: () => Math.floor(Date.now() / 1000) },
      random: { id64: randomId, unit: () => Math.random() },
      events: {
        event: (event) => this.#event(event),
        ...(this.#onSwitchover === undefined ? {} : { switchover: this.#onSwitchover }),
      },
      turn: {
        request: () => this.#requestTurn(),
        deadlineChanged: () => this.#arm(),
      },
      undo: new KeptFiles(
        this.#undoFiles.create, () => this.#config.undoDirectory, this.#log,
      ),
      surviving: this.#surviving(),
      log: this.#log,
    }, this.#coreOptions, (error, resource) => {
      this.#resource = resource;
      if (resource === null) this.#dropDisk();
      else this.#start(resource);
      done(error);
    });
  }

  /** Opened with the lock of the copy held: nobody else uses it. */
  #surviving(): SurvivingMemory | null {
    if (this.#inflightFile === undefined) return null;
    return openInflight(this.#inflightFile, this.#onResumed !== undefined, this.#log);
  }

  #start(resource: Resource): void {
    // Before the first hello, which tells the peer the role.
    if (this.#onResumed !== undefined) resource.roleChange.resume(this.#onResumed);
    resource.start();
  }

  #event(event: ResourceEvent): void {
    if (event.kind === 'detach') this.#dropDisk();
    this.#onEvent(event);
  }

  /** Gives the disk back, as soon as it lets go, so that it can be taken out. */
  #dropDisk(): void {
    const disk = this.#disk;
    this.#disk = null;
    if (disk === null) return;
    this.#lingering++;
    disk.close(() => {
      this.#lingering--;
      this.#onLetGo?.();
    });
  }

  /** Carries out what an operator asks for; `done` is called once, later. */
  order(order: Order, done: OrderDone): void {
    if (this.#resource === null) {
      const busy = new HastError('HAST_E_BUSY', 'the worker is not started yet', { hint: 'wait' });
      setImmediate(() => done(busy, null));
      return;
    }
    carryOut(order, {
      resource: this.#resource,
      undoFiles: this.#undoFiles,
      attach: (attached) => this.#attach(attached),
    }, done);
  }

  /** Opens `local` anew for a primary that goes on without it. */
  #attach(done: (error: HastError | null) => void): void {
    const { resource } = this;
    if (this.#attaching || (this.#disk !== null && !resource.failed)) {
      const why = this.#attaching ? 'the copy is being attached' : 'the copy is attached already';
      const hint = `hastctl detach ${this.#config.name} first, if it is to be read anew`;
      setImmediate(() => done(refused({ message: why, hint: this.#attaching ? 'wait' : hint })));
      return;
    }
    this.#attaching = true;
    const finish = (error: HastError | null): void => {
      this.#attaching = false;
      done(error);
    };
    // A copy that failed without a peer to go on with is still open, and holds its own lock.
    this.#dropDisk();
    openWhenFree(this.#config, (error, local) => {
      if (local === null) {
        finish(error);
        return;
      }
      const disk = this.#diskOn(local);
      // From here on it is the copy: the core may give it up again while it attaches it.
      this.#disk = disk;
      resource.operator.attach(disk, local.size, (refusal) => {
        if (refusal !== null && this.#disk === disk) this.#dropDisk();
        finish(refusal === null ? null : refused(refusal));
      });
    });
  }

  /** A connection the parent accepted, with the preface it read. */
  takePeer(prefaceBytes: Uint8Array, socket: net.Socket): void {
    socket.on('error', (error) => this.#log.debug({ error: error.message }, 'peer socket'));
    const { protocol } = this.#coreOptions;
    const preface = decodePreface(prefaceBytes, protocol);
    this.#security.admit(preface, prefaceBytes, socket, ({ socket: admitted, rest, ...one }) => {
      if (this.#resource === null || !prefaceVersionFits(preface, protocol)) {
        one.answer(this.#resource === null ? PrefaceAnswer.busy : PrefaceAnswer.version);
        return;
      }
      this.#resource.incoming(preface, () => {
        one.answer(PrefaceAnswer.ok);
        return (handler) =>
          openConnection(admitted, this.#wire, handler, rest, this.#reactor);
      }, one.answer);
    });
  }

  /** New values; which of them may change was decided before. */
  reload(config: ResourceConfig): void {
    const before = JSON.stringify([this.#config.remote, this.#config.source]);
    const isOther = this.#security.reload(config);
    this.#config = config;
    this.#applyConfig();
    const isMoved = before !== JSON.stringify([config.remote, config.source]);
    this.resource.optionsChanged(isMoved || isOther);
  }

  /**
   * Leaves cleanly. `closed`: the copy is given back; false where its disk hangs, and a thread of
   * this process with it.
   */
  stop(force: boolean, done: (closed: boolean) => void): void {
    if (this.#resource === null) {
      this.#closeAll(done);
      return;
    }
    this.#resource.stop(force, () => {
      if (this.#timer !== null) clearTimeout(this.#timer);
      if (this.#inflightFile !== undefined) removeInflight(this.#inflightFile);
      this.#closeAll(done);
    });
  }

  #closeAll(done: (closed: boolean) => void): void {
    this.#dropDisk();
    if (this.#lingering === 0) {
      done(true);
      return;
    }
    const timer = setTimeout(() => {
      this.#onLetGo = null;
      done(false);
    }, closeWaitMs);
    this.#onLetGo = () => {
      if (this.#lingering > 0) return;
      this.#onLetGo = null;
      clearTimeout(timer);
      done(true);
    };
  }

  status(): ResourceStatus {
    const config = this.#config;
    return {
      schema: 1,
      name: config.name,
      ...coreStatus(this.resource),
      local: config.local,
      remote: config.remote === null ? 'none' : formatAddress(config.remote),
      source: config.source === null ? null : formatAddress(config.source),
      device: '',
      replication: config.replication,
      checksum: config.checksum,
      compression: config.compression,
      frontend: config.frontend,
      diskTimeout: config.diskTimeout,
      onNoData: config.onNoData,
      resyncRate: config.resyncRate,
      authentication: this.#security.kind,
      certificateExpires: this.#security.certificateExpires,
      worker: process.pid,
      release,
    };
  }

  /** `idle`: free places for requests in the front end. */
  statistics(idle: number): ResourceStatistics {
    return coreStatistics(this.resource, idle);
  }

  #applyConfig(): void {
    const config = this.#config;
    Object.assign(this.#coreOptions, {
      mode: config.replication, timeoutMs: config.timeout * 1000, alone: config.remote === null,
      asyncLagBytes: config.asyncLag, asyncLagMs: config.asyncLagTime * 1000,
      diskTimeoutMs: config.diskTimeout * 1000, onNoData: config.onNoData,
      resyncRate: config.resyncRate,
    });
    // A parent of an older release does not name it.
    const busyPoll = (config.busyPoll as number | undefined) ?? defaults.busyPollMicroseconds;
    // Who looks while there is one processor keeps it from those who are looked for.
    const looks = os.availableParallelism() > 1 ? busyPoll : 0;
    if (this.#reactor !== null) this.#reactor.busyPoll.milliseconds = looks / 1000;
    this.#wire.checksum = config.checksum;
    this.#wire.compression = config.compression;
  }

  #connectPort(): ConnectPort {
    return {
      connect: (isPrimary, done) => {
        const { remote, source, timeout, name } = this.#config;
        if (remote === null) {
          setImmediate(() => done({ failed: 'remote none', answered: false }));
          return;
        }
        let credentials: Credentials | null;
        try {
          credentials = this.#security.credentials();
        } catch (error) {
          if (!(error instanceof HastError)) throw error;
          setImmediate(() => done({ failed: configText(error), answered: false }));
          return;
        }
        dial({
          host: remote.host, port: remote.port,
          family: remote.family === 'tcp4' ? 4 : remote.family === 'tcp6' ? 6 : 0,
          source, timeoutMs: Math.min(timeout * 1000, dialMsMax), resource: name,
          node: this.#node, isPrimary, wire: this.#wire, protocol: this.#coreOptions.protocol,
          reactor: this.#reactor, credentials,
          onUnsecured: (text) => this.#security.failed(text),
        }, (result) => {
          if ('open' in result) this.#security.succeeded();
          done(result);
        });
      },
    };
  }

  #requestTurn(): void {
    if (this.#turnAsked) return;
    this.#turnAsked = true;
    if (this.#reactor === null) setImmediate(() => this.#turnEnd());
  }

  #turnEnd(): void {
    this.#turnAsked = false;
    this.#resource?.turnEnd();
  }

  /** The reactor's rounds are the turns of the core, and it wakes for the core's deadline. */
  #drive(): void {
    if (this.#reactor === null) return;
    this.#reactor.deadline = () => this.#timer === null ? null : this.#timerAt;
    this.#reactor.onRound = () => {
      if (this.#turnAsked) this.#turnEnd();
    };
  }

  #diskOn(local: LocalFile): OpenDisk {
    if (this.#config.cache === 'direct' && local.directFd < 0) {
      this.#log.warn({ local: local.path },
        'the page cache cannot be passed by there: as with cache writeback');
    }
    return this.#reactor === null ? new LocalDisk(local) : new RingDisk(this.#reactor, local);
  }

  /** Sets the one timer to the core's next deadline. */
  #arm(): void {
    const next = this.#resource?.nextDeadline() ?? null;
    if (next === null || (this.#timer !== null && this.#timerAt <= next)) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAt = next;
    const wait = Math.max(timerMinMs, Math.ceil(next - performance.now()));
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#resource?.tick();
      this.#arm();
    }, wait);
  }
}

/** `openLocal`, after a wait for a lock: of a process that was killed, or of a disk that hangs. */
function openWhenFree(
  { local: path, cache }: ResourceConfig,
  done: (error: HastError | null, local: LocalFile | null) => void,
): void {
  const giveUpAt = performance.now() + lockWaitMs;
  const attempt = (): void => {
    let local: LocalFile;
    try {
      local = openLocal(path, cache);
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      // The lock is kept until the last I/O of who held it has left the kernel.
      const again = error.code === 'HAST_E_BUSY' && performance.now() < giveUpAt;
      if (again) setTimeout(attempt, lockRetryMs);
      else done(error, null);
      return;
    }
    done(null, local);
  };
  attempt();
}

function randomId(): bigint {
  for (;;) {
    const id = randomBytes(8).readBigUInt64LE();
    if (id !== 0n) return id;
  }
}
