/**
 * Memory of the heap that a worker needs while it serves, touched before it does: a page that is
 * missing then is charged to a memory group that may wait for the very device.
 */

/** Megabytes of one semi-space of V8's young generation, as given to it. */
export const semiSpaceMib = 4;
/** Both semi-spaces, and once more. */
const warmBytes = 3 * semiSpaceMib * 1024 * 1024;
const arrayLength = 1000;
const elementBytes = 8;

/** V8 options that keep the young generation at one size. */
export const heapOptions = [
  `--min-semi-space-size=${semiSpaceMib}`, `--max-semi-space-size=${semiSpaceMib}`,
];

/** How much was allocated; none of it is kept. */
export function warmHeap(): number {
  let bytes = 0;
  while (bytes < warmBytes) bytes += new Array(arrayLength).fill(0).length * elementBytes;
  return bytes;
}
