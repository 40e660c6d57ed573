/**
 * What the worker adds to the core's commands: who holds the copy, and undo files. The core's
 * side of each command is replaced; the copy is a real file with its lock.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { silentLogger } from '../../lib/base/log.ts';
import type { Operator, ResolveRequest, ResolveResult } from '../../lib/core/operator.ts';
import { createCopy } from '../../lib/disk/create.ts';
import { closeLocal, openLocal } from '../../lib/disk/local.ts';
import { Runner } from '../../lib/daemon/runner.ts';
import type { UndoFiles } from '../../lib/daemon/worker-orders.ts';
import type { Order } from '../../lib/daemon/worker-protocol.ts';
import { MiB } from '../../lib/format/limits.ts';
import { resourceConfig, until } from './world.ts';

const refusal = { message: 'fake refusal', hint: 'not now' };

async function world(test: Test, undoFiles?: UndoFiles) {
  const local = path.join(test.testdir({ disk: '' }), 'disk');
  fs.truncateSync(local, 16 * MiB);
  await createCopy({ resource: 'shared', local });
  const events: string[] = [];
  const runner = new Runner({
    resource: resourceConfig('shared', { local }), node: 'h1', log: silentLogger,
    onEvent: (event) => events.push(event.kind),
    ...(undoFiles === undefined ? {} : { undoFiles }),
  });
  await new Promise<void>((resolve, reject) => {
    runner.start((error) => (error === null ? resolve() : reject(error)));
  });
  let stopped: Promise<boolean> | null = null;
  const stop = (): Promise<boolean> => {
    stopped ??= new Promise((resolve) => runner.stop(true, resolve));
    return stopped;
  };
  test.teardown(stop);
  const order = (one: Order) => new Promise<unknown>((resolve, reject) => {
    runner.order(one, (error, resolution) => {
      if (error === null) resolve(resolution);
      else reject(error);
    });
  });
  const core = (parts: Partial<Operator>): void => {
    Object.assign(runner.resource.operator, parts);
  };
  /** What the core says when it has stopped using the copy. */
  const dropped = (): void => runner.resource.context.events.event({ kind: 'detach' });
  return { runner, local, events, stop, order, core, dropped };
}

function isFree(local: string): boolean {
  try {
    closeLocal(openLocal(local));
    return true;
  } catch (error) {
    if (error instanceof HastError && error.code === 'HAST_E_BUSY') return false;
    throw error;
  }
}

t.test('runner: what is passed to the core, and its refusals', async (test) => {
  const { order, core } = await world(test);
  const asked: unknown[] = [];
  core({
    pauseResync: (paused) => asked.push(paused),
    peerGone: (done) => done(null),
    detach: (done) => done(refusal),
  });
  test.equal(await order({ kind: 'resync', paused: true }), null);
  test.equal(await order({ kind: 'resync', paused: false }), null);
  test.same(asked, [true, false]);
  test.equal(await order({ kind: 'peer-gone' }), null);
  await test.rejects(order({ kind: 'detach' }), {
    code: 'HAST_E_REFUSED', message: 'fake refusal', hint: 'not now',
  });
  core({ detach: () => { throw new Error('a bug'); } });
  await test.rejects(order({ kind: 'detach' }), { code: 'HAST_E_INTERNAL', message: 'a bug' });
});

t.test('runner: a detached copy is given back, an attached one is held again', async (test) => {
  const { order, core, dropped, local, events, stop } = await world(test);
  let answer: typeof refusal | null = refusal;
  const sizes: number[] = [];
  core({
    detach: (done) => {
      dropped();
      done(null);
    },
    attach: (disk, size, done) => {
      const head = Buffer.alloc(4096);
      disk.read(0, head, 0, head.length, (errno) => {
        sizes.push(errno === 0 ? size : -1);
        done(answer);
      });
    },
  });
  test.notOk(isFree(local));
  await test.rejects(order({ kind: 'attach' }), {
    code: 'HAST_E_REFUSED', message: /attached already/, hint: /hastctl detach shared/,
  });
  await order({ kind: 'detach' });
  test.same(events, ['detach']);
  await until('the lock is given back', () => isFree(local));
  await test.rejects(order({ kind: 'attach' }), { message: 'fake refusal' });
  await until('the lock is given back again', () => isFree(local));
  const held = openLocal(local);
  const attach = order({ kind: 'attach' });
  await test.rejects(order({ kind: 'attach' }), { message: /being attached/, hint: 'wait' });
  setTimeout(() => closeLocal(held), 300);
  answer = null;
  test.equal(await attach, null, 'it waits for who still has the lock');
  test.same(sizes, [16 * MiB, 16 * MiB]);
  test.notOk(isFree(local));
  test.equal(await stop(), true);
  test.ok(isFree(local));
});

