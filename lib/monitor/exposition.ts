/** The page that Prometheus reads. Built anew for each scrape: nothing is counted in between. */
import { setImmediate as setImmediateAsync } from 'node:timers/promises';
import { Counter, Gauge, Registry, type Metric } from 'prom-client';
import type { LatencyHistogram, ResourceStatistics } from '../format/statistics.ts';
import type { NodeFacts } from './facts.ts';
import { families, type Family } from './families.ts';

export const contentType = Registry.PROMETHEUS_CONTENT_TYPE;

interface Value {
  labels: Record<string, string | number>;
  value: number;
  metricName: string;
}

/** Every second bucket, so that bounds double: enough for a quantile, and half the series. */
const bucketStep = 2;
const histogramName = 'hast_latency_seconds';
const histogramHelp =
  'How long requests took, by stage: total, local, peer, network, peer-disk (docs/monitoring.md)';

export async function exposition(facts: NodeFacts): Promise<string> {
  const registry = new Registry();
  const registers = [registry];
  new Gauge({
    name: 'hast_build_info', help: 'Release of hastd and of Node.js', registers,
    labelNames: ['node', 'release', 'nodejs'],
  }).set({ node: facts.node, release: facts.release, nodejs: process.version }, 1);
  new Gauge({
    name: 'hast_start_time_seconds', help: 'Time since 1970 at which hastd started', registers,
  }).set(facts.startedAt / 1000);
  for (const family of families) {
    await setImmediateAsync();
    add(family, facts, registers);
  }
  registry.registerMetric(latencies(facts) as unknown as Metric);
  // Many resources take long to write down: hastd does other things in between.
  const parts: string[] = [];
  for (const { name } of registry.getMetricsAsArray() as unknown as { name: string }[]) {
    await setImmediateAsync();
    parts.push(await registry.getSingleMetricAsString(name));
  }
  return `${parts.join('\n\n')}\n`;
}

function add({ name, type, help, labels, of }: Family, facts: NodeFacts, registers: Registry[]) {
  const options = { name, help, labelNames: ['resource', ...labels], registers };
  const gauge = type === 'gauge' ? new Gauge(options) : null;
  const counter = type === 'counter' ? new Counter(options) : null;
  for (const one of facts.resources) {
    const resource = one.status.name;
    for (const sample of of(one)) {
      gauge?.set({ resource, ...sample.labels }, sample.value);
      counter?.inc({ resource, ...sample.labels }, sample.value);
    }
  }
}

/** prom-client's own histogram counts single values: this one is counted by the workers. */
function latencies({ resources }: NodeFacts): object {
  const values = resources.flatMap(({ status, statistics }) => statistics === null ? []
    : statistics.latencies.flatMap((one) => valuesOf(status.name, one, statistics)));
  const metric = { name: histogramName, help: histogramHelp, type: 'histogram', values };
  return { name: histogramName, get: async () => metric };
}

function valuesOf(
  resource: string, { stage, kind, count, sum, buckets }: LatencyHistogram,
  { latencyBounds }: ResourceStatistics,
): Value[] {
  const labels = { resource, stage, kind };
  const values: Value[] = [];
  let below = 0;
  latencyBounds.forEach((bound, at) => {
    below += buckets[at] ?? 0;
    if (at % bucketStep !== 0) return;
    values.push({ metricName: `${histogramName}_bucket`, labels: { ...labels, le: bound },
      value: below });
  });
  values.push(
    { metricName: `${histogramName}_bucket`, labels: { ...labels, le: '+Inf' }, value: count },
    { metricName: `${histogramName}_sum`, labels, value: sum },
    { metricName: `${histogramName}_count`, labels, value: count },
  );
  return values;
}
