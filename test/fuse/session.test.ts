/**
 * The whole table of answers: each opcode's request is built byte by byte, and the reply compared
 * with bytes built the same independent way.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { AppOp } from '../../lib/core/ports.ts';
import { Opcode } from '../../lib/fuse/abi.ts';
import { Outcome, Session } from '../../lib/fuse/session.ts';
import * as bytes from '../fixtures/fuse-bytes.ts';
import { Bytes } from '../fixtures/fuse-bytes.ts';

const SIZE = 6 * 1024 ** 3 + 512;
const EPERM = 1;
const ENOENT = 2;
const EIO = 5;
const ENOTDIR = 20;
const EINVAL = 22;
const ENOSPC = 28;
const ENOSYS = 38;
const EPROTO = 71;
const EOPNOTSUPP = 95;

interface Answer {
  outcome: Outcome;
  reply: Buffer | null;
  work: { op: number; offset: number; length: number } | null;
  session: Session;
}

/** The request lies somewhere in larger memory, as in a slot. */
function ask(raw: Buffer, session = new Session(SIZE)): Answer {
  const at = 24;
  const memory = Buffer.alloc(at + raw.length + 64, 0xa5);
  raw.copy(memory, at);
  const view = new DataView(memory.buffer, memory.byteOffset, memory.length);
  const outcome = session.handle(view, at, raw.length);
  return {
    outcome,
    reply: outcome === Outcome.reply ? session.reply.subarray(0, session.replySize) : null,
    work: outcome === Outcome.work ? { ...session.work } : null,
    session,
  };
}

function replyTo(opcode: number, node: number, body?: Buffer): string {
  return ask(bytes.request(opcode, node, body)).reply?.toString('hex') ?? 'none';
}

function hex(errno: number, body?: Buffer): string {
  return bytes.reply(errno, body).toString('hex');
}

const name = (text: string): Buffer => Buffer.from(`${text}\0`);

t.test('session: INIT asks for what the data path needs', async (t) => {
  const flags = (1 << 0) | (1 << 5) | (1 << 15) | (1 << 18) | (1 << 22) | (1 << 30);
  const init = new Bytes().u32(7, 41, 131072, flags).u16(256, 192).u32(1 << 20, 1).u16(256, 0)
    .u32(1 << 7).zeros(28).done();
  t.equal(replyTo(Opcode.INIT, 0, bytes.init()), hex(0, init));
  const { session } = ask(bytes.request(Opcode.INIT, 0, bytes.init()));
  t.strictSame(session.negotiated, { minor: 45, flags, flags2: 1 << 7, maxWrite: 1 << 20 });
});

t.test('session: INIT offers only what the kernel offered', async (t) => {
  const short = new Bytes().u32(7, 31, 4096, 1 << 15).done();
  const init = new Bytes().u32(7, 41, 4096, 1 << 15).u16(256, 192).u32(1 << 20, 1).u16(256, 0)
    .u32(0).zeros(28).done();
  t.equal(replyTo(Opcode.INIT, 0, short), hex(0, init));
});

t.test('session: INIT of a kernel that is too old or too new is refused by name', async (t) => {
  for (const body of [bytes.init(7, 27), bytes.init(6, 45), bytes.init(8, 0)]) {
    const { reply, session } = ask(bytes.request(Opcode.INIT, 0, body));
    t.equal(reply?.toString('hex'), hex(EPROTO));
    t.equal(session.negotiated, null);
    t.match(session.refusal, /FUSE \d+\.\d+, 7\.28 is needed/);
  }
});

