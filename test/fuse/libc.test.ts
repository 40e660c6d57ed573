/** The system calls through koffi, on a plain file. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import * as libc from '../../lib/base/libc.ts';
import { alignedMemory } from '../../lib/fuse/memory.ts';

const { errno } = os.constants;

function open(t: Test): { fd: number; file: string } {
  const file = path.join(t.testdir({ data: Buffer.alloc(65536, 7) }), 'data');
  const fd = fs.openSync(file, 'r+');
  t.teardown(() => fs.closeSync(fd));
  return { fd, file };
}

function fallocate(fd: number, mode: number, offset: number, length: number): Promise<number> {
  return new Promise((resolve) => libc.fallocate(fd, mode, offset, length, resolve));
}

t.test('libc: the library loads here', async (t) => {
  t.equal(libc.libcAvailable(), true);
});

t.test('libc: fallocate punches, zeroes, and reports its own errno', async (t) => {
  const { fd } = open(t);
  t.equal(await fallocate(fd, 0x03, 512, 1024), 0);
  t.equal(await fallocate(fd, 0x11, 8191, 4098), 0);
  const data = fs.readFileSync(fd);
  for (let at = 0; at < data.length; at++) {
    const zero = (at >= 512 && at < 1536) || (at >= 8191 && at < 12289);
    if (data[at] !== (zero ? 0 : 7)) t.fail(`byte ${at} is ${data[at]}`);
  }
  const results = await Promise.all([
    fallocate(fd, 0x03, -1, 512), fallocate(fd, 0x03, 0, 512), fallocate(9999, 0x03, 0, 512),
  ]);
  t.strictSame(results, [errno.EINVAL, 0, errno.EBADF]);
});

t.test('libc: fallocate calls back later, also when it cannot begin', async (t) => {
  const { fd } = open(t);
  let returned = false;
  await new Promise<void>((resolve) => {
    libc.fallocate(fd, 0x03, 0.5, 512, () => {
      t.equal(returned, true);
      resolve();
    });
    returned = true;
  });
});

t.test('libc: advice about reads', async (t) => {
  const { fd } = open(t);
  t.equal(libc.adviseRandom(fd), 0);
  t.equal(libc.adviseRandom(9999), errno.EBADF);
});

t.test('libc: flock excludes another description', async (t) => {
  const { fd, file } = open(t);
  const other = fs.openSync(file, 'r+');
  t.teardown(() => fs.closeSync(other));
  t.equal(libc.flockExclusive(fd), 0);
  t.equal(libc.flockExclusive(other), errno.EAGAIN);
  t.equal(libc.flockRelease(fd), 0);
  t.equal(libc.flockExclusive(other), 0);
});

t.test('libc: the size of what is no block device is refused', async (t) => {
  t.strictSame(libc.blockDeviceSize(open(t).fd), { errno: errno.ENOTTY, size: 0 });
});

t.test('libc: aligned memory can be populated, locked and kept from fork', async (t) => {
  const memory = Buffer.from(alignedMemory(1 << 20));
  t.equal(memory.length, 1 << 20);
  t.equal(libc.madvise(memory, libc.MADV_DONTFORK), 0);
  t.equal(libc.madvise(memory.subarray(0, 65536), libc.MADV_POPULATE_WRITE), 0);
  t.ok([0, errno.ENOMEM, errno.EPERM].includes(libc.mlock(memory.subarray(0, 65536))));
  t.equal(libc.madvise(memory.subarray(1, 4097), libc.MADV_DONTFORK), errno.EINVAL);
});

t.test('libc: the I/O flusher flag is set or refused for want of a capability', async (t) => {
  t.ok([0, errno.EPERM, errno.EINVAL].includes(libc.setIoFlusher()));
});
