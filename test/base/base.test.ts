/** Binary layouts, checksums and the table of errors: small things everything else rests on. */
import * as zlib from 'node:zlib';
import t from 'tap';
import { assert, AssertionFailure, unreachable } from '../../lib/base/assert.ts';
import { crc32, sha256 } from '../../lib/base/checksum.ts';
import { errnoName, errorText, HastError, isErrorCode } from '../../lib/base/errors.ts';
import {
  array, bytes, id64, struct, text, u16, u32, u53, u8, type Codec,
} from '../../lib/base/layout.ts';

function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof HastError ? error.code : (error as Error).name;
  }
  return 'none';
}

t.test('layout: gaps, overlaps, wrong totals and double names are refused', async (t) => {
  const bad = (size: number, fields: [string, number, Codec<number>][]): string =>
    code(() => struct('x', size, fields));
  t.equal(bad(8, [['a', 0, u32], ['b', 4, u32]]), 'none');
  t.equal(bad(8, [['a', 0, u32], ['b', 5, u16]]), 'AssertionFailure');
  t.equal(bad(6, [['a', 0, u32], ['b', 2, u32]]), 'AssertionFailure');
  t.equal(bad(12, [['a', 0, u32], ['b', 4, u32]]), 'AssertionFailure');
  t.equal(bad(8, [['a', 0, u32], ['a', 4, u32]]), 'AssertionFailure');
  t.equal(bad(8, [['a', 4, u32]]), 'AssertionFailure');
});

t.test('layout: every codec, little-endian, at an offset', async (t) => {
  const all = struct('all', 48, [
    ['one', 0, u8], ['reserved1', 1, u8], ['two', 2, u16], ['four', 4, u32], ['id', 8, id64],
    ['size', 16, u53], ['raw', 24, bytes(3)], ['name', 27, text(5)], ['list', 32, array(u16, 4)],
    ['reserved40', 40, bytes(8)],
  ]);
  t.same(all.offset, {
    one: 0, reserved1: 1, two: 2, four: 4, id: 8, size: 16, raw: 24, name: 27, list: 32,
    reserved40: 40,
  });
  const value = {
    one: 0xab, two: 0x1234, four: 0xdeadbeef, id: 0xfedcba9876543210n, size: 2 ** 53 - 1,
    raw: Uint8Array.of(1, 2, 3), name: 'hé', list: [1, 2, 0xffff, 4],
  };
  const target = Buffer.alloc(60, 0xff);
  all.encode(value, target, 5);
  t.equal(target.subarray(5, 53).toString('hex'), [
    'ab00', '3412', 'efbeadde', '1032547698badcfe', 'ffffffffffff1f00', '010203', '68c3a90000',
    '01000200ffff0400', '0000000000000000',
  ].join(''));
  t.equal(target[4], 0xff);
  t.equal(target[53], 0xff);
  t.same(all.decode(target, 5), value);
});

t.test('layout: what a decoder refuses', async (t) => {
  const one = struct('one', 16, [['size', 0, u53], ['name', 8, text(4)], ['reserved12', 12, u32]]);
  const raw = Buffer.alloc(16);
  t.same(one.decode(raw), { size: 0, name: '' });
  t.equal(code(() => one.decode(raw.subarray(1))), 'HAST_E_CORRUPT');
  t.equal(code(() => one.decode(raw, 1)), 'HAST_E_CORRUPT');
  const changed = (at: number, value: number): Buffer => {
    const copy = Buffer.from(raw);
    copy[at] = value;
    return copy;
  };
  t.equal(one.decode(changed(6, 0x1f)).size, 0x1f * 2 ** 48);
  t.equal(code(() => one.decode(changed(6, 0x20))), 'HAST_E_CORRUPT', 'above 2^53 - 1');
  t.equal(code(() => one.decode(changed(7, 1))), 'HAST_E_CORRUPT');
  for (let at = 12; at < 16; at++) {
    t.equal(code(() => one.decode(changed(at, 1))), 'HAST_E_CORRUPT', `reserved byte ${at}`);
  }
  t.equal(code(() => one.decode(changed(9, 65))), 'HAST_E_CORRUPT', 'text after NUL');
  t.equal(code(() => one.decode(changed(8, 0xff))), 'HAST_E_CORRUPT', 'not UTF-8');
  raw.fill(65, 8, 12);
  t.equal(code(() => one.decode(raw)), 'HAST_E_CORRUPT', 'no NUL');
});

