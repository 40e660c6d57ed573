#!/usr/bin/env node
/**
 * `npm run demo`: a real pair on this machine, from two empty disks through the loss of the
 * primary to a complete pair again. Every command is shown as it would be typed.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { errorText } from '../lib/base/errors.ts';
import { Lab, labMissing, MiB, resourceName } from './lab.ts';
import type { LabNode } from './lab-node.ts';
import { isInstalled, run, type RunResult } from './lab-run.ts';

const exitFailed = 1;
const exitUnable = 69;
const diskSize = 256 * MiB;
const fileCount = 12;
const syncBoundMs = 20_000;

function say(text: string): void {
  process.stdout.write(`\n# ${text}\n`);
}

function show(node: LabNode, command: string, { stdout, stderr }: RunResult): void {
  process.stdout.write(`${node.name}# ${command}\n${stdout}${stderr}`);
}

/** Shows the command and its output; throws where it fails. */
async function type(node: LabNode, command: string): Promise<void> {
  const [program = '', ...args] = command.split(' ');
  const result = await node.run([program, ...args], 60_000);
  show(node, command, result);
  if (result.code !== 0) throw new Error(`'${command}' failed with exit code ${result.code}`);
}

/** As `type`, for what needs a shell. */
async function typeShell(node: LabNode, command: string): Promise<void> {
  const result = await node.run(['sh', '-c', command], 60_000);
  show(node, command, result);
  if (result.code !== 0) throw new Error(`'${command}' failed with exit code ${result.code}`);
}

async function createPair({ nodes, config }: Lab): Promise<void> {
  say('Two nodes, h1 and h2, share one configuration. Each has a disk of its own (here: a file).');
  process.stdout.write(`h1# cat ${config}\n${fs.readFileSync(config, 'utf8')}`);
  say('Write the metadata of an empty copy to both disks. This is done once.');
  for (const node of nodes) await type(node, `hastctl create ${resourceName}`);
  say('Start the daemon on both. It returns when it can be talked to.');
  for (const node of nodes) await type(node, 'hastd');
}

async function useDevice({ h1, h2, nodes }: Lab): Promise<void> {
  say('h1 becomes primary: it gets the device. h2 becomes secondary: it takes every write.');
  await type(h2, `hastctl role secondary ${resourceName}`);
  await type(h1, `hastctl role primary ${resourceName}`);
  say('The device is an ordinary disk: make a file system on it, mount it, write files.');
  await type(h1, `mkfs.ext4 -q ${h1.device}`);
  await type(h1, `mount -o noatime ${h1.device} ${h1.mountPoint}`);
  await typeShell(h1, `cd ${h1.mountPoint} && mkdir letters && ` +
    `for i in $(seq ${fileCount}); do head -c 1M /dev/urandom > letters/$i; done`);
  await typeShell(h1, `cd ${h1.mountPoint} && sha256sum letters/* > sums && sync -f sums && ` +
    'df -h . && tail -n 3 sums');
  say('Both copies hold everything: the status is "complete" on both nodes.');
  for (const node of nodes) {
    await node.untilStatus('complete', ({ status }) => status === 'complete', syncBoundMs);
    await type(node, 'hastctl status');
  }
}

async function losePrimary({ h1, h2 }: Lab): Promise<string> {
  say('Disaster: every process of h1 is killed at once, with its file system still mounted.');
  const sums = fs.readFileSync(path.join(h1.mountPoint, 'sums'), 'utf8');
  const pids = await h1.kill();
  process.stdout.write(`h1# kill -9 ${pids.join(' ')}\n`);
  await h1.clearRemains();
  say('h2 notices. It was complete when contact broke, so it may take over without force.');
  await h2.untilStatus('the loss of contact', ({ status }) => status !== 'complete', syncBoundMs);
  await type(h2, 'hastctl status');
  await type(h2, `hastctl role primary ${resourceName}`);
  await type(h2, `mount -o noatime ${h2.device} ${h2.mountPoint}`);
  return sums;
}

