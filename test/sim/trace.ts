/** What happened in a run: a hash always, readable lines where somebody wants to read them. */
import type { Logger } from '../../lib/base/log.ts';

export class Trace {
  #hash = 0x811c9dc5;
  readonly #print: ((line: string) => void) | null;
  readonly #now: () => number;

  /** `print` takes the lines; null keeps the hash only. */
  constructor(now: () => number, print: ((line: string) => void) | null) {
    this.#now = now;
    this.#print = print;
  }

  get isRead(): boolean {
    return this.#print !== null;
  }

  mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ (value | 0), 0x01000193);
    this.#hash ^= this.#hash >>> 15;
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0');
  }

  line(node: string, text: string): void {
    for (let at = 0; at < text.length; at++) this.mix(text.charCodeAt(at));
    this.#print?.(`${this.#now().toFixed(2).padStart(10)}  ${node.padEnd(2)} ${text}`);
  }

  /** Only for a reader: not part of the hash. */
  note(node: string, text: string): void {
    this.#print?.(`${this.#now().toFixed(2).padStart(10)}  ${node.padEnd(2)} ${text}`);
  }

  /** A core's log, as lines of this trace. */
  logger(node: string): Logger {
    const at = (level: string) => (fields: object, message: string): void => {
      const values = Object.entries(fields).map(([key, value]) => `${key}=${String(value)}`);
      this.note(node, `  ${level}: ${message} ${values.join(' ')}`);
    };
    return {
      trace: at('trace'), debug: at('debug'), info: at('info'), warn: at('warn'),
      error: at('error'),
    };
  }
}
