/**
 * Goal: a kill in the middle of what happens seldom (a resync, a checkpoint, `hastctl create`)
 * costs nothing: what was acknowledged is there, the copies become equal, half a copy is never
 * taken for one.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import { sleep, until } from '../../cli/lab-run.ts';
import { compareAtRest, killPart, takeOver } from '../fixtures/e2e-kill.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';
import { Load } from '../fixtures/e2e-load.ts';
import { FailingDisk } from '../fixtures/failing-disk.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const timeout = 2;
const refused = 77;
const size = 96 * MiB;
const hastctl = fileURLToPath(new URL('../../cli/hastctl.js', import.meta.url));

async function bringUp(lab: Lab): Promise<Load> {
  const load = new Load(lab, { size: 24 * MiB });
  await lab.bringUp();
  await makeFilesystem(lab.h1);
  await lab.h1.mount('-o', 'noatime');
  await load.fill(lab.h1);
  await lab.settle();
  return load;
}

/** h2 lacks what was written meanwhile and is being brought up to date, slowly. */
async function beginResync(lab: Lab, load: Load): Promise<void> {
  const { h1, h2 } = lab;
  await h2.stop();
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded');
  const running = load.start(h1, 30_000);
  await running.more(2000, 30_000);
  await running.finish();
  await lab.slowDown(8);
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  await h1.untilStatus('the sync', ({ status }) => status === 'syncing');
  await sleep(Math.random() * 400);
}

async function duringResync(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const load = await bringUp(lab);
  const secondaryAgain = async (): Promise<void> => {
    await h2.start();
    await h2.control('role', 'secondary', resourceName);
  };
  const returns: Record<string, () => Promise<void>> = {
    target: secondaryAgain,
    source: async () => {
      const { code, stderr } = await h2.hastctl('role', 'primary', resourceName);
      inner.equal(code, refused, `the target is not promoted: ${stderr.trim()}`);
      await h1.start();
      // It goes on as a sync between two secondaries.
      await h1.control('role', 'secondary', resourceName);
      await takeOver(h1);
    },
    both: async () => {
      await secondaryAgain();
      await h1.start();
      await takeOver(h1);
    },
  };
  for (const [who, comeBack] of Object.entries(returns)) {
    await beginResync(lab, load);
    const before = await h1.status();
    inner.equal(before.status, 'syncing', `${before.dirtyBytes} bytes are missing`);
    const worker = (await h2.status()).worker;
    if (who !== 'source') await killPart(h2, 'node', worker);
    if (who !== 'target') await killPart(h1, 'node', before.worker);
    if (who !== 'target') await h1.clearRemains();
    await comeBack();
    await lab.slowDown(null);
    const { acknowledged } = await load.check(h1);
    await compareAtRest(lab, h1);
    inner.pass(`${who} killed: ${acknowledged} acknowledged, none lost, copies equal`);
    await h1.mount('-o', 'noatime');
  }
}

/** Soon after the load has ended: what is cleared then must really be on both disks. */
async function duringCheckpoint(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  const load = await bringUp(lab);
  for (const who of ['h1', 'both']) {
    await load.start(h1, 800).ended();
    const { statistics, worker } = await h1.status();
    const other = (await h2.status()).worker;
    const begun = performance.now();
    const hit = await until('a checkpoint', 6000, async () => {
      const { mapUpdates } = (await h1.status()).statistics;
      const moved = mapUpdates > statistics.mapUpdates;
      return moved || performance.now() - begun > 2500 ? { moved } : undefined;
    });
    await Promise.all([
      killPart(h1, 'node', worker), ...(who === 'both' ? [killPart(h2, 'node', other)] : []),
    ]);
    if (who === 'both') {
      await h2.start();
      await h2.control('role', 'secondary', resourceName);
    }
    await h1.clearRemains();
    await h1.start();
    await takeOver(h1);
    const { acknowledged } = await load.check(h1);
    await compareAtRest(lab, h1);
    inner.pass(`${who} killed ${hit.moved ? 'in' : 'near'} a checkpoint: ${acknowledged} ` +
      'acknowledged, none lost, copies equal');
    await h1.mount('-o', 'noatime');
  }
}

class CreateKills {
  readonly #t: Test;
  readonly #lab: Lab;
  readonly #disk: FailingDisk;

  constructor(inner: Test, lab: Lab, disk: FailingDisk) {
    this.#t = inner;
    this.#lab = lab;
    this.#disk = disk;
  }

