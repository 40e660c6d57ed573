/** Two nodes that speak different ranges of versions, and the bytes of a later release. */
import t from 'tap';
import { crc32 } from '../../lib/base/checksum.ts';
import { HastError } from '../../lib/base/errors.ts';
import { FrameType } from '../../lib/format/frame.ts';
import { decodeHello, encodeHello, helloStruct } from '../../lib/format/hello.ts';
import { decodePreface, encodePreface, prefaceVersionFits } from '../../lib/format/preface.ts';
import {
  agreeOn, checkFrameAgreed, Feature, featureNames, namesOfFeatures, ownProtocol, type Protocol,
} from '../../lib/format/protocol.ts';
import { SimPair } from '../fixtures/sim-pair.ts';

const speaks = (versionMin: number, versionMax: number, features = 0): Protocol =>
  ({ versionMin, versionMax, features });
const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof HastError ? error.code : String(error);
  }
  return 'none';
};

t.test('protocol: the newest version that both speak, and what both have', async (t) => {
  for (const [one, other, version] of [
    [speaks(1, 1), speaks(1, 1), 1], [speaks(1, 1), speaks(1, 9), 1],
    [speaks(1, 5), speaks(3, 9), 5],
    [speaks(5, 9), speaks(1, 5), 5], [speaks(1, 2), speaks(3, 4), null],
    [speaks(3, 4), speaks(1, 2), null], [speaks(1, 1), speaks(0, 0), null],
  ] as const) {
    t.equal(agreeOn(one, other)?.version ?? null, version);
    t.equal(agreeOn(other, one)?.version ?? null, version);
  }
  const { features } = agreeOn(speaks(1, 1, 3), speaks(1, 2, 0xffff_fffe)) ?? { features: 0 };
  t.equal(features, Feature.numbers);
  t.same(namesOfFeatures(features), ['numbers']);
  t.same(namesOfFeatures(0xffff_ffff | 0), featureNames);
});

t.test('protocol: each feature has a bit of its own, and frames that need it', async (t) => {
  const bits = Object.values(Feature) as number[];
  t.equal(new Set(bits).size, bits.length);
  t.ok(bits.every((bit) => (bit & (bit - 1)) === 0));
  t.equal(ownProtocol.features, bits.reduce((all, one) => all | one));
  t.equal(codeOf(() => checkFrameAgreed(FrameType.number, Feature.remote)), 'HAST_E_PROTOCOL');
  t.equal(codeOf(() => checkFrameAgreed(FrameType.number, Feature.numbers)), 'none');
  t.equal(codeOf(() => checkFrameAgreed(FrameType.detach, Feature.numbers)), 'HAST_E_PROTOCOL');
  t.equal(codeOf(() => checkFrameAgreed(FrameType.write, 0)), 'none');
});

t.test('protocol: the preface of a later release is read, that of ours to the bit', async (t) => {
  const preface = (own: Protocol): Buffer => {
    const raw = encodePreface('shared', 'h1', 1, own);
    raw[20] = 1;
    raw[255] = 1;
    raw.writeUInt32LE(0, 8);
    raw.writeUInt32LE(crc32(raw), 8);
    return raw;
  };
  const fields = { resource: 'shared', node: 'h1', role: 1, security: 0 };
  const newer = decodePreface(preface(speaks(1, 2)));
  t.same(newer, { ...fields, versionMin: 1, versionMax: 2 });
  t.ok(prefaceVersionFits(newer));
  t.notOk(prefaceVersionFits(decodePreface(preface(speaks(2, 3)))));
  t.ok(prefaceVersionFits(decodePreface(preface(speaks(2, 3))), speaks(1, 2)));
  t.equal(codeOf(() => decodePreface(preface(speaks(1, 1)))), 'HAST_E_PROTOCOL');
  t.equal(codeOf(() => decodePreface(preface(speaks(1, 2)), speaks(1, 2))), 'HAST_E_PROTOCOL');
});

t.test('protocol: the hello of a later release is read, that of ours to the bit', async (t) => {
  const hello = new SimPair().a.boot().running.hello();
  const { size, offset } = helloStruct;
  const longer = (own: Protocol): Buffer =>
    Buffer.concat([encodeHello({ ...hello, ...own }), Buffer.alloc(100, 7)]);
  const newer = speaks(1, 3, 0xffff_ffff);
  t.same(decodeHello(longer(newer)), { ...hello, ...newer });
  const marked = longer(newer).subarray(0, size);
  marked[offset.reserved464 + 9] = 1;
  t.same(decodeHello(marked), { ...hello, ...newer });
  for (const bad of [longer(speaks(1, 1)), longer(newer).subarray(0, size - 1)]) {
    t.equal(codeOf(() => decodeHello(bad)), 'HAST_E_PROTOCOL');
  }
  t.equal(codeOf(() => decodeHello(marked, speaks(1, 3))), 'HAST_E_PROTOCOL');
  // What both know is judged as always.
  t.equal(codeOf(() => decodeHello(encodeHello({ ...hello, ...newer, role: 2 }))),
    'HAST_E_PROTOCOL');
  for (const [versionMin, versionMax] of [[2, 3], [3, 1], [0, 0]] as const) {
    const raw = encodeHello({ ...hello, versionMin, versionMax });
    t.throws(() => decodeHello(raw), { message: /speaks the versions/ });
  }
});