t.test('runner: the disk of a failed copy is opened anew, or said to be missing', async (test) => {
  const { runner, order, core, local } = await world(test);
  core({ attach: (_disk, _size, done) => setImmediate(done, null) });
  runner.resource.failAll('the copy failed');
  test.notOk(isFree(local));
  test.equal(await order({ kind: 'attach' }), null);
  fs.renameSync(local, `${local}.away`);
  await test.rejects(order({ kind: 'attach' }), { code: 'HAST_E_DEVICE', message: /not exist/ });
  await until('the old one is given back', () => isFree(`${local}.away`));
});

interface FakeFile {
  made: string[];
  info: { resource: string; copyId: bigint; keptCopyId: bigint; generation: bigint } | null;
}

function fakeFiles(file: FakeFile, resource = 'shared', damage = 0): UndoFiles {
  return {
    create: async (name, info) => {
      file.made.push(`create ${name}`);
      file.info = info;
      return {
        add: (_offset, _data, _at, _length, done) => setImmediate(done, 0),
        seal: (done) => setImmediate(done, 0),
        abandon: () => file.made.push('abandon'),
      };
    },
    open: async (name) => {
      if (file.info === null) throw new HastError('HAST_E_DEVICE', `${name} cannot be opened`);
      return {
        info: { ...(file.info as never as object), resource } as never,
        problem: 'the undo file is damaged',
        next: (done) => setImmediate(done, 0, null),
        verify: (done) => setImmediate(done, damage),
        close: () => file.made.push('close'),
      };
    },
  };
}

const side = { bytes: 4096, ranges: [{ offset: 0, length: 4096 }], more: 0 };
const resolved: ResolveResult = {
  refusal: null, localGeneration: '00000000000000aa', peerGeneration: '00000000000000bb',
  local: side, peer: side, copyBytes: 4096, full: false,
};

t.test('runner: an undo file only for what the core will do', async (test) => {
  const file: FakeFile = { made: [], info: null };
  const { runner, order, core } = await world(test, fakeFiles(file));
  const asked: ResolveRequest[] = [];
  const answers: ResolveResult[] = [];
  core({
    resolve: (request, done) => {
      asked.push(request);
      setImmediate(done, answers.shift() ?? { refusal });
    },
  });
  const resolve = { kind: 'resolve', discard: 'local', dryRun: false, undo: '/kept' } as const;
  await test.rejects(order(resolve), { code: 'HAST_E_REFUSED', message: 'fake refusal' });
  test.same(file.made, [], 'refused before');
  answers.push(resolved);
  await test.rejects(order(resolve), { message: /does not know the id of the peer/ });
  await new Promise<void>((done) => {
    runner.resource.context.store.update({ peerCopyId: 7n }, () => done());
  });
  answers.push(resolved);
  await test.rejects(order(resolve), { code: 'HAST_E_REFUSED' });
  test.same(file.made.splice(0), ['create /kept', 'abandon'], 'refused meanwhile');
  answers.push(resolved, resolved);
  asked.length = 0;
  test.match(await order(resolve), { copyBytes: 4096, localGeneration: '00000000000000aa' });
  test.same(file.made.splice(0), ['create /kept']);
  test.match(asked, [{ dryRun: true, undo: null }, { dryRun: false, undo: { add: Function } }]);
  const { copyId } = runner.resource.context.store.value;
  test.match(file.info, {
    resource: 'shared', mediaSize: runner.resource.context.mediaSize, discarded: 1,
    copyId, generation: 0xaan, keptCopyId: 7n, keptGeneration: 0xbbn,
  });
  answers.push(resolved, resolved);
  await order({ ...resolve, discard: 'peer' });
  test.match(file.info, { discarded: 2, copyId: 7n, generation: 0xbbn, keptCopyId: copyId });
  answers.push(resolved);
  file.made.length = 0;
  await order({ ...resolve, dryRun: true });
  answers.push(resolved);
  await order({ ...resolve, undo: null });
  test.same([file.made, asked.slice(-2)], [[], [
    { discard: 1, dryRun: true, undo: null }, { discard: 1, dryRun: false, undo: null },
  ]]);
});

t.test('runner: an undo file is checked whole before it is put back', async (test) => {
  for (const [resource, damage, code] of [
    ['shared', 0, ''], ['other', 0, 'HAST_E_REFUSED'], ['shared', 74, 'HAST_E_CORRUPT'],
  ] as const) {
    const file: FakeFile = { made: [], info: null };
    const { runner, order, core } = await world(test, fakeFiles(file, resource, damage));
    let asked = 0;
    core({
      undo: (_source, done) => {
        asked++;
        setImmediate(done, null);
      },
    });
    const undo = { kind: 'undo', file: '/kept' } as const;
    await test.rejects(order(undo), { code: 'HAST_E_DEVICE' });
    const { mediaSize } = runner.resource.context;
    file.info = { resource, mediaSize } as never;
    if (code === '') await order(undo);
    else await test.rejects(order(undo), { code });
    test.equal(asked, code === '' ? 1 : 0);
    test.same(file.made, ['close']);
  }
  const { order } = await world(test);
  await test.rejects(order({ kind: 'undo', file: '/kept' }), { code: 'HAST_E_UNSUPPORTED' });
});
