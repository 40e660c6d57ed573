/** What a run did, for its summary; sums over runs too. */
export const countNames = [
  'writes', 'flushes', 'reads', 'errors', 'kills', 'powerCuts', 'linkCuts', 'stalls', 'diskFaults',
  'metadataFlips', 'replacements', 'promotions', 'forced', 'failovers', 'splitBrains',
  'completions', 'syncs', 'remote', 'acksRemote', 'attaches', 'detaches', 'resolutions', 'undone',
  'resumes', 'tables',
  'markChecks', 'acksAlone', 'steps', 'simulatedMs',
] as const;

export type Counts = Record<(typeof countNames)[number], number>;

export function noCounts(): Counts {
  return Object.fromEntries(countNames.map((name) => [name, 0])) as Counts;
}

export function addCounts(sum: Counts, more: Counts): void {
  for (const name of countNames) sum[name] += more[name];
}
