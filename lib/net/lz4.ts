/** lz4 for `compression lzf`. The block carries its unpacked length in front (4 bytes). */
import lz4 from 'lz4-napi';
import { HastError } from '../base/errors.ts';
import type { Compressor } from '../format/wire.ts';

/** Below this many bytes a block is not worth the time. */
const sizeMin = 1024;

export const lz4Compressor: Compressor = {
  compress(input) {
    if (input.length < sizeMin) return null;
    const packed = lz4.compressSync(input);
    return packed.length <= input.length - (input.length >> 3) ? packed : null;
  },
  decompress(input, size) {
    // The length is checked before the library allocates what it says.
    if (input.length < 4 || input.readUInt32LE(0) !== size) {
      throw new HastError('HAST_E_PROTOCOL', 'a compressed block of wrong length');
    }
    try {
      const output = lz4.uncompressSync(input);
      if (output.length === size) return output;
    } catch (cause) {
      throw new HastError('HAST_E_PROTOCOL', 'a compressed block cannot be unpacked', { cause });
    }
    throw new HastError('HAST_E_PROTOCOL', 'a compressed block of wrong length');
  },
};
