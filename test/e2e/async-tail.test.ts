/**
 * Goal: an async primary is lost with writes that its peer never got; coming back it keeps them in
 * a file before the peer's data replace them, says how many, and hastctl undo brings them back.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import { killPart } from '../fixtures/e2e-kill.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';

const tailAt = 8;
const tailMiB = 3;

async function loseTail(lab: Lab): Promise<Buffer> {
  const { h1 } = lab;
  const source = path.join(lab.directory, 'tail');
  const write = async (seek: number): Promise<Buffer> => {
    await h1.succeed(['dd', 'if=/dev/urandom', `of=${source}`, 'bs=1M', `count=${tailMiB}`]);
    await h1.succeed(['dd', `if=${source}`, `of=${h1.device}`, 'bs=1M', `seek=${seek}`,
      'oflag=direct', 'conv=notrunc']);
    return fs.readFileSync(source);
  };
  await write(0);
  await lab.settle();
  await lab.slowDown(1);
  const tail = await write(tailAt);
  const { worker } = await h1.status();
  await lab.cut('drop');
  await killPart(h1, 'node', worker);
  return tail;
}

async function asyncTail(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  const tail = await loseTail(lab);
  const read = (file: string): Buffer => {
    const bytes = Buffer.alloc(tail.length);
    const fd = fs.openSync(file, 'r');
    fs.readSync(fd, bytes, 0, bytes.length, tailAt * MiB);
    fs.closeSync(fd);
    return bytes;
  };
  await h2.untilStatus('the loss', ({ status }) => status === 'waiting', 40_000);
  await h2.control('role', 'primary', resourceName);
  inner.notOk(read(h2.device).equals(tail), 'the peer never got all of it');
  await lab.heal();
  await lab.slowDown(null);

  await h1.clearRemains();
  // The first attempt finds no place for the file.
  fs.writeFileSync(h1.undoDirectory, 'in the way');
  await h1.start();
  await h1.control('role', 'secondary', resourceName);
  const stuck = await h1.untilStatus('a person is asked for', ({ needsHuman }) => needsHuman);
  inner.match(stuck.detail, /cannot be kept.*undo-directory/);
  inner.equal(stuck.keptFile, null);
  fs.rmSync(h1.undoDirectory);

  const { keptBytes, keptFile } =
    await h1.untilStatus('complete', ({ status }) => status === 'complete', 40_000);
  const generation = path.basename(keptFile ?? '').slice(resourceName.length);
  inner.match(generation, /^-[0-9a-f]{16}\.undo$/);
  // With the hot extents, and the sixteen of 2 MiB that a sequential writer has listed ahead.
  inner.ok(keptBytes >= tail.length - MiB && keptBytes < 64 * MiB, `${keptBytes} bytes`);
  const list = await h1.control('list', resourceName);
  inner.match(list, `kept: ${keptBytes} (`);
  inner.match(list, ` in ${keptFile}`);
  await lab.settle();

  await h2.control('role', 'secondary', resourceName);
  await lab.settle();
  await h1.control('undo', resourceName, keptFile ?? '');
  await h1.control('role', 'primary', resourceName);
  inner.ok(read(h1.device).equals(tail), 'and what was lost is back');
  await lab.settle();
  await lab.compare();
}

await pairTest(t, 'async tail: kept in a file, shown, put back', {
  needs: ['dd', 'tc'], timeout: 6, sizes: [64 * MiB, 64 * MiB], resource: ['replication async'],
}, asyncTail);
