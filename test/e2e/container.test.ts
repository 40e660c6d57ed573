/**
 * Goal: a container that is killed ends, although its file system is mounted on the device that its
 * own processes serve.
 * Method: hastd runs in a pid and a mount namespace of its own, as in a container, and all of its
 * processes get SIGKILL at once. What unmounts at the end must not wait for a server that is dead.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { run, until } from '../../cli/lab-run.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';

const endMs = 20_000;
const programs = path.resolve(import.meta.dirname, '../../cli');

/** A pid and a mount namespace on a node, with one process that waits. */
class Container {
  readonly #node: LabNode;
  readonly #first: number;
  readonly #outer: number;

  private constructor(node: LabNode, first: number) {
    this.#node = node;
    this.#first = first;
    this.#outer = Number(fs.readFileSync(`/proc/${first}/stat`, 'utf8').split(' ')[3]);
  }

  static async start(node: LabNode): Promise<Container> {
    const argv = ['unshare', '--mount', '--pid', '--fork', '--mount-proc', '--kill-child=KILL',
      'sleep', '100'];
    node.run(argv, 100_000).catch(() => undefined);
    const first = await until('the container', 10_000, () => node.processes().find(isSleep));
    return new Container(node, first);
  }

  run(...argv: string[]): Promise<string> {
    const inside = ['nsenter', '--target', String(this.#first), '--mount', '--pid'];
    return this.#node.onNode([...inside, 'env', '-u', 'NODE_OPTIONS', ...argv], 60_000);
  }

  hast(program: 'hastd' | 'hastctl', ...args: string[]): Promise<string> {
    return this.run(process.execPath, path.join(programs, `${program}.js`), ...args);
  }

  /**
   * Number of the FUSE connection that this node mounted in it. It has what was mounted outside
   * when it began as well: the volumes of other tests.
   */
  connection(): string {
    const text = fs.readFileSync(`/proc/${this.#first}/mountinfo`, 'utf8');
    const own = text.split('\n').find((line) =>
      line.includes(` ${this.#node.rundir}/`) && line.includes(' - fuse hast '));
    return / 0:(\d+) /.exec(own ?? '')?.[1] ?? '';
  }

  /** The outer one first: it would keep the mount namespace. The first one inside dies with it. */
  kill(): void {
    process.kill(this.#outer, 'SIGKILL');
  }
}

function isSleep(pid: number): boolean {
  return fs.readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'sleep';
}

const isThere = (pid: number): boolean => fs.existsSync(`/proc/${pid}`);

/** Without this a failed test would leave processes that nothing can kill. */
async function clear(directory: string, connection: string, loop: string): Promise<void> {
  const control = path.join(directory, 'fusectl');
  fs.mkdirSync(control);
  await run(['mount', '-t', 'fusectl', 'none', control]);
  const abort = path.join(control, connection, 'abort');
  if (connection !== '' && fs.existsSync(abort)) fs.writeFileSync(abort, '1');
  await run(['umount', control]);
  const backing = `/sys/block/${path.basename(loop)}/loop/backing_file`;
  if (loop === '' || !fs.existsSync(backing)) return;
  // The path inside a file system that is mounted nowhere.
  if (fs.readFileSync(backing, 'utf8').trim() === '/volume') await run(['losetup', '-d', loop]);
}

async function killContainer(inner: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  for (const node of lab.nodes) await node.control('create', resourceName);
  await h2.start();
  await h2.control('role', 'secondary', resourceName);
  const container = await Container.start(h1);
  let connection = '';
  let loop = '';
  try {
    await container.hast('hastd');
    await container.hast('hastctl', 'role', 'primary', resourceName);
    connection = container.connection();
    inner.match(connection, /^\d+$/, 'FUSE is mounted in it');
    loop = fs.readlinkSync(h1.device);
    await container.run('mkfs.ext4', '-q', h1.device);
    await container.run('mount', h1.device, h1.mountPoint);
    // Not flushed: the unmount at the end has something to write.
    const file = path.join(h1.mountPoint, 'file');
    await container.run('dd', 'if=/dev/zero', `of=${file}`, 'bs=1M', 'count=16', 'status=none');
    const pids = h1.processes();
    inner.ok(pids.length >= 4, 'unshare, sleep, hastd and a worker');
    container.kill();
    let left = pids;
    await until('the end of the container', endMs, () => {
      left = pids.filter(isThere);
      return left.length === 0 ? true : undefined;
    }, () => `left: ${left.join(' ')}`);
  } finally {
    await clear(lab.directory, connection, loop);
  }
  await h2.untilStatus('the loss of contact', ({ status }) => status !== 'complete');
  await h2.control('role', 'primary', resourceName);
}

await pairTest(t, 'a container that is killed ends, with its device mounted', {
  sizes: [160 * MiB, 160 * MiB], needs: ['unshare'],
}, killContainer);
