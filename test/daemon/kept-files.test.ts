/** Goal: what a worker keeps of its own accord lands in real files that hastctl undo can read. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { silentLogger } from '../../lib/base/log.ts';
import type { KeptSink } from '../../lib/core/ports.ts';
import { KeptFiles } from '../../lib/daemon/kept-files.ts';
import { UndoFileReader, UndoFileWriter } from '../../lib/disk/undo-file.ts';
import { MiB } from '../../lib/format/limits.ts';

const { EACCES, EEXIST, ENOTDIR } = os.constants.errno;
const info = {
  resource: 'shared', mediaSize: MiB, createdAt: 1, discarded: 1,
  copyId: 1n, generation: 0xabcn, keptCopyId: 2n, keptGeneration: 3n,
};

function store(directory: string, create = UndoFileWriter.create): KeptFiles {
  return new KeptFiles(create, () => directory, silentLogger);
}

function create(files: KeptFiles): Promise<{ errno: number; sink: KeptSink | null }> {
  return new Promise((resolve) => files.create(info, (errno, sink) => resolve({ errno, sink })));
}

async function made(files: KeptFiles): Promise<KeptSink> {
  const { errno, sink } = await create(files);
  if (sink === null) throw new Error(`errno ${errno}`);
  return sink;
}

function step(run: (done: (errno: number) => void) => void): Promise<number> {
  return new Promise(run);
}

async function gone(test: Test, file: string): Promise<void> {
  for (let tries = 0; fs.existsSync(file) && tries < 500; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  test.notOk(fs.existsSync(file));
}

t.test('kept files: made where asked, numbered, read back', async (test) => {
  const directory = path.join(test.testdir(), 'deep', 'hast');
  const files = store(directory);
  const data = Buffer.alloc(8192, 7);
  for (const name of ['shared-0000000000000abc.undo', 'shared-0000000000000abc-2.undo']) {
    const sink = await made(files);
    test.equal(sink.name, path.join(directory, name));
    test.equal(await step((done) => sink.add(4096, data, 4096, 4096, done)), 0);
    test.equal(await step((done) => sink.seal(done)), 0);
    test.equal(fs.statSync(sink.name).mode & 0o777, 0o600);
    const reader = await UndoFileReader.open(sink.name);
    test.match(reader.info, info);
    test.equal(reader.bytes, 4096);
    test.equal(await step((done) => reader.verify(done)), 0);
    reader.close();
  }
  test.equal(fs.statSync(directory).mode & 0o777, 0o700);
});

t.test('kept files: given up, sealed or not', async (test) => {
  const files = store(test.testdir());
  const open = await made(files);
  open.abandon();
  await gone(test, open.name);
  const sealed = await made(files);
  test.equal(await step((done) => sealed.seal(done)), 0);
  sealed.abandon();
  await gone(test, sealed.name);
});

t.test('kept files: what stands against it has its number', async (test) => {
  const directory = test.testdir({ file: 'not a directory' });
  const inFile = store(path.join(directory, 'file', 'x'));
  test.match(await create(inFile), { errno: ENOTDIR, sink: null });
  const denied = (): Promise<never> => Promise.reject(
    Object.assign(new Error('no'), { code: 'EACCES' }),
  );
  test.match(await create(store(directory, denied)), { errno: EACCES, sink: null });
  const taken = new HastError('HAST_E_USAGE', 'there', {
    cause: Object.assign(new Error('there'), { code: 'EEXIST' }),
  });
  let tries = 0;
  const always = (): Promise<never> => {
    tries++;
    return Promise.reject(taken);
  };
  test.match(await create(store(directory, always)), { errno: EEXIST, sink: null });
  test.equal(tries, 100, 'names run out');
});
