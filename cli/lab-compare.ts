/** Comparing the data of two copies byte for byte, past the daemons. */
import * as fs from 'node:fs';
import { describeCopy } from '../lib/disk/inspect.ts';

const chunkSize = 4 * 1024 * 1024;
const blockSize = 4096;
const reportedMax = 8;

/** Rejects where they differ, naming the first blocks that do. */
export async function compareCopies(first: string, second: string): Promise<void> {
  const blocks = await differingBlocks(first, second);
  if (blocks.length === 0) return;
  const named = blocks.slice(0, reportedMax).map((block) => block * blockSize).join(' ');
  throw new Error(
    `the copies differ in ${blocks.length} blocks of ${blockSize} bytes: at ${named}`,
  );
}

/** Numbers of the 4 KiB blocks of the volume that differ. */
export async function differingBlocks(first: string, second: string): Promise<number[]> {
  const left = describeCopy(first).superblock;
  const right = describeCopy(second).superblock;
  if (left.mediaSize !== right.mediaSize) throw new Error('the copies differ in size');
  const files = await Promise.all([fs.promises.open(first, 'r'), fs.promises.open(second, 'r')]);
  try {
    const [a, b] = [Buffer.alloc(chunkSize), Buffer.alloc(chunkSize)];
    const found: number[] = [];
    for (let at = 0; at < left.mediaSize; at += chunkSize) {
      const size = Math.min(chunkSize, left.mediaSize - at);
      await readFully(files[0], a, size, left.dataOffset + at);
      await readFully(files[1], b, size, right.dataOffset + at);
      if (a.subarray(0, size).equals(b.subarray(0, size))) continue;
      for (let inside = 0; inside < size; inside += blockSize) {
        const end = Math.min(inside + blockSize, size);
        if (!a.subarray(inside, end).equals(b.subarray(inside, end))) {
          found.push((at + inside) / blockSize);
        }
      }
    }
    return found;
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
}

async function readFully(
  file: fs.promises.FileHandle, buffer: Buffer, size: number, position: number,
): Promise<void> {
  const { bytesRead } = await file.read(buffer, 0, size, position);
  if (bytesRead !== size) throw new Error(`only ${bytesRead} of ${size} bytes at ${position}`);
}
