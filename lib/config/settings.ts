/** Looking keywords up in the sections that speak of one thing, the strongest first. */
import type { Span } from './problems.ts';
import { pointerTo } from './tree.ts';
import type { Raw, RawTree, Section } from './tree.ts';

export interface Located {
  section: Section;
  pointer: string;
}

interface Setting {
  value: Raw;
  span: Span;
  damaged: boolean;
}

export const nowhere: Span = { offset: 0, line: 1, column: 1, length: 0 };

/** Looks keywords up in levels of sections, the strongest level first. */
export class Settings {
  readonly #tree: RawTree;
  readonly #levels: readonly (readonly Located[])[];

  constructor(tree: RawTree, levels: readonly (readonly Located[])[]) {
    this.#tree = tree;
    this.#levels = levels;
  }

  find(keyword: string): Setting | undefined {
    for (const level of this.#levels) {
      let best: Setting | undefined;
      for (const { section, pointer } of level) {
        if (!Object.hasOwn(section, keyword)) continue;
        const at = pointerTo(pointer, keyword);
        const span = this.#tree.places.get(at)?.value ?? nowhere;
        const value = section[keyword] ?? null;
        const damaged = this.#tree.damaged.has(at);
        if (best === undefined || span.offset > best.span.offset) best = { value, span, damaged };
      }
      if (best !== undefined) return best;
    }
    return undefined;
  }

  /** The schema has checked the type: what is not damaged is what `T` says. */
  value<T extends Raw>(keyword: string, fallback: T): T {
    const found = this.find(keyword);
    return found === undefined || found.damaged ? fallback : (found.value as T);
  }

  at(keyword: string): Span | undefined {
    const found = this.find(keyword);
    return found === undefined || found.damaged ? undefined : found.span;
  }
}
