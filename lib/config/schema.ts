/**
 * The JSON schema of the raw tree, built from the keyword table, and its check with ajv. Every
 * error comes out as a problem at the place the tree knows.
 */
import { createRequire } from 'node:module';
import type { ErrorObject, SchemaValidateFunction, ValidateFunction } from 'ajv';
import { fits } from '../base/quick-schema.ts';
import { keywordAt, keywords, nearest, unknownWord } from './keywords.ts';
import type { Keyword, Level } from './keywords.ts';
import { limits } from './limits.ts';
import { quote } from './problems.ts';
import type { Problems, Span } from './problems.ts';
import { excuse, levelOf, pointerParts, pointerTo } from './tree.ts';
import type { Raw, RawTree } from './tree.ts';
import { refuseValue } from './values.ts';

function valueSchema(keyword: Keyword): object {
  const { kind, min, max } = keyword;
  switch (kind) {
    case 'choice':
      return { enum: keyword.choices };
    case 'switch':
      return { enum: ['on', 'off', true, false] };
    case 'seconds':
    case 'microseconds':
      return { type: 'integer', minimum: min, maximum: max };
    case 'bytes':
    case 'rate':
    case 'metrics':
      return { type: ['integer', 'string'], minimum: min, maximum: max, valueKind: kind };
    case 'listen': {
      const one = { type: 'string', valueKind: kind };
      const list = { items: one, minItems: 1, maxItems: limits.listenCountMax };
      return { type: ['string', 'array'], valueKind: kind, ...list };
    }
    default:
      return { type: 'string', valueKind: kind };
  }
}

function sectionSchema(level: Level, more: Record<string, object> = {}): object {
  const own = Object.entries(keywords).filter(([word]) => keywordAt(word, level) !== undefined);
  const values = own.map(([word, keyword]) => [word, valueSchema(keyword)] as const);
  return {
    type: 'object',
    properties: { ...Object.fromEntries(values), ...more },
    additionalProperties: false,
  };
}

function named(kind: string, section: object, max?: number): object {
  const schema = { type: 'object', propertyNames: { valueKind: kind } };
  const bound = max === undefined ? {} : { maxProperties: max };
  return { ...schema, ...bound, additionalProperties: section };
}

const tls = sectionSchema('tls');

/**
 * The schema of the JSON form. `valueKind` is a keyword of ours: addresses, paths, names and
 * sizes, as lib/config/values.ts checks them.
 */
export const configSchema: object = sectionSchema('global', {
  tls,
  on: named('node-name', sectionSchema('node', { tls })),
  resources: named(
    'resource-name',
    sectionSchema('resource', {
      on: named('node-name', sectionSchema('resource-node', {
        mount: sectionSchema('mount'), tls,
      })),
      mount: sectionSchema('mount'),
      tls,
    }),
    limits.resourceCountMax,
  ),
});

type ValueKind = Parameters<typeof refuseValue>[0];

export function isGoodValue(kind: string, text: string): boolean {
  return refuseValue(kind as ValueKind, text) === null;
}

let compiled: ValidateFunction | undefined;

function validator(): ValidateFunction {
  if (compiled !== undefined) return compiled;
  // Here and not at the top: a file without a mistake never needs it.
  const { Ajv } = createRequire(import.meta.url)('ajv') as typeof import('ajv');
  // Checking the schema itself and polishing its code takes longer than all else a short
  // command does; a test checks the schema.
  const speed = { meta: false, validateSchema: false, code: { optimize: false } };
  const ajv = new Ajv({ allErrors: true, verbose: true, allowUnionTypes: true, ...speed });
  const validate: SchemaValidateFunction = (kind: ValueKind, data) => {
    const refusal = refuseValue(kind, String(data));
    if (refusal === null) return true;
    const { message, hint } = refusal;
    // ajv leaves out of errors like this one which property name they are about.
    const name = kind === 'resource-name' || kind === 'node-name' ? String(data) : undefined;
    validate.errors = [{ keyword: 'valueKind', message, params: { hint, name } }];
    return false;
  };
  ajv.addKeyword({ keyword: 'valueKind', type: 'string', schemaType: 'string', validate });
  compiled = ajv.compile(configSchema);
  return compiled;
}

