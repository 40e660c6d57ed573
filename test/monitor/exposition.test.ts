/**
 * Goal: Prometheus can read the page, it says what the facts say, and documents, dashboard and
 * alert rules name what is there.
 */
import * as fs from 'node:fs';
import t from 'tap';
import { parse } from 'yaml';
import { exposition } from '../../lib/monitor/exposition.ts';
import { families } from '../../lib/monitor/families.ts';
import { busyFacts, idleFacts, nodeFacts } from './facts.ts';

/** Series by name and labels, as in the page. */
function series(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(lines.map((line) => {
    const at = line.lastIndexOf(' ');
    return [line.slice(0, at), Number(line.slice(at + 1))];
  }));
}

/** Names in a query, without functions, labels and words. */
function metricsIn(query: string): string[] {
  return query.match(/\bhast_[a-z_]+\b/g) ?? [];
}

t.test('metrics: what the facts say', async (t) => {
  const text = await exposition(nodeFacts(busyFacts(), idleFacts('idle')));
  const found = series(text);
  t.match(Object.fromEntries(found), {
    [`hast_build_info{node="h1",release="0.1.0",nodejs="${process.version}"}`]: 1,
    'hast_start_time_seconds': 1.5e9,
    'hast_up{resource="shared"}': 1,
    'hast_role{resource="shared",role="primary"}': 1,
    'hast_role{resource="shared",role="secondary"}': 0,
    'hast_role{resource="idle",role="init"}': 1,
    'hast_status{resource="shared",status="syncing"}': 1,
    'hast_resync_ratio{resource="shared"}': 0.125,
    'hast_resync_eta_seconds{resource="shared"}': 30,
    'hast_dirty_bytes{resource="shared"}': 4096,
    'hast_requests_total{resource="shared",kind="write"}': 40,
    'hast_request_bytes_total{resource="shared",kind="write"}': 40 * 4096,
    'hast_requests_total{resource="shared",kind="flush"}': 1,
    'hast_io_suspended{resource="shared"}': 0,
    'hast_authentication{resource="shared",kind="tls"}': 1,
    'hast_authentication{resource="idle",kind="none"}': 1,
    'hast_certificate_expires_seconds{resource="shared"}': 4e9,
    'hast_worker_deaths_total{resource="shared"}': 2,
    'hast_queue{resource="shared",queue="requests"}': 0,
  });
  t.notOk(found.has('hast_resync_eta_seconds{resource="idle"}'), 'nobody knows');
  t.notOk(found.has('hast_certificate_expires_seconds{resource="idle"}'), 'it has none');
  t.notOk([...found.keys()].some((key) => /idle.*_total/.test(key)), 'nothing is counted there');
  for (const [name, value] of found) t.ok(Number.isFinite(value), name);
  for (const line of text.split('\n').filter((one) => one.startsWith('# HELP'))) {
    t.match(line, /^# HELP hast_[a-z_]+ [A-Z].{8,}/);
  }
});

t.test('metrics: the histogram adds up', async (t) => {
  const text = await exposition(nodeFacts(busyFacts()));
  const found = series(text);
  for (const stage of ['total', 'local', 'peer', 'network', 'peer-disk']) {
    const labels = `resource="shared",stage="${stage}",kind="write"`;
    const count = found.get(`hast_latency_seconds_count{${labels}}`) ?? 0;
    t.ok(count > 0, stage);
    t.ok(found.has(`hast_latency_seconds_sum{${labels}}`));
    const buckets = [...found].filter(([key]) =>
      key.startsWith(`hast_latency_seconds_bucket{${labels}`));
    const bounds = buckets.map(([key]) => Number(/le="([^"]+)"/.exec(key)?.[1]?.replace('+Inf',
      'Infinity')));
    t.same(bounds, [...bounds].sort((one, other) => one - other), 'bounds ascend');
    const counts = buckets.map(([, value]) => value);
    t.same(counts, [...counts].sort((one, other) => one - other), 'counts are added up');
    t.equal(counts.at(-1), count);
    t.equal(bounds.at(-1), Infinity);
    t.ok(bounds.length > 20 && bounds.length < 30, `${bounds.length} buckets`);
  }
});

t.test('metrics: names end in their unit, and are documented', async (t) => {
  const names = families.map(({ name }) => name);
  for (const { name, type } of families) {
    t.equal(name.endsWith('_total'), type === 'counter', name);
  }
  const others = ['hast_build_info', 'hast_start_time_seconds', 'hast_latency_seconds'];
  const table = fs.readFileSync('docs/monitoring.md', 'utf8').matchAll(/^\| `(hast_[a-z_]+)` \|/gm);
  const documented = [...table].map((match) => match[1]);
  t.same(documented.sort(), [...names, ...others].sort());
});

t.test('metrics: dashboard and alert rules name metrics that exist', async (t) => {
  const busy = await exposition(nodeFacts(busyFacts()));
  const names = new Set([...series(busy).keys()].map((key) => key.replace(/\{.*/, '')));
  interface Panel { targets?: { expr: string }[]; panels?: Panel[]; title: string }
  const dashboard = JSON.parse(
    fs.readFileSync('docs/monitoring/grafana-dashboard.json', 'utf8'),
  ) as { panels: Panel[] };
  const panels = dashboard.panels.flatMap((one) => [one, ...one.panels ?? []]);
  const queries = panels.flatMap(({ targets }) => targets ?? []).map(({ expr }) => expr);
  t.ok(queries.length >= 12);
  interface Rules { groups: { rules: { alert: string; expr: string; for?: string;
    labels: { severity: string }; annotations: { summary: string; description: string } }[] }[] }
  const { groups } = parse(fs.readFileSync('docs/monitoring/alerts.yml', 'utf8')) as Rules;
  const rules = groups.flatMap((group) => group.rules);
  t.ok(rules.length >= 8);
  for (const { alert, labels, annotations } of rules) {
    t.match(alert, /^Hast[A-Z]\w+$/);
    t.match(labels.severity, /^(critical|warning)$/, alert);
    t.ok(annotations.summary.length > 10 && annotations.description.includes('hastctl'), alert);
  }
  for (const query of [...queries, ...rules.map(({ expr }) => expr)]) {
    const used = metricsIn(query);
    t.ok(used.length > 0, query);
    for (const name of used) t.ok(names.has(name), `${name} in: ${query}`);
  }
});
