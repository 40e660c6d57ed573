/**
 * Goal: what a program was told to be durable survives the death of any node in the middle of
 * the work: of the primary, of the secondary, of both at once.
 * Method: a writer appends records, flushes each, and notes in a ledger outside of the volume
 * what was acknowledged; nodes are killed meanwhile; the volume is held against the ledger.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import type { RunResult } from '../../cli/lab-run.ts';
import { until } from '../../cli/lab-run.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';

const recordSize = 3000;
const timeout = 2;

/** Arguments: data file, ledger, milliseconds. A record is its number and filling. */
const writerScript = `
const fs = require('node:fs');
const [file, ledger, ms] = process.argv.slice(2);
const data = fs.openSync(file, 'w');
const acknowledged = fs.openSync(ledger, 'w');
const end = performance.now() + Number(ms);
for (let number = 1; performance.now() < end; number++) {
  fs.writeSync(data, (number + ' ').padEnd(${recordSize} - 1, 'abcdefgh' + number) + '\\n');
  fs.fsyncSync(data);
  fs.writeSync(acknowledged, number + '\\n');
}
`;

class Writer {
  readonly #file: string;
  readonly #ledger: string;
  readonly #ended: Promise<RunResult>;

  constructor(lab: Lab, node: LabNode, name: string, ms: number) {
    const script = path.join(lab.directory, 'writer.cjs');
    fs.writeFileSync(script, writerScript);
    this.#file = name;
    this.#ledger = path.join(lab.directory, `${name}.ledger`);
    const data = path.join(node.mountPoint, name);
    const argv = [process.execPath, script, data, this.#ledger, String(ms)];
    this.#ended = node.run(argv, ms + 30_000);
    this.#ended.catch(() => undefined);
  }

  /** Returns when so many records are acknowledged. */
  async wrote(count: number): Promise<void> {
    await until(`${count} records`, 30_000, () => this.#records().length >= count || undefined);
  }

  ended(): Promise<RunResult> {
    return this.#ended;
  }

  /** Every acknowledged record is on the volume as the node shows it. */
  check(inner: Test, node: LabNode): void {
    const acknowledged = Number(this.#records().at(-1));
    const data = fs.readFileSync(path.join(node.mountPoint, this.#file));
    let found = 0;
    while (data.length >= (found + 1) * recordSize) {
      const record = data.subarray(found * recordSize, (found + 1) * recordSize).toString('latin1');
      const number = found + 1;
      if (record !== `${`${number} `.padEnd(recordSize - 1, `abcdefgh${number}`)}\n`) break;
      found++;
    }
    inner.ok(acknowledged > 0, `${acknowledged} records were acknowledged`);
    inner.ok(found >= acknowledged, `and ${found} are on ${node.name}`);
  }

  #records(): string[] {
    if (!fs.existsSync(this.#ledger)) return [];
    return fs.readFileSync(this.#ledger, 'utf8').split('\n').filter((line) => line !== '');
  }
}

async function takeOver(node: LabNode): Promise<void> {
  await node.control('role', 'primary', resourceName);
  await node.mount('-o', 'noatime');
}

async function comeBack(lab: Lab, node: LabNode): Promise<void> {
  await node.start();
  await node.control('role', 'secondary', resourceName);
  await lab.settle();
}

async function crash(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');

  inner.comment('the primary is killed');
  const first = new Writer(lab, h1, 'first', 20_000);
  await first.wrote(300);
  await h1.kill();
  await h1.clearRemains();
  await h2.untilStatus('the loss', ({ status }) => status === 'waiting');
  await takeOver(h2);
  first.check(inner, h2);
  await comeBack(lab, h1);

  inner.comment('the secondary is killed');
  const second = new Writer(lab, h2, 'second', 5000);
  await second.wrote(100);
  await h1.kill();
  inner.equal((await second.ended()).code, 0, 'the writer saw no error');
  second.check(inner, h2);
  await comeBack(lab, h1);

  inner.comment('both are killed');
  const third = new Writer(lab, h2, 'third', 20_000);
  await third.wrote(300);
  await Promise.all([h1.kill(), h2.kill()]);
  await h2.clearRemains();
  for (const node of lab.nodes) await node.start();
  await h1.control('role', 'secondary', resourceName);
  await takeOver(h2);
  third.check(inner, h2);
  first.check(inner, h2);
  await lab.settle();
  await h2.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  await h2.control('role', 'secondary', resourceName);
  await takeOver(h1);
  for (const writer of [first, second, third]) writer.check(inner, h1);
}

t.setTimeout(290_000);
for (const mode of ['fullsync', 'memsync']) {
  const options = { timeout, resource: [`replication ${mode}`] };
  await pairTest(t, `crash: acknowledged writes survive (${mode})`, options, crash);
}
