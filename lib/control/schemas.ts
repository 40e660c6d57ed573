/** JSON schemas of the control protocol's messages, for ajv. */
import { requestKinds } from '../format/statistics.ts';
import { mapCellsMax } from '../format/volume-map.ts';
import { reachLayers, resolveSides, roleWords, switchoverWords } from './messages.ts';

const count = { type: 'integer', minimum: 0 } as const;
const text = { type: 'string' } as const;
const nullableText = { type: 'string', nullable: true } as const;
const schemaOne = { const: 1 } as const;
const flag = { type: 'boolean' } as const;
const name = { type: 'string', maxLength: 255 } as const;
const names = { type: 'array', maxItems: 4096, items: name } as const;
const absolute = { type: 'string', pattern: '^/', maxLength: 4095 } as const;
const role = { enum: roleWords } as const;

function record(properties: Record<string, object>, more: Record<string, object> = {}): object {
  return {
    type: 'object',
    required: Object.keys(properties),
    properties: { ...properties, ...more },
  };
}

/** What each command carries. */
const commandFields: Record<string, Record<string, object>> = {
  ping: {},
  'replace-hastd': {},
  role: { role, resources: names, force: flag },
  status: { resources: names },
  statistics: { resources: names },
  events: { resources: names },
  map: { resource: name, cells: { type: 'integer', minimum: 1, maximum: mapCellsMax } },
  resync: { paused: flag, resources: names },
  detach: { resources: names },
  attach: { resources: names },
  'peer-gone': { resources: names },
  resolve: {
    resource: name, discard: { enum: resolveSides }, dryRun: flag,
    undo: { ...absolute, nullable: true },
  },
  undo: { resource: name, file: absolute },
  switchover: { resource: name, what: { enum: switchoverWords } },
  'peer-facts': { resource: name },
  'replace-workers': { resources: names },
};

/** Of any request; the command's own schema says the rest. */
export const requestSchema = record({
  schema: schemaOne, command: { enum: Object.keys(commandFields) },
});

export const requestSchemas: Record<string, object> = Object.fromEntries(
  Object.entries(commandFields).map(([command, fields]) =>
    [command, record({ schema: schemaOne, command: { const: command }, ...fields })]),
);

const failure = record({ code: text, message: text, hint: text });

export const failureReplySchema = record({
  schema: schemaOne, ok: { const: false }, error: failure,
});

const statistics = record({
  reads: count, writes: count, deletes: count, flushes: count, mapUpdates: count,
  localReadErrors: count, localWriteErrors: count, localDeleteErrors: count,
  localFlushErrors: count,
  queueLocal: count, queueSend: count, queueRecv: count, queueDone: count, queueIdle: count,
}, { badFrames: count });

const resourceStatus = record({
  schema: schemaOne, name: text, role, status: text, connection: text, detail: text,
  local: text, remote: text, source: nullableText, device: text,
  replication: text, checksum: text, compression: text, frontend: text,
  extentSize: count, keepDirty: count, mediaSize: count,
  dirtyBytes: count, syncPercent: { type: 'number', minimum: 0, maximum: 100 },
  localDisk: text, peerDisk: text, peerRole: text,
  worker: { ...count, nullable: true }, release: nullableText,
  disconnectedSince: { type: 'number', nullable: true },
  singleCopyWrites: count,
  syncRate: { type: 'number', minimum: 0 }, syncEta: { type: 'number', nullable: true },
  resyncPaused: flag, needsHuman: flag, keptBytes: count, keptFile: nullableText,
  diskTimeout: count, onNoData: text, resyncRate: count, statistics,
}, {
  protocol: { ...count, nullable: true }, protocolFeatures: { type: 'array', items: text },
  authentication: text, certificateExpires: { ...count, nullable: true },
});

const seconds = { type: 'number', minimum: 0 } as const;
const perKind = (of: object): object =>
  record(Object.fromEntries(requestKinds.map((kind) => [kind, of])));
const requestCount = record({ count, bytes: count });

