/** Medians, and ratios of what was measured in the same round. */
import type { Measurement, Metric } from './result.ts';

export interface Quantity {
  subject: string;
  job: string;
  metric: Metric;
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : (sorted[middle - 1] as number + upper) / 2;
}

/** By round. */
export function valuesOf(
  measurements: readonly Measurement[], { subject, job, metric }: Quantity,
): Map<number, number> {
  const values = new Map<number, number>();
  for (const one of measurements) {
    const value = one.values[metric];
    if (one.subject === subject && one.job === job && value !== undefined) {
      values.set(one.round, value);
    }
  }
  return values;
}

export function medianOf(
  measurements: readonly Measurement[], quantity: Quantity,
): number | null {
  return median([...valuesOf(measurements, quantity).values()]);
}

/** One for each round that has both. */
export function ratios(
  measurements: readonly Measurement[], over: Quantity, under: Quantity,
): number[] {
  const unders = valuesOf(measurements, under);
  const found: number[] = [];
  for (const [round, value] of valuesOf(measurements, over)) {
    const other = unders.get(round);
    if (other !== undefined && other > 0) found.push(value / other);
  }
  return found;
}
