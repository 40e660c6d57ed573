/**
 * hastd: the parent of all workers of a node. It owns the configuration, the control socket,
 * the listening sockets and the hooks; each resource has a supervisor of its own. Resources
 * start in role init; who promotes is decided outside.
 *
 * Stopping is refused while a device is in use: nothing changes then, for any resource.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { HastError, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { nearest } from '../config/keywords.ts';
import type { LoadResult } from '../config/load.ts';
import type { Config, ResourceConfig } from '../config/model.ts';
import { planReload } from '../config/reload.ts';
import type { ReloadPlan, Refusal } from '../config/reload.ts';
import type { ControlRequest, ReplyOf, RoleResult } from '../control/messages.ts';
import type { ControlServer } from '../control/server.ts';
import { startControlServer } from '../control/server.ts';
import type { StateEvent } from '../format/state-event.ts';
import { ownProtocol, type Protocol } from '../format/protocol.ts';
import type { SwitchoverSaid } from '../format/switchover.ts';
import { carryOut, changeRole, orderOf, replaceWorker } from './answers.ts';
import type { OrderRequest } from './answers.ts';
import { within } from './deadline.ts';
import type { DeviceOperations } from './device.ts';
import { Hooks } from './hooks.ts';
import type { PeerTarget } from './listener.ts';
import { Monitor } from './monitor.ts';
import { Listener } from './listener.ts';
import type { Lookup } from './peer-addresses.ts';
import { PeerFacts } from './peer-facts.ts';
import { PeerAddresses } from './peer-addresses.ts';
import type { Pidfile } from './pidfile.ts';
import { takePidfile } from './pidfile.ts';
import { release } from './release.ts';
import { ownDirectory, rundirMode } from './safe-files.ts';
import { isStopping } from './supervisor-orders.ts';
import { Supervisor } from './supervisor.ts';
import { Switchovers } from './switchovers.ts';
import type { Timing } from './timing.ts';
import { defaultTiming } from './timing.ts';
import type { DescriptorStore } from './service-manager.ts';
import { mapOf } from './supervisor-orders.ts';
import { Watchers } from './watchers.ts';
import { workerFolder } from './worker-files.ts';
import type { WorkerProgram } from './worker-link.ts';

export interface DaemonOptions {
  config: Config;
  /** Reads the configuration again. */
  load(): LoadResult;
  log: Logger;
  program: WorkerProgram;
  operations: DeviceOperations;
  /** Keeps the devices' descriptions beyond the life of hastd, where somebody does. */
  store?: DescriptorStore;
  /** `check` rejects where what is installed cannot take over; `become` returns where it failed. */
  successor?: { check(): Promise<void>; become(): void };
  timing?: Partial<Timing>;
  /** Command line of hastctl for this configuration: what the peer asks for is done by it. */
  hastctl?: readonly string[];
  /** What this node speaks; this program's own by default. */
  protocol?: Protocol;
  lookup?: Lookup;
}

export type ReloadResult =
  | { applied: true }
  | { applied: false; refused: Refusal[]; text: string };

const startedAt = Date.now();
/** Operations under way end before hastd is replaced. */
const settleMs = 60_000;
/** The answer is out by then, and the log. */
const answerMs = 200;
const devdirMode = 0o755;

export class Daemon {
  readonly #options: DaemonOptions;
  readonly #log: Logger;
  readonly #hooks: Hooks;
  readonly #listener: Listener;
  readonly #switchovers: Switchovers;
  readonly #facts: PeerFacts;
  readonly #watchers = new Watchers(() => [...this.#supervisors.values()]);
  readonly #monitor: Monitor;
  readonly #supervisors = new Map<string, Supervisor>();
  #config: Config;
  #pidfile: Pidfile | undefined;
  #control: ControlServer | undefined;
  #stopping = false;
  #reloading: Promise<unknown> = Promise.resolve();

