/**
 * Goal: no bytes from outside do more than be refused with an error that says why.
 * Method: the short form of `npm run fuzz`: inputs made of good ones, by seeds that fast-check
 * draws; and every input that was ever found to do harm. docs/security.md has the figures of the
 * long form.
 */
import { EventEmitter } from 'node:events';
import * as fs from 'node:fs';
import type * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import { loadConfig } from '../../lib/config/load.ts';
import { MessageSocket } from '../../lib/daemon/message-socket.ts';
import { decodeHello, encodeHello } from '../../lib/format/hello.ts';
import { decodePreface, encodePreface } from '../../lib/format/preface.ts';
import { outcomes } from './property.ts';
import { Random } from './random.ts';
import { fuzzTargets } from './targets.ts';
import { goodHello } from './wire-targets.ts';

/** Seeds drawn by fast-check, and inputs made from each. */
const batch = 100;
const shortRuns = 3000;
/** These look at what comes of an input themselves. */
const uncounted = ['hast.conf', 'hast.json', 'messages', 'fuse', 'session'];

for (const target of fuzzTargets) {
  t.test(`fuzz: ${target.name}`, async (t) => {
    const runs = target.shortRuns ?? shortRuns;
    const each = Math.min(batch, runs);
    const before = { ...outcomes };
    await fc.assert(fc.asyncProperty(fc.nat(), async (seed) => {
      for (let run = 0; run < each; run++) await target.run(new Random(seed + run));
    }), { numRuns: runs / each, endOnFailure: true });
    if (uncounted.includes(target.name)) return;
    // A property of inputs that are all refused, or all taken, would hold of any parser.
    t.ok(outcomes.taken - before.taken > runs / 50, 'some are taken');
    t.ok(outcomes.refused - before.refused > runs / 50, 'some are refused');
  });
}

t.test('fuzz, found: a keyword at the wrong place, with a value of another type', async (t) => {
  const text = JSON.stringify({
    resources: { shared: { remote: 8190, on: { h1: { local: '/dev/sdb1' } } } },
  });
  const { config, problems } = loadConfig({
    file: '/etc/hast.json', node: 'h1', readFile: () => text,
  });
  t.equal(config, undefined);
  t.match(problems[0]?.message, /'remote' is not allowed in a 'resource' section/);
});

t.test('fuzz, found: names of a peer that would steer a terminal', async (t) => {
  const escape = '\x1b[2J';
  t.throws(() => decodePreface(encodePreface(escape, 'h2', 0)), /impossible field/);
  t.throws(() => decodePreface(encodePreface('shared', escape, 0)), /impossible field/);
  t.throws(() => decodeHello(encodeHello({ ...goodHello, node: escape })), /impossible field/);
  t.equal(decodeHello(encodeHello(goodHello)).node, 'h2');
});

t.test('fuzz, found: a message to or from a worker that is JSON and no message', async (t) => {
  for (const line of ['null', '1', '[]', '{}', '{"type":1}']) {
    const socket = Object.assign(new EventEmitter(), { destroy: () => undefined });
    const ends: string[] = [];
    new MessageSocket(socket as unknown as net.Socket, {
      message: () => t.fail(`${line} is taken for a message`), closed: (why) => ends.push(why),
    });
    socket.emit('data', Buffer.from(`${line}\n`));
    t.same(ends, ['a message has no type'], line);
  }
});

t.test('fuzz, found: a configuration without an end is not read to its end', async (t) => {
  const { problems } = loadConfig({ file: '/dev/zero', node: 'h1' });
  t.match(problems[0]?.message, /too large/);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hast-fuzz-'));
  t.teardown(() => fs.rmSync(folder, { recursive: true }));
  const file = path.join(folder, 'hast.conf');
  fs.writeFileSync(file, `# ${'x'.repeat(1 << 20)}`);
  t.match(loadConfig({ file, node: 'h1' }).problems[0]?.message, /too large/);
  t.match(loadConfig({ file: folder, node: 'h1' }).problems[0]?.kind, 'missing-file');
});
