import t from 'tap';
import { parseFio } from './fio-output.ts';
import { parseTransactions } from './postgres.ts';
import { parsePeak, parseStat } from './process-use.ts';

const percentile = { '50.000000': 2000, '99.000000': 30_000, '99.900000': 400_000 };
const idle = { iops: 0, bw_bytes: 0, clat_ns: {} };
const busy = { iops: 100, bw_bytes: 3 * 1024 * 1024, clat_ns: { percentile } };

function output(more: object): string {
  const job = { error: 0, read: idle, write: idle, sync: {}, ...more };
  return JSON.stringify({ 'fio version': 'fio-3.33', jobs: [job] });
}

t.test('fio: one side, both sides, syncs', async (t) => {
  t.same(parseFio(output({ write: busy }), 'write'),
    { iops: 100, mib: 3, p50: 2, p99: 30, p999: 400 });
  t.same(parseFio(output({ write: busy, read: busy }), 'read'),
    { iops: 200, mib: 6, p50: 2, p99: 30, p999: 400 });
  const sync = { lat_ns: { percentile: { ...percentile, '50.000000': 5000 } } };
  t.equal(parseFio(output({ write: busy, sync }), 'sync').p50, 5);
  t.same(parseFio(output({ write: busy }), 'sync'), { iops: 100, mib: 3 }, 'no syncs, no latency');
});

t.test('fio: what is not a result', async (t) => {
  t.equal(parseFio(`note: slow\n${output({ write: busy })}`, 'write').iops, 100);
  t.throws(() => parseFio('fio: no such device', 'write'), /no JSON: fio: no such/);
  t.throws(() => parseFio('{"jobs": []}', 'write'), /no job/);
  t.throws(() => parseFio(output({ error: 5 }), 'write'), /error 5/);
});

t.test('processes: /proc', async (t) => {
  const stat = '71 (hastd: (a) b) S 1 71 71 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 8 0 99 1 1';
  t.equal(parseStat(stat), 4);
  t.equal(parsePeak('Name:\thastd\nVmHWM:\t  2048 kB\nVmRSS:\t 100 kB\n'), 2 * 1024 * 1024);
  t.equal(parsePeak('Name:\tkworker\n'), 0);
});

t.test('pgbench: transactions a second', async (t) => {
  const text = 'latency average = 4.2 ms\ntps = 1893.25 (without initial connection time)\n';
  t.equal(parseTransactions(text), 1893.25);
  t.throws(() => parseTransactions('pgbench: error: connection failed'), /no rate/);
});