t.test('session: names and attributes', async (t) => {
  const entry = Buffer.concat([
    new Bytes().u64(2, 0, 3600, 3600).u32(0, 0).done(), bytes.volumeAttr(SIZE),
  ]);
  t.equal(replyTo(Opcode.LOOKUP, 1, name('volume')), hex(0, entry));
  for (const other of ['volumes', 'volum', '.', 'Volume', '.wake0', 'volume/x']) {
    t.equal(replyTo(Opcode.LOOKUP, 1, name(other)), hex(ENOENT), other);
  }
  t.equal(replyTo(Opcode.LOOKUP, 1, Buffer.from('volume')), hex(ENOENT), 'no end');
  t.equal(replyTo(Opcode.LOOKUP, 2, name('volume')), hex(ENOTDIR));
  t.equal(replyTo(Opcode.LOOKUP, 3, name('volume')), hex(ENOENT));
  const attr = (file: Buffer): Buffer =>
    Buffer.concat([new Bytes().u64(3600).u32(0, 0).done(), file]);
  const getattrIn = new Bytes().u32(0, 0).u64(0).done();
  t.equal(replyTo(Opcode.GETATTR, 1, getattrIn), hex(0, attr(bytes.rootAttr())));
  t.equal(replyTo(Opcode.GETATTR, 2, getattrIn), hex(0, attr(bytes.volumeAttr(SIZE))));
  t.equal(replyTo(Opcode.GETATTR, 3, getattrIn), hex(ENOENT));
  t.equal(ask(bytes.request(Opcode.GETATTR, 0x1_0000_0002n, getattrIn)).reply?.toString('hex'),
    hex(ENOENT), 'a node id is compared in all its bits');
});

t.test('session: wake names are told apart', async (t) => {
  const session = new Session(SIZE);
  ask(bytes.request(Opcode.LOOKUP, 1, name('.wake1')), session);
  t.equal(session.wake, true);
  ask(bytes.request(Opcode.LOOKUP, 1, name('volume')), session);
  t.equal(session.wake, false);
});

t.test('session: SETATTR keeps size, mode and owner', async (t) => {
  const setattr = (valid: number, size: number): Buffer =>
    new Bytes().u32(valid, 0).u64(0, size, 0, 0, 0, 0).u32(0, 0, 0, 0o777, 0, 1, 1, 0).done();
  const same = hex(0, Buffer.concat([
    new Bytes().u64(3600).u32(0, 0).done(), bytes.volumeAttr(SIZE),
  ]));
  t.equal(replyTo(Opcode.SETATTR, 2, setattr(1 << 5, 0)), same, 'times');
  t.equal(replyTo(Opcode.SETATTR, 2, setattr(1 << 3, SIZE)), same, 'the size it has');
  for (const valid of [1 << 0, 1 << 1, 1 << 2, 1 << 3]) {
    t.equal(replyTo(Opcode.SETATTR, 2, setattr(valid, 0)), hex(EPERM), `valid ${valid}`);
  }
  t.equal(replyTo(Opcode.SETATTR, 1, setattr(1 << 3, SIZE)), hex(EPERM));
});

t.test('session: opening and listing', async (t) => {
  const openIn = new Bytes().u32(2, 0).done();
  const opened = (flags: number): Buffer => new Bytes().u64(0).u32(flags, 0).done();
  t.equal(replyTo(Opcode.OPEN, 2, openIn), hex(0, opened(65)));
  t.equal(replyTo(Opcode.OPEN, 1, openIn), hex(ENOENT));
  t.equal(replyTo(Opcode.OPENDIR, 1, openIn), hex(0, opened(0)));
  t.equal(replyTo(Opcode.OPENDIR, 2, openIn), hex(ENOTDIR));
  const dots = [bytes.dirent(1, 1, 4, '.'), bytes.dirent(1, 2, 4, '..')];
  const volume = bytes.dirent(2, 3, 8, 'volume');
  t.equal(replyTo(Opcode.READDIR, 1, bytes.transfer(0, 4096)),
    hex(0, Buffer.concat([...dots, volume])));
  t.equal(replyTo(Opcode.READDIR, 1, bytes.transfer(2, 4096)), hex(0, volume));
  t.equal(replyTo(Opcode.READDIR, 1, bytes.transfer(0, 64)), hex(0, Buffer.concat(dots)));
  t.equal(replyTo(Opcode.READDIR, 1, bytes.transfer(3, 4096)), hex(0));
  t.equal(replyTo(Opcode.READDIR, 1, bytes.transfer(2n ** 64n - 1n, 4096)), hex(0));
  t.equal(replyTo(Opcode.READDIR, 2, bytes.transfer(0, 4096)), hex(ENOTDIR));
});

