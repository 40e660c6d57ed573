/**
 * Goal: what hastctl shows of a real pair on a terminal is what happens to it, from the loss of the
 * peer to the end of the resync; and `status --json` fits the schema that is shipped.
 */
import * as fs from 'node:fs';
import { Ajv } from 'ajv';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import { until } from '../daemon/world.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';
import { onTerminal } from '../fixtures/terminal.ts';

/** 48 MiB at 24 Mbit/s: about seventeen seconds to look at it. */
const dirtyBytes = 48 * MiB;
const slowMbit = 24;

const schema = JSON.parse(fs.readFileSync(
  new URL('../../../docs/status.schema.json', import.meta.url), 'utf8')) as object;
const ajv = new Ajv({ allowUnionTypes: true });

async function fits(test: Test, lab: Lab, when: string): Promise<void> {
  for (const node of lab.nodes) {
    const status = JSON.parse(await node.control('status', '--json')) as object[];
    test.ok(ajv.validate(schema, status), `${node.name}, ${when}: ${ajv.errorsText()}`);
    test.equal(status.length, 1);
  }
}

/** The last screen, without what is no letter of it. */
function screen(text: string): string[] {
  const last = text.slice(text.lastIndexOf('\u001b[H'));
  return last.replaceAll(/\u001b\[[0-9;?]*[A-Za-z]/g, '').split(/\r*\n/);
}

async function seen(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await lab.bringUp();
  await fits(test, lab, 'complete');
  const at = (args: string) => onTerminal(test, h1.environment, args);
  const top = at('top');
  await top.shows('complete');
  await top.shows('unauthenticated, in clear text');
  await lab.cut('link');
  await top.shows('degraded');
  await h1.succeed(['dd', 'if=/dev/urandom', `of=${h1.device}`, 'bs=1M', 'oflag=direct',
    `count=${dirtyBytes / MiB}`]);
  await top.shows(/48MB|48\.0MB/);
  await fits(test, lab, 'degraded');
  const runs = JSON.parse(await h1.control('map', resourceName, '--json')) as {
    runs: { peerStale: number }[];
  };
  test.equal(runs.runs.reduce((sum, { peerStale }) => sum + peerStale, 0), dirtyBytes,
    'the map knows every byte');

  await lab.slowDown(slowMbit);
  const waiting = at(`wait --synced --timeout 100 ${resourceName}`);
  await lab.heal();
  await top.shows(/resync.*\d\.\d%, \d+(\.\d)?MB\/s, 0:\d\d left/);
  await waiting.shows(/waiting for shared .*\d%, .*left/);
  await fits(test, lab, 'syncing');
  test.match(await h1.control('map', resourceName, '--ascii'), /  >  [^\n]*copied now/);
  test.match(await h1.control('list'), /resync: \d+(\.\d)?%, \d+(\.\d)?MB\/s, 0:\d\d left/);
  const watch = at('status --watch 0.5');
  await watch.shows(/syncing \d/);
  top.resize(12, 60);
  await until('a screen of 12 by 60', () => {
    const lines = screen(top.seen.text);
    return lines.length <= 12 && lines.every((line) => line.length <= 60);
  });

  await lab.slowDown(null);
  await lab.settle();
  await waiting.ends();
  test.equal(waiting.seen.code, 0);
  await watch.shows('complete');
  for (const one of [top, watch]) {
    one.press('\u0003');
    await one.ends();
    test.equal(one.seen.code, 0);
  }
  await fits(test, lab, 'complete again');
  test.match(await h2.control('map', resourceName, '--ascii'), /clean/);
}

t.setTimeout(180_000);
await pairTest(t, 'see: top, map, status and wait during an outage and a resync', {
  needs: ['script', 'tc', 'stty'], timeout: 2, sizes: [256 * MiB, 256 * MiB],
}, seen);
