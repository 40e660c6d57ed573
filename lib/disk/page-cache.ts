/**
 * Where a write through the page cache only copies: it does not wait for the disk. Read from the
 * kernel (Linux 6.18): block/fops.c (blkdev_buffered_write), fs/ext4/file.c and inode.c
 * (ext4_buffered_write_iter, ext4_dirty_inode), mm/page-writeback.c (folio_wait_stable).
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { LocalFile } from './local.ts';

/** Whole blocks of so many bytes replace whole blocks below: nothing is read before. */
const blockSize = 4096;

/**
 * Whether whole blocks of 4 KiB can be written to `local` without a wait for its disk: to a block
 * device, and to a file on ext4 without a journal. A journal makes a write wait while the time of
 * the file's last change is being written; XFS and btrfs tell the ring what would wait, so they
 * need no promise. A device that computes checksums of what it is given (stable_writes) makes a
 * page wait that is on its way to it.
 */
export function onlyCopies(local: LocalFile, root = '/'): boolean {
  try {
    const stat = fs.fstatSync(local.fd);
    if (stat.blksize > blockSize) return false;
    const device = local.isBlock ? stat.rdev : stat.dev;
    const link = path.join(root, `sys/dev/block/${majorOf(device)}:${minorOf(device)}`);
    const entry = fs.realpathSync(link);
    const isOpen = local.isBlock || isWithoutJournal(path.basename(entry), root);
    return isOpen && !wantsStablePages(entry);
  } catch {
    // Not told (no sysfs, a file system without a device of its own): not promised.
    return false;
  }
}

function isWithoutJournal(device: string, root: string): boolean {
  if (!fs.existsSync(path.join(root, 'proc/fs/ext4', device))) return false;
  // Named after the device and the inode of the journal.
  const journals = fs.readdirSync(path.join(root, 'proc/fs/jbd2'));
  return !journals.some((name) => name.startsWith(`${device}-`));
}

/** A partition has the queue of its disk. */
function wantsStablePages(entry: string): boolean {
  const queue = [entry, path.dirname(entry)].map((folder) => path.join(folder, 'queue'))
    .find((folder) => fs.existsSync(folder));
  if (queue === undefined) return true;
  return fs.readFileSync(path.join(queue, 'stable_writes'), 'utf8').trim() !== '0';
}

/** gnu_dev_major(3): 12 bits above the lowest 8, the others above 32 bits. */
function majorOf(device: number): number {
  return Number((BigInt(device) >> 8n) & 0xfffn | (BigInt(device) >> 32n) & 0xffff_f000n);
}

function minorOf(device: number): number {
  return Number(BigInt(device) & 0xffn | (BigInt(device) >> 12n) & 0xffff_ff00n);
}
