/**
 * What lets a container end. Where all its processes are killed at once, the last of them takes the
 * mount namespace down as it ends, and unmounts what is mounted on our device. That waits for the
 * server of the volume; and while the process that waits still has /dev/fuse open, the kernel does
 * not know that the server is dead: it would wait for ever.
 *
 * So hastd and its workers keep their mount namespace open as descriptor 0. An ending process
 * closes higher descriptors first, /dev/fuse among them; then the namespace goes with descriptor
 * 0, and what is unmounted gets EIO. (Linux runs these closings from a list, the last one queued
 * first. It does not promise that; test/e2e/container.test.ts sees it.)
 */
import * as fs from 'node:fs';

const descriptor = 0;
const namespaceFile = '/proc/self/ns/mnt';

/** Opens it in place of standard input, which nothing reads; /dev/null where there is no /proc. */
export function holdMountNamespace(): void {
  fs.closeSync(descriptor);
  try {
    // The lowest free number is taken.
    fs.openSync(namespaceFile, 'r');
  } catch {
    fs.openSync('/dev/null', 'r');
  }
}
