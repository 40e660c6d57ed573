/**
 * Memory that the kernel and disks transfer to and from: aligned, and resident before it is used.
 */
import * as libc from '../base/libc.ts';

const PAGE_SIZE = 4096;

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

/**
 * Prepares memory before any of it is used; nothing becomes resident. No huge pages, or a block
 * would cost more than its size; not inherited by fork, which would make every page copy-on-write
 * and the next transfer into it a fault. Both may fail.
 */
export function prepareMemory(memory: SharedArrayBuffer): void {
  const bytes = Buffer.from(memory);
  libc.madvise(bytes, libc.MADV_NOHUGEPAGE);
  libc.madvise(bytes, libc.MADV_DONTFORK);
}

/**
 * Makes a page-aligned range resident that nobody uses now, and keeps it so: every page is there
 * and written to when this returns. The errno of mlock, 0 where the range cannot be swapped out:
 * RLIMIT_MEMLOCK may refuse it.
 */
export function makeResident(range: Buffer): number {
  if (libc.madvise(range, libc.MADV_POPULATE_WRITE) !== 0) {
    for (let page = 0; page < range.length; page += PAGE_SIZE) range[page] = 0;
  }
  return libc.mlock(range);
}
