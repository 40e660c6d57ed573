/** Structs of requests decoded from bytes that were written down by hand. */
import t from 'tap';
import * as abi from '../../lib/fuse/abi.ts';
import * as decode from '../../lib/fuse/decode.ts';
import * as bytes from '../fixtures/fuse-bytes.ts';
import { Bytes } from '../fixtures/fuse-bytes.ts';

function viewOf(raw: Buffer): DataView {
  return new DataView(raw.buffer, raw.byteOffset, raw.length);
}

t.test('abi: header', async (t) => {
  const raw = new Bytes().u32(56, 20).u64(bytes.UNIQUE, 2).u32(10, 11, 12).u16(13, 14).done();
  t.strictSame(abi.fuseInHeader.decode(raw), {
    len: 56, opcode: 20, unique: bytes.UNIQUE, nodeid: 2n, uid: 10, gid: 11, pid: 12,
    total_extlen: 13, padding: 14,
  });
});

t.test('abi: bodies', async (t) => {
  const transfer = new Bytes().u64(1, 2).u32(3, 4).u64(5).u32(6, 7).done();
  const transferValue = {
    fh: 1n, offset: 2n, size: 3, op_flags: 4, lock_owner: 5n, flags: 6, padding: 7,
  };
  t.strictSame(abi.fuseReadIn.decode(transfer), transferValue);
  t.strictSame(abi.fuseWriteIn.decode(transfer), transferValue);
  t.strictSame(abi.fuseFsyncIn.decode(new Bytes().u64(1).u32(2, 3).done()),
    { fh: 1n, fsync_flags: 2, padding: 3 });
  t.strictSame(abi.fuseFallocateIn.decode(new Bytes().u64(1, 2, 3).u32(4, 5).done()),
    { fh: 1n, offset: 2n, length: 3n, mode: 4, padding: 5 });
  const setattr = new Bytes().u32(1, 2).u64(3, 4, 5, 6, 7, 8).u32(9, 10, 11, 12, 13, 14, 15, 16);
  t.strictSame(abi.fuseSetattrIn.decode(setattr.done()), {
    valid: 1, padding: 2, fh: 3n, size: 4n, lock_owner: 5n, atime: 6n, mtime: 7n, ctime: 8n,
    atimensec: 9, mtimensec: 10, ctimensec: 11, mode: 12, unused4: 13, uid: 14, gid: 15,
    unused5: 16,
  });
});

t.test('abi: the hot path reads the same fields in place', async (t) => {
  const far = 2 ** 40 + 512;
  const read = viewOf(bytes.request(15, 2, bytes.transfer(far, 4096)));
  t.equal(decode.requestOpcode(read, 0), 15);
  t.equal(decode.requestNode(read, 0), 2);
  t.equal(decode.transferOffset(read, 0), far);
  t.equal(decode.transferSize(read, 0), 4096);
  const range = viewOf(bytes.request(43, 2, bytes.fallocate(0x11, far, 2 ** 32 - 512)));
  t.equal(decode.fallocateMode(range, 0), 0x11);
  t.equal(decode.fallocateOffset(range, 0), far);
  t.equal(decode.fallocateLength(range, 0), 2 ** 32 - 512);
  const unique = Buffer.alloc(8);
  decode.copyUnique(range, 0, viewOf(unique), 0);
  t.equal(unique.readBigUInt64LE(0), bytes.UNIQUE);
});

t.test('abi: INIT with and without its extension', async (t) => {
  const long = bytes.request(26, 0, bytes.init(7, 45, 3, 4));
  t.strictSame(decode.initRequest(viewOf(long), 0, long.length),
    { major: 7, minor: 45, maxReadahead: 131072, flags: 3, flags2: 4 });
  const short = bytes.request(26, 0, new Bytes().u32(7, 31, 1, 2).done());
  t.strictSame(decode.initRequest(viewOf(short), 0, short.length),
    { major: 7, minor: 31, maxReadahead: 1, flags: 2, flags2: 0 });
});
