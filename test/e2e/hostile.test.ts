/**
 * Goal: whoever can connect, also from the address of the peer, costs a pair connections, and no
 * data, no memory without bound, and not the control of it. And what runs has few rights.
 * Method: a pair under a verifying load; programs on both nodes attack the other one's hastd, from
 * the peer's address and from a foreign one: floods, silence, noise, lies, old sessions.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { MiB, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';
import { VerifyingLoad } from '../fixtures/e2e-verify.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const attacker = fileURLToPath(new URL('../fixtures/attacker.js', import.meta.url));
const attackMs = 6000;
const timeout = 2;
const port = '8457';
/** Of nobody's `remote`; the number of the node follows. */
const foreign = '10.77.0.9';
const grownMax = 192 * MiB;

function statusOf(pid: number, field: string): string {
  const text = fs.readFileSync(`/proc/${pid}/status`, 'latin1');
  return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(text)?.[1] ?? '';
}

async function memory(nodes: readonly LabNode[]): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const node of nodes) {
    const { worker } = await node.status();
    for (const [what, pid] of [['hastd', node.pid], ['worker', worker]] as const) {
      if (pid == null) throw new Error(`no ${what} on ${node.name}`);
      const size = Number.parseInt(statusOf(pid, 'VmRSS'), 10) * 1024;
      found.set(`${what} ${pid} of ${node.name}`, size);
    }
  }
  return found;
}

async function attack(lab: Lab, from: LabNode, to: LabNode, source: string): Promise<string> {
  const argv = ['env', ...plainNode, attacker,
    lab.network.address(to.name), port, source, String(attackMs)];
  return `${from.name} (${source}): ${(await from.onNode(argv, attackMs + 30_000)).trim()}`;
}

function fewRights(inner: Test, worker: number): void {
  inner.equal(statusOf(worker, 'NoNewPrivs'), '1', 'a worker cannot gain rights');
  const setpcap = BigInt(`0x${statusOf(process.pid, 'CapEff')}`) >> 8n & 1n;
  if (setpcap === 0n) {
    inner.comment('NOT TESTED: rights cannot be taken away here');
    return;
  }
  const rights = (pid: number): number[] => {
    const bits = BigInt(`0x${statusOf(pid, 'CapBnd')}`);
    return Array.from({ length: 64 }, (_, bit) => bit).filter((bit) =>
      (bits >> BigInt(bit) & 1n) === 1n);
  };
  const own = rights(process.pid);
  // DAC_OVERRIDE, DAC_READ_SEARCH, NET_BIND_SERVICE, IPC_LOCK, SYS_PTRACE, SYS_RESOURCE
  inner.same(rights(worker), [1, 2, 10, 14, 19, 24].filter((bit) => own.includes(bit)));
  inner.equal(statusOf(worker, 'CapEff'), statusOf(worker, 'CapBnd'));
  const filter = fs.readFileSync(`/proc/${worker}/coredump_filter`, 'utf8').trim();
  inner.equal(Number.parseInt(filter, 16), 0, 'its memory is in no dump');
}

async function onlyRoot(inner: Test, node: LabNode): Promise<void> {
  for (const file of [path.join(node.rundir, 'shared', 'volume'), fs.realpathSync(node.device)]) {
    const argv = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups',
      'dd', `if=${file}`, 'of=/dev/null', 'bs=4k', 'count=1'];
    const { code, stderr } = await node.run(argv);
    inner.not(code, 0, `${file} is not for others`);
    inner.match(stderr, 'Permission denied');
  }
}

async function hostile(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2, nodes } = lab;
  for (const [node, prefix] of [[h1, '1'], [h2, '2']] as const) {
    const address = `${foreign}${prefix}`;
    await node.onNode(['ip', 'address', 'add', `${address}/24`, 'dev', 'hast0']);
  }
  await lab.bringUp();
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  // Other users can get as far as to the files themselves.
  for (const folder of [lab.directory, h1.directory]) fs.chmodSync(folder, 0o755);
  await onlyRoot(inner, h1);
  const { worker } = await h1.status();
  fewRights(inner, worker ?? 0);
  const load = await VerifyingLoad.start(lab, h1, 90_000);
  const before = await memory(nodes);
  const attacks = Promise.all([
    attack(lab, h2, h1, lab.network.address('h2')), attack(lab, h2, h1, `${foreign}2`),
    attack(lab, h1, h2, lab.network.address('h1')), attack(lab, h1, h2, `${foreign}1`),
  ]);
  let answers = 0;
  const isOver = { yet: false };
  attacks.finally(() => {
    isOver.yet = true;
  }).catch(() => undefined);
  while (!isOver.yet) {
    for (const node of nodes) await node.status();
    answers++;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  for (const line of await attacks) inner.comment(line);
  inner.ok(answers > 0, `both nodes answered hastctl ${answers} times meanwhile`);
  const after = await memory(nodes);
  for (const [what, size] of after) {
    const grown = (size - (before.get(what) ?? 0)) / MiB;
    inner.ok(before.has(what), `${what} was there before`);
    inner.ok(grown < grownMax / MiB, `${what} grew by ${Math.round(grown)} MiB`);
  }
  for (const node of nodes) {
    await node.untilStatus('a whole pair', ({ status }) => status === 'complete', 40_000);
  }
  inner.ok(await load.check(inner) > 0, 'the load verified what it wrote');
  await h1.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'both copies are equal');
}

t.setTimeout(250_000);
await pairTest(t, 'hostile: connections of every kind, under load', {
  timeout, needs: ['fio', 'setpriv'], boundMs: 180_000,
}, hostile);
