/**
 * What this file server says to each request of the kernel, as a table: one small function per
 * opcode. It does no I/O and has no state but its reply buffer and what INIT settled.
 *
 * The file system: node 1 is the root directory, node 2 its one file `volume`. Node ids and
 * file handles are constants, so a process that takes over a mounted file system (the kernel
 * does not repeat INIT, LOOKUP and OPEN for it) gives the same answers.
 *
 * `handle` ends in one of three ways: a reply in `reply`, silence, or work for the volume in
 * `work`. Rules that keep data safe (Linux fs/fuse/file.c, drivers/block/loop.c):
 * - FSYNC and FALLOCATE are never answered ENOSYS, see errno.ts;
 * - WRITE is never answered short: it is refused whole, or done whole;
 * - a mode of FALLOCATE that cannot be done is EOPNOTSUPP, which loop answers by writing zeros.
 */
import { AppOp } from '../core/ports.ts';
import * as abi from './abi.ts';
import * as decode from './decode.ts';
import * as encode from './encode.ts';
import {
  EINVAL, EIO, ENOENT, ENOSPC, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, EPROTO,
} from './errno.ts';

export const TRANSFER_SIZE_MAX = 1024 * 1024;
export const VOLUME_NAME = 'volume';
/** Looked up by `stop` to wake a reader: a name that never exists. */
export const WAKE_PREFIX = '.wake';

const ROOT_ID = abi.FUSE_ROOT_ID;
const VOLUME_ID = 2;

/** More is of no use: loop has 128 tags. The default of 12 costs a fifth of the speed. */
const BACKGROUND_MAX = 256;
const CONGESTION_THRESHOLD = 192;

const WANTED_FLAGS = abi.FUSE_ASYNC_READ | abi.FUSE_BIG_WRITES | abi.FUSE_ASYNC_DIO |
  abi.FUSE_PARALLEL_DIROPS | abi.FUSE_MAX_PAGES | abi.FUSE_INIT_EXT;

/**
 * What INIT settled for the life of a mount. The kernel asks once: a process that takes the mount
 * over is told by the one that answered.
 */
export interface Negotiated {
  /** Of the kernel's protocol. */
  minor: number;
  /** As answered. */
  flags: number;
  flags2: number;
  /** Bytes that one WRITE carries at most. */
  maxWrite: number;
}

/** The kernel sends the requests of a dead server again: Linux 6.9 and later. */
export function canResend({ flags2 }: Negotiated): boolean {
  return (flags2 & abi.FUSE_HAS_RESEND_FLAGS2) !== 0;
}

export const Outcome = { reply: 0, silence: 1, work: 2 } as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

/** What the volume is to do; valid until the next `handle`. */
export interface Work {
  op: AppOp;
  offset: number;
  length: number;
}

/** The request being handled; one object, used again for each. */
interface Query {
  view: DataView;
  at: number;
  length: number;
  node: number;
}

type Handler = (session: Session, query: Query) => Outcome;

const entries: readonly encode.DirectoryEntry[] = [
  { ino: ROOT_ID, name: '.', directory: true },
  { ino: ROOT_ID, name: '..', directory: true },
  { ino: VOLUME_ID, name: VOLUME_NAME, directory: false },
];

export class Session {
  readonly volumeSize: number;
  /** Holds the reply, `replySize` bytes, after `Outcome.reply`. */
  readonly reply = Buffer.alloc(encode.REPLY_SIZE_MAX);
  replySize = 0;
  readonly work: Work = { op: AppOp.read, offset: 0, length: 0 };
  /** INIT was answered with success: by this process, or by one before it. */
  negotiated: Negotiated | null = null;
  /** Why INIT was refused, as a sentence; the mount is useless then. */
  refusal: string | null = null;
  /** The request just handled was a LOOKUP of a wake name. */
  wake = false;

  readonly #replyView: DataView;
  readonly #query: Query;

  constructor(volumeSize: number) {
    this.volumeSize = volumeSize;
    this.#replyView = new DataView(this.reply.buffer, this.reply.byteOffset, this.reply.length);
    this.#query = { view: this.#replyView, at: 0, length: 0, node: 0 };
  }

