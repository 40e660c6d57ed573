/** The applications: requests of all kinds on whoever is primary, `depth` at a time. */
import { AppOp } from '../../lib/core/ports.ts';
import type { SimNode, SimRequest } from '../fixtures/sim-node.ts';
import type { AppMix } from './options.ts';
import type { SimRun } from './run.ts';

export class App {
  readonly #run: SimRun;
  readonly #mix: AppMix;
  readonly #node: SimNode;
  /** Requests that were begun for one life of the node, and are not answered. */
  #running = 0;
  #life: object | null = null;

  constructor(run: SimRun, node: SimNode) {
    this.#run = run;
    this.#mix = run.options.app;
    this.#node = node;
  }

  /** The node was promoted: `depth` workers begin, some of them with what was not answered. */
  begin(kept: readonly SimRequest[] = []): void {
    this.#life = this.#node.resource;
    this.#running = Math.max(this.#mix.depth, kept.length);
    for (const one of kept) this.#follow(this.#run.ledger.again(this.#node, one));
    for (let index = kept.length; index < this.#mix.depth; index++) this.#later();
  }

  get depth(): number {
    return this.#running;
  }

  #later(): void {
    const [low, high] = this.#mix.thinkMs;
    const life = this.#life;
    this.#run.world.between(low, high, () => {
      if (life === this.#life) this.#next();
    });
  }

  #next(): void {
    const { resource } = this.#node;
    const isOver = resource === null || resource !== this.#life || resource.failed ||
      this.#run.machine(this.#node).isStopping || this.#run.requestsLeft <= 0;
    if (isOver) {
      this.#running--;
      return;
    }
    this.#run.requestsLeft--;
    this.#follow(this.#request());
  }

  #follow(request: SimRequest): void {
    this.#run.trace.mix(request.op * 31 + request.offset);
    if (request.isDone) {
      this.#later();
      return;
    }
    const { onDone } = request;
    request.onDone = (one: SimRequest): void => {
      onDone?.(one);
      this.#run.answered(this.#node, one);
      this.#later();
    };
  }

  #request(): SimRequest {
    const { ledger, world } = this.#run;
    const { random } = world;
    const mix = this.#mix;
    const size = this.#run.options.mediaSize;
    let length = 512 * (1 + random.int(mix.bytesMax / 512));
    const aligned = random.chance(mix.aligned);
    if (aligned) length = Math.ceil(length / 4096) * 4096;
    const room = random.chance(mix.crowded) ? Math.min(size, Math.max(length, 32_768)) : size;
    let offset = 512 * random.int((room - length) / 512 + 1);
    if (aligned) offset -= offset % 4096;
    let kind = random.unit() * (mix.write + mix.read + mix.flush + mix.zero + mix.discard);
    if ((kind -= mix.write) < 0) return ledger.write(this.#node, offset, length);
    if ((kind -= mix.read) < 0) return ledger.read(this.#node, offset, length);
    if ((kind -= mix.flush) < 0) return ledger.flush(this.#node);
    const op = kind < mix.zero ? AppOp.zero : AppOp.discard;
    // Ranges without data may be long.
    if (random.chance(0.2)) {
      offset = 0;
      length = size;
    }
    return ledger.zero(this.#node, op, offset, length);
  }
}
