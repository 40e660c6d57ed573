/**
 * Goal: a server that is killed is followed by another one, and no user of the file sees an error:
 * what was under way is done by the new one, and everything ends in a known state.
 * Method: this process keeps the connection, as the parent of a worker does; real mounts. Users are
 * processes of their own: who has a file of the mount open must not start the next server, because
 * between fork and exec the file is closed there, which asks the server.
 */
import * as fs from 'node:fs';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { isMounted, unmountFuse } from '../../lib/fuse/mount.ts';
import { type Kind, needsKind, testEachKind } from '../fixtures/fuse-kinds.ts';
import { bounded, command, Lab } from '../fixtures/fuse-lab.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const MiB = 1024 * 1024;
const SIZE = 32 * MiB;

async function withLab(run: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = new Lab();
  try {
    await run(lab);
  } finally {
    await lab.close();
  }
}

/** One operation of a user; `fill` is what every byte is, or is expected to be. */
interface Step {
  op: 'write' | 'read' | 'sync';
  at?: number;
  size?: number;
  fill?: number;
}

/** Arguments: file, steps as JSON. Does all at once; says what came of each. */
const userScript = `
const fs = require('node:fs/promises');
const [file, steps] = process.argv.slice(1);
const step = async (handle, { op, at, size, fill }) => {
  if (op === 'sync') return await handle.sync();
  if (op === 'write') return await handle.write(Buffer.alloc(size, fill), 0, size, at);
  const { buffer } = await handle.read(Buffer.alloc(size), 0, size, at);
  if (buffer.some((byte) => byte !== fill)) throw Object.assign(new Error(), { code: 'WRONG' });
};
fs.open(file, 'r+').then(async (handle) => {
  const outcome = (one) => step(handle, one).then(() => 'done', ({ code }) => code);
  const outcomes = await Promise.all(JSON.parse(steps).map(outcome));
  console.log(JSON.stringify(outcomes));
  await handle.close().catch(() => undefined);
});
`;

/** As above, without end: writes of all sizes, read again; until stdin ends. */
const loopScript = `
const fs = require('node:fs/promises');
let running = true;
process.stdin.on('end', () => { running = false; }).resume();
const MiB = 1 << 20;
let transfers = 0;
const user = async (handle, number) => {
  for (let round = 0; running; round++) {
    const size = [MiB, 4096, 256 * 1024][round % 3];
    const at = number * 8 * MiB + (round % 7) * MiB;
    await handle.write(Buffer.alloc(size, round), 0, size, at);
    const { buffer } = await handle.read(Buffer.alloc(size), 0, size, at);
    if (buffer.some((byte) => byte !== round % 256)) throw new Error('wrong data');
    transfers += 2;
  }
};
fs.open(process.argv[1], 'r+').then(async (handle) => {
  await Promise.all([0, 1, 2, 3].map((number) => user(handle, number)));
  console.log(transfers);
}).catch((error) => console.log(String(error)));
`;

function start(script: string, lab: Lab, ...args: string[]): ChildProcess {
  return spawn('env', [...plainNode, '-e', script, lab.file, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

async function said(user: ChildProcess): Promise<string> {
  let text = '';
  user.stdout?.on('data', (chunk: Buffer) => { text += chunk.toString(); });
  await bounded('a user', once(user, 'close'), 60_000);
  return text.trim();
}

async function use(lab: Lab, steps: Step[]): Promise<string[]> {
  return JSON.parse(await said(start(userScript, lab, JSON.stringify(steps)))) as string[];
}

async function inFlight(lab: Lab, count: number): Promise<void> {
  while ((await lab.counters()).inFlight < count) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function kill(lab: Lab): Promise<void> {
  lab.kill('SIGKILL');
  await lab.serverExit();
}

testEachKind('take over: what was under way is done by the next server', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind, readers: 2 }, true);
    await use(lab, [{ op: 'write', at: 8 * MiB, size: MiB, fill: 7 }]);
    await lab.stall(true);
    const pending = use(lab, [
      { op: 'write', at: 0, size: MiB, fill: 1 }, { op: 'write', at: 2 * MiB, size: 4096, fill: 2 },
      { op: 'read', at: 8 * MiB, size: MiB, fill: 7 },
    ]);
    await inFlight(lab, 3);
    await kill(lab);
    await lab.takeOver();
    t.strictSame(await pending, ['done', 'done', 'done']);
    const { counters } = await lab.counters();
    // A buffer of 1 MiB that starts within a page needs two requests.
    t.ok(counters.writes >= 2 && counters.writes <= 3, 'each once by the new server');
    t.ok(counters.reads >= 1 && counters.reads <= 2);
    const all = await fs.promises.readFile(lab.backing);
    t.strictSame([all[0], all[MiB - 1], all[2 * MiB], all[8 * MiB]], [1, 1, 2, 7]);
    await lab.stall(true);
    const flush = use(lab, [{ op: 'sync' }]);
    await inFlight(lab, 1);
    await kill(lab);
    await lab.takeOver();
    t.strictSame(await flush, ['done']);
    t.equal((await lab.counters()).counters.flushes, 1);
  });
});