const resourceStatistics = record({
  schema: schemaOne, age: seconds, requests: perKind(requestCount), failedRequests: count,
  executed: perKind(requestCount), latencyBounds: { type: 'array', items: seconds },
  latencies: {
    type: 'array',
    items: record({
      stage: text, kind: text, count, sum: seconds, buckets: { type: 'array', items: count },
    }),
  },
  queues: record({
    requests: count, local: count, send: count, sendBytes: count, receive: count, idle: count,
  }),
  oldestRequest: seconds, ioSuspended: flag,
  secondsBehind: { type: 'number', minimum: 0, nullable: true },
  connects: count, mapUpdates: count, hotExtents: count, checkpoints: count, resyncBytes: count,
  localErrors: perKind(count),
});

const head = { schema: schemaOne, ok: { const: true } };

const orderReply = record({
  ...head,
  results: { type: 'array', items: record({ name: text, error: { ...failure, nullable: true } }) },
});

const sideWrites = record({
  bytes: count, more: count,
  ranges: { type: 'array', items: record({ offset: count, length: count }) },
});

const resolution = record({
  localGeneration: text, peerGeneration: text, local: sideWrites, peer: sideWrites,
  copyBytes: count, full: flag,
});

const texts = { type: 'array', items: text, maxItems: 64 } as const;
const nullableCount = { ...count, nullable: true } as const;

/** Also of what the peer's hastd says, which may be of another release. */
export const factsSchema = record({
  node: text, release: text, versionMin: count, versionMax: count, features: texts,
  addresses: texts, listen: texts, local: text, diskBytes: nullableCount,
  sectorBytes: nullableCount, mediaBytes: nullableCount, remote: nullableText,
  remoteAddresses: texts, settings: { type: 'object', additionalProperties: text },
  undoDirectory: text, undoFreeBytes: nullableCount,
  reach: record({ ok: flag, text, hint: text }, {
    layer: { enum: reachLayers }, milliseconds: { type: 'number' },
  }),
  askedAt: count, toldAt: count,
});

const cells = { type: 'array', maxItems: mapCellsMax, items: count } as const;

const volumeMap = record({
  mediaSize: count, cellBytes: count, peerStale: cells, localStale: cells, hot: cells,
  syncingAt: { type: 'integer' },
});

const changed = { type: ['string', 'number', 'boolean', 'null'] } as const;

/** A line of the stream; see lib/format/state-event.ts. */
export const stateEventSchema = record({
  schema: schemaOne, time: { type: 'number' }, resource: nullableText, kind: text,
  from: changed, to: changed, why: text,
}, {
  state: record({
    role: text, status: text, connection: text, localDisk: text, peerDisk: text, peerRole: text,
    needsHuman: flag, worker: { ...count, nullable: true },
  }),
});

export const replySchemas = {
  ping: record({ ...head, pid: count, node: text, release: text, startedAt: count }),
  role: record({
    ...head,
    results: {
      type: 'array',
      items: record({ name: text, from: role, to: role, error: { ...failure, nullable: true } }),
    },
  }),
  status: record({ ...head, resources: { type: 'array', items: resourceStatus } }),
  statistics: record({
    ...head,
    resources: {
      type: 'array',
      items: record({
        status: resourceStatus, statistics: { ...resourceStatistics, nullable: true },
      }),
    },
  }),
  events: record(head),
  map: record({ ...head, map: volumeMap }),
  resync: orderReply,
  detach: orderReply,
  attach: orderReply,
  'peer-gone': orderReply,
  undo: orderReply,
  resolve: record({ ...head, resolution }),
  switchover: record({ ...head, code: count, text }),
  'peer-facts': record({
    ...head, local: factsSchema, peer: { ...factsSchema, nullable: true }, why: text, hint: text,
    isOld: flag, sentAt: count, heardAt: count,
  }),
  'replace-hastd': record({ ...head, pid: count, release: text }),
  'replace-workers': record({
    ...head,
    results: {
      type: 'array',
      items: record({
        name: text, error: { ...failure, nullable: true }, worker: { ...count, nullable: true },
        release: nullableText, pauseMs: { type: 'number', nullable: true },
      }),
    },
  }),
};
