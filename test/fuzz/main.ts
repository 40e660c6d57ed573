/** `npm run fuzz -- [--runs N] [--parser NAME] [--seed N]`: many inputs for each parser. */
import { parseArgs } from 'node:util';
import { fuzz } from './fuzz.ts';
import { fuzzTargets } from './targets.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '100000' },
    parser: { type: 'string' },
    seed: { type: 'string', default: '1' },
  },
});
const chosen = fuzzTargets.filter(({ name }) =>
  values.parser === undefined || values.parser === name);
if (chosen.length === 0) {
  const known = fuzzTargets.map(({ name }) => name).join(', ');
  console.error(`there is no parser '${values.parser ?? ''}'; there are: ${known}`);
  process.exit(64);
}
for (const target of chosen) {
  const result = await fuzz(target, Number(values.runs), Number(values.seed));
  const { runs, seconds, longest, taken, refused } = result;
  const took = `${seconds.toFixed(1)} s, longest ${longest.toFixed(1)} ms`;
  console.log(`${target.name}: ${runs} inputs (${taken} taken, ${refused} refused), ` +
    `nothing found, ${took}`);
}