t.test('layout: what an encoder refuses is a bug of the caller', async (t) => {
  const one = struct('one', 24, [['size', 0, u53], ['name', 8, text(4)], ['raw', 12, bytes(4)],
    ['list', 16, array(u32, 2)]]);
  const good = { size: 1, name: 'abc', raw: new Uint8Array(4), list: [1, 2] };
  const target = Buffer.alloc(24);
  one.encode(good, target);
  for (const size of [-1, 0.5, 2 ** 53, Number.NaN]) {
    t.equal(code(() => one.encode({ ...good, size }, target)), 'AssertionFailure');
  }
  for (const name of ['abcd', 'a\0b', 'éé']) {
    t.equal(code(() => one.encode({ ...good, name }, target)), 'AssertionFailure');
  }
  t.equal(code(() => one.encode({ ...good, raw: new Uint8Array(3) }, target)), 'AssertionFailure');
  t.equal(code(() => one.encode({ ...good, list: [1] }, target)), 'AssertionFailure');
  t.equal(code(() => one.encode(good, target.subarray(1))), 'HAST_E_CORRUPT');
});

t.test('checksum: known answers', async (t) => {
  t.equal(crc32(Buffer.from('123456789')), 0xcbf43926);
  t.equal(crc32(Buffer.alloc(0)), 0);
  t.equal(crc32(Buffer.from('6789'), crc32(Buffer.from('12345'))), 0xcbf43926);
  t.equal(crc32(Buffer.alloc(4096, 0xa5)), 0x4a9d36c6);
  t.equal(
    sha256(Buffer.from('abc')).toString('hex'),
    'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
  );
});

t.test('checksum: crc32 is zlib\'s at every length, at any place in memory', async (t) => {
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, index) => index * 31 % 251));
  for (const length of [0, 1, 80, 1023, 1024, 1025, 4096, 4097, 65_536, 69_993]) {
    for (const from of [0, 1, 7]) {
      const part = bytes.subarray(from, from + length);
      for (const seed of [0, 1, 0xffff_ffff]) {
        t.equal(crc32(part, seed), zlib.crc32(part, seed), `${length} from ${from}, ${seed}`);
      }
    }
  }
});

t.test('errors: codes, classes, causes', async (t) => {
  t.ok(isErrorCode('HAST_E_IO'));
  t.notOk(isErrorCode('toString'));
  const cause = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  const error = new HastError('HAST_E_IO', 'it failed', { cause, hint: 'make room' });
  t.equal(error.errorClass, 'device');
  t.equal(error.errno, 'ENOSPC');
  t.equal(error.cause, cause);
  t.equal(error.hint, 'make room');
  t.equal(new HastError('HAST_E_CONFIG', 'x').errorClass, 'config');
  t.equal(new HastError('HAST_E_PROTOCOL', 'x', { errno: 'EPROTO' }).errno, 'EPROTO');
  for (const one of [null, undefined, 'x', {}, { code: 5 }, { code: 'HAST_E_IO' }]) {
    t.equal(errnoName(one), undefined);
  }
  t.equal(errorText(cause), 'no space');
  t.equal(errorText('plain'), 'plain');
  assert(true, 'holds');
  t.throws(() => assert(false, 'a bug'), AssertionFailure);
  t.throws(() => unreachable(1 as never), AssertionFailure);
});
