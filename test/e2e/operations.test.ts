/**
 * Goal: an administrator who types what docs/operations.md says, line by line, sees what it shows,
 * and has a complete pair at the end of each section.
 * Method: every line with a prompt is run on a pair. There is no systemd here: of the commands
 * that it would run, those are run that the units name. Machines die by SIGKILL.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { MiB, resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';
import {
  comparable, fits, parseRunbook, type RunbookStep, type TypedCommand,
} from '../fixtures/runbook.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const text = fs.readFileSync(path.join(root, 'docs/operations.md'), 'utf8');
const unitFolder = path.join(root, 'cli/system');
const name = resourceName;

/** Of other packages, and of a machine that is not there: typed, not run here. */
const notRun = [
  /^apt install -y [a-z0-9 ]+$/, /^npm i -g hast-linux$/, /^systemctl daemon-reload$/,
  /^udevadm control --reload$/, /^journalctl -u hastd --since -1d$/,
];
/** Run as they stand, but for systemctl. */
const programs = ['hastctl', 'systemctl', 'date', 'ls', 'cat', 'uname', 'findmnt'];

interface Result {
  code: number;
  printed: string;
}

const done: Result = { code: 0, printed: '' };

/** null for what is not run. */
function programOf(typed: string): string | null {
  const [program = ''] = typed.split(' ');
  if (notRun.some((pattern) => pattern.test(typed))) return null;
  if (programs.includes(program)) return program;
  throw new Error(`the test does not know '${typed}'`);
}

/** What a unit runs: `hastctl` with these arguments. */
function unitCommands(unit: string, keyword: 'ExecStart' | 'ExecStop'): string[][] {
  const lines = fs.readFileSync(path.join(unitFolder, unit), 'utf8').split('\n');
  const found = lines.flatMap((line) => {
    const [, words] = new RegExp(`^${keyword}=-?@HASTCTL@ (.+)$`).exec(line) ?? [];
    return words === undefined ? [] : [words.replaceAll('%i', name).split(' ')];
  });
  if (found.length === 0) throw new Error(`${unit} has no ${keyword}`);
  return found;
}

