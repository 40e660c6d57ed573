/**
 * What a reload would do. A new configuration is applied whole or not at all: one change that
 * cannot be made live keeps the old one.
 */
import { isDeepStrictEqual } from 'node:util';
import { formatAddress } from './address.ts';
import type { Config, ResourceConfig } from './model.ts';

export type ResourceField = Exclude<keyof ResourceConfig, 'name'>;
export type Role = 'init' | 'primary' | 'secondary';

export interface Refusal {
  /** The keyword, or resource and keyword. */
  what: string;
  why: string;
  /** What to do to get the change in. */
  hint: string;
}

export interface ReloadPlan {
  /** Not empty: nothing of the rest may be applied. */
  refused: Refusal[];
  /** They start in role init. */
  added: ResourceConfig[];
  removed: string[];
  /** The new configuration of a resource, and which of its fields differ. */
  changed: { resource: ResourceConfig; fields: ResourceField[] }[];
  listenChanged: boolean;
  metricsChanged: boolean;
}

/** Every field of a resource: its keyword, and whether a resource at work can take a change. */
const fields: Readonly<Record<ResourceField, { keyword: string; live: boolean }>> = {
  deviceName: { keyword: 'name', live: false },
  local: { keyword: 'local', live: false },
  frontend: { keyword: 'frontend', live: false },
  cache: { keyword: 'cache', live: false },
  remote: { keyword: 'remote', live: true },
  source: { keyword: 'source', live: true },
  replication: { keyword: 'replication', live: true },
  checksum: { keyword: 'checksum', live: true },
  compression: { keyword: 'compression', live: true },
  timeout: { keyword: 'timeout', live: true },
  exec: { keyword: 'exec', live: true },
  asyncLag: { keyword: 'async-lag', live: true },
  asyncLagTime: { keyword: 'async-lag-time', live: true },
  diskTimeout: { keyword: 'disk-timeout', live: true },
  busyPoll: { keyword: 'busy-poll', live: true },
  onNoData: { keyword: 'on-no-data', live: true },
  onStop: { keyword: 'on-stop', live: true },
  resyncRate: { keyword: 'resync-rate', live: true },
  undoDirectory: { keyword: 'undo-directory', live: true },
  mount: { keyword: 'mount', live: true },
  authentication: { keyword: 'tls or secret', live: true },
};

/** Every field of the daemon itself; `listen` and `resources` have their own rules. */
const daemonFields: Readonly<Record<Exclude<keyof Config, 'listen' | 'resources'>, boolean>> = {
  file: true,
  metrics: true,
  node: false,
  control: false,
  controlGroup: false,
  pidfile: false,
  rundir: false,
  devdir: false,
};

/** Compares two configurations of one node. `roleOf` is asked for resources of `old` only. */
export function planReload(
  old: Config,
  next: Config,
  roleOf: (name: string) => Role,
): ReloadPlan {
  const refused: Refusal[] = [];
  for (const [field, live] of Object.entries(daemonFields) as [keyof Config, boolean][]) {
    if (live || isDeepStrictEqual(old[field], next[field])) continue;
    refused.push({
      what: field,
      why: 'it is fixed while the daemon runs',
      hint: 'restart hastd, or take the change back',
    });
  }
  const before = new Map(old.resources.map((resource) => [resource.name, resource]));
  const after = new Set(next.resources.map((resource) => resource.name));
  const removed = old.resources.map(({ name }) => name).filter((name) => !after.has(name));
  for (const name of removed) {
    const role = roleOf(name);
    if (role !== 'init') refused.push(refuseRemoval(name, role));
  }
  const added: ResourceConfig[] = [];
  const changed: ReloadPlan['changed'] = [];
  for (const resource of next.resources) {
    const previous = before.get(resource.name);
    if (previous === undefined) {
      added.push(resource);
      continue;
    }
    const differing = differingFields(previous, resource);
    if (differing.length === 0) continue;
    changed.push({ resource, fields: differing });
    refused.push(...refuseChanges(resource.name, differing, roleOf));
  }
  const listenChanged = !isDeepStrictEqual(listenSet(old), listenSet(next));
  const metricsChanged = !isDeepStrictEqual(old.metrics, next.metrics);
  return { refused, added, removed, changed, listenChanged, metricsChanged };
}

function refuseRemoval(name: string, role: Role): Refusal {
  return {
    what: `resource ${name}`,
    why: `it is gone from the file, and its role is ${role}`,
    hint: `hastctl role init ${name}, then reload`,
  };
}

function differingFields(old: ResourceConfig, next: ResourceConfig): ResourceField[] {
  const all = Object.keys(fields) as ResourceField[];
  return all.filter((field) => !isDeepStrictEqual(old[field], next[field]));
}

function refuseChanges(
  name: string,
  differing: readonly ResourceField[],
  roleOf: (name: string) => Role,
): Refusal[] {
  const fixed = differing.filter((field) => !fields[field].live);
  if (fixed.length === 0) return [];
  const role = roleOf(name);
  if (role === 'init') return [];
  return fixed.map((field) => ({
    what: `resource ${name}: ${fields[field].keyword}`,
    why: `it cannot change while the role is ${role}`,
    hint: `hastctl role init ${name}, then reload`,
  }));
}

function listenSet(config: Config): string[] {
  return config.listen.map((address) => formatAddress(address)).sort();
}
