/** What is served where: metrics, the status page and its data, and answers for load balancers. */
import * as fs from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { StateEvent } from '../format/state-event.ts';
import type { VolumeMap } from '../format/volume-map.ts';
import { contentType, exposition } from './exposition.ts';
import type { NodeFacts, ResourceFacts } from './facts.ts';
import { shared, textPage, type Page } from './web-server.ts';

/** Each must end in bounded time, and reject only where something is broken. */
export interface PageSources {
  facts(): Promise<NodeFacts>;
  /** In at most so many cells; null where nobody can tell. */
  map(resource: string, cells: number): Promise<VolumeMap | null>;
  /** The last ones, oldest first. */
  events(): readonly StateEvent[];
}

/** The same facts for everybody who asks within this. */
const freshMs = 500;
/** A picture of this size is readable on a phone, and small enough to send every two seconds. */
const mapCells = 512;

// From dist/lib/monitor and from lib/monitor alike: the files are carried as they are.
const folder = fileURLToPath(new URL(
  import.meta.url.includes('/dist/') ? '../../../lib/monitor/page/' : './page/', import.meta.url,
));
const types: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8', js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
};

export class Pages {
  readonly #metrics: () => Promise<Page>;
  readonly #status: () => Promise<Page>;
  readonly #facts: () => Promise<NodeFacts>;
  readonly #files = new Map<string, Page>();

  private constructor(sources: PageSources) {
    this.#facts = shared(freshMs, () => sources.facts());
    this.#metrics = shared(freshMs, async () =>
      page(contentType, await exposition(await this.#facts())));
    this.#status = shared(freshMs, async () => {
      const status = await statusOf(await this.#facts(), sources);
      return page('application/json; charset=utf-8', JSON.stringify(status));
    });
  }

  /** Reads the files of the page: hastd may be replaced by a release without them. */
  static async open(sources: PageSources): Promise<Pages> {
    const pages = new Pages(sources);
    for (const name of await fs.readdir(folder)) {
      const type = types[name.slice(name.lastIndexOf('.') + 1)];
      if (type === undefined) continue;
      const path = name === 'index.html' ? '/' : `/${name}`;
      pages.#files.set(path, page(type, await fs.readFile(folder + name, 'utf8')));
    }
    return pages;
  }

  async answer(path: string): Promise<Page | null> {
    if (path === '/metrics') return await this.#metrics();
    if (path === '/status.json') return await this.#status();
    if (path === '/healthz') return textPage(200, 'hastd answers\n');
    const named = /^\/healthz\/([A-Za-z0-9._-]+)$/.exec(path)?.[1];
    if (named !== undefined) return health(await this.#facts(), named);
    return this.#files.get(path) ?? null;
  }
}

function page(type: string, text: string): Page {
  return { status: 200, type, body: Buffer.from(text) };
}

/** For load balancers: the node that serves the volume answers 200. */
function health({ resources }: NodeFacts, name: string): Page | null {
  const found = resources.find(({ status }) => status.name === name);
  if (found === undefined) return null;
  const { status, statistics, hasAnswered } = found;
  const serves = hasAnswered && status.role === 'primary' && status.status !== 'failed' &&
    statistics?.ioSuspended !== true;
  return textPage(serves ? 200 : 503, `${status.role}, ${status.status}\n`);
}

async function statusOf(facts: NodeFacts, sources: PageSources): Promise<object> {
  const withMap = async (one: ResourceFacts): Promise<object> => {
    const { name } = one.status;
    const map = one.statistics === null ? null : await sources.map(name, mapCells);
    return { ...one, map };
  };
  return {
    schema: 1, node: facts.node, release: facts.release, startedAt: facts.startedAt,
    resources: await Promise.all(facts.resources.map(withMap)), events: sources.events(),
  };
}
