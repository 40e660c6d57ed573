/** What the metrics and the status page are made of; gathered when somebody asks. */
import type { ResourceStatistics } from '../format/statistics.ts';
import type { ResourceStatus } from '../format/status.ts';

export interface ResourceFacts {
  status: ResourceStatus;
  /** null without a worker that says what it counted. */
  statistics: ResourceStatistics | null;
  /** There is no worker to ask, or it answered in time. */
  hasAnswered: boolean;
  /** Workers that ended out of order, since hastd started. */
  workerDeaths: number;
}

export interface NodeFacts {
  node: string;
  release: string;
  /** Milliseconds since 1970. */
  startedAt: number;
  resources: ResourceFacts[];
}
