/**
 * Metrics and the status page of this node, where the configuration wants them: the sources of
 * lib/monitor, from the supervisors. Nothing is gathered while nobody asks; the last events are
 * kept while the page is served.
 */
import type { Logger } from '../base/log.ts';
import type { TcpAddress } from '../config/address.ts';
import type { StateEvent } from '../format/state-event.ts';
import type { NodeFacts, ResourceFacts } from '../monitor/facts.ts';
import { WebServer } from '../monitor/web-server.ts';
import { release } from './release.ts';
import type { Supervisor } from './supervisor.ts';
import { mapOf } from './supervisor-orders.ts';
import type { Watchers } from './watchers.ts';

export interface MonitorHost {
  readonly node: string;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly watchers: Watchers;
  supervisors(): readonly Supervisor[];
}

/** A worker that does not answer within this is shown as such: a page is never late for it. */
const askMs = 1000;
const eventsMax = 100;

export class Monitor {
  readonly #log: Logger;
  readonly #host: MonitorHost;
  readonly #events: StateEvent[] = [];
  #server: WebServer | null = null;
  #isServing = false;
  #unfollow: () => void = () => undefined;
  #followed: readonly string[] = [];
  #following: Promise<void> = Promise.resolve();

  constructor(log: Logger, host: MonitorHost) {
    this.#log = log;
    this.#host = host;
  }

  /** For tests that listen on port 0; 0 while it does not listen. */
  get port(): number {
    return this.#server?.port ?? 0;
  }

  /** See WebServer.listen(). */
  async listen(address: TcpAddress | null): Promise<void> {
    if (address === null && this.#server === null) return;
    this.#server ??= await this.#makeServer();
    await this.#server.listen(address);
    this.#isServing = address !== null;
    this.resourcesChanged();
  }

  /** Resources came or went. */
  resourcesChanged(): void {
    this.#following = this.#following.then(() => this.#follow());
  }

  close(): void {
    this.#isServing = false;
    this.#server?.close();
    this.resourcesChanged();
  }

  /** Never rejects. */
  async #follow(): Promise<void> {
    const names = this.#isServing ? this.#host.supervisors().map(({ name }) => name) : [];
    if (names.join('\n') === this.#followed.join('\n')) return;
    this.#unfollow();
    this.#unfollow = () => undefined;
    this.#followed = names;
    if (names.length === 0) return;
    this.#unfollow = await this.#host.watchers.follow(names, (event) => this.#keep(event));
  }

  async #makeServer(): Promise<WebServer> {
    // A node without the page does not load what makes it.
    const { Pages } = await import('../monitor/pages.ts');
    const pages = await Pages.open({
      facts: () => this.#facts(),
      map: async (name, cells) => {
        const one = this.#host.supervisors().find((each) => each.name === name);
        return one === undefined ? null : await mapOf(one, cells, askMs).catch(() => null);
      },
      events: () => this.#events,
    });
    return new WebServer({ log: this.#log, answer: (path) => pages.answer(path) });
  }

  #keep(event: StateEvent): void {
    if (event.kind === 'now') return;
    this.#events.push(event);
    if (this.#events.length > eventsMax) this.#events.shift();
  }

  async #facts(): Promise<NodeFacts> {
    const { node, startedAt } = this.#host;
    const of = async (one: Supervisor): Promise<ResourceFacts> => {
      const { status, statistics, hasAnswered } = await one.view(askMs);
      return { status, statistics, hasAnswered, workerDeaths: one.workerDeaths };
    };
    const all = this.#host.supervisors().map((one) => of(one));
    return { node, release, startedAt, resources: await Promise.all(all) };
  }
}
