/**
 * Checksums as pure functions. The only file below lib/core that reaches into Node: both
 * calls are functions of their input alone.
 *
 * crc32 is zlib's: polynomial 0x04C11DB7 reflected (0xEDB88320), initial value and final
 * xor 0xFFFFFFFF. It is not CRC-32C.
 */
import * as crypto from 'node:crypto';
import * as zlib from 'node:zlib';

/** crc32 of `bytes`, continuing from `seed` (0 starts anew). */
export function crc32(bytes: Uint8Array, seed = 0): number {
  return zlib.crc32(bytes, seed);
}

/** SHA-256 of `bytes`, 32 bytes. */
export function sha256(bytes: Uint8Array): Buffer {
  return crypto.createHash('sha256').update(bytes).digest();
}
