/** The quick look at a value may refuse too much; what it accepts, ajv accepts. */
import { Ajv } from 'ajv';
import * as fc from 'fast-check';
import t from 'tap';
import { fits } from '../../lib/base/quick-schema.ts';
import { configSchema, isGoodValue } from '../../lib/config/schema.ts';
import { replySchemas, requestSchemas } from '../../lib/control/schemas.ts';

const ajv = new Ajv({ allowUnionTypes: true });
ajv.addKeyword({
  keyword: 'valueKind', type: 'string', schemaType: 'string',
  validate: (kind: string, text: string) => isGoodValue(kind, text),
});

function quick(schema: object, value: unknown): boolean {
  return fits(schema, value, { valueKind: isGoodValue });
}

t.test('quick schema: each word is judged as ajv does', async (t) => {
  const plain = fc.oneof(
    fc.integer({ min: -3, max: 3 }),
    fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constantFrom('', 'a', 'ab', 'b'),
    fc.boolean(), fc.constant(null),
  );
  const value = fc.oneof(
    plain, fc.array(plain, { maxLength: 3 }),
    fc.dictionary(fc.constantFrom('a', 'b', 'toString'), plain, { maxKeys: 3 }),
  );
  const types = ['integer', 'number', 'string', 'boolean', 'array', 'object', 'null'];
  const small = { type: 'integer', minimum: 0, maximum: 2 };
  const schema = fc.constantFrom<object>(
    ...types.map((type) => ({ type })), { type: ['integer', 'string'] },
    { type: 'string', nullable: true }, { const: 'a' }, { const: 1 }, { enum: ['a', 1, null] },
    { minimum: 0 }, { maximum: 1 }, { type: 'string', maxLength: 1 },
    { type: 'string', pattern: '^a' },
    { type: 'array', minItems: 1, maxItems: 2 }, { type: 'array', items: small },
    { type: 'object', required: ['a'] }, { type: 'object', properties: { a: small } },
    { type: 'object', properties: { a: small }, additionalProperties: false },
    { type: 'object', additionalProperties: small }, { type: 'object', maxProperties: 1 },
    { type: 'object', propertyNames: { maxLength: 1 } },
  );
  fc.assert(fc.property(schema, value, (one, data) => {
    t.equal(quick(one, data), ajv.validate(one, data), JSON.stringify([one, data]));
  }), { numRuns: 2000 });
  t.equal(fits({ type: 'string', format: 'date' }, 'x'), false, 'a word that it does not know');
});

/** Any tree with one place replaced. */
function broken(tree: unknown, with_: unknown, at: number): unknown {
  let count = 0;
  const visit = (node: unknown): unknown => {
    if (count++ === at) return with_;
    if (Array.isArray(node)) return node.map(visit);
    if (typeof node !== 'object' || node === null) return node;
    return Object.fromEntries(Object.entries(node).map(([key, one]) => [key, visit(one)]));
  };
  return visit(tree);
}

t.test('quick schema: a mistake in a real message or file is not accepted', async (t) => {
  const file = {
    listen: ['tcp4://0.0.0.0'], timeout: 20,
    on: { h1: { pidfile: '/run/x' } },
    resources: { shared: { on: { h1: { local: '/dev/sdb1', remote: 'tcp://10.0.0.233' } } } },
  };
  const role = { schema: 1, command: 'role', role: 'primary', resources: ['shared'], force: false };
  const error = { code: 'HAST_E_BUSY', message: 'm', hint: '' };
  const reply = { schema: 1, ok: true, results: [{ name: 'a', from: 'init', to: 'init', error }] };
  const samples = [
    [configSchema, file], [requestSchemas['role'], role], [replySchemas.role, reply],
  ] as [object, unknown][];
  for (const [schema, sample] of samples) {
    t.ok(quick(schema, sample), 'sound');
    t.ok(ajv.validate(schema, sample), 'and ajv says so too');
    for (let at = 0; at < 20; at++) {
      for (const with_ of [null, -1, 'x', '', [], {}, { x: 1 }, 1e9, true]) {
        const data = broken(sample, with_, at);
        if (quick(schema, data)) t.ok(ajv.validate(schema, data), JSON.stringify(data));
        else t.equal(ajv.validate(schema, data), false, JSON.stringify(data));
      }
    }
  }
});
