/**
 * A file system on a loop device on the volume, and raw load with a deep queue: what a disk has
 * to bear. Every block is verified, so a buffer used again while in flight shows.
 */
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import {
  command, fuseMissing, Lab, nativeMissing, succeed, toolMissing,
} from '../fixtures/fuse-lab.ts';
import type { ServerOptions } from '../fixtures/fuse-server.ts';

type Kind = ServerOptions['kind'];

const MIB = 1024 * 1024;
const BOUND_MS = 90_000;

/** Files of many sizes; the digest of each by name. */
async function writeFiles(directory: string): Promise<Map<string, string>> {
  const digests = new Map<string, string>();
  await Promise.all(Array.from({ length: 60 }, async (_, index) => {
    const data = crypto.randomBytes(index === 0 ? 20 * MIB : index * 7919);
    const file = path.join(directory, `file${index}`);
    await fs.promises.writeFile(file, data, { flush: index % 3 === 0 });
    digests.set(file, crypto.createHash('sha256').update(data).digest('hex'));
  }));
  return digests;
}

async function checkFiles(t: Test, digests: Map<string, string>): Promise<void> {
  let wrong = 0;
  for (const [file, digest] of digests) {
    const data = await fs.promises.readFile(file);
    if (crypto.createHash('sha256').update(data).digest('hex') !== digest) wrong++;
  }
  t.equal(wrong, 0, `${digests.size} files`);
}

async function ext4(t: Test, kind: Kind): Promise<void> {
  const lab = new Lab();
  try {
    await lab.serve(256 * MIB, { kind, delayMsMax: 1 });
    const device = await lab.attach();
    await succeed('mkfs.ext4', ['-q', '-F', device], BOUND_MS);
    await succeed('mount', [device, lab.fsMount]);
    const digests = await writeFiles(lab.fsMount);
    const { counters } = await lab.counters();
    t.ok(counters.flushes > 0, 'fsync arrived');
    if (kind === 'direct') {
      t.ok(counters.ranges.some((range) => range.op === 'discard'), 'mkfs discarded');
      await succeed('fstrim', [lab.fsMount], BOUND_MS);
    }
    await succeed('umount', [lab.fsMount], BOUND_MS);
    await succeed('mount', [device, lab.fsMount]);
    await checkFiles(t, digests);
    await succeed('umount', [lab.fsMount], BOUND_MS);
    const fsck = await command('fsck.ext4', ['-f', '-n', device], BOUND_MS);
    t.equal(fsck.code, 0, fsck.stdout + fsck.stderr);
    // What is on the volume is what the backing file holds.
    const backing = await command('fsck.ext4', ['-f', '-n', lab.backing], BOUND_MS);
    t.equal(backing.code, 0, backing.stdout);
  } finally {
    await lab.close();
  }
}

/** Random sizes and places; every block carries a checksum, which is checked at the end. */
async function verifiedLoad(t: Test, kind: Kind, size: number, more: string[]): Promise<void> {
  const lab = new Lab();
  try {
    await lab.serve(size, { kind, delayMsMax: 3, readers: kind === 'direct' ? 2 : 1 });
    const device = await lab.attach();
    const { code, stdout, stderr } = await command('fio', [
      '--name=verify', `--filename=${device}`, '--ioengine=libaio', '--direct=1',
      '--iodepth=128', '--rw=randwrite', '--verify=crc32c', '--verify_fatal=1',
      '--do_verify=1', '--verify_state_save=0', '--random_generator=tausworthe64', ...more,
    ], BOUND_MS);
    t.equal(code, 0, 'fio found every block as it wrote it');
    if (code !== 0) t.comment(stderr + stdout.slice(-2000));
    const { counters, inFlight, idle } = await lab.counters();
    // libfuse 2 cannot ask for asynchronous direct I/O: loop gets one request at a time through.
    t.ok(counters.inFlightMax >= (kind === 'direct' ? 60 : 1), `depth ${counters.inFlightMax}`);
    t.equal(inFlight, 0);
    t.ok(idle >= 62, 'every slot is back, but those the readers wait with');
  } finally {
    await lab.close();
  }
}

async function filesystem(t: Test, kind: Kind, size: number): Promise<void> {
  const noExt4 = await toolMissing('mkfs.ext4', 'fsck.ext4', 'fstrim');
  await t.test(`filesystem: ext4 on ${kind}`, noExt4 === null ? {} : { skip: noExt4 }, (t) =>
    ext4(t, kind));
  const noFio = await toolMissing('fio');
  const needsFio = noFio === null ? {} : { skip: noFio };
  await t.test(`filesystem: deep queue of small blocks on ${kind}`, needsFio, (t) =>
    verifiedLoad(t, kind, size, ['--bs=4k']));
  await t.test(`filesystem: deep queue of all sizes on ${kind}`, needsFio, (t) =>
    verifiedLoad(t, kind, size, ['--bsrange=512-1m', '--bs_unaligned=0', '--blockalign=512']));
}

const direct = fuseMissing();
const native = await nativeMissing();
t.test('filesystem: direct', direct === null ? {} : { skip: direct }, (t) =>
  filesystem(t, 'direct', 128 * MIB));
t.test('filesystem: fuse-native', native === null ? {} : { skip: native }, (t) =>
  filesystem(t, 'native', 8 * MIB));