  private constructor(options: DaemonOptions) {
    this.#options = options;
    this.#config = options.config;
    this.#log = options.log;
    this.#hooks = new Hooks({ log: options.log });
    const addresses = options.lookup === undefined
      ? new PeerAddresses(options.log)
      : new PeerAddresses(options.log, options.lookup);
    this.#listener = new Listener({
      log: options.log, addresses, targets: () => this.#peerTargets(),
      protocol: options.protocol ?? ownProtocol,
    });
    const tell = async (name: string, say: SwitchoverSaid): Promise<unknown> =>
      await this.#supervisors.get(name)?.order({ kind: 'switchover', say });
    this.#switchovers = new Switchovers({
      log: options.log, hastctl: options.hastctl ?? [], tell,
    });
    this.#facts = new PeerFacts({
      log: options.log, tell,
      node: () => ({ config: this.#config, protocol: options.protocol ?? ownProtocol }),
      resource: (name) => this.#supervisors.get(name)?.resource,
      status: async (name) => await this.#only(name).status(),
    });
    this.#monitor = new Monitor(options.log, {
      node: options.config.node, startedAt, watchers: this.#watchers,
      supervisors: () => [...this.#supervisors.values()],
    });
    for (const resource of options.config.resources) this.#add(resource);
  }

  /** Throws, with nothing left behind, where a lock, a socket or an address cannot be had. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options);
    try {
      await daemon.#open();
    } catch (error) {
      await daemon.#close();
      throw error;
    }
    return daemon;
  }

  get config(): Config {
    return this.#config;
  }

  /** Port of the first listening socket. */
  get port(): number {
    return this.#listener.port;
  }

  /** Port of metrics and status page; 0 without them. */
  get metricsPort(): number {
    return this.#monitor.port;
  }

  async handle(request: ControlRequest): Promise<ReplyOf[keyof ReplyOf]> {
    switch (request.command) {
      case 'ping':
        return { pid: process.pid, node: this.#config.node, release, startedAt };
      case 'status': {
        const chosen = this.#select(request.resources);
        return { resources: await Promise.all(chosen.map((one) => one.status())) };
      }
      case 'statistics': {
        const views = await Promise.all(this.#select(request.resources).map((one) => one.view()));
        return { resources: views.map(({ status, statistics }) => ({ status, statistics })) };
      }
      case 'events':
        this.#select(request.resources);
        return {};
      case 'map': {
        const [one] = this.#select([request.resource]);
        const ms = this.#options.timing?.statusMs ?? defaultTiming.statusMs;
        return { map: await mapOf(one as Supervisor, request.cells, ms) };
      }
      case 'role': {
        if (this.#stopping) throw isStopping();
        const { role, force } = request;
        const chosen = this.#select(request.resources);
        return { results: await Promise.all(chosen.map((one) => changeRole(one, role, force))) };
      }
      case 'switchover':
        this.#select([request.resource]);
        return await this.#switchovers.ask(request.resource, request.what);
      case 'peer-facts':
        return await this.#facts.ask(this.#only(request.resource).name);
      case 'replace-hastd':
        return await this.#replace();
      case 'replace-workers': {
        if (this.#stopping) throw isStopping();
        const chosen = this.#select(request.resources);
        return { results: await Promise.all(chosen.map((one) => replaceWorker(one))) };
      }
      default:
        return await this.#order(request);
    }
  }

  /** After the reply to `events`. */
  async follow(resources: readonly string[], send: (event: StateEvent) => void) {
    return await this.#watchers.follow(this.#select(resources).map(({ name }) => name), send);
  }

  async #order(request: OrderRequest): Promise<ReplyOf[keyof ReplyOf]> {
    if (this.#stopping) throw isStopping();
    const order = orderOf(request);
    const names = 'resource' in request ? [request.resource] : request.resources;
    const chosen = this.#select(names);
    if (order.kind !== 'resolve') {
      return { results: await Promise.all(chosen.map((one) => carryOut(one, order))) };
    }
    const [resolution] = await Promise.all(chosen.map((one) => one.order(order)));
    if (resolution == null) throw new HastError('HAST_E_INTERNAL', 'a resolution without a result');
    return { resolution };
  }

  /** Answers first; then the process is what is installed now, and its workers are taken over. */
  async #replace(): Promise<ReplyOf['replace-hastd']> {
    const { successor } = this.#options;
    if (this.#stopping || successor === undefined) {
      throw isStopping();
    }
    await successor.check();
    this.#stopping = true;
    const settled = Promise.all([...this.#supervisors.values()].map((one) => one.settled()));
    try {
      await within(settleMs, 'an operation that is under way', settled);
    } catch (error) {
      this.#stopping = false;
      throw error;
    }
    setTimeout(() => {
      this.#log.warn({ release }, 'hastd becomes what is installed now');
      successor.become();
      this.#stopping = false;
    }, answerMs);
    return { pid: process.pid, release };
  }

  /** Applies the file as it is now, whole or not at all. */
  reload(): Promise<ReloadResult> {
    const result = this.#reloading.then(() => this.#reloadNow());
    this.#reloading = result.catch(() => undefined);
    return result;
  }

  /**
   * Takes every device away and ends, except for those in use that `on-stop` keeps: their workers
   * go on. False, and everything goes on, where one is in use that it does not let go.
   */
  async stop(): Promise<boolean> {
    if (this.#stopping) return false;
    this.#stopping = true;
    const used = await this.#inUse();
    if ([...used].some(([one, holders]) => this.#refusesToStop(one, holders))) {
      this.#stopping = false;
      return false;
    }
    const kept = new Set([...used.keys()].filter((one) => one.resource.onStop === 'keep'));
    const ended = [...this.#supervisors.values()].filter((one) => !kept.has(one));
    const results = await Promise.all(ended.map((one) =>
      changeRole(one, 'init', one.resource.onStop === 'force')));
    const failed = results.filter((result) => result.to !== 'init');
    for (const { name, error } of failed) {
      this.#log.error({ resource: name, error: error?.message }, 'hastd does not stop');
    }
    if (failed.length > 0) {
      this.#stopping = false;
      return false;
    }
    for (const { name } of kept) {
      this.#log.warn({ resource: name }, 'its worker goes on serving: start hastd to take it over');
    }
    await this.#close();
    return true;
  }

  // --- start and end

  async #open(): Promise<void> {
    const { rundir, devdir, pidfile, control, controlGroup, listen, metrics } = this.#config;
    await ownDirectory(rundir, rundirMode, 'rundir');
    await ownDirectory(devdir, devdirMode, 'devdir');
    await fs.mkdir(path.dirname(pidfile), { recursive: true }).catch(() => undefined);
    this.#pidfile = await takePidfile(pidfile);
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    await fs.mkdir(path.dirname(control.path), { recursive: true }).catch(() => undefined);
    // Before any worker is taken over: not from a hastd that lives, and answers there.
    this.#control = await startControlServer({
      path: control.path,
      group: controlGroup?.gid ?? null,
      log: this.#log,
      handle: async (request) => {
        await opened;
        return await this.handle(request);
      },
      follow: ({ resources }, send) => this.follow(resources, send),
    });
    try {
      await Promise.all([...this.#supervisors.values()].map((one) => one.adopt()));
      this.#options.store?.settle();
      await this.#listener.listen(listen);
      await this.#monitor.listen(metrics);
      await this.#reloadAdopted();
    } catch (error) {
      this.#stopping = true;
      throw error;
    } finally {
      open(); // who gets an answer may connect
    }
  }

  async #close(): Promise<void> {
    this.#listener.close();
    this.#monitor.close();
    await this.#control?.close();
    // It stays while a worker does.
    await fs.rmdir(workerFolder(this.#config.rundir)).catch(() => undefined);
    await this.#pidfile?.release().catch((error: unknown) => {
      this.#log.warn({ error: errorText(error) }, 'the pidfile cannot be removed');
    });
  }

  /** With those who use them. */
  async #inUse(): Promise<Map<Supervisor, string[]>> {
    const used = new Map<Supervisor, string[]>();
    for (const one of this.#supervisors.values()) {
      // Where nobody can say who uses the device, it counts as used.
      const holders = await one.holders().catch((error: unknown) => [errorText(error)]);
      if (holders.length > 0) used.set(one, holders);
    }
    return used;
  }

  /** Also where it shall be kept and nobody serves it: that would end its users' requests. */
  #refusesToStop({ name, state, resource: { onStop } }: Supervisor, holders: string[]): boolean {
    if (onStop === 'force' || (onStop === 'keep' && state === 'primary')) return false;
    const hint = `unmount it, or: hastctl role init --force ${name}`;
    this.#log.error({ resource: name, holders, hint }, 'hastd does not stop: the device is in use');
    return true;
  }

  // --- resources

  #add(resource: ResourceConfig): void {
    const { program, operations, store, log } = this.#options;
    this.#supervisors.set(resource.name, new Supervisor({
      resource,
      node: this.#config.node,
      rundir: this.#config.rundir,
      devdir: this.#config.devdir,
      program,
      operations,
      store,
      hooks: this.#hooks,
      log,
      timing: { ...defaultTiming, ...this.#options.timing },
      onSwitchover: (name, said) => {
        this.#switchovers.receive(name, said);
        this.#facts.receive(name, said);
      },
      onNotice: (name, notice) => this.#watchers.noticed(name, notice),
    }));
  }

  /** All of them for an empty list; throws HAST_E_UNKNOWN_RESOURCE before anything is done. */
  #select(names: readonly string[]): Supervisor[] {
    const known = [...this.#supervisors.keys()];
    const chosen = names.length === 0 ? known : [...new Set(names)];
    return chosen.map((name) => {
      const found = this.#supervisors.get(name);
      if (found !== undefined) return found;
      const near = nearest(name, known);
      throw new HastError('HAST_E_UNKNOWN_RESOURCE', `hastd knows no resource '${name}'`, {
        hint: near === undefined
          ? `known are: ${known.join(', ') || 'none'}; after a change of the file reload hastd`
          : `did you mean '${near}'?`,
      });
    });
  }

  #only(name: string): Supervisor {
    const [found] = this.#select([name]);
    if (found === undefined) throw new HastError('HAST_E_INTERNAL', 'no resource');
    return found;
  }

  #peerTargets(): ReadonlyMap<string, PeerTarget> {
    const targets = new Map<string, PeerTarget>();
    for (const [name, supervisor] of this.#supervisors) {
      const worker = supervisor.peerWorker;
      targets.set(name, {
        remote: supervisor.resource.remote,
        state: supervisor.role === 'init' ? 'init' : worker === undefined ? 'busy' : 'ready',
        handOver: (preface, socket) => {
          if (worker === undefined) socket.destroy();
          else worker.handOver(preface, socket);
        },
      });
    }
    return targets;
  }

  // --- reload

  /** Workers that were taken over go on with their own values: the file's are applied to them. */
  async #reloadAdopted(): Promise<void> {
    const resources = this.#config.resources.map((resource) =>
      this.#supervisors.get(resource.name)?.resource ?? resource);
    if (isDeepStrictEqual(resources, this.#config.resources)) return;
    this.#config = { ...this.#config, resources };
    await this.reload();
  }

  async #reloadNow(): Promise<ReloadResult> {
    if (this.#stopping) return this.#notReloaded([], 'hastd is stopping');
    const { config: next, format } = this.#options.load();
    if (next === undefined) return this.#notReloaded([], format());
    const roleOf = (name: string): RoleResult['from'] =>
      this.#supervisors.get(name)?.role ?? 'init';
    const plan = planReload(this.#config, next, roleOf);
    if (plan.refused.length > 0) {
      const lines = plan.refused.map(({ what, why, hint }) => `${what}: ${why}; ${hint}`);
      return this.#notReloaded(plan.refused, lines.join('\n'));
    }
    try {
      await this.#apply(plan, next);
    } catch (error) {
      return this.#notReloaded([], errorText(error));
    }
    this.#log.info({ file: next.file }, 'configuration reloaded');
    return { applied: true };
  }

  #notReloaded(refused: Refusal[], text: string): ReloadResult {
    this.#log.error({ reason: text }, 'configuration not reloaded: the old one goes on');
    return { applied: false, refused, text };
  }

  /** What can fail comes first, and is taken back where a later part fails. */
  async #apply(plan: ReloadPlan, next: Config): Promise<void> {
    const undo: (() => Promise<void>)[] = [];
    try {
      if (plan.listenChanged) {
        const old = this.#config.listen;
        await this.#listener.listen(next.listen);
        undo.push(() => this.#listener.listen(old));
      }
      if (plan.metricsChanged) {
        const old = this.#config.metrics;
        await this.#monitor.listen(next.metrics);
        undo.push(() => this.#monitor.listen(old));
      }
      for (const { resource } of plan.changed) {
        const supervisor = this.#supervisors.get(resource.name);
        if (supervisor === undefined) continue;
        const old = supervisor.resource;
        undo.push(() => supervisor.reconfigure(old));
        await supervisor.reconfigure(resource);
      }
    } catch (error) {
      for (const step of undo.reverse()) {
        await step().catch((failure: unknown) => {
          this.#log.error({ error: errorText(failure) }, 'a reload could not be taken back');
        });
      }
      throw error;
    }
    for (const name of plan.removed) this.#supervisors.delete(name);
    this.#config = next;
    for (const resource of plan.added) this.#add(resource);
    this.#monitor.resourcesChanged();
  }
}
