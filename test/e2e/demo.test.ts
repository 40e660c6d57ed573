/**
 * Goal: the demo works and shows what it promises, and neither it nor the lab below it leaves
 * anything, also when it is interrupted or killed; the lab works without namespaces too.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { labMissing, MiB, resourceName, type Lab } from '../../cli/lab.ts';
import { namespacesOf } from '../../cli/lab-network.ts';
import { loopsBelow, processesOf } from '../../cli/lab-remains.ts';
import { run, sleep, until } from '../../cli/lab-run.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';

const demo = fileURLToPath(new URL('../../cli/demo.js', import.meta.url));
const labModule = new URL('../../cli/lab.js', import.meta.url).href;

interface Played {
  code: number | NodeJS.Signals;
  text: string;
  directory: string | undefined;
}

/** Runs the demo; `signal` is sent `afterMs` after its lab is there. */
async function play(signal?: NodeJS.Signals, afterMs = 0): Promise<Played> {
  const child = spawn(process.execPath, [demo], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
    });
  }
  const directory = (): string | undefined => /, in (\/\S*hast-lab-\w+),/.exec(text)?.[1];
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  const bound = setTimeout(() => child.kill('SIGTERM'), 100_000);
  if (signal !== undefined) {
    await until('the lab of the demo', 20_000, directory);
    await sleep(afterMs);
    child.kill(signal);
  }
  const [code, killedBy] = await ended;
  clearTimeout(bound);
  return { code: code ?? killedBy ?? 255, text, directory: directory() };
}

/** What is left of a lab. */
async function remains(directory: string): Promise<string[]> {
  const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
    .filter((line) => line.includes(`${directory}/`));
  const { stdout } = await run(['ip', 'netns', 'list']);
  const names = stdout.split('\n').map((line) => line.split(' ')[0] ?? '');
  return [
    ...mounts, ...loopsBelow(directory), ...processesOf(directory).map((pid) => `pid ${pid}`),
    ...namespacesOf(directory).filter((name) => names.includes(name)),
    ...(fs.existsSync(directory) ? [directory] : []),
  ];
}

async function leavesNothing(inner: Test, { directory, text }: Played): Promise<void> {
  if (directory === undefined) throw new Error(`the demo opened no lab: ${text}`);
  // Where it was killed, the janitor needs a moment.
  let left: string[] = [];
  await until('the removal', 20_000, async () => {
    left = await remains(directory);
    return left.length === 0 ? true : undefined;
  }).catch(() => undefined);
  inner.same(left, [], 'nothing is left');
}

async function whole(inner: Test): Promise<void> {
  const played = await play();
  const { code, text } = played;
  inner.equal(code, 0, text.slice(-2000));
  inner.match(text, /^RESULT: OK: /m);
  for (const line of [
    'h1# hastctl create shared', 'h2# hastctl create shared', 'h1# hastd', 'h2# hastd',
    'h1# hastctl role primary shared', 'h2# hastctl role secondary shared', 'h1# mkfs.ext4',
    'h1# mount', 'h1# hastctl status', 'h1# kill -9 ', 'h2# hastctl role primary shared',
    'h2# mount', 'letters/12: OK', 'the two copies are equal, byte for byte',
  ]) inner.match(text, line);
  inner.match(text, /^shared\tcomplete primary /m);
  inner.match(text, /^shared\tdegraded primary /m);
  await leavesNothing(inner, played);
}

async function loopback(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  inner.equal(lab.network.kind, 'loopback');
  await lab.bringUp();
  await h1.succeed(['dd', 'if=/dev/urandom', `of=${h1.device}`, 'bs=1M', 'count=8',
    'oflag=direct', 'conv=fsync', 'status=none']);
  const data = fs.readFileSync(h1.device).subarray(0, 8 * MiB);
  await lab.settle();
  await h1.kill();
  await h1.clearRemains();
  await h2.untilStatus('the loss', ({ status }) => status === 'waiting');
  await h2.control('role', 'primary', resourceName);
  inner.ok(data.equals(fs.readFileSync(h2.device).subarray(0, 8 * MiB)), 'the peer has it');
  await inner.rejects(lab.cut(), /only between network namespaces/);
}

/** As nobody, whom nothing is allowed. */
async function unprivileged(inner: Test): Promise<void> {
  const script = `import(process.argv[1]).then((lab) => {
    process.setgroups([]); process.setgid(65534); process.setuid(65534);
    process.stdout.write(String(lab.labMissing())); })`;
  const { stdout } = await run([process.execPath, '-e', script, labModule]);
  inner.match(stdout, /run it as root/);
}

const reason = labMissing();
const skip = reason === null ? false : `SKIPPED, NOT TESTED: ${reason}`;
t.setTimeout(290_000);
await t.test('demo: from two empty disks to a complete pair', { timeout: 120_000, skip }, (inner) =>
  whole(inner as Test));
for (const [signal, afterMs] of [
  ['SIGINT', 0], ['SIGINT', 1500], ['SIGTERM', 3000], ['SIGINT', 5000], ['SIGKILL', 2500],
  ['SIGKILL', 4500],
] as const) {
  const title = `demo: ${signal} after ${afterMs} ms leaves nothing`;
  await t.test(title, { timeout: 60_000, skip }, async (inner) => {
    const played = await play(signal, afterMs);
    const codes = { SIGINT: 130, SIGTERM: 143, SIGKILL: 'SIGKILL' } as const;
    inner.equal(played.code, codes[signal]);
    await leavesNothing(inner as Test, played);
  });
}
await t.test('demo: without root it says what to do', { skip }, (inner) =>
  unprivileged(inner as Test));
await pairTest(t, 'lab: two loopback addresses', { network: 'loopback' }, loopback);
