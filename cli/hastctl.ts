#!/usr/bin/env node
/** hastctl: see `hastctl -h`. Options may stand before or after the command. */
import { Command, CommanderError, Option } from 'commander';
import { release } from '../lib/daemon/release.ts';
import type { CheckOptions } from './check-command.ts';
import type { CreateOptions } from './copy-commands.ts';
import type { RoleOptions, StatusOptions } from './daemon-commands.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import type { InstallOptions } from './install-units.ts';
import type { MapOptions } from './map-command.ts';
import type { ResolveOptions } from './order-commands.ts';
import type { Context } from './output.ts';
import { chooseConfig, errorJson, errorLine } from './report.ts';
import type { PairOptions } from './pair-command.ts';
import type { SwitchoverOptions } from './switchover-command.ts';
import type { UpOptions } from './up-command.ts';
import { usageError } from './usage-error.ts';
import type { WaitOptions } from './wait-command.ts';

/** Each command loads what it needs, and no other's: the start is most of what a command costs. */
const checks = () => import('./check-command.ts');
const copies = () => import('./copy-commands.ts');
const daemon = () => import('./daemon-commands.ts');
const events = () => import('./events-command.ts');
const map = () => import('./map-command.ts');
const mounts = () => import('./up-command.ts');
const orders = () => import('./order-commands.ts');
const pairs = () => import('./pair-command.ts');
const switchover = () => import('./switchover-command.ts');
const top = () => import('./top-command.ts');
const units = () => import('./install-units.ts');
const upgrade = () => import('./upgrade-command.ts');
const waiting = () => import('./wait-command.ts');

interface GlobalOptions {
  config?: string;
  node?: string;
  json?: true;
  debug: number;
}

const manyNames = ['<name...>', "resources, or 'all'"] as const;

type Run = <M>(
  load: () => Promise<M>, work: (its: M, context: Context) => Promise<number>,
) => Promise<void>;

function buildProgram(run: Run) {
  const program = new Command('hastctl')
    .description('Controls hast-linux: roles, status and the metadata of local copies.')
    .option('-c, --config <file>', 'configuration (default: HAST_CONF, else /etc/hast.conf)')
    .option('--node <name>', 'name of this node (default: HAST_NODE, else the host name)')
    .option('--json', 'print JSON')
    .option('-d, --debug', 'say more about errors', (_, count: number) => count + 1, 0)
    .version(`hast-linux ${release}`, '-V, --version', 'print the release')
    .helpOption('-h, --help')
    .showSuggestionAfterError(true)
    .exitOverride();
  const silent = { outputError: () => undefined }; // main() prints errors, also as JSON
  program.configureOutput(silent);

  program.command('create')
    .description('write new metadata to the local copy; what is on it is lost')
    .argument('<name...>', 'resources')
    .option('-e, --extentsize <size>', 'bytes per hot extent, a power of two (k, M, G, T)')
    .option('-k, --keepdirty <count>', 'number of hot extents')
    .option('-m, --mediasize <size>', 'bytes of the volume, if smaller than the disk (k, M, G, T)')
    .option('--force', 'also over metadata, a foreign file system, or a device in use')
    .option('--assume-clean', 'both copies are equal already: skip the first full sync')
    .action((names: string[], options: CreateOptions) =>
      run(copies, (its, context) => its.createCommand(context, names, options)));
  program.command('role')
    .description('change the role of resources')
    .argument('<role>', 'init, primary or secondary')
    .argument('<name...>', "resources, or 'all'")
    .option('--force', 'promote an unsafe copy, or take away a device in use')
    .option('--if-init', 'only resources whose role is init, as after a start of the machine')
    .action((role: string, names: string[], options: RoleOptions) =>
      run(daemon, (its, context) => its.roleCommand(context, role, names, options)));
  program.command('up')
    .description('make this node primary and mount what the configuration says')
    .argument(...manyNames)
    .option('--wait <seconds>', 'try a refused promotion again while the peer may still come')
    .action((names: string[], options: UpOptions) =>
      run(mounts, (its, context) => its.upCommand(context, names, options)));
  program.command('down')
    .description('unmount, and make this node secondary')
    .argument(...manyNames)
    .action((names: string[]) => run(mounts, (its, context) => its.downCommand(context, names)));
  program.command('switchover')
    .description('the primary unmounts and leaves, the other node becomes primary and mounts')
    .argument('<name>', 'resource')
    .addOption(new Option('--peer-asked').hideHelp())
    .action((name: string, options: SwitchoverOptions) =>
      run(switchover, (its, context) => its.switchoverCommand(context, name, options)));
  addViews(program, run);
  program.command('dump')
    .description('print the metadata of local copies; works without hastd')
    .argument('[name...]', "resources; default: 'all'")
    .action((names: string[]) => run(copies, (its, context) => its.dumpCommand(context, names)));
  program.command('check')
    .description('check the configuration')
    .option('--peer', 'also ask the other node, and compare')
    .action((options: CheckOptions) =>
      run(checks, (its, context) => its.checkCommand(context, options)));
  addOrders(program, run);
  for (const command of program.commands) command.configureOutput(silent).exitOverride();
  return program;
}

