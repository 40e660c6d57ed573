/** JSON schemas of the control protocol's messages, for ajv. */
import { roleWords } from './messages.ts';

const count = { type: 'integer', minimum: 0 } as const;
const text = { type: 'string' } as const;
const nullableText = { type: 'string', nullable: true } as const;
const schemaOne = { const: 1 } as const;
const names = { type: 'array', maxItems: 4096, items: { type: 'string', maxLength: 255 } } as const;
const role = { enum: roleWords } as const;

function record(properties: Record<string, object>, more: Record<string, object> = {}): object {
  return {
    type: 'object',
    required: Object.keys(properties),
    properties: { ...properties, ...more },
  };
}

export const requestSchema = {
  ...record({ schema: schemaOne, command: { enum: ['ping', 'role', 'status'] } }),
  allOf: [
    {
      if: record({ command: { const: 'role' } }),
      then: record({ role, resources: names, force: { type: 'boolean' } }),
    },
    {
      if: record({ command: { const: 'status' } }),
      then: record({ resources: names }),
    },
  ],
};

const failure = record({ code: text, message: text, hint: text });

export const failureReplySchema = record({
  schema: schemaOne, ok: { const: false }, error: failure,
});

const statistics = record({
  reads: count, writes: count, deletes: count, flushes: count, mapUpdates: count,
  localReadErrors: count, localWriteErrors: count, localDeleteErrors: count,
  localFlushErrors: count,
  queueLocal: count, queueSend: count, queueRecv: count, queueDone: count, queueIdle: count,
});

const resourceStatus = record({
  schema: schemaOne, name: text, role, status: text, connection: text, detail: text,
  local: text, remote: text, source: nullableText, device: text,
  replication: text, checksum: text, compression: text, frontend: text,
  extentSize: count, keepDirty: count, mediaSize: count,
  dirtyBytes: count, syncPercent: { type: 'number', minimum: 0, maximum: 100 },
  localDisk: text, peerDisk: text, peerRole: text,
  worker: { ...count, nullable: true }, disconnectedSince: { type: 'number', nullable: true },
  singleCopyWrites: count, statistics,
});

const head = { schema: schemaOne, ok: { const: true } };

export const replySchemas = {
  ping: record({ ...head, pid: count, node: text }),
  role: record({
    ...head,
    results: {
      type: 'array',
      items: record({ name: text, from: role, to: role, error: { ...failure, nullable: true } }),
    },
  }),
  status: record({ ...head, resources: { type: 'array', items: resourceStatus } }),
};