  /** Milliseconds until it ended by itself or was killed, and whether it was killed. */
  async create(killMs: number, ...options: string[]): Promise<{ ms: number; killed: boolean }> {
    const { h1 } = this.#lab;
    // Slow, so that the kill meets each of its steps.
    await this.#disk.fail({ op: 'write', does: 'slow', ms: 30 },
      { op: 'flush', does: 'slow', ms: 30 });
    const begun = performance.now();
    const child = spawn('env', [...plainNode, hastctl, 'create', ...options, resourceName],
      { env: h1.environment, stdio: 'ignore' });
    const timer = setTimeout(() => child.kill('SIGKILL'), killMs);
    const ended = await until('the end of create', 20_000, () =>
      child.exitCode === null && child.signalCode === null ? undefined
        : { killed: child.signalCode !== null });
    clearTimeout(timer);
    await this.#disk.repair();
    return { ...ended, ms: performance.now() - begun };
  }

  /** What is on the disk is usable, or refused with a sentence; and create can be repeated. */
  async judge(): Promise<'usable' | 'refused'> {
    const { h1 } = this.#lab;
    const dump = await h1.hastctl('dump', resourceName);
    const role = await h1.hastctl('role', 'secondary', resourceName);
    if (role.code === 0) {
      await h1.control('role', 'init', resourceName);
      if (dump.code !== 0) throw new Error(`usable, but dump says: ${dump.stderr}`);
    } else {
      this.#t.match(role.stderr, /no metadata|damaged|corrupt/, role.stderr.trim());
    }
    const again = await h1.hastctl('create', resourceName);
    if (again.code !== 0) {
      this.#t.match(again.stderr, /holds .*--force/s, 'a second create says what is there');
      await h1.control('create', '--force', resourceName);
    }
    await h1.control('dump', resourceName);
    return role.code === 0 ? 'usable' : 'refused';
  }

  hash(): string {
    return createHash('sha256').update(fs.readFileSync(this.#lab.h1.disk)).digest('hex');
  }
}

async function duringCreate(inner: Test, lab: Lab): Promise<void> {
  const { h1 } = lab;
  const kills = new CreateKills(inner, lab, await FailingDisk.under(lab, h1));
  // The file of the disk stays the same one: it is open.
  const empty = (): void => {
    fs.truncateSync(h1.disk, 0);
    fs.truncateSync(h1.disk, size);
  };
  await h1.start();
  let whole = Infinity;
  // The shorter one: the machine may have been busy.
  for (let round = 0; round < 2; round++) {
    empty();
    whole = Math.min(whole, (await kills.create(60_000)).ms);
    inner.equal(await kills.judge(), 'usable', `a create takes ${Math.round(whole)} ms`);
  }
  const outcomes = { usable: 0, refused: 0, killed: 0 };
  const rounds = 6;
  for (let round = 0; round < rounds; round++) {
    empty();
    const killMs = whole * (0.2 + 0.8 * (round + Math.random()) / rounds);
    const { killed } = await kills.create(killMs);
    if (killed) outcomes.killed++;
    outcomes[await kills.judge()]++;
  }
  inner.ok(outcomes.killed >= 2, `outcomes: ${JSON.stringify(outcomes)}`);
  inner.ok(outcomes.refused > 0, 'some were killed before there was a copy');

  await h1.succeed(['mkfs.ext4', '-q', '-F', '-L', 'theirs', h1.disk]);
  const before = kills.hash();
  for (let round = 0; round < 2; round++) {
    await kills.create(whole * Math.random());
    inner.equal(kills.hash(), before, 'without --force a foreign file system is untouched');
  }
  const { stderr, code } = await h1.hastctl('create', resourceName);
  inner.equal(code, refused);
  inner.match(stderr, 'ext4');
  await kills.create(whole * 0.8, '--force');
  await kills.judge();
}

t.setTimeout(290_000);
await pairTest(t, 'kill: during a resync', {
  timeout, sizes: [size, size], needs: ['tc', 'e2fsck'], resource: ['compression none'],
}, duringResync);
await pairTest(t, 'kill: during a checkpoint',
  { timeout, sizes: [size, size], needs: ['e2fsck'] }, duringCheckpoint);
await pairTest(t, 'kill: during hastctl create', { sizes: [size, size] }, duringCreate);
