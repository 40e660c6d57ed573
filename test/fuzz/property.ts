/**
 * What is asked of every parser of outside bytes: it takes the input, or throws a HastError whose
 * code is one of those that its docstring names; in bounded time.
 */
import { HastError, type ErrorCode } from '../../lib/base/errors.ts';
import type { Random } from './random.ts';

export interface FuzzTarget {
  name: string;
  /** Makes one input and checks the property; throws where it does not hold. */
  run(random: Random): void | Promise<void>;
  /** Runs of the short form, where they are dear; 3000 by default. */
  shortRuns?: number;
}

/** Of all inputs so far: a target of which only one kind is made tests little. */
export const outcomes = { taken: 0, refused: 0 };

/** What came of an input: null where it was refused. */
export function taken<T>(
  codes: readonly ErrorCode[], raw: Uint8Array | string, parse: () => T,
): { value: T } | null {
  try {
    const value = parse();
    outcomes.taken++;
    return { value };
  } catch (error) {
    judge(codes, raw, error);
    return null;
  }
}

export async function takenLater<T>(
  codes: readonly ErrorCode[], raw: Uint8Array | string, parse: () => Promise<T>,
): Promise<{ value: T } | null> {
  try {
    const value = await parse();
    outcomes.taken++;
    return { value };
  } catch (error) {
    judge(codes, raw, error);
    return null;
  }
}

function judge(codes: readonly ErrorCode[], raw: Uint8Array | string, error: unknown): void {
  if (error instanceof HastError && codes.includes(error.code)) {
    outcomes.refused++;
    return;
  }
  throw new Error(`${String(error)} for ${shown(raw)}`, { cause: error });
}

export function check(holds: boolean, what: string, raw: Uint8Array | string): void {
  if (!holds) throw new Error(`${what}: ${shown(raw)}`);
}

function shown(raw: Uint8Array | string): string {
  const text = typeof raw === 'string' ? JSON.stringify(raw) : Buffer.from(raw).toString('hex');
  return text.length > 20_000 ? `${text.slice(0, 20_000)}...` : text;
}