/** Reports what in the tree breaks the schema, and marks it as damaged. */
export function checkSchema(tree: RawTree, problems: Problems): void {
  if (fits(configSchema, tree.root, { valueKind: isGoodValue })) return;
  const validate = validator();
  if (validate(tree.root)) return;
  for (const error of validate.errors ?? []) report(error, tree, problems);
}

/** The keyword or name a pointer ends in, without the index of an array. */
function wordOf(pointer: string): string {
  const parts = pointerParts(pointer);
  const last = parts.at(-1) ?? '';
  return parts.at(-2) === 'listen' && /^[0-9]+$/.test(last) ? 'listen' : last;
}

function report(error: ErrorObject, tree: RawTree, problems: Problems): void {
  const { instancePath } = error;
  const params = error.params as Record<string, unknown>;
  // ajv says it once more for the object that holds the name.
  if (error.keyword === 'propertyNames') return;
  if (error.keyword === 'additionalProperties') {
    reportUnknown(String(params['additionalProperty']), instancePath, tree, problems);
    return;
  }
  const name = params['name'];
  const pointer = typeof name === 'string' ? pointerTo(instancePath, name) : instancePath;
  if (tree.damaged.has(pointer)) return;
  tree.damaged.add(pointer);
  const place = tree.places.get(pointer);
  const keySpan = place?.key ?? nowhere;
  const valueSpan = place?.value ?? nowhere;
  if (error.keyword === 'valueKind') {
    const hint = params['hint'];
    const span = name === undefined ? valueSpan : keySpan;
    problems.error(span, error.message ?? 'wrong', typeof hint === 'string' ? hint : undefined);
    return;
  }
  if (error.keyword === 'maxProperties' || error.keyword === 'maxItems') {
    const word = wordOf(pointer) === 'resources' ? 'resources' : `'${wordOf(pointer)}' addresses`;
    problems.error(keySpan, `too many ${word}`, `at most ${String(params['limit'])}`);
    return;
  }
  reportValue(error.data as Raw, pointer, valueSpan, problems);
}

const nowhere: Span = { offset: 0, line: 1, column: 1, length: 0 };

function reportUnknown(word: string, pointer: string, tree: RawTree, problems: Problems): void {
  const level = levelOf(pointer) ?? 'global';
  const at = pointerTo(pointer, word);
  const span = tree.places.get(at)?.key ?? nowhere;
  // Its value was not checked.
  tree.damaged.add(at);
  if (word === 'resource' && level === 'global') {
    problems.error(span, `unknown keyword ${quote(word)}`, "did you mean 'resources'?");
    excuse(tree, pointer, 'resources');
    return;
  }
  const { message, hint, meant } = unknownWord(word, level);
  problems.error(span, message, hint);
  if (meant !== undefined) excuse(tree, pointer, meant === 'resource' ? 'resources' : meant);
}

function shown(value: Raw): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  return typeof value === 'string' ? quote(value) : String(value);
}

/** A value of the wrong type, outside its range, or not among the words allowed. */
function reportValue(value: Raw, pointer: string, span: Span, problems: Problems): void {
  const word = wordOf(pointer);
  const level = levelOf(pointer.slice(0, pointer.lastIndexOf('/')));
  const listed = pointer.endsWith(`/${word}`) ? undefined : keywords['listen'];
  const keyword = level === undefined ? listed : keywordAt(word, level);
  if (keyword === undefined) {
    const what = ['on', 'resources', 'mount', 'tls'].includes(word) ? `'${word}'` : quote(word);
    problems.error(span, `${what} must be an object, not ${shown(value)}`, 'write { ... }');
    return;
  }
  if (typeof value === 'number' && keyword.min !== undefined && value < keyword.min) {
    const sort = value < 0 ? 'negative' : value === 0 ? 'zero' : 'too small';
    problems.error(span, `'${word}' is ${sort}: ${value}`, `expected ${keyword.expects}`);
    return;
  }
  const near = typeof value === 'string' ? nearest(value, keyword.choices ?? []) : undefined;
  const guess = near === undefined ? '' : `did you mean '${near}'? `;
  problems.error(
    span, `'${word}' cannot be ${shown(value)}`, `${guess}expected ${keyword.expects}`,
  );
}