/** What a person looks at. */
function addViews(program: Command, run: Run): void {
  program.command('status')
    .description('one line per resource')
    .argument('[name...]', "resources; default: 'all'")
    .option('--watch [seconds]', 'again and again, by default every 2 s')
    .action((names: string[], options: StatusOptions) =>
      run(daemon, (its, context) => its.statusCommand(context, names, options)));
  program.command('list')
    .description('everything about resources')
    .argument('[name...]', "resources; default: 'all'")
    .action((names: string[]) => run(daemon, (its, context) => its.listCommand(context, names)));
  program.command('events')
    .description('the present state, then every change as it happens; --json: one object a line')
    .argument('[name...]', "resources; default: 'all'")
    .action((names: string[]) => run(events, (its, context) => its.eventsCommand(context, names)));
  program.command('top')
    .description('a full screen: throughput, latency and queues; arrows choose, q ends')
    .argument('[name...]', "resources; default: 'all'")
    .action((names: string[]) => run(top, (its, context) => its.topCommand(context, names)));
  program.command('map')
    .description('a picture of the volume: what the copies lack of each other')
    .argument('<name>', 'resource')
    .option('--ascii', 'only ASCII characters')
    .action((name: string, options: MapOptions) =>
      run(map, (its, context) => its.mapCommand(context, name, options)));
}

/** The commands that change how copies are used. */
function addOrders(program: Command, run: Run): void {
  program.command('resync')
    .description('pause or resume the copying to a peer; a worker starts resumed')
    .argument('<action>', 'pause or resume')
    .argument(...manyNames)
    .action((action: string, names: string[]) =>
      run(orders, (its, context) => its.resyncCommand(context, action, names)));
  for (const [name, text] of [
    ['detach', 'stop using the local copy; a primary goes on through its peer'],
    ['attach', 'use the local copy again, after a detach or a failure'],
    ['peer-gone', 'state that the peer is certainly off, so that this node may be promoted'],
  ] as const) {
    program.command(name).description(text).argument(...manyNames)
      .action((names: string[]) =>
        run(orders, (its, context) => its.orderCommand(context, name, names)));
  }
  program.command('resolve')
    .description('end a split brain by giving up what one side wrote since the fork')
    .argument('<name>', 'resource')
    .option('--discard-local', "give up this node's writes")
    .option('--discard-peer', "give up the peer's writes")
    .option('--dry-run', 'only say what would be copied')
    .option('--undo <file>', 'keep what is overwritten in this new file')
    .action((name: string, options: ResolveOptions) =>
      run(orders, (its, context) => its.resolveCommand(context, name, options)));
  program.command('undo')
    .description('put back what a resolution overwrote')
    .argument('<name>', 'resource')
    .argument('<file>', 'the file of resolve --undo')
    .action((name: string, file: string) =>
      run(orders, (its, context) => its.undoCommand(context, name, file)));
  program.command('upgrade')
    .description('hastd and its workers become the release installed now; nothing is unmounted')
    .argument('[name...]', "resources whose workers are replaced; default: 'all'")
    .action((names: string[]) =>
      run(upgrade, (its, context) => its.upgradeCommand(context, names)));
  program.command('install-units')
    .description('write units for systemd, a rule for udev, and agents of cluster managers')
    .option('--dir <directory>', 'below this directory instead of /')
    .option('--print', 'only print them')
    .option('--force', 'also over files that were changed by hand')
    .action((options: InstallOptions) =>
      run(units, (its, context) => its.installUnits(context, options)));
  program.command('pair')
    .description('make certificates for both nodes: init on one, join with its code on the other')
    .argument('<action>', 'init or join')
    .argument('[code]', 'join: what init printed on the other node')
    .option('--directory <directory>', 'for the files (default: /etc/hast/tls)')
    .option('--address <address>', 'init: of this node, for the other one (port 8458)')
    .option('--minutes <n>', 'init: how long the code is valid (default: 10)')
    .option('--force', 'replace the files that are there')
    .action((action: string, code: string | undefined, options: PairOptions) =>
      run(pairs, (its, context) => its.pairCommand(context, action, code, options)));
  program.command('wait')
    .description('return when everything asked for holds')
    .argument(...manyNames)
    .option('--connected', 'the peer is connected')
    .option('--synced', 'both copies are complete and equal')
    .option('--role <role>', 'the role is init, primary or secondary')
    .option('--timeout <seconds>', 'give up after this time, with exit code 79')
    .action((names: string[], options: WaitOptions) =>
      run(waiting, (its, context) => its.waitCommand(context, names, options)));
}

async function main(): Promise<number> {
  let code: number = ExitCode.ok;
  const program = buildProgram(async (load, work) => {
    const options = program.opts<GlobalOptions>();
    code = await work(await load(), {
      config: chooseConfig(options), json: options.json === true,
    });
  });
  try {
    await program.parseAsync(process.argv);
    return code;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return ExitCode.ok;
    if (thrown instanceof CommanderError && thrown.code === 'commander.help') {
      return ExitCode.usage; // no command: the help has been printed
    }
    const error = thrown instanceof CommanderError ? usageError('hastctl', thrown) : thrown;
    const { json, debug } = program.opts<GlobalOptions>();
    process.stderr.write(json === true ? errorJson(error) : errorLine('hastctl', error));
    if (debug > 0 && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
    return exitCodeOf(error);
  }
}

process.exitCode = await main();
