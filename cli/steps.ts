/** What a command of several steps does to one resource: each step printed with its time. */
import { errorText } from '../lib/base/errors.ts';
import type { Context } from './output.ts';
import { print } from './output.ts';
import { withProgress } from './progress.ts';

export interface Step {
  step: string;
  seconds: number;
  /** It was so before: nothing was done. */
  already: boolean;
  note: string;
}

export interface StepResult {
  already?: boolean;
  note?: string;
}

/** What became of the command for one resource. */
export interface StepsResult {
  name: string;
  steps: Step[];
  error: unknown;
}

const stepWidth = 15;
const timeWidth = 9;

export class Steps {
  readonly name: string;
  readonly done: Step[] = [];
  readonly #context: Context;
  readonly #startedAt = performance.now();

  constructor(context: Context, name: string) {
    this.#context = context;
    this.name = name;
  }

  /** Seconds since the first step. */
  get seconds(): number {
    return (performance.now() - this.#startedAt) / 1000;
  }

  async run(step: string, work: () => Promise<StepResult | void>): Promise<void> {
    const startedAt = performance.now();
    const done = await withProgress(this.#context, `${this.name}: ${step}`, work);
    const { already = false, note = '' } = done ?? {};
    const seconds = Math.round(performance.now() - startedAt) / 1000;
    this.add({ step, seconds, already, note });
  }

  add(step: Step): void {
    this.done.push(step);
    if (!this.#context.json) print(formatStep(this.name, step));
  }
}

/** `shared: mount             0.03 s  on /data` */
export function formatStep(name: string, { step, seconds, already, note }: Step): string {
  const time = already ? 'already' : `${seconds.toFixed(2)} s`;
  const line = `${name}: ${step.padEnd(stepWidth)} ${time.padStart(timeWidth)}`;
  return `${note === '' ? line : `${line}  ${note}`}\n`;
}

/** An error as part of JSON output; null for none. */
export function stepsJson({ name, steps, error }: StepsResult): object {
  return { schema: 1, name, steps, error: error === null ? null : failureOf(error) };
}

function failureOf(error: unknown): object {
  const { code, hint } = error as { code?: string; hint?: string };
  return { code: code ?? 'HAST_E_INTERNAL', message: errorText(error), hint: hint ?? '' };
}
