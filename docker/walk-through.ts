/**
 * In the third container of compose.yml: commands the two nodes, from empty disks through the loss
 * of the primary to a complete pair again. Arguments: the containers of h1 and h2. Every
 * command is shown as it would be typed in the node's container.
 *
 * Exit codes: 0 everything was as it should be; 1 it was not; 69 it cannot begin.
 */
import * as fs from 'node:fs';
import { compareCopies } from '../cli/lab-compare.ts';
import { sleep, until } from '../cli/lab-run.ts';
import { errorText } from '../lib/base/errors.ts';
import { Engine } from './engine.ts';

const exitFailed = 1;
const exitUnable = 69;
const engineSocket = '/var/run/docker.sock';
const resource = 'shared';
const device = `/dev/hast/${resource}`;
const disk = '/var/lib/hast/disk';
const fileCount = 12;
const boundMs = 30_000;

const engine = new Engine(engineSocket);

/** A node: its container, and where its disk is seen from here. */
class Node {
  readonly name: string;
  readonly container: string;

  constructor(name: string, container: string) {
    this.name = name;
    this.container = container;
  }

  get copy(): string {
    return `/copies/${this.name}/disk`;
  }

  /** Shows a line for the shell and its output; throws where it fails. Gives the output. */
  async type(line: string): Promise<string> {
    process.stdout.write(`${this.name}# ${line}\n`);
    const { code, output } = await engine.exec(this.container, ['sh', '-c', line]);
    process.stdout.write(output);
    if (code !== 0) throw new Error(`'${line}' on ${this.name}: exit code ${code}`);
    return output;
  }

  async untilHastd(): Promise<void> {
    await until(`hastd on ${this.name}`, boundMs, async () => {
      const { code } = await engine.exec(this.container, ['hastctl', 'status']);
      return code === 0 ? true : undefined;
    });
  }

  async untilNotComplete(): Promise<void> {
    await until(`the loss of contact on ${this.name}`, boundMs, async () => {
      const { output } = await engine.exec(this.container, ['hastctl', 'status', resource]);
      return /\bcomplete\b/.test(output) ? undefined : true;
    });
  }
}

interface Pair {
  h1: Node;
  h2: Node;
}

function say(text: string): void {
  process.stdout.write(`\n# ${text}\n`);
}

async function createPair({ h1, h2 }: Pair): Promise<void> {
  say('Two containers, h1 and h2, share one configuration. Each has a disk (here: a file).');
  await h1.type('cat /etc/hast.conf');
  for (const node of [h1, h2]) {
    await node.untilHastd();
    await node.type(`truncate -s 256M ${disk}`);
    await node.type(`hastctl create ${resource}`);
  }
}

interface Used {
  /** The list of checksums. */
  sums: string;
  /** h1's loop device. */
  loop: string;
}

async function useDevice({ h1, h2 }: Pair): Promise<Used> {
  say('h1 becomes primary: it gets the device. h2 becomes secondary: it takes every write.');
  await h2.type(`hastctl role secondary ${resource}`);
  await h1.type(`hastctl role primary ${resource}`);
  say('A file system on the device, and files in it.');
  await h1.type(`mkfs.ext4 -q ${device}`);
  await h1.type(`mkdir /data && mount -o noatime ${device} /data`);
  await h1.type('cd /data && mkdir letters && ' +
    `for i in $(seq ${fileCount}); do head -c 1M /dev/urandom > letters/$i; done`);
  await h1.type('cd /data && sha256sum letters/* > sums && sync -f sums && df -h .');
  for (const node of [h1, h2]) {
    await node.type(`hastctl wait --synced --timeout 20 ${resource} && hastctl status`);
  }
  const loop = (await h1.type(`readlink ${device}`)).trim();
  return { sums: await h1.type('cat /data/sums'), loop };
}

async function losePrimary({ h1, h2 }: Pair): Promise<void> {
  say('Disaster: every process of h1 is killed at once, with its file system still mounted.');
  process.stdout.write(`docker kill ${h1.container}\n`);
  await engine.kill(h1.container);
  say('h2 notices. It was complete when contact broke, so it may take over without force.');
  await h2.untilNotComplete();
  await h2.type('hastctl status');
  await h2.type(`hastctl role primary ${resource}`);
  await h2.type(`mkdir /data && mount -o noatime ${device} /data`);
}

async function verify({ h2 }: Pair, sums: string): Promise<void> {
  say('Is every file there, byte for byte? The checksums were written on h1.');
  await h2.type('cd /data && sha256sum -c sums');
  // The list itself was kept aside: it must not vouch for itself.
  const there = await h2.type('cat /data/sums');
  if (there !== sums || sums.split('\n').length !== fileCount + 1) {
    throw new Error('the list of checksums on h2 is not the one written on h1');
  }
}

async function bringBack({ h1, h2 }: Pair): Promise<void> {
  say('Work goes on with one copy. h1 comes back as secondary, and gets what it lacks.');
  await h2.type('head -c 3M /dev/urandom > /data/meanwhile && sync -f /data/meanwhile');
  await h2.type('hastctl status');
  process.stdout.write(`docker start ${h1.container}\n`);
  await engine.start(h1.container);
  await h1.untilHastd();
  await h1.type(`hastctl role secondary ${resource}`);
  for (const node of [h1, h2]) {
    await node.type(`hastctl wait --synced --timeout 30 ${resource} && hastctl status`);
  }
}

async function end({ h1, h2 }: Pair, loop: string): Promise<void> {
  say('Loop devices belong to the machine, not to a container: that of the killed h1 is left.');
  const left = await h2.type(`cat /sys/block/${loop.replace('/dev/', '')}/loop/backing_file`);
  if (left !== '/volume\n') throw new Error(`${loop} is somebody else's`);
  await h2.type(`losetup -d ${loop}`);
  say('Unmount, give the device back, and compare the two disks past the daemons.');
  await h2.type('umount /data');
  await h2.type(`hastctl role secondary ${resource}`);
  await sleep(1000);
  await compareCopies(h1.copy, h2.copy);
  process.stdout.write('the two copies are equal, byte for byte\n');
}

async function main(): Promise<number> {
  const [first, second] = process.argv.slice(2);
  if (first === undefined || second === undefined || !fs.existsSync(engineSocket)) {
    process.stderr.write(`walk-through: needs the names of two containers, and ${engineSocket} ` +
      'of the host: see compose.yml\n');
    return exitUnable;
  }
  const pair = { h1: new Node('h1', first), h2: new Node('h2', second) };
  try {
    await createPair(pair);
    const { sums, loop } = await useDevice(pair);
    await losePrimary(pair);
    await verify(pair, sums);
    await bringBack(pair);
    await end(pair, loop);
  } catch (error) {
    process.stdout.write(`\nRESULT: FAILED: ${errorText(error)}\n`);
    return exitFailed;
  }
  process.stdout.write('\nRESULT: OK: the primary was lost, no file was lost, ' +
    'and the pair is complete again\n');
  return 0;
}

process.exitCode = await main();
