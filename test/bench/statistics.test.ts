import t from 'tap';
import type { Measurement } from './result.ts';
import { median, medianOf, ratios } from './statistics.ts';

function one(subject: string, round: number, iops: number): Measurement {
  return { subject, job: 'write-32', round, values: { iops } };
}

const quantity = (subject: string) => ({ subject, job: 'write-32', metric: 'iops' as const });

t.test('median', async (t) => {
  t.equal(median([]), null);
  t.equal(median([7]), 7);
  t.equal(median([9, 1, 5]), 5);
  t.equal(median([4, 1, 3, 2]), 2.5);
});

t.test('ratios are taken within a round', async (t) => {
  // The machine became twice as slow after the first round: no ratio shows it.
  const measurements = [
    one('bare', 1, 200), one('local', 1, 100), one('bare', 2, 100), one('local', 2, 50),
    one('bare', 3, 100), one('bare', 4, 0), one('local', 4, 10),
  ];
  t.same(ratios(measurements, quantity('local'), quantity('bare')), [0.5, 0.5]);
  t.equal(medianOf(measurements, quantity('local')), 50);
  t.equal(medianOf(measurements, { ...quantity('local'), metric: 'p50' }), null);
  t.equal(medianOf(measurements, quantity('qemu')), null);
});
