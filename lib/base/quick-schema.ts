/**
 * A quick yes to a value that fits a JSON schema. ajv compiles a schema before it checks the first
 * value, which takes longer than all else a short command does; what this refuses, ajv judges and
 * explains. So this may say no too often, and never yes too often: a test compares the two.
 */

/** The words of JSON Schema that the project's schemas use. */
interface Words {
  type?: string | readonly string[];
  nullable?: boolean;
  const?: unknown;
  enum?: readonly unknown[];
  minimum?: number | undefined;
  maximum?: number | undefined;
  maxLength?: number;
  pattern?: string;
  items?: object;
  minItems?: number;
  maxItems?: number;
  required?: readonly string[];
  properties?: Record<string, object>;
  additionalProperties?: false | object;
  propertyNames?: object;
  maxProperties?: number;
}

/** Words of our own: true where the text is good for the value of the word. */
export type OwnWords = Record<string, (kind: string, text: string) => boolean>;

const known = new Set([
  'type', 'nullable', 'const', 'enum', 'minimum', 'maximum', 'maxLength', 'pattern', 'items',
  'minItems', 'maxItems', 'required', 'properties', 'additionalProperties', 'propertyNames',
  'maxProperties',
]);

/** False also for a word that is not known here. */
export function fits(schema: object, value: unknown, own: OwnWords = {}): boolean {
  const words = schema as Words;
  for (const [word, kind] of Object.entries(schema)) {
    if (known.has(word)) continue;
    const check = own[word];
    if (check === undefined) return false;
    if (typeof value === 'string' && !check(String(kind), value)) return false;
  }
  return fitsPlain(words, value) && fitsInside(words, value, own);
}

function fitsPlain(words: Words, value: unknown): boolean {
  const { type, nullable = false, minimum, maximum, maxLength, pattern } = words;
  if (type !== undefined && !(nullable && value === null)) {
    const types = typeof type === 'string' ? [type] : type;
    if (!types.some((one) => isOf(one, value))) return false;
  }
  // Of plain values only; an object there is none of ours.
  if ('const' in words && words.const !== value) return false;
  if (words.enum !== undefined && !words.enum.includes(value)) return false;
  if (typeof value === 'number') {
    return (minimum === undefined || value >= minimum) &&
      (maximum === undefined || value <= maximum);
  }
  if (typeof value !== 'string') return true;
  // In UTF-16 units: at least as many as ajv's characters.
  return (maxLength === undefined || value.length <= maxLength) &&
    (pattern === undefined || new RegExp(pattern, 'u').test(value));
}

function fitsInside(words: Words, value: unknown, own: OwnWords): boolean {
  if (Array.isArray(value)) {
    const { items, minItems = 0, maxItems = Infinity } = words;
    return value.length >= minItems && value.length <= maxItems &&
      (items === undefined || value.every((one) => fits(items, one, own)));
  }
  if (typeof value !== 'object' || value === null) return true;
  const { required = [], properties = {}, additionalProperties, propertyNames } = words;
  const entries = Object.entries(value as object);
  if (entries.length > (words.maxProperties ?? Infinity)) return false;
  if (!required.every((key) => (value as Record<string, unknown>)[key] !== undefined)) return false;
  return entries.every(([key, one]) => {
    if (propertyNames !== undefined && !fits(propertyNames, key, own)) return false;
    const inner = Object.hasOwn(properties, key) ? properties[key] : additionalProperties;
    if (inner === false) return false;
    return inner === undefined || fits(inner, one, own);
  });
}

function isOf(type: string, value: unknown): boolean {
  switch (type) {
    case 'integer': return Number.isInteger(value);
    // As ajv: neither NaN nor an infinite one.
    case 'number': return Number.isFinite(value);
    case 'array': return Array.isArray(value);
    case 'object': return typeof value === 'object' && value !== null && !Array.isArray(value);
    case 'null': return value === null;
    default: return typeof value === type;
  }
}
