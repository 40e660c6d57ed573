/** What a resource's counters were, as often as this page asked, for the last five minutes. */
const samplesMax = 150;
/** How far back the table of stages looks. */
const windowSamples = 30;

export class History {
  #samples = [];

  add(statistics) {
    const last = this.#samples.at(-1);
    // hastd gave the same answer twice; or a new worker, whose counters begin at 0.
    if (last !== undefined && statistics.age === last.age) return;
    if (last !== undefined && statistics.age < last.age) this.#samples = [];
    this.#samples.push(statistics);
    if (this.#samples.length > samplesMax) this.#samples.shift();
  }

  /** Bytes a second, `what` being requests or executed. */
  series(what) {
    const of = (kind) => this.#each((now, before) =>
      (now[what][kind].bytes - before[what][kind].bytes) / (now.age - before.age));
    return { read: of('read'), write: of('write') };
  }

  /** 99 % of the writes took at most so many seconds; null where there were none. */
  latencies(stage) {
    return this.#each((now, before) => {
      const counts = difference(now, before, stage, 'write');
      return counts === null ? null : quantile(now.latencyBounds, counts, 0.99);
    });
  }

  /** What happened in each stage in the last minute. */
  stages() {
    const now = this.#samples.at(-1);
    const before = this.#samples.at(-1 - windowSamples) ?? this.#samples[0];
    if (now === undefined || now === before) return [];
    return now.latencies.flatMap(({ stage, kind }) => {
      const counts = difference(now, before, stage, kind);
      if (counts === null) return [];
      const sum = counts.reduce((total, one) => total + one, 0);
      return [{
        stage, kind, rate: sum / (now.age - before.age),
        median: quantile(now.latencyBounds, counts, 0.5),
        high: quantile(now.latencyBounds, counts, 0.99),
      }];
    });
  }

  #each(of) {
    return this.#samples.slice(1).map((now, at) => of(now, this.#samples[at]));
  }
}

/** Counts of each bucket; null where there were none. */
function difference(now, before, stage, kind) {
  const find = ({ latencies }) =>
    latencies.find((one) => one.stage === stage && one.kind === kind)?.buckets;
  const [after, earlier] = [find(now), find(before)];
  if (after === undefined) return null;
  const counts = after.map((count, at) => count - (earlier?.[at] ?? 0));
  return counts.some((count) => count > 0) ? counts : null;
}

/** As Prometheus does it: evenly spread within a bucket. */
function quantile(bounds, counts, part) {
  const wanted = part * counts.reduce((total, one) => total + one, 0);
  let below = 0;
  for (let at = 0; at < bounds.length; at++) {
    if (below + counts[at] >= wanted) {
      const low = at === 0 ? 0 : bounds[at - 1];
      return low + (bounds[at] - low) * (wanted - below) / counts[at];
    }
    below += counts[at];
  }
  return Infinity;
}
