/**
 * Goal: an undo file gives back exactly what was put into it, or says why it does not.
 * Method: round trips, every byte of a small file flipped, files cut at every byte, forged fields
 * with good checksums, and the refusals of the disk.
 */
import * as fs from 'node:fs';
import nodeFs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import * as os from 'node:os';
import * as path from 'node:path';
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { UndoFileReader, UndoFileWriter } from '../../lib/disk/undo-file.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import { Bytes, frozen } from '../format/golden-bytes.ts';
import { handUndoFile, undoInfo, undoRanges } from '../format/samples.ts';

interface Range {
  offset: number;
  data: Buffer;
}

const { EBADMSG, ENOSPC } = os.constants.errno;

const add = (writer: UndoFileWriter, { offset, data }: Range): Promise<number> =>
  new Promise((resolve) => writer.add(offset, data, 0, data.length, resolve));
const seal = (writer: UndoFileWriter): Promise<number> =>
  new Promise((resolve) => writer.seal(resolve));
const next = (reader: UndoFileReader): Promise<{ errno: number; range: Range | null }> =>
  new Promise((resolve) => reader.next((errno, range) => resolve({ errno, range })));
const verify = (reader: UndoFileReader): Promise<number> =>
  new Promise((resolve) => reader.verify(resolve));

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'done';
  } catch (error) {
    return error instanceof HastError ? `${error.code} ${error.message}` : String(error);
  }
}

/** All ranges, or the errno and how many came before it. */
async function readAll(file: string): Promise<Range[] | { errno: number; got: Range[] }> {
  const reader = await UndoFileReader.open(file);
  const got: Range[] = [];
  for (;;) {
    const { errno, range } = await next(reader);
    if (errno === 0 && range !== null) {
      got.push(range);
      continue;
    }
    reader.close();
    return errno === 0 ? got : { errno, got };
  }
}

t.test('undo file: what went in comes out, in order', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  const writer = await UndoFileWriter.create(file, undoInfo);
  t.equal(fs.statSync(file).mode & 0o7777, 0o600);
  const large = { offset: 8 * MiB, data: Buffer.alloc(limits.payloadBytesMax, 7) };
  const ranges = [...undoRanges, large];
  for (const range of ranges) t.equal(await add(writer, range), 0);
  t.equal(writer.bytes, 612 + MiB);
  t.equal(await seal(writer), 0);
  const reader = await UndoFileReader.open(file);
  t.same(reader.info, undoInfo);
  t.same([reader.count, reader.bytes], [3, 612 + MiB]);
  t.equal(await verify(reader), 0);
  t.equal(await verify(reader), 0, 'and starts anew');
  reader.close();
  const got = await readAll(file) as Range[];
  t.equal(got.length, ranges.length);
  got.forEach((one, index) => {
    const range = ranges[index] as Range;
    t.equal(one.offset, range.offset);
    t.ok(one.data.equals(range.data));
  });
});

t.test('undo file: the frozen sample, written and read', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  const sample = frozen('undo', handUndoFile());
  const writer = await UndoFileWriter.create(file, undoInfo);
  for (const range of undoRanges) await add(writer, range);
  await seal(writer);
  t.equal(fs.readFileSync(file).toString('hex'), sample.toString('hex'));
  fs.writeFileSync(file, sample);
  t.same(await readAll(file), undoRanges);
});

t.test('undo file: an empty one is whole', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  t.equal(await seal(await UndoFileWriter.create(file, undoInfo)), 0);
  t.same(await readAll(file), []);
});

t.test('undo file: never over another file, nothing left of an abandoned one', async (t) => {
  const folder = t.testdir({ old: 'precious' });
  const old = path.join(folder, 'old');
  t.match(await codeOf(UndoFileWriter.create(old, undoInfo)), /HAST_E_USAGE .*exists/);
  t.equal(fs.readFileSync(old, 'utf8'), 'precious');
  const link = path.join(folder, 'link');
  fs.symlinkSync(path.join(folder, 'elsewhere'), link);
  t.match(await codeOf(UndoFileWriter.create(link, undoInfo)), /HAST_E_USAGE/);
  t.notOk(fs.existsSync(path.join(folder, 'elsewhere')));
  const missing = path.join(folder, 'no', 'folder');
  t.match(await codeOf(UndoFileWriter.create(missing, undoInfo)), /HAST_E_DEVICE .*ENOENT/);
  const file = path.join(folder, 'undo');
  const writer = await UndoFileWriter.create(file, undoInfo);
  t.equal(await add(writer, undoRanges[0] as Range), 0);
  t.match(await codeOf(UndoFileReader.open(file)), /HAST_E_CORRUPT .*not sealed/);
  writer.abandon();
  for (let wait = 0; wait < 100 && fs.existsSync(file); wait++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  t.notOk(fs.existsSync(file));
});

t.test('undo file: a full disk is told, and nothing is sealed after it', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  const writer = await UndoFileWriter.create(file, undoInfo);
  t.equal(await add(writer, undoRanges[0] as Range), 0);
  const { write } = nodeFs;
  const full = fs.openSync('/dev/full', 'w');
  t.teardown(() => {
    nodeFs.write = write;
    syncBuiltinESMExports();
    fs.closeSync(full);
  });
  nodeFs.write = ((_fd: number, ...rest: unknown[]) =>
    (write as (...all: unknown[]) => void)(full, ...rest)) as typeof write;
  syncBuiltinESMExports();
  t.equal(await add(writer, undoRanges[1] as Range), ENOSPC);
  t.equal(await add(writer, undoRanges[1] as Range), ENOSPC, 'the first error stays');
  t.equal(await seal(writer), ENOSPC);
  t.match(await codeOf(UndoFileReader.open(file)), /not sealed/);
});

