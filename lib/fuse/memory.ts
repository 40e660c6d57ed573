/**
 * Memory that the kernel and disks transfer to and from: aligned, and resident before it is used.
 */
import * as libc from '../base/libc.ts';

const PAGE_SIZE = 4096;
/** Of each block: enough for most requests; 64 blocks cost 4 MiB. */
export const TOUCHED_AT_START = 64 * 1024;

/** The global that TypeScript knows only with the types of a browser. */
declare const WebAssembly: {
  Memory: new (limits: { initial: number; maximum: number; shared: boolean }) => {
    readonly buffer: SharedArrayBuffer;
  };
};
const WASM_PAGE_SIZE = 65536;

/**
 * Zeroed shared memory that starts on a page. WebAssembly memory is the one kind of memory in
 * Node that is mapped by itself: a SharedArrayBuffer starts 16 bytes into a page.
 */
export function alignedMemory(size: number): SharedArrayBuffer {
  const pages = Math.ceil(size / WASM_PAGE_SIZE);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
}

/** Makes the pages of a range resident that nobody uses now: zeroes a byte of each. */
export function touch(bytes: Buffer, at: number, size: number): void {
  for (let page = at; page < at + size; page += PAGE_SIZE) bytes[page] = 0;
}

/**
 * Prepares memory that is used in blocks of `blockSize` bytes: only the start of each becomes
 * resident. No huge pages, or 2 MiB of each block would be; not inherited by fork, which would
 * make every page copy-on-write and the next transfer into it a fault. mlock is limited by
 * RLIMIT_MEMLOCK and only a help against swap. Each of these may fail.
 */
export function prepareMemory(memory: SharedArrayBuffer, blockSize: number, blocks: number): void {
  const bytes = Buffer.from(memory);
  libc.madvise(bytes, libc.MADV_NOHUGEPAGE);
  libc.madvise(bytes, libc.MADV_DONTFORK);
  const size = Math.min(blockSize, TOUCHED_AT_START);
  for (let block = 0; block < blocks; block++) {
    const start = bytes.subarray(block * blockSize, block * blockSize + size);
    if (libc.madvise(start, libc.MADV_POPULATE_WRITE) !== 0) touch(start, 0, size);
    libc.mlock(start);
  }
}
