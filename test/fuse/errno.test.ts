/** What the kernel may be told: never what it would remember for ever, never what it refuses. */
import * as os from 'node:os';
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { errnoOf, replyErrno } from '../../lib/fuse/errno.ts';

const { errno } = os.constants;

t.test('errno: errors map by their errno, then by their code, else to EIO', async (t) => {
  t.equal(errnoOf(new HastError('HAST_E_IO', 'x', { errno: 'ENOSPC' })), errno.ENOSPC);
  t.equal(errnoOf(Object.assign(new Error('x'), { code: 'EROFS' })), errno.EROFS);
  t.equal(errnoOf(new HastError('HAST_E_BUSY', 'x')), errno.EBUSY);
  t.equal(errnoOf(new HastError('HAST_E_PROTOCOL', 'x')), errno.EIO);
  t.equal(errnoOf(new HastError('HAST_E_IO', 'x', { errno: 'ENOSYS' })), errno.EOPNOTSUPP);
  t.equal(errnoOf(new HastError('HAST_E_IO', 'x', { errno: 'EHASNONAME' })), errno.EIO);
  for (const thrown of [null, undefined, 'text', 5]) t.equal(errnoOf(thrown), errno.EIO);
});

t.test('errno: ENOSYS and numbers that the kernel refuses are never sent', async (t) => {
  t.equal(replyErrno(0), 0);
  t.equal(replyErrno(errno.ENOSPC), errno.ENOSPC);
  t.equal(replyErrno(errno.ENOSYS), errno.EOPNOTSUPP);
  for (const wrong of [-5, 512, 1.5, Number.NaN]) t.equal(replyErrno(wrong), errno.EIO);
});