t.test('session: STATFS has the block size that discard needs', async (t) => {
  const statfs = new Bytes().u64(Math.floor(SIZE / 4096), 0, 0, 1, 0).u32(4096, 255, 4096, 0)
    .zeros(24).done();
  t.equal(replyTo(Opcode.STATFS, 1), hex(0, statfs));
});

t.test('session: READ is clipped at the end', async (t) => {
  const read = (offset: number | bigint, size: number) =>
    ask(bytes.request(Opcode.READ, 2, bytes.transfer(offset, size)));
  t.strictSame(read(513, 7).work, { op: AppOp.read, offset: 513, length: 7 });
  t.strictSame(read(SIZE - 4096, 1 << 20).work,
    { op: AppOp.read, offset: SIZE - 4096, length: 4096 });
  for (const beyond of [SIZE, SIZE + 1, 2n ** 63n, 2n ** 64n - 1n]) {
    t.equal(read(beyond, 4096).reply?.toString('hex'), hex(0), String(beyond));
  }
  t.equal(read(0, 0).reply?.toString('hex'), hex(0));
  t.equal(read(0, (1 << 20) + 1).reply?.toString('hex'), hex(EINVAL));
  t.equal(replyTo(Opcode.READ, 1, bytes.transfer(0, 512)), hex(EINVAL));
});

t.test('session: WRITE is whole or refused', async (t) => {
  const write = (offset: number | bigint, size: number, node = 2) => ask(bytes.request(Opcode.WRITE,
    node, Buffer.concat([bytes.transfer(offset, size), Buffer.alloc(size)])));
  t.strictSame(write(SIZE - 512, 512).work, { op: AppOp.write, offset: SIZE - 512, length: 512 });
  t.strictSame(write(1, 1 << 20).work, { op: AppOp.write, offset: 1, length: 1 << 20 });
  t.equal(write(SIZE - 511, 512).reply?.toString('hex'), hex(ENOSPC), 'over the end');
  t.equal(write(2n ** 64n - 1n, 512).reply?.toString('hex'), hex(ENOSPC));
  t.equal(write(0, (1 << 20) + 1).reply?.toString('hex'), hex(EINVAL));
  t.equal(write(0, 512, 1).reply?.toString('hex'), hex(EINVAL));
  const lying = bytes.request(Opcode.WRITE, 2,
    Buffer.concat([bytes.transfer(0, 4096), Buffer.alloc(512)]));
  t.equal(ask(lying).reply?.toString('hex'), hex(EIO), 'payload shorter than announced');
});

t.test('session: FSYNC always reaches the volume', async (t) => {
  const fsyncIn = new Bytes().u64(0).u32(0, 0).done();
  const flush = { op: AppOp.flush, offset: 0, length: 0 };
  t.strictSame(ask(bytes.request(Opcode.FSYNC, 2, fsyncIn)).work, flush);
  t.strictSame(ask(bytes.request(Opcode.SYNCFS, 1, Buffer.alloc(8))).work, flush);
});

