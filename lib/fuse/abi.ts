/**
 * The FUSE kernel protocol: structs and numbers in the kernel's spelling, after
 * include/uapi/linux/fuse.h (protocol 7.41). Only what this file server uses.
 *
 * - Every struct is little-endian here; on a big-endian host the protocol would be too, so
 *   `io-thread.ts` refuses to start there.
 * - 64-bit ids (`unique`, `nodeid`, `fh`) are opaque: `unique` uses all its bits (bit 63 marks
 *   a request that the kernel sent again), so it is never turned into a number.
 * - Padding is declared as a plain field: a newer kernel may give it a meaning.
 */
import { id64, struct, u16, u32, u53, type Codec } from '../base/layout.ts';

export const FUSE_KERNEL_VERSION = 7;
/** The minor this server answers with; the kernel uses the smaller of the two. */
export const FUSE_KERNEL_MINOR_VERSION = 41;
/** Below this minor (Linux 4.20) there is no max_pages: requests would be cut at 128 KiB. */
export const FUSE_MINOR_MIN = 28;

export const FUSE_ROOT_ID = 1;

export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  RENAME2: 45,
  SYNCFS: 50,
  TMPFILE: 51,
} as const;

/** Flags of INIT: `flags`, and bit 32 and up in `flags2`. */
export const FUSE_ASYNC_READ = 1 << 0;
export const FUSE_BIG_WRITES = 1 << 5;
/** Without it the kernel sends one direct request at a time: a quarter of the speed. */
export const FUSE_ASYNC_DIO = 1 << 15;
export const FUSE_PARALLEL_DIROPS = 1 << 18;
export const FUSE_MAX_PAGES = 1 << 22;
export const FUSE_INIT_EXT = 1 << 30;
/** Bit 39 of both: the kernel knows FUSE_NOTIFY_RESEND (Linux 6.9). */
export const FUSE_HAS_RESEND_FLAGS2 = 1 << 7;

/** The code of a message that is no reply: `unique` is 0, and this stands where `error` does. */
export const FUSE_NOTIFY_RESEND = 7;

export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6;

export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;

export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const DT_DIR = 4;
export const DT_REG = 8;

const i32: Codec<number> = {
  size: 4,
  get: (view, at) => view.getInt32(at, true),
  set: (view, at, value) => view.setInt32(at, value, true),
};

export const fuseInHeader = struct('fuse_in_header', 40, [
  ['len', 0, u32],
  ['opcode', 4, u32],
  ['unique', 8, id64],
  ['nodeid', 16, id64],
  ['uid', 24, u32],
  ['gid', 28, u32],
  ['pid', 32, u32],
  ['total_extlen', 36, u16],
  ['padding', 38, u16],
]);

export const fuseOutHeader = struct('fuse_out_header', 16, [
  ['len', 0, u32],
  ['error', 4, i32],
  ['unique', 8, id64],
]);

/** What every kernel sends; from minor 36 on `flags2` (u32) and 44 unused bytes follow. */
export const fuseInitIn = struct('fuse_init_in', 16, [
  ['major', 0, u32],
  ['minor', 4, u32],
  ['max_readahead', 8, u32],
  ['flags', 12, u32],
]);

export const fuseInitOut = struct('fuse_init_out', 64, [
  ['major', 0, u32],
  ['minor', 4, u32],
  ['max_readahead', 8, u32],
  ['flags', 12, u32],
  ['max_background', 16, u16],
  ['congestion_threshold', 18, u16],
  ['max_write', 20, u32],
  ['time_gran', 24, u32],
  ['max_pages', 28, u16],
  ['map_alignment', 30, u16],
  ['flags2', 32, u32],
  ['reserved0', 36, u32],
  ['reserved1', 40, id64],
  ['reserved2', 48, id64],
  ['reserved3', 56, id64],
]);

