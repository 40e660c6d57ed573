import t from 'tap';
import { renderChart } from './chart.ts';
import { evaluate } from './goals.ts';
import { parseOptions, wantsSpecial, type Options } from './options.ts';
import { formatReport, formatTable } from './report.ts';
import type { BenchResult, Measurement } from './result.ts';

const measurements: Measurement[] = [1, 2, 3].flatMap((round) => [
  { subject: 'bare', job: 'write-32', round, values: { iops: 40_000 * round, p50: 100 } },
  { subject: 'local', job: 'write-32', round, values: { iops: 38_000 * round, cpu: 1.5 } },
  { subject: 'resync', job: 'resync', round, values: { seconds: 3, mib: 900 } },
]);

const result: BenchResult = {
  schema: 1, startedAt: '2026-01-02T03:04:05.000Z', seconds: 60,
  options: { quick: true, rounds: 3, secondsPerJob: 1, sizeBytes: 2 ** 30 },
  machine: {
    cores: 2, processor: 'a processor', memoryBytes: 2 ** 34, kernel: '6.18', node: 'v20.20.2',
    release: '0.1.0', fio: 'fio-3.33', qemu: null, postgresql: null, filesystem: 'ext4',
    engine: 'io_uring',
  },
  subjects: [
    { name: 'bare', what: 'the limit', problem: null, memoryPeakBytes: null },
    { name: 'qemu', what: 'qemu', problem: 'not installed', memoryPeakBytes: null },
    { name: 'local', what: 'ours', problem: null, memoryPeakBytes: 100 * 2 ** 20 },
  ],
  problems: [], goals: evaluate(measurements), measurements,
};

t.test('report: a table is aligned', async (t) => {
  t.equal(formatTable([['name', 'n'], ['a', '100']]), 'name    n\na     100');
});

t.test('report: rates, ratios, goals, and what was not run', async (t) => {
  const text = formatReport(result);
  t.match(text, /^bare +80000 +1\.00 +100 +- +- +-$/m);
  t.match(text, /^local +76000 +0\.95 +- +- +- +1\.50$/m);
  t.match(text, /^local \/ bare, 4k write, depth 32 +0\.95 +>= 0\.9 +met$/m);
  t.match(text, /^resync, resync +- +900 +- +3\.0/m);
  t.match(text, /^qemu .* NOT RUN: not installed$/m);
  t.match(text, /corrupt data under direct I\/O/);
  t.match(text, /not run: TLS/);
});

t.test('chart: an SVG with a bar for each subject that was measured', async (t) => {
  const svg = renderChart(result);
  t.match(svg, /^<svg [\s\S]*<\/svg>\s*$/);
  t.match(svg, /4 KiB random write, depth 32/);
  t.match(svg, />76,000 {1,2}\(0\.95\)</);
  t.notMatch(svg, />qemu</);
  t.match(renderChart({ ...result, measurements: [] }), /^<svg /, 'also of nothing');
});

t.test('options: defaults, and what is refused', async (t) => {
  t.match(parseOptions([]), { quick: false, rounds: 3, seconds: 4, only: null, jobs: null });
  t.match(parseOptions(['--quick']), { quick: true, seconds: 1 });
  const some = parseOptions(['--only', 'bare,local', '--jobs', 'sync,cold']) as Options;
  t.same(some.only, ['bare', 'local']);
  t.ok(wantsSpecial(some, 'cold'));
  t.notOk(wantsSpecial(some, 'resync'));
  t.notOk(wantsSpecial(parseOptions(['--only', 'bare']) as Options, 'cold'));
  // Its complaints are not for the eyes of whoever runs the tests.
  const { write } = process.stderr;
  process.stderr.write = () => true;
  t.equal(parseOptions(['--only', 'drbd']), 64);
  t.equal(parseOptions(['--rounds', '0']), 64);
  process.stderr.write = write;
});
