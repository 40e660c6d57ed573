/**
 * Goal: with keepalived and the files that come with hast-linux, the address and the volume are on
 * one node, move together, and stay where they are when the other node comes back.
 * Method: the example configuration with other names and shorter times, a real keepalived in each
 * node's network namespace; the link drops everything when a node is killed, as a dead machine's.
 */
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep, until } from '../../cli/lab-run.ts';
import { checksums, Hook, pairTest, writeFile } from '../fixtures/e2e-lab.ts';

const system = path.resolve('cli', 'system');
const program = fileURLToPath(new URL('../../cli/hastctl.js', import.meta.url));
const address = '10.77.0.250';
/** On a busy machine; else a few seconds. */
const serveMs = 60_000;

/** The example, as an administrator would change it, and with shorter times. */
function keepalivedConfig(hastctlPath: string, stateDirectory: string, priority: number): string {
  const env = `/usr/bin/env HASTCTL=${hastctlPath} KEEPALIVED_STATE_DIR=${stateDirectory}`;
  const changes: [RegExp, string][] = [
    [/interface eth0/, 'interface hast0'],
    [/10\.0\.0\.250/, address],
    [/priority 100/, `priority ${priority}`],
    [/script "\/usr\/lib\/hast\/(.*)"/, `script "${env} ${system}/$1"`],
    [/notify "\/usr\/lib\/hast\/(.*)"/, `notify "${env} UP_SECONDS=30 ${system}/$1"`],
    // Folders of a lab may be written to by everybody, and so may a checkout's.
    [/enable_script_security/, 'vrrp_version 3'],
    [/vrrp_startup_delay 10/, 'vrrp_startup_delay 2'],
    [/interval 5/, 'interval 2'],
  ];
  let text = fs.readFileSync(path.join(system, 'keepalived.conf'), 'utf8');
  for (const [pattern, replacement] of changes) {
    if (!pattern.test(text)) throw new Error(`the example has no ${pattern.source}`);
    text = text.replaceAll(new RegExp(pattern, 'g'), replacement);
  }
  return text;
}

class Keepalived {
  readonly node: LabNode;
  readonly #lab: Lab;
  readonly #hastctl: string;
  readonly #priority: number;

  constructor(lab: Lab, node: LabNode, hastctl: string, priority: number) {
    this.#lab = lab;
    this.node = node;
    this.#hastctl = hastctl;
    this.#priority = priority;
  }