async function verify({ h2 }: Lab, sums: string): Promise<void> {
  say('Is every file there, byte for byte? The checksums were written on h1.');
  await typeShell(h2, `cd ${h2.mountPoint} && sha256sum -c sums`);
  // The list itself was kept aside: it must not vouch for itself.
  const there = fs.readFileSync(path.join(h2.mountPoint, 'sums'), 'utf8');
  if (there !== sums || sums.split('\n').length !== fileCount + 1) {
    throw new Error('the list of checksums on h2 is not the one written on h1');
  }
}

async function bringBack(lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  say('Work goes on with one copy. h2 remembers what h1 lacks, block by block.');
  await typeShell(h2, `cd ${h2.mountPoint} && head -c 3M /dev/urandom > written-meanwhile && ` +
    'sync -f written-meanwhile');
  await type(h2, 'hastctl status');
  const { dirtyBytes } = await h2.status();
  say('h1 comes back as secondary. Only what it lacks is copied ' +
    `(${(dirtyBytes / MiB).toFixed(1)} of ${diskSize / MiB} MiB).`);
  await type(h1, 'hastd');
  await type(h1, `hastctl role secondary ${resourceName}`);
  await lab.settle(syncBoundMs);
  for (const node of lab.nodes) await type(node, 'hastctl status');
  say('Unmount, and compare the two disks past the daemons.');
  await type(h2, `umount ${h2.mountPoint}`);
  await lab.settle(syncBoundMs);
  await lab.compare();
  process.stdout.write('the two copies are equal, byte for byte\n');
}

async function play(lab: Lab): Promise<void> {
  await createPair(lab);
  await useDevice(lab);
  const sums = await losePrimary(lab);
  await verify(lab, sums);
  await bringBack(lab);
}

async function missing(): Promise<string | null> {
  const reason = labMissing();
  if (reason !== null) return reason;
  for (const program of ['mount', 'losetup', 'mkfs.ext4', 'sha256sum']) {
    if (!await isInstalled(program)) {
      return `${program} is not installed: run 'apt-get install mount e2fsprogs coreutils'`;
    }
  }
  const { code, stderr } = await run(['losetup', '--find']);
  return code === 0 ? null : `no loop device can be had: ${stderr.trim()}`;
}

async function main(): Promise<number> {
  const began = performance.now();
  const reason = await missing();
  if (reason !== null) {
    process.stderr.write(`demo: cannot run here: ${reason}\n`);
    return exitUnable;
  }
  let lab: Lab | undefined;
  let interrupted = false;
  const onInterrupt = (): void => {
    interrupted = true;
    process.stdout.write('\ninterrupted: cleaning up\n');
  };
  try {
    lab = await Lab.open({ sizes: [diskSize, diskSize], onInterrupt });
    const joined = lab.network.kind === 'namespaces'
      ? 'two network namespaces joined by a cable' : 'two loopback addresses';
    say(`This runs on ${joined}, in ${lab.directory}, and removes everything at the end.`);
    await play(lab);
    await lab.close();
  } catch (error) {
    // The handler of the signal ends the process, when everything is removed.
    if (interrupted) return await new Promise<number>(() => undefined);
    process.stdout.write(`\nRESULT: FAILED: ${errorText(error)}\n`);
    printLogs(lab);
    await lab?.close().catch((failure: unknown) => {
      process.stderr.write(`${errorText(failure)}\n`);
    });
    return exitFailed;
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  process.stdout.write('\nRESULT: OK: the primary was lost, no file was lost, ' +
    `and the pair is complete again (${seconds} s)\n`);
  return 0;
}

function printLogs(lab: Lab | undefined): void {
  for (const node of lab?.nodes ?? []) {
    const lines = node.log().trimEnd().split('\n').slice(-15);
    process.stdout.write(`\nlog of ${node.name}, its end:\n${lines.join('\n')}\n`);
  }
}

process.exit(await main());