  handle(view: DataView, at: number, length: number): Outcome {
    this.wake = false;
    const unique = abi.fuseOutHeader.offset.unique;
    // Without a sound header there is nothing to echo, so nobody can be answered.
    if (!decode.isAnswerable(view, at, length)) return Outcome.silence;
    decode.copyUnique(view, at, this.#replyView, unique);
    if (decode.invalidRequest(view, at, length) !== null) return this.fail(EIO);
    const handler = handlers[decode.requestOpcode(view, at)];
    if (handler === undefined) return this.fail(ENOSYS);
    const query = this.#query;
    query.view = view;
    query.at = at;
    query.length = length;
    query.node = decode.requestNode(view, at);
    return handler(this, query);
  }

  /** Ends the request with `errno` and no body. */
  fail(errno: number): Outcome {
    this.replySize = encode.encodeHeader(this.#replyView, 0, errno, 0);
    return Outcome.reply;
  }

  /** Ends the request with success and the body that is in `reply` already. */
  succeed(bodySize: number): Outcome {
    this.replySize = encode.encodeHeader(this.#replyView, 0, 0, bodySize);
    return Outcome.reply;
  }

  give(op: AppOp, offset: number, length: number): Outcome {
    this.work.op = op;
    this.work.offset = offset;
    this.work.length = length;
    return Outcome.work;
  }

  file(node: number): encode.FileAttributes | null {
    if (node === ROOT_ID) return { ino: ROOT_ID, size: 4096, directory: true };
    if (node === VOLUME_ID) return { ino: VOLUME_ID, size: this.volumeSize, directory: false };
    return null;
  }
}

function init(session: Session, query: Query): Outcome {
  const kernel = decode.initRequest(query.view, query.at, query.length);
  if (kernel.major !== abi.FUSE_KERNEL_VERSION || kernel.minor < abi.FUSE_MINOR_MIN) {
    const least = `${abi.FUSE_KERNEL_VERSION}.${abi.FUSE_MINOR_MIN}`;
    session.refusal = `the kernel speaks FUSE ${kernel.major}.${kernel.minor}, ${least} is needed`;
    return session.fail(EPROTO);
  }
  const flags = (WANTED_FLAGS & kernel.flags) >>> 0;
  const flags2 = abi.FUSE_HAS_RESEND_FLAGS2 & kernel.flags2;
  session.negotiated = { minor: kernel.minor, flags, flags2, maxWrite: TRANSFER_SIZE_MAX };
  return session.succeed(encode.encodeInit(session.reply, {
    major: abi.FUSE_KERNEL_VERSION,
    minor: abi.FUSE_KERNEL_MINOR_VERSION,
    max_readahead: kernel.maxReadahead,
    flags,
    max_background: BACKGROUND_MAX,
    congestion_threshold: CONGESTION_THRESHOLD,
    max_write: TRANSFER_SIZE_MAX,
    time_gran: 1,
    max_pages: TRANSFER_SIZE_MAX / 4096,
    map_alignment: 0,
    flags2,
  }));
}

function lookup(session: Session, query: Query): Outcome {
  if (query.node !== ROOT_ID) return session.fail(query.node === VOLUME_ID ? ENOTDIR : ENOENT);
  const name = decode.requestName(query.view, query.at, query.length);
  session.wake = name.startsWith(WAKE_PREFIX);
  const file = name === VOLUME_NAME ? session.file(VOLUME_ID) : null;
  if (file === null) return session.fail(ENOENT);
  return session.succeed(encode.encodeEntry(session.reply, file));
}

function getattr(session: Session, query: Query): Outcome {
  const file = session.file(query.node);
  if (file === null) return session.fail(ENOENT);
  return session.succeed(encode.encodeAttr(session.reply, file));
}

/** Times are accepted and not kept; size, mode and owner are fixed. */
function setattr(session: Session, query: Query): Outcome {
  const valid = decode.setattrValid(query.view, query.at);
  if ((valid & (abi.FATTR_MODE | abi.FATTR_UID | abi.FATTR_GID)) !== 0) return session.fail(EPERM);
  if ((valid & abi.FATTR_SIZE) !== 0) {
    const same = query.node === VOLUME_ID &&
      decode.setattrSize(query.view, query.at) === session.volumeSize;
    if (!same) return session.fail(EPERM);
  }
  return getattr(session, query);
}

/** No page cache between the users of the file, and no lock between its writers. */
function open(session: Session, query: Query): Outcome {
  if (query.node !== VOLUME_ID) return session.fail(ENOENT);
  const flags = abi.FOPEN_DIRECT_IO | abi.FOPEN_PARALLEL_DIRECT_WRITES;
  return session.succeed(encode.encodeOpen(session.reply, flags));
}

function opendir(session: Session, query: Query): Outcome {
  if (query.node !== ROOT_ID) return session.fail(ENOTDIR);
  return session.succeed(encode.encodeOpen(session.reply, 0));
}

function readdir(session: Session, query: Query): Outcome {
  if (query.node !== ROOT_ID) return session.fail(ENOTDIR);
  const first = decode.transferOffset(query.view, query.at);
  const room = decode.transferSize(query.view, query.at);
  return session.succeed(encode.encodeDirectory(session.reply, entries, first, room));
}

function statfs(session: Session): Outcome {
  return session.succeed(encode.encodeStatfs(session.reply, session.volumeSize));
}

/** Clipped at the end of the volume, as for every file. */
function read(session: Session, query: Query): Outcome {
  const offset = decode.transferOffset(query.view, query.at);
  const size = decode.transferSize(query.view, query.at);
  if (query.node !== VOLUME_ID || size > TRANSFER_SIZE_MAX) return session.fail(EINVAL);
  const length = Math.min(size, session.volumeSize - offset);
  return length <= 0 ? session.succeed(0) : session.give(AppOp.read, offset, length);
}

function write(session: Session, query: Query): Outcome {
  const offset = decode.transferOffset(query.view, query.at);
  const length = decode.transferSize(query.view, query.at);
  if (query.node !== VOLUME_ID || length === 0 || length > TRANSFER_SIZE_MAX) {
    return session.fail(EINVAL);
  }
  if (offset + length > session.volumeSize) return session.fail(ENOSPC);
  return session.give(AppOp.write, offset, length);
}

function flush(session: Session): Outcome {
  return session.give(AppOp.flush, 0, 0);
}

/** What lies behind the end is nothing: the size is kept in both modes. */
function fallocate(session: Session, query: Query): Outcome {
  const mode = decode.fallocateMode(query.view, query.at);
  const discard = mode === (abi.FALLOC_FL_KEEP_SIZE | abi.FALLOC_FL_PUNCH_HOLE);
  const zero = mode === (abi.FALLOC_FL_KEEP_SIZE | abi.FALLOC_FL_ZERO_RANGE);
  if ((!discard && !zero) || query.node !== VOLUME_ID) return session.fail(EOPNOTSUPP);
  const offset = decode.fallocateOffset(query.view, query.at);
  const length = Math.min(decode.fallocateLength(query.view, query.at),
    session.volumeSize - offset);
  if (length <= 0) return session.succeed(0);
  return session.give(discard ? AppOp.discard : AppOp.zero, offset, length);
}

const done: Handler = (session) => session.succeed(0);
const silence: Handler = () => Outcome.silence;
const forbidden: Handler = (session) => session.fail(EPERM);

/**
 * Not listed, so ENOSYS: the extended attributes and what else the kernel then stops asking
 * for or does itself (LSEEK, IOCTL, POLL, STATX, COPY_FILE_RANGE). GETXATTR would otherwise
 * come before every write.
 */
const handlers: Partial<Record<number, Handler>> = {
  [abi.Opcode.INIT]: init,
  [abi.Opcode.LOOKUP]: lookup,
  [abi.Opcode.GETATTR]: getattr,
  [abi.Opcode.SETATTR]: setattr,
  [abi.Opcode.OPEN]: open,
  [abi.Opcode.OPENDIR]: opendir,
  [abi.Opcode.READDIR]: readdir,
  [abi.Opcode.STATFS]: statfs,
  [abi.Opcode.READ]: read,
  [abi.Opcode.WRITE]: write,
  [abi.Opcode.FSYNC]: flush,
  [abi.Opcode.SYNCFS]: flush,
  [abi.Opcode.FALLOCATE]: fallocate,
  [abi.Opcode.FLUSH]: done,
  [abi.Opcode.RELEASE]: done,
  [abi.Opcode.RELEASEDIR]: done,
  [abi.Opcode.FSYNCDIR]: done,
  [abi.Opcode.ACCESS]: done,
  [abi.Opcode.DESTROY]: done,
  [abi.Opcode.FORGET]: silence,
  [abi.Opcode.BATCH_FORGET]: silence,
  // The interrupted request is answered in its own time; the kernel waits for that.
  [abi.Opcode.INTERRUPT]: silence,
  [abi.Opcode.CREATE]: forbidden,
  [abi.Opcode.MKNOD]: forbidden,
  [abi.Opcode.MKDIR]: forbidden,
  [abi.Opcode.SYMLINK]: forbidden,
  [abi.Opcode.LINK]: forbidden,
  [abi.Opcode.UNLINK]: forbidden,
  [abi.Opcode.RMDIR]: forbidden,
  [abi.Opcode.RENAME]: forbidden,
  [abi.Opcode.RENAME2]: forbidden,
  [abi.Opcode.TMPFILE]: forbidden,
  [abi.Opcode.SETXATTR]: forbidden,
  [abi.Opcode.REMOVEXATTR]: forbidden,
};