class Room {
  readonly #lab: Lab;
  /** Nodes on which hast@shared is enabled. */
  readonly #enabled = new Set<LabNode>();
  /** Nodes on which systemd has it as started, whatever hastctl was told since. */
  readonly #started = new Set<LabNode>();
  /** What systemd starts at a boot, and nobody waits for. */
  readonly #jobs = new Map<LabNode, Promise<Result>>();

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  /** The configuration of the page, with the places of the lab. */
  configure(): void {
    const [conf = ''] = /^ {8}resource shared \{\n[^]*?\n {8}\}\n/m.exec(text) ?? [];
    let own = conf.replace(/^ *mountpoint \/data\n/m, '');
    const head = ['timeout 3'];
    for (const node of this.#lab.nodes) {
      head.push(`on ${node.name} { rundir ${node.rundir} devdir ${node.devdir}`,
        `listen ${this.#lab.network.url(node.name)} undo-directory ${node.undoDirectory} }`);
      const place = `mount { mountpoint ${node.mountPoint} }`;
      own = own.replace(new RegExp(`(on ${node.name} \\{\\n *local )/dev/sdb1\n`),
        `$1${node.local}\n${place}\n`);
    }
    own = own.replace('10.0.0.231', this.#lab.network.address('h1'))
      .replace('10.0.0.233', this.#lab.network.address('h2'));
    fs.writeFileSync(this.#lab.config, `${head.join('\n')}\n${own}`);
  }

  /** Words of the page and of the lab for the same things on a node. */
  #words(node: LabNode): [string, string][] {
    const { network, config, directory } = this.#lab;
    return [
      ['/root/', `${directory}/`], ['/etc/hast.conf', config], ['/dev/sdb1', node.local],
      ['/dev/hast/shared', node.device], ['/data', node.mountPoint],
      ['10.0.0.231', network.address('h1')], ['10.0.0.233', network.address('h2')],
    ];
  }

  async type(node: LabNode, typed: string): Promise<Result> {
    const program = programOf(typed);
    if (program === null) return done;
    if (program === 'systemctl') return await this.#systemctl(node, typed);
    let line = typed;
    for (const [page, lab] of this.#words(node)) line = line.replaceAll(page, lab);
    const prefix = path.join(node.directory, 'root');
    if (typed === 'hastctl install-units') line += ` --dir ${prefix}`;
    const argv = program === 'hastctl' ? line.split(' ') : ['sh', '-c', line];
    const { code, stdout, stderr } = await node.run(argv, 60_000);
    let printed = (stdout + stderr).replaceAll(`${prefix}/`, '/');
    // A switchover prints places of the other node as well.
    const words = this.#lab.nodes.flatMap((one) => this.#words(one));
    for (const [page, lab] of words.sort(([, a], [, b]) => b.length - a.length)) {
      printed = printed.replaceAll(lab, page);
    }
    return { code, printed };
  }

  async #systemctl(node: LabNode, typed: string): Promise<Result> {
    await this.#jobs.get(node);
    const known: Record<string, () => Promise<Result>> = {
      'enable --now hast.target': async () => {
        await node.start();
        return await this.#unit(node, 'hast-standby.service', 'ExecStart');
      },
      'enable --now hast@shared': () => {
        this.#enabled.add(node);
        return this.#startUnit(node);
      },
      'start hast@shared': () => this.#startUnit(node),
      'stop hast@shared': () => this.#stopUnit(node),
      'reload hastd': () => {
        const { pid } = node;
        if (pid === undefined) throw new Error('no hastd runs');
        process.kill(pid, 'SIGHUP');
        return Promise.resolve(done);
      },
      'reboot': () => this.#shutDown(node),
    };
    const work = known[typed.slice('systemctl '.length)];
    if (work === undefined) throw new Error(`the test does not know '${typed}'`);
    const { code, printed } = await work();
    return { code, printed: code === 0 ? '' : printed };
  }

  async #startUnit(node: LabNode): Promise<Result> {
    if (this.#started.has(node)) return done;
    const result = await this.#unit(node, 'hast@.service', 'ExecStart');
    if (result.code === 0) this.#started.add(node);
    return result;
  }

  async #stopUnit(node: LabNode): Promise<Result> {
    if (!this.#started.delete(node)) return done;
    return await this.#unit(node, 'hast@.service', 'ExecStop');
  }

  async #unit(node: LabNode, unit: string, keyword: 'ExecStart' | 'ExecStop'): Promise<Result> {
    let printed = '';
    for (const args of unitCommands(unit, keyword)) {
      const { code, stdout, stderr } = await node.hastctl(...args);
      printed += stdout + stderr;
      if (code !== 0) return { code, printed };
    }
    return { code: 0, printed };
  }

  async #shutDown(node: LabNode): Promise<Result> {
    const result = await this.#stopUnit(node);
    await node.stop();
    this.#forgetMemory(node);
    return result;
  }