testEachKind('take over: a range operation under way, through loop', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind }, true);
    const device = await lab.attach();
    await lab.stall(true);
    const zeroing = command('blkdiscard', ['--zeroout', '-o', '4096', '-l', '65536', device]);
    await inFlight(lab, 1);
    await kill(lab);
    await lab.takeOver();
    t.equal((await zeroing).code, 0);
    t.strictSame((await lab.counters()).counters.ranges,
      [{ op: 'zero', offset: 4096, length: 65536 }]);
  });
});

/** Servers of these kinds follow each other, each killed under load; an error of a user fails. */
async function killedUnderLoad(t: Test, kinds: readonly Kind[]): Promise<void> {
  const [first, ...successors] = kinds as [Kind, ...Kind[]];
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind: first, readers: 2, delayMsMax: 3 }, true);
    const user = start(loopScript, lab);
    const result = said(user);
    result.catch(() => undefined);
    for (const [round, kind] of successors.entries()) {
      await new Promise((resolve) => setTimeout(resolve, 100 + round * 20));
      await kill(lab);
      await lab.takeOver(true, { kind });
    }
    user.stdin?.end();
    t.match(await result, /^[1-9]\d*$/, `${successors.length} kills, and no error`);
  });
}

testEachKind('take over: killed again and again under transfers of all sizes', (t, kind) =>
  killedUnderLoad(t, Array<Kind>(7).fill(kind)));

// The one without threads leaves O_NONBLOCK on the description, which outlives it.
t.test('take over: by a server of the other kind, under load', needsKind('ring'), (t) =>
  killedUnderLoad(t, ['direct', 'ring', 'direct', 'ring', 'direct']));

t.test('take over: readers wait on what the ring has used', needsKind('ring'), async (t) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind: 'ring' }, true);
    await use(lab, [{ op: 'write', at: 0, size: MiB, fill: 7 }]);
    await lab.stall(true);
    const pending = use(lab, [{ op: 'write', at: MiB, size: 4096, fill: 8 }]);
    await inFlight(lab, 1);
    await kill(lab);
    await lab.takeOver(true, { kind: 'direct' });
    t.strictSame(await pending, ['done']);
    const before = cpuTicks(lab.serverPid);
    await new Promise((resolve) => setTimeout(resolve, 500));
    t.ok(cpuTicks(lab.serverPid) - before < 15, 'and do not spin');
    t.strictSame(await use(lab, [{ op: 'read', at: MiB, size: 4096, fill: 8 }]), ['done']);
  });
});

/** Of user and system, in hundredths of a second. */
function cpuTicks(pid: number): number {
  const [, fields] = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ');
  const ticks = (fields as string).split(' ').slice(11, 13).map(Number);
  return (ticks[0] as number) + (ticks[1] as number);
}

/** Reads INIT, and says so; it is never answered. */
const silentServer = `
require('node:fs').readSync(3, Buffer.alloc(1 << 21));
console.log('read');
setTimeout(() => undefined, 60_000);
`;

testEachKind('take over: a server that died before it answered INIT', async (t, kind) => {
  await withLab(async (lab) => {
    const silent = await lab.mountFor(SIZE, ['-e', silentServer]);
    await bounded('INIT', once(silent.stdout as NodeJS.ReadableStream, 'data'));
    silent.kill('SIGKILL');
    await bounded('its end', once(silent, 'exit'));
    await lab.takeOver(false, { kind });
    t.strictSame(await use(lab, [{ op: 'write', at: 0, size: MiB, fill: 3 }]), ['done']);
  });
});

testEachKind('take over: a mount whose requests are too large is refused', async (t, kind) => {
  await withLab(async (lab) => {
    await lab.serve(SIZE, { kind }, true);
    await kill(lab);
    const negotiated = { minor: 45, flags: 0, flags2: 0, maxWrite: 2 * MiB };
    await t.rejects(lab.takeOver(true, { takeOver: { negotiated } }), /too large/);
    lab.kill('SIGKILL');
  });
});

testEachKind('take over: aborted or unmounted while nobody serves', async (t, kind) => {
  for (const how of ['abort', 'lazy', 'unused'] as const) {
    await withLab(async (lab) => {
      await lab.serve(SIZE, { kind }, true);
      await lab.stall(true);
      const pending = how === 'unused' ? null
        : use(lab, [{ op: 'write', at: 0, size: 512, fill: 1 }]);
      if (pending !== null) await inFlight(lab, 1);
      await kill(lab);
      // A plain umount looks at the mount point, which nobody serves.
      await bounded('unmounting', unmountFuse(lab.mountPoint, {
        lazy: true, abort: how === 'abort',
      }));
      t.equal(await isMounted(lab.mountPoint), false, how);
      await lab.takeOver().catch(() => undefined);
      // Lazily unmounted it goes on until its last user leaves.
      const outcome = how === 'lazy' ? 'done' : 'ECONNABORTED';
      if (pending !== null) t.strictSame(await pending, [outcome]);
      t.match(await lab.reply('end'), { error: null });
      t.equal(await lab.serverExit(), 0, `${how}: the next server ends`);
    });
  }
});
