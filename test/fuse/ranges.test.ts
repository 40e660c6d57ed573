/** Discard and zeroing, which only the direct front ends have: on the file and through loop. */
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import type { Test } from 'tap';
import { testEachKind } from '../fixtures/fuse-kinds.ts';
import { command, Lab, succeed } from '../fixtures/fuse-lab.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const SIZE = 6 * GIB;
const EIO = 5;
const EOPNOTSUPP = 95;

type Check = (t: Test, lab: Lab) => Promise<void>;

const PUNCH = ['--punch-hole'];
const ZERO = ['--zero-range', '--keep-size'];

function onFile(lab: Lab, flags: string[], offset: number, length: number) {
  return command('fallocate', [...flags, '-o', String(offset), '-l', String(length), lab.file]);
}

async function fill(lab: Lab, offset: number, length: number): Promise<Buffer> {
  const data = crypto.randomBytes(length);
  const file = await fs.promises.open(lab.file, 'r+');
  await file.write(data, 0, length, offset);
  await file.close();
  return data;
}

async function read(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await fs.promises.open(path, 'r');
  const { buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
  await file.close();
  return buffer;
}

async function ranges(lab: Lab) {
  return (await lab.counters()).counters.ranges;
}

const checks: Record<string, Check> = {
  async 'both modes, at any alignment, end with zeros'(t, lab) {
    for (const [op, flags] of [['discard', PUNCH], ['zero', ZERO]] as const) {
      for (const [offset, length] of [[512, 512], [4096, MIB], [777, 5001]] as const) {
        const data = await fill(lab, 0, 2 * MIB);
        t.equal((await onFile(lab, [...flags], offset, length)).code, 0);
        data.fill(0, offset, offset + length);
        t.ok((await read(lab.file, 0, 2 * MIB)).equals(data), `${op} ${offset} ${length}`);
        t.ok((await read(lab.backing, 0, 2 * MIB)).equals(data));
        t.strictSame((await ranges(lab)).at(-1), { op, offset, length });
      }
    }
  },

  async 'other modes are not supported, and the two go on working'(t, lab) {
    for (const flags of [[], ['--collapse-range'], ['--insert-range'], ['--zero-range']]) {
      const { code, stderr } = await onFile(lab, flags, 0, 4096);
      t.not(code, 0);
      t.match(stderr, /(not |un)supported/, flags.join());
    }
    t.equal((await onFile(lab, PUNCH, 0, 4096)).code, 0);
  },

  async 'a range above 4 GiB arrives in pieces, one behind the end does not'(t, lab) {
    const count = (await ranges(lab)).length;
    t.equal((await onFile(lab, PUNCH, 512, 5 * GIB)).code, 0);
    t.strictSame((await ranges(lab)).slice(count), [
      { op: 'discard', offset: 512, length: 4 * GIB },
      { op: 'discard', offset: 512 + 4 * GIB, length: GIB },
    ]);
    t.equal((await onFile(lab, PUNCH, SIZE - 512, GIB)).code, 0);
    t.strictSame((await ranges(lab)).at(-1), { op: 'discard', offset: SIZE - 512, length: 512 });
  },

  async 'answered while a disk still works on it: nothing says that the rest is done'(t, lab) {
    await lab.hold(true);
    t.equal((await onFile(lab, PUNCH, 0, GIB)).code, 0);
    const count = (await ranges(lab)).length;
    t.match((await onFile(lab, PUNCH, 512, 5 * GIB)).stderr, /Input\/output error/);
    t.equal((await ranges(lab)).length, count + 1, 'the second piece was not begun');
    await lab.fault('discard', EOPNOTSUPP, 1);
    t.match((await onFile(lab, PUNCH, 512, 5 * GIB)).stderr, /(not |un)supported/);
    await lab.hold(false);
    t.equal((await lab.counters()).inFlight, 0);
    t.equal((await onFile(lab, PUNCH, 512, 5 * GIB)).code, 0);
  },

  async 'errors'(t, lab) {
    await lab.fault('discard', EIO, 1);
    t.match((await onFile(lab, PUNCH, 0, 4096)).stderr, /Input\/output error/);
    await lab.fault('zero', EOPNOTSUPP, 1);
    t.match((await onFile(lab, ZERO, 0, 4096)).stderr, /(not |un)supported/);
    t.equal((await onFile(lab, ZERO, 0, 4096)).code, 0, 'and it is asked again');
  },

  async 'loop offers discard, in requests of almost 4 GiB'(t, lab) {
    const device = await lab.attach();
    const queue = `/sys/block/${device.slice(5)}/queue`;
    t.equal((await fs.promises.readFile(`${queue}/discard_granularity`, 'utf8')).trim(), '4096');
    await fill(lab, 5 * GIB, MIB);
    const count = (await ranges(lab)).length;
    await succeed('blkdiscard', [device], 60_000);
    const seen = (await ranges(lab)).slice(count);
    t.ok(seen.every((one) => one.op === 'discard' && one.length <= 4 * GIB - 512));
    t.equal(seen.reduce((sum, one) => sum + one.length, 0), SIZE);
    t.ok((await read(device, 5 * GIB, MIB)).every((byte) => byte === 0));
    t.equal((await fs.promises.stat(lab.backing)).blocks, 0, 'the space is given back');
  },

  async 'loop zeroes single sectors and everything'(t, lab) {
    const device = await lab.attach();
    const data = await fill(lab, 0, 8192);
    const sectors = ['-z', '-o', '512', '-l', '1024', device];
    await succeed('blkdiscard', sectors);
    data.fill(0, 512, 1536);
    t.ok((await read(device, 0, 8192)).equals(data));
    t.strictSame((await ranges(lab)).at(-1), { op: 'zero', offset: 512, length: 1024 });
    const count = (await ranges(lab)).length;
    await succeed('blkdiscard', ['-z', device], 60_000);
    const seen = (await ranges(lab)).slice(count);
    t.equal(seen.reduce((sum, one) => sum + one.length, 0), SIZE);
    t.equal(Math.max(...seen.map((one) => one.length)), 4 * GIB - 512);
  },

  async 'zeroing that is not supported is done by writing zeros'(t, lab) {
    const device = await lab.attach();
    await fill(lab, 0, MIB);
    await lab.fault('zero', EOPNOTSUPP, 1);
    const before = (await lab.counters()).counters.writes;
    await succeed('blkdiscard', ['-z', '-l', String(MIB), device]);
    t.ok((await lab.counters()).counters.writes > before);
    t.ok((await read(device, 0, MIB)).every((byte) => byte === 0));
  },
};

testEachKind('ranges', async (t, kind) => {
  for (const [name, check] of Object.entries(checks)) {
    await t.test(`ranges: ${name}`, async (t) => {
      const lab = new Lab();
      try {
        await lab.serve(SIZE, { kind, delayMsMax: 2 });
        await check(t, lab);
      } finally {
        await lab.close();
      }
    });
  }
});