  /** Ends with the node: it carries the node's environment. */
  start(): void {
    const file = (name: string): string => path.join(this.node.directory, name);
    const config = keepalivedConfig(this.#hastctl, file('keepalived'), this.#priority);
    fs.writeFileSync(file('keepalived.conf'), config);
    const log = fs.openSync(file('keepalived.log'), 'a');
    const [front = '', ...prefix] = this.#lab.network.prefix(this.node.name);
    const child = spawn(front, [
      ...prefix, 'keepalived', '--dont-fork', '--log-console', '--vrrp',
      '-f', file('keepalived.conf'), '-p', file('keepalived.pid'), '-r', file('vrrp.pid'),
    ], { env: this.node.environment, stdio: ['ignore', log, log] });
    child.on('error', () => undefined);
    child.unref();
    fs.closeSync(log);
  }

  stop(): void {
    const pid = fs.readFileSync(path.join(this.node.directory, 'keepalived.pid'), 'utf8');
    process.kill(Number(pid), 'SIGTERM');
  }

  log(): string {
    const file = path.join(this.node.directory, 'keepalived.log');
    return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
  }
}

/** hastctl as scripts find it. */
function makeHastctl(lab: Lab): string {
  const file = path.join(lab.directory, 'hastctl');
  const text = `#!/bin/sh
unset NODE_OPTIONS
exec ${process.execPath} ${program} "$@"
`;
  fs.writeFileSync(file, text, { mode: 0o755 });
  return file;
}

async function hasAddress(node: LabNode): Promise<boolean> {
  return (await node.onNode(['ip', '-o', 'address', 'show'])).includes(`${address}/`);
}

function isMounted(node: LabNode): boolean {
  return fs.readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${node.mountPoint} `);
}

async function untilServing(node: LabNode): Promise<void> {
  await until(`volume on ${node.name}`, serveMs, () => isMounted(node) || undefined);
  await until(`address on ${node.name}`, serveMs, async () => await hasAddress(node) || undefined);
}

/** Each time that a node became primary. */
function promotions(hook: Hook): string[] {
  return hook.calls().filter((line) => /role shared \w+ primary$/.test(line))
    .map((line) => line.split(' ')[0] ?? '');
}

async function untilServed(pair: readonly [Keepalived, Keepalived]): Promise<Keepalived> {
  return await until('the volume on some node', serveMs, () =>
    pair.find(({ node }) => isMounted(node)));
}

async function moves(inner: Test, lab: Lab): Promise<void> {
  const hastctl = makeHastctl(lab);
  const pair = [
    new Keepalived(lab, lab.h1, hastctl, 100), new Keepalived(lab, lab.h2, hastctl, 150),
  ] as const;
  try {
    await movesBetween(inner, lab, pair);
  } catch (error) {
    for (const one of pair) inner.comment(one.log());
    throw error;
  }
}

async function movesBetween(
  inner: Test, lab: Lab, pair: readonly [Keepalived, Keepalived],
): Promise<void> {
  const hook = new Hook(lab);
  for (const node of lab.nodes) {
    await node.control('create', resourceName);
    await node.start();
  }
  for (const one of pair) one.start();
  // Whoever has a usable copy first; the priorities do not take it away again.
  const first = await untilServed(pair);
  const second = first === pair[0] ? pair[1] : pair[0];
  const [active, standby] = [first.node, second.node];
  await untilServing(active);
  await writeFile(active, 'file', '4M');
  const sums = await checksums(active);
  await lab.settle();
  await until('the other keepalived', serveMs, () =>
    second.log().includes('Entering BACKUP STATE') || undefined);
  await sleep(2000);
  inner.same(promotions(hook), [active.name], 'one promotion at boot, no flapping');
  inner.notOk(await hasAddress(standby) || isMounted(standby), 'nothing is on the other node');
  for (const one of pair) {
    inner.match(one.log(), /VRRP_Script\(.*\) failed[^]*Entering BACKUP/, 'no copy, no address');
  }

  // The machine is dead: it says nothing more, and what it held is gone with it.
  await lab.cut('drop');
  await active.kill();
  await untilServing(standby);
  inner.equal(await checksums(standby), sums, 'every file moved with the address');
  const two = [active.name, standby.name];
  inner.same(promotions(hook), two);
  await writeFile(standby, 'more', '1M');

  // keepalived's child may have taken it away when its parent was killed.
  await active.onNode(['ip', 'address', 'flush', 'dev', 'hast0', 'to', `${address}/32`]);
  inner.notOk(await hasAddress(active), 'the dead machine has no address');
  await active.clearRemains();
  await lab.heal();
  await active.start();
  first.start();
  await lab.settle();
  await sleep(2000);
  inner.ok(await hasAddress(standby) && isMounted(standby), 'who comes back takes nothing');
  inner.notOk(await hasAddress(active) || isMounted(active));
  inner.same(promotions(hook), two, 'and does not even try');
  inner.equal((await active.status()).role, 'secondary', 'it became a secondary by itself');

  // A planned change: keepalived is stopped on the node that has it.
  second.stop();
  await untilServing(active);
  inner.equal((await checksums(active)).split('\n').length, sums.split('\n').length + 1);
  inner.equal((await standby.status()).role, 'secondary');
  inner.notOk(isMounted(standby));
}

t.setTimeout(200_000);
await pairTest(t, 'keepalived: the volume goes where the address goes', {
  needs: ['keepalived', 'nft', 'flock', 'logger'], timeout: 3,
  mount: ['filesystem ext4', 'mkfs on', 'options noatime'],
}, moves);
