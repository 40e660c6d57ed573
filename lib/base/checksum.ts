/**
 * HOT PATH. Checksums as pure functions. The only file below lib/core that reaches into Node: all
 * calls are functions of their input alone. `npm run bench`, seqwrite: with zlib's crc32 22 % of
 * the processors' time.
 *
 * crc32 is zlib's: polynomial 0x04C11DB7 reflected (0xEDB88320), initial value and final
 * xor 0xFFFFFFFF. It is not CRC-32C. zlib as Node.js brings it goes through tables (3.4 GB/s); the
 * package @node-rs/crc32 multiplies without carry, and is as fast as the memory. Where it has
 * no binary for the platform, zlib does.
 */
import * as crypto from 'node:crypto';
import { createRequire } from 'node:module';
import * as zlib from 'node:zlib';

type Crc32 = (bytes: Uint8Array, seed?: number) => number;

/** Below, what it costs to load the package is not earned back, and a call is as dear. */
const nativeFromBytes = 1024;

/** undefined: not tried yet. */
let fast: Crc32 | undefined;

function load(): Crc32 {
  try {
    const native = createRequire(import.meta.url)('@node-rs/crc32') as { crc32: Crc32 };
    return native.crc32;
  } catch {
    return zlib.crc32;
  }
}

/** crc32 of `bytes`, continuing from `seed` (0 starts anew). */
export function crc32(bytes: Uint8Array, seed = 0): number {
  if (bytes.length < nativeFromBytes) return zlib.crc32(bytes, seed);
  fast ??= load();
  return fast(bytes, seed);
}

/** SHA-256 of `bytes`, 32 bytes. */
export function sha256(bytes: Uint8Array): Buffer {
  return crypto.createHash('sha256').update(bytes).digest();
}
