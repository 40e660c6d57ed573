/**
 * Binary structs declared once: field order, offset and type. `struct()` checks that fields
 * neither overlap nor leave gaps and add up to the stated size, and gives decode, encode and
 * the offsets. Everything is little-endian.
 *
 * Fields whose name starts with `reserved` are not part of the value: they are written as
 * zero, and `decode` throws where they are not zero, unless told not to look.
 */
import { HastError } from './errors.ts';
import { assert } from './assert.ts';

export interface Codec<T> {
  readonly size: number;
  get(view: DataView, at: number): T;
  set(view: DataView, at: number, value: T): void;
}

export const u8: Codec<number> = {
  size: 1,
  get: (view, at) => view.getUint8(at),
  set: (view, at, value) => view.setUint8(at, value),
};

export const u16: Codec<number> = {
  size: 2,
  get: (view, at) => view.getUint16(at, true),
  set: (view, at, value) => view.setUint16(at, value, true),
};

export const u32: Codec<number> = {
  size: 4,
  get: (view, at) => view.getUint32(at, true),
  set: (view, at, value) => view.setUint32(at, value, true),
};

/** An opaque 64-bit id. */
export const id64: Codec<bigint> = {
  size: 8,
  get: (view, at) => view.getBigUint64(at, true),
  set: (view, at, value) => view.setBigUint64(at, value, true),
};

/** A 64-bit count or byte offset, at most 2^53 - 1; a larger stored value is refused. */
export const u53: Codec<number> = {
  size: 8,
  get(view, at) {
    const high = view.getUint32(at + 4, true);
    if (high > 0x1f_ffff) throw new HastError('HAST_E_CORRUPT', 'a 64-bit number exceeds 2^53 - 1');
    return high * 0x1_0000_0000 + view.getUint32(at, true);
  },
  set(view, at, value) {
    assert(Number.isSafeInteger(value) && value >= 0, `not a u53: ${value}`);
    view.setUint32(at, value % 0x1_0000_0000, true);
    view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
  },
};

/** Exactly `size` bytes. */
export function bytes(size: number): Codec<Uint8Array> {
  return {
    size,
    get: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, size).slice(),
    set(view, at, value) {
      assert(value.length === size, `expected ${size} bytes, got ${value.length}`);
      new Uint8Array(view.buffer, view.byteOffset + at, size).set(value);
    },
  };
}

const textDecoder = new TextDecoder('utf-8', { fatal: true });
const textEncoder = new TextEncoder();

/** UTF-8 text in a field of `size` bytes, padded with NUL; at most `size - 1` bytes. */
export function text(size: number): Codec<string> {
  return {
    size,
    get(view, at) {
      const raw = new Uint8Array(view.buffer, view.byteOffset + at, size);
      const end = raw.indexOf(0);
      if (end < 0 || raw.subarray(end).some((byte) => byte !== 0)) {
        throw new HastError('HAST_E_CORRUPT', 'a text field is not padded with NUL');
      }
      try {
        return textDecoder.decode(raw.slice(0, end));
      } catch (cause) {
        throw new HastError('HAST_E_CORRUPT', 'a text field is not UTF-8', { cause });
      }
    },
    set(view, at, value) {
      const raw = textEncoder.encode(value);
      assert(raw.length < size && !raw.includes(0), `text does not fit ${size} bytes`);
      const field = new Uint8Array(view.buffer, view.byteOffset + at, size);
      field.fill(0);
      field.set(raw);
    },
  };
}

/** `count` values one after the other. */
export function array<T>(codec: Codec<T>, count: number): Codec<T[]> {
  return {
    size: codec.size * count,
    get: (view, at) =>
      Array.from({ length: count }, (_, index) => codec.get(view, at + index * codec.size)),
    set(view, at, value) {
      assert(value.length === count, `expected ${count} values, got ${value.length}`);
      value.forEach((one, index) => codec.set(view, at + index * codec.size, one));
    },
  };
}

type Field = readonly [name: string, offset: number, codec: Codec<never> | Codec<unknown>];
type AnyCodec = Codec<number> | Codec<bigint> | Codec<string> | Codec<Uint8Array> |
  Codec<number[]> | Codec<bigint[]>;
type FieldList = readonly (readonly [string, number, AnyCodec])[];

type ValueOf<F extends FieldList> = {
  [E in F[number] as E[0] extends `reserved${string}` ? never : E[0]]: E[2] extends Codec<infer T>
    ? T
    : never;
};
type OffsetOf<F extends FieldList> = { readonly [E in F[number] as E[0]]: number };

export interface Struct<V, O> {
  readonly name: string;
  readonly size: number;
  /** Byte offset of each field: the only place where a number stands for a position. */
  readonly offset: O;
  /**
   * Throws HAST_E_CORRUPT where a value is out of range or a reserved field is not zero; with
   * `anyReserved` these are not looked at: their writer may know more than this program.
   */
  decode(source: Uint8Array, at?: number, anyReserved?: boolean): V;
  /** Writes all `size` bytes at `at`, reserved ones as zero. */
  encode(value: V, target: Uint8Array, at?: number): void;
}

export type StructValue<S> = S extends Struct<infer V, unknown> ? V : never;

function viewOf(raw: Uint8Array, at: number, size: number, name: string): DataView {
  if (raw.length - at < size) throw new HastError('HAST_E_CORRUPT', `${name}: too short`);
  return new DataView(raw.buffer, raw.byteOffset + at, size);
}

function checkFields(name: string, size: number, fields: readonly Field[]): void {
  let end = 0;
  const seen = new Set<string>();
  for (const [field, offset, codec] of fields) {
    assert(offset === end, `${name}.${field}: offset ${offset}, expected ${end}`);
    assert(!seen.has(field), `${name}.${field}: declared twice`);
    seen.add(field);
    end = offset + codec.size;
  }
  assert(end === size, `${name}: fields end at ${end}, size is ${size}`);
}

export function struct<const F extends FieldList>(
  name: string,
  size: number,
  fields: F,
): Struct<ValueOf<F>, OffsetOf<F>> {
  checkFields(name, size, fields);
  const list = fields as unknown as readonly (readonly [string, number, Codec<unknown>])[];
  return {
    name,
    size,
    offset: Object.fromEntries(list.map(([field, at]) => [field, at])) as OffsetOf<F>,
    decode(source, at = 0, anyReserved = false) {
      const view = viewOf(source, at, size, name);
      const value: Record<string, unknown> = {};
      for (const [field, offset, codec] of list) {
        if (!field.startsWith('reserved')) {
          value[field] = codec.get(view, offset);
          continue;
        }
        for (let index = 0; index < codec.size && !anyReserved; index++) {
          if (view.getUint8(offset + index) !== 0) {
            throw new HastError('HAST_E_CORRUPT', `${name}: ${field} is not zero`);
          }
        }
      }
      return value as ValueOf<F>;
    },
    encode(value, target, at = 0) {
      const view = viewOf(target, at, size, name);
      new Uint8Array(view.buffer, view.byteOffset, size).fill(0);
      const source = value as Record<string, unknown>;
      for (const [field, offset, codec] of list) {
        if (!field.startsWith('reserved')) codec.set(view, offset, source[field]);
      }
    },
  };
}
