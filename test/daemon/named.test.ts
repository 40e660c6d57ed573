/** Commands in what the core says get the resource's name; nothing else is touched. */
import t from 'tap';
import { promotionTable } from '../../lib/core/promotion.ts';
import { named } from '../../lib/daemon/named.ts';

t.test('named: the name stands in commands, and only there', async (t) => {
  t.equal(named('say so with hastctl peer-gone NAME; hastctl role primary --force NAME', 'a$&b'),
    'say so with hastctl peer-gone a$&b; hastctl role primary --force a$&b');
  t.equal(named('hastctl create --force -m 1048576 NAME', 'x'),
    'hastctl create --force -m 1048576 x');
  t.equal(named('/srv/NAME is full', 'x'), '/srv/NAME is full');
  for (const { refusal, row } of promotionTable) {
    t.notMatch(named(refusal?.hint ?? '', 'shared'), /\bNAME\b/, row);
  }
});