t.test('undo file: every flipped byte is refused or does not matter', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  const whole = handUndoFile();
  const expected = JSON.stringify(undoRanges);
  let refused = 0;
  let tried = 0;
  // Every byte, and each of its bits in turn.
  for (let bit = 0; bit < whole.length * 8; bit += 5) {
    tried++;
    const bad = Buffer.from(whole);
    bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7));
    fs.writeFileSync(file, bad);
    try {
      const got = await readAll(file);
      if (!Array.isArray(got)) {
        refused++;
        // What was given out before the damage is what was put in.
        const good = JSON.stringify(undoRanges.slice(0, got.got.length));
        if (got.errno !== EBADMSG || JSON.stringify(got.got) !== good) {
          t.fail(`bit ${bit}: errno ${got.errno}`);
        }
        const reader = await UndoFileReader.open(file);
        if (await verify(reader) !== EBADMSG || reader.problem === '') t.fail(`bit ${bit}: verify`);
        reader.close();
      } else if (JSON.stringify(got) !== expected) {
        t.fail(`bit ${bit}: other data`);
      }
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      refused++;
    }
  }
  t.equal(refused, tried, 'there is no byte that does not count');
});

t.test('undo file: cut short or too long is not sealed', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  const whole = handUndoFile();
  for (let size = 0; size < whole.length; size++) {
    fs.writeFileSync(file, whole.subarray(0, size));
    const code = await codeOf(UndoFileReader.open(file));
    if (!code.startsWith('HAST_E_CORRUPT')) t.fail(`${size} bytes: ${code}`);
    if (size >= 512 && !code.includes('not sealed')) t.fail(`${size} bytes: ${code}`);
  }
  fs.writeFileSync(file, Buffer.concat([whole, Buffer.alloc(1)]));
  t.match(await codeOf(UndoFileReader.open(file)), /not sealed/);
  fs.writeFileSync(file, Buffer.concat([whole, whole.subarray(-64)]));
  t.match(await codeOf(UndoFileReader.open(file)), /do not fit/);
  const missing = path.join(path.dirname(file), 'missing');
  t.match(await codeOf(UndoFileReader.open(missing)), /HAST_E_DEVICE .*ENOENT/);
  t.match(await codeOf(UndoFileReader.open(path.dirname(file))), /is not an undo file/);
});

t.test('undo file: impossible fields with good checksums', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  const whole = handUndoFile();
  const header = (at: number, size: number, value: number | bigint): Buffer => new Bytes(512)
    .put(0, whole.subarray(0, 512)).number(at, size, value).seal(12).raw;
  for (const [at, size, value, code] of [
    [8, 4, 2, 'HAST_E_UNSUPPORTED'], [16, 8, 0, 'HAST_E_CORRUPT'], [16, 8, 0x99, 'HAST_E_CORRUPT'],
    [32, 8, 0, 'HAST_E_CORRUPT'], [48, 8, 4096, 'HAST_E_CORRUPT'],
    [48, 8, 2 ** 60, 'HAST_E_CORRUPT'], [64, 4, 0, 'HAST_E_CORRUPT'], [64, 4, 3, 'HAST_E_CORRUPT'],
    [68, 1, 1, 'HAST_E_CORRUPT'], [200, 1, 1, 'HAST_E_CORRUPT'],
  ] as const) {
    fs.writeFileSync(file, Buffer.concat([header(at, size, value), whole.subarray(512)]));
    t.ok((await codeOf(UndoFileReader.open(file))).startsWith(code), `${at}: ${value}`);
  }
  const record = (at: number, size: number, value: number): Buffer => new Bytes(32)
    .put(0, whole.subarray(512, 544)).number(at, size, value).seal(4).raw;
  for (const [at, size, value] of [
    [8, 8, undoInfo.mediaSize - 511], [8, 8, 2 ** 60], [16, 8, 1], [24, 4, 0], [24, 4, 0xffffffff],
    [24, 4, limits.payloadBytesMax + 1], [24, 4, 700], [24, 4, 511], [28, 4, 1],
  ] as const) {
    fs.writeFileSync(file, Buffer.concat([
      whole.subarray(0, 512), record(at, size, value), whole.subarray(544),
    ]));
    t.same(await readAll(file), { errno: EBADMSG, got: [] }, `${at}: ${value}`);
  }
});

t.test('undo file: a record repeated or exchanged is noticed', async (t) => {
  const file = path.join(t.testdir(), 'undo');
  const whole = handUndoFile();
  const [head, one, two, tail] = [
    whole.subarray(0, 512), whole.subarray(512, 1056), whole.subarray(1056, 1188),
    whole.subarray(1188),
  ] as [Buffer, Buffer, Buffer, Buffer];
  fs.writeFileSync(file, Buffer.concat([head, two, one, tail]));
  t.same(await readAll(file), { errno: EBADMSG, got: [] });
  // Another record with the same number and length, valid in itself.
  const other = new Bytes(132).put(0, two).number(8, 8, 8192).raw;
  const forged = Buffer.concat([
    new Bytes(32).put(0, other.subarray(0, 32)).seal(4).raw, other.subarray(32),
  ]);
  fs.writeFileSync(file, Buffer.concat([head, one, forged, tail]));
  const got = await readAll(file) as { errno: number; got: Range[] };
  t.equal(got.errno, EBADMSG);
  const reader = await UndoFileReader.open(file);
  t.equal(await verify(reader), EBADMSG, 'before anything is put back');
  t.match(reader.problem, /sealed with/);
  reader.close();
});