  /** /run and /dev are in memory: after a boot they are empty. */
  #forgetMemory(node: LabNode): void {
    this.#started.delete(node);
    for (const folder of [node.rundir, node.devdir]) {
      fs.rmSync(folder, { recursive: true, force: true });
    }
  }

  async #boot(node: LabNode): Promise<void> {
    await node.start();
    await this.#unit(node, 'hast-standby.service', 'ExecStart');
    // Where the peer is primary this fails, as the page says.
    if (this.#enabled.has(node)) this.#jobs.set(node, this.#startUnit(node));
  }

  async #die(node: LabNode): Promise<void> {
    await node.kill();
    await this.#jobs.get(node);
    await node.clearRemains();
    this.#forgetMemory(node);
    const peer = this.#lab.nodes.find((one) => one !== node);
    if (peer?.pid !== undefined) await this.#sees(peer, false);
  }

  async #sees(node: LabNode, isConnected: boolean): Promise<void> {
    await node.untilStatus(isConnected ? 'the peer' : 'the loss', ({ connection }) =>
      isConnected ? connection !== 'connecting' : connection === 'connecting');
  }

  async happen(event: string): Promise<void> {
    const [, which, what = event] = /^(h[12]) (.*)$/.exec(event) ?? [];
    const node = which === 'h2' ? this.#lab.h2 : this.#lab.h1;
    const known: Record<string, () => Promise<void>> = {
      'has no power': () => this.#die(node),
      'is back': () => this.#boot(node),
      'has a new disk': () => node.replaceBlockDevice(),
      'is a new machine': async () => {
        await this.#die(node);
        await node.replaceBlockDevice();
      },
      'the cable breaks': async () => {
        await this.#lab.cut('drop');
        for (const one of this.#lab.nodes) await this.#sees(one, false);
      },
      'the cable is mended': async () => {
        await this.#lab.heal();
        for (const one of this.#lab.nodes) await this.#sees(one, true);
      },
    };
    const work = known[what];
    if (work === undefined) throw new Error(`the test does not know '(${event})'`);
    await work();
  }

  /** Every section begins and ends with a complete pair; h1 is primary at the beginning. */
  async reset(): Promise<void> {
    const { h1 } = this.#lab;
    await Promise.all(this.#jobs.values());
    await this.#lab.settle(20_000);
    if ((await h1.status()).role !== 'primary') await h1.control('switchover', name);
    this.#started.clear();
    this.#started.add(h1);
    await this.#lab.settle(20_000);
  }
}

async function play(test: Test, lab: Lab, room: Room, step: RunbookStep): Promise<void> {
  if (step.kind === 'event') {
    await room.happen(step.text);
    return;
  }
  const nodes = lab.nodes.filter((one) => step.nodes.includes(one.name));
  const results = await Promise.all(nodes.map((node) => room.type(node, step.text)));
  for (const [index, result] of results.entries()) {
    judge(test, step, result, `line ${step.line}: ${nodes[index]?.name}#`);
  }
}

function judge(test: Test, step: TypedCommand, { code, printed }: Result, where: string): void {
  const isRefused = step.output.some((line) => /^(hastctl|shared): error: /.test(line));
  test.equal(code !== 0, isRefused, `${where} ${step.text}: exit code ${code}; ${printed}`);
  const [expected, lines] = [comparable(step.output.join('\n')), comparable(printed)];
  if (fits(expected, lines)) test.pass(`${where} prints what the page shows`);
  else test.same(lines, expected, `${where} ${step.text}`);
}

t.test('operations: the checks bite', async (t) => {
  const [section] = parseRunbook('## A\n\n    h1# a\n    b\n    (c)\n\n        both# d\ntext');
  t.match(section, { title: 'A', steps: [
    { text: 'a', nodes: ['h1'], output: ['b'] }, { kind: 'event', text: 'c' },
    { text: 'd', nodes: ['h1', 'h2'], output: [] },
  ] });
  t.same(comparable('a:   0.12 s  x\n\n'), ['a: N s x']);
  t.ok(fits(['a', '...', 'c'], ['a', 'b', 'c']));
  t.ok(fits(['a', '...'], ['a']));
  t.notOk(fits(['a'], ['a', 'b']));
  t.notOk(fits(['...', 'c'], ['a', 'b']));
  t.throws(() => programOf('rm -rf /data'), /does not know/);
  t.equal(programOf('apt install -y nodejs npm'), null);
});

t.setTimeout(480_000);
const options = {
  local: 'block', sizes: [64 * MiB, 64 * MiB], needs: ['nft', 'findmnt'], boundMs: 400_000,
} as const;
await pairTest(t, 'operations: the page, line by line', options, async (test, lab) => {
  const room = new Room(lab);
  room.configure();
  const sections = parseRunbook(text).filter(({ steps }) => steps.length > 0);
  test.ok(sections.length > 10, `${sections.length} sections`);
  for (const [index, { title, steps }] of sections.entries()) {
    if (index > 0) await room.reset();
    await test.test(title, async (inner) => {
      for (const step of steps) await play(inner as Test, lab, room, step);
    });
  }
  await room.reset();
  await lab.h1.control('down', name);
  await lab.settle();
  await test.resolves(lab.compare(), 'the copies are equal');
});