/** fuse_read_in (also READDIR's input) and fuse_write_in have the same layout. */
const transferFields = [
  ['fh', 0, id64],
  ['offset', 8, id64],
  ['size', 16, u32],
  ['op_flags', 20, u32],
  ['lock_owner', 24, id64],
  ['flags', 32, u32],
  ['padding', 36, u32],
] as const;
export const fuseReadIn = struct('fuse_read_in', 40, transferFields);
export const fuseWriteIn = struct('fuse_write_in', 40, transferFields);

export const fuseWriteOut = struct('fuse_write_out', 8, [
  ['size', 0, u32],
  ['reserved', 4, u32],
]);

export const fuseFsyncIn = struct('fuse_fsync_in', 16, [
  ['fh', 0, id64],
  ['fsync_flags', 8, u32],
  ['padding', 12, u32],
]);

export const fuseFallocateIn = struct('fuse_fallocate_in', 32, [
  ['fh', 0, id64],
  ['offset', 8, id64],
  ['length', 16, id64],
  ['mode', 24, u32],
  ['padding', 28, u32],
]);

export const fuseSetattrIn = struct('fuse_setattr_in', 88, [
  ['valid', 0, u32],
  ['padding', 4, u32],
  ['fh', 8, id64],
  ['size', 16, id64],
  ['lock_owner', 24, id64],
  ['atime', 32, id64],
  ['mtime', 40, id64],
  ['ctime', 48, id64],
  ['atimensec', 56, u32],
  ['mtimensec', 60, u32],
  ['ctimensec', 64, u32],
  ['mode', 68, u32],
  ['unused4', 72, u32],
  ['uid', 76, u32],
  ['gid', 80, u32],
  ['unused5', 84, u32],
]);

export const fuseOpenOut = struct('fuse_open_out', 16, [
  ['fh', 0, id64],
  ['open_flags', 8, u32],
  ['reserved', 12, u32],
]);

/** Head of a directory entry; the name follows, padded to 8 bytes. */
export const fuseDirent = struct('fuse_dirent', 24, [
  ['ino', 0, u53],
  ['off', 8, u53],
  ['namelen', 16, u32],
  ['type', 20, u32],
]);

/** struct fuse_attr, 88 bytes, embedded at `at`. */
const attrFields = (at: number) =>
  [
    ['ino', at, u53],
    ['size', at + 8, u53],
    ['blocks', at + 16, u53],
    ['reservedTimes0', at + 24, id64],
    ['reservedTimes1', at + 32, id64],
    ['reservedTimes2', at + 40, id64],
    ['reservedNsec0', at + 48, u32],
    ['reservedNsec1', at + 52, u32],
    ['reservedNsec2', at + 56, u32],
    ['mode', at + 60, u32],
    ['nlink', at + 64, u32],
    ['reservedUid', at + 68, u32],
    ['reservedGid', at + 72, u32],
    ['reservedRdev', at + 76, u32],
    ['blksize', at + 80, u32],
    ['reservedFlags', at + 84, u32],
  ] as const;

export const fuseEntryOut = struct('fuse_entry_out', 128, [
  ['nodeid', 0, u53],
  ['generation', 8, u53],
  ['entry_valid', 16, u53],
  ['attr_valid', 24, u53],
  ['reservedEntryNsec', 32, u32],
  ['reservedAttrNsec', 36, u32],
  ...attrFields(40),
]);

export const fuseAttrOut = struct('fuse_attr_out', 104, [
  ['attr_valid', 0, u53],
  ['reservedAttrNsec', 8, u32],
  ['reservedDummy', 12, u32],
  ...attrFields(16),
]);

export const fuseStatfsOut = struct('fuse_statfs_out', 80, [
  ['blocks', 0, u53],
  ['bfree', 8, u53],
  ['bavail', 16, u53],
  ['files', 24, u53],
  ['ffree', 32, u53],
  ['bsize', 40, u32],
  ['namelen', 44, u32],
  ['frsize', 48, u32],
  ['reservedPadding', 52, u32],
  ['reservedSpare0', 56, id64],
  ['reservedSpare1', 64, id64],
  ['reservedSpare2', 72, id64],
]);
