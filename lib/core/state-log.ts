/** One line of the log for each change of the status: from, to, and why. */
import type { StatusWord } from '../format/status.ts';
import type { Resource } from './resource.ts';
import { detailText, statusWord } from './status.ts';

/** For a person to look at. */
const serious: readonly StatusWord[] = ['failed', 'split-brain', 'diskless'];
const lessThanWhole: readonly StatusWord[] = ['degraded', 'waiting'];

export class StateLog {
  readonly #resource: Resource;
  #last: StatusWord | 'starting' = 'starting';

  constructor(resource: Resource) {
    this.#resource = resource;
  }

  /** To be called after whatever may have changed it; costs a few comparisons. */
  look(): void {
    const to = statusWord(this.#resource);
    if (to === this.#last) return;
    const { context, session } = this.#resource;
    const from = this.#last;
    this.#last = to;
    const why = detailText(this.#resource) || session?.verdict?.row || '';
    const level = serious.includes(to) ? 'error'
      : lessThanWhole.includes(to) && from !== 'starting' ? 'warn' : 'info';
    context.log[level]({ from, to, why }, 'the status is');
  }
}
