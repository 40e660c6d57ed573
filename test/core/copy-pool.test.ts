/** Copies for the peer: what is given back is used again, within a bound. */
import t from 'tap';
import { CopyPool, copyLead } from '../../lib/core/copy-pool.ts';
import { MiB } from '../../lib/format/limits.ts';

t.test('a copy has the payload behind its lead, whatever its length', (t) => {
  const pool = new CopyPool();
  const source = Buffer.from(Array.from({ length: 9000 }, (_, index) => index % 251));
  for (const length of [1, 512, 4096, 4097, 8192]) {
    const copy = pool.take(source, 3, length);
    t.ok(copy.subarray(copyLead, copyLead + length).equals(source.subarray(3, 3 + length)));
    pool.giveBack(copy);
  }
  t.end();
});

t.test('what is given back is used again, and only for what fits', (t) => {
  const pool = new CopyPool();
  const source = Buffer.alloc(MiB, 7);
  const first = pool.take(source, 0, 4096);
  t.not(pool.take(source, 0, 4096), first, 'two at a time are two');
  pool.giveBack(first);
  t.not(pool.take(source, 0, 4097), first, 'it is too small for this');
  t.equal(pool.take(source, 0, 3000), first);
  t.equal(pool.spareBytes, 0);
  t.end();
});

t.test('what is kept is bounded', (t) => {
  const pool = new CopyPool();
  const source = Buffer.alloc(MiB);
  const copies = Array.from({ length: 64 }, () => pool.take(source, 0, MiB));
  for (const copy of copies) pool.giveBack(copy);
  t.ok(pool.spareBytes > 32 * MiB && pool.spareBytes <= 40 * MiB);
  t.end();
});