t.test('session: FALLOCATE knows two modes and never says ENOSYS', async (t) => {
  const ranges = (mode: number, offset: number | bigint, length: number | bigint) =>
    ask(bytes.request(Opcode.FALLOCATE, 2, bytes.fallocate(mode, offset, length)));
  const most = 4 * 1024 ** 3 - 512;
  t.strictSame(ranges(0x03, 512, most).work, { op: AppOp.discard, offset: 512, length: most });
  t.strictSame(ranges(0x11, 1, 3).work, { op: AppOp.zero, offset: 1, length: 3 });
  t.strictSame(ranges(0x03, 512, 2n ** 63n - 1n).work,
    { op: AppOp.discard, offset: 512, length: SIZE - 512 }, 'clipped at the end');
  t.equal(ranges(0x03, SIZE, 512).reply?.toString('hex'), hex(0), 'nothing lies behind the end');
  for (let mode = 0; mode < 256; mode++) {
    if (mode === 0x03 || mode === 0x11) continue;
    t.equal(ranges(mode, 0, 4096).reply?.toString('hex'), hex(EOPNOTSUPP), `mode ${mode}`);
  }
});

t.test('session: every other opcode', async (t) => {
  const zero = Buffer.alloc(64);
  for (const opcode of [Opcode.FLUSH, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FSYNCDIR,
    Opcode.ACCESS, Opcode.DESTROY]) {
    t.equal(replyTo(opcode, 1, zero), hex(0), `opcode ${opcode}`);
  }
  for (const opcode of [Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT]) {
    t.equal(ask(bytes.request(opcode, 2, zero)).outcome, Outcome.silence, `opcode ${opcode}`);
  }
  for (const opcode of [Opcode.CREATE, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK,
    Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.RENAME2, Opcode.TMPFILE,
    Opcode.SETXATTR, Opcode.REMOVEXATTR]) {
    t.equal(replyTo(opcode, 1, zero), hex(EPERM), `opcode ${opcode}`);
  }
  const known = new Set<number>(Object.values(Opcode));
  const asked = [Opcode.GETXATTR, Opcode.LISTXATTR];
  for (let opcode = 0; opcode < 4200; opcode++) {
    if (known.has(opcode) && !asked.some((one) => one === opcode)) continue;
    t.equal(replyTo(opcode, 2, zero), hex(ENOSYS), `opcode ${opcode}`);
  }
});

t.test('session: a truncated request is answered or ignored, never decoded', async (t) => {
  const bodies: [number, Buffer][] = [
    [Opcode.INIT, bytes.init()], [Opcode.READ, bytes.transfer(0, 512)],
    [Opcode.WRITE, Buffer.concat([bytes.transfer(0, 8), Buffer.alloc(8)])],
    [Opcode.FALLOCATE, bytes.fallocate(3, 0, 512)], [Opcode.LOOKUP, name('volume')],
    [Opcode.SETATTR, Buffer.alloc(88)], [Opcode.FSYNC, Buffer.alloc(16)],
  ];
  for (const [opcode, body] of bodies) {
    const whole = bytes.request(opcode, 2, body);
    for (let length = 0; length < whole.length; length++) {
      const cut = Buffer.from(whole.subarray(0, length));
      t.equal(ask(cut).outcome, Outcome.silence, `opcode ${opcode} cut at ${length}`);
      if (length < 40) continue;
      cut.writeUInt32LE(length, 0);
      t.not(ask(cut).outcome, Outcome.work, `opcode ${opcode} short by its own word, ${length}`);
    }
  }
});

t.test('session: no bytes make it throw, and work stays inside the volume', async (t) => {
  const anyRequest = fc.tuple(fc.nat(60), fc.bigInt({ min: 0n, max: 3n }),
    fc.uint8Array({ maxLength: 200 })).map(([opcode, node, body]) =>
    bytes.request(opcode, node, Buffer.from(body)));
  const anyBytes = fc.uint8Array({ maxLength: 200 }).map((raw) => Buffer.from(raw));
  fc.assert(fc.property(fc.oneof(anyRequest, anyBytes), (raw) => {
    const { reply, work } = ask(raw);
    if (reply !== null && reply.readUInt32LE(0) !== reply.length) return false;
    return work === null || (work.offset >= 0 && work.offset + work.length <= SIZE);
  }), { numRuns: 20_000, seed: 1 });
  t.pass('20000 requests');
});
