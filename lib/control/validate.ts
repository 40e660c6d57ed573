/**
 * Checks control messages against their schemas. ajv is loaded for what a quick look does not
 * accept: a sound message never waits for it.
 */
import type { Ajv, ValidateFunction } from 'ajv';
import { HastError } from '../base/errors.ts';
import { fits } from '../base/quick-schema.ts';
import type { StateEvent } from '../format/state-event.ts';
import type { ControlRequest, NodeFacts, ReplyOf } from './messages.ts';
import {
  factsSchema, failureReplySchema, replySchemas, requestSchema, requestSchemas, stateEventSchema,
} from './schemas.ts';

let loading: Promise<Ajv> | undefined;
const compiled = new Map<object, ValidateFunction>();

function loadAjv(): Promise<Ajv> {
  // The schemas are ours and tested: checking them against the meta schema takes long.
  loading ??= import('ajv').then(({ Ajv }) => new Ajv({ meta: false, validateSchema: false }));
  return loading;
}

async function check(schema: object, value: unknown, what: string): Promise<void> {
  if (fits(schema, value)) return;
  let validator = compiled.get(schema);
  if (validator === undefined) {
    const ajv = await loadAjv();
    validator = ajv.compile(schema);
    compiled.set(schema, validator);
  }
  if (validator(value) === true) return;
  const error = validator.errors?.[0];
  const where = error === undefined || error.instancePath === '' ? '' : ` at ${error.instancePath}`;
  throw new HastError('HAST_E_PROTOCOL', `${what}${where} ${error?.message ?? 'is invalid'}`);
}

function parse(line: string, what: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch (cause) {
    throw new HastError('HAST_E_PROTOCOL', `${what} is not JSON`, { cause });
  }
}

/** Throws HAST_E_PROTOCOL where the line is no request. */
export async function parseRequest(line: string): Promise<ControlRequest> {
  const value = parse(line, 'the request');
  await check(requestSchema, value, 'the request');
  const request = value as ControlRequest;
  await check(requestSchemas[request.command] as object, value, 'the request');
  return request;
}

export type ParsedReply<C extends keyof ReplyOf> =
  | { ok: true; reply: ReplyOf[C] }
  | { ok: false; error: { code: string; message: string; hint: string } };

/** Throws HAST_E_PROTOCOL where the line is no reply to `command`. */
export async function parseReply<C extends keyof ReplyOf>(
  line: string,
  command: C,
): Promise<ParsedReply<C>> {
  const value = parse(line, 'the reply');
  if (value !== null && typeof value === 'object' && 'ok' in value && value.ok === false) {
    await check(failureReplySchema, value, 'the reply');
    return value as ParsedReply<C>;
  }
  await check(replySchemas[command], value, 'the reply');
  return { ok: true, reply: value as ReplyOf[C] };
}

/** Throws HAST_E_PROTOCOL where the peer's hastd told something else. */
export async function parseFacts(told: string): Promise<NodeFacts> {
  const value = parse(told, "the peer's answer");
  await check(factsSchema, value, "the peer's answer");
  return value as NodeFacts;
}

/** Throws HAST_E_PROTOCOL where the line is no event. */
export async function parseEvent(line: string): Promise<StateEvent> {
  const value = parse(line, 'the event');
  await check(stateEventSchema, value, 'the event');
  return value as StateEvent;
}
