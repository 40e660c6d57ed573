/** A node held to an older protocol: what the two variables mean. */
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { heldProtocol } from '../../lib/daemon/held-protocol.ts';
import { Feature, ownProtocol } from '../../lib/format/protocol.ts';

t.test('held protocol: nothing said is all of it', async (t) => {
  t.equal(heldProtocol({}), ownProtocol);
  t.equal(heldProtocol({ HAST_NODE: 'h1' }), ownProtocol);
});

t.test('held protocol: version and features', async (t) => {
  t.same(heldProtocol({ HAST_PROTOCOL_MAX: '1' }), { ...ownProtocol, versionMax: 1 });
  t.equal(heldProtocol({ HAST_FEATURES: '' }).features, 0);
  t.equal(heldProtocol({ HAST_FEATURES: 'numbers' }).features, Feature.numbers);
  t.equal(heldProtocol({ HAST_FEATURES: ' remote , numbers,' }).features,
    Feature.numbers | Feature.remote);
  for (const environment of [
    { HAST_PROTOCOL_MAX: '0' }, { HAST_PROTOCOL_MAX: '' }, { HAST_PROTOCOL_MAX: '1.5' },
    { HAST_PROTOCOL_MAX: '99999' }, { HAST_FEATURES: 'toString' }, { HAST_FEATURES: 'remote;' },
  ]) {
    t.throws(() => heldProtocol(environment),
      new HastError('HAST_E_USAGE', Object.values(environment).join()).constructor);
  }
});
