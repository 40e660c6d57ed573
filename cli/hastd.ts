#!/usr/bin/env node
/** hastd: see `hastd -h`. Without -F it returns when the control socket answers. */
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError } from 'commander';
import { defaults } from '../lib/config/limits.ts';
import type { LoadResult } from '../lib/config/load.ts';
import { loadConfig } from '../lib/config/load.ts';
import type { Config } from '../lib/config/model.ts';
import { release } from '../lib/daemon/release.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import type { ConfigChoice } from './report.ts';
import { chooseConfig, errorLine, inspectAuthentication, readConfig } from './report.ts';
import { usageError } from './usage-error.ts';

interface Options {
  config?: string;
  node?: string;
  pidfile?: string;
  foreground?: true;
  test?: true;
  debug: number;
}

function parseArguments(argv: string[]): Options {
  const program = new Command('hastd')
    .description('The daemon of hast-linux: replicates block devices between two nodes.')
    .option('-c, --config <file>', 'configuration (default: HAST_CONF, else /etc/hast.conf)')
    .option('--node <name>', 'name of this node (default: HAST_NODE, else the host name)')
    .option('-F, --foreground', 'stay in the foreground, log to stderr')
    .option('-t, --test', 'read the configuration, say what is wrong with it, and end')
    .option('-P, --pidfile <file>', 'instead of the one in the configuration')
    .option('-d, --debug', 'log more; twice: everything', (_, count: number) => count + 1, 0)
    .version(`hast-linux ${release}`, '-V, --version', 'print the release')
    .helpOption('-h, --help')
    .allowExcessArguments(false)
    .configureOutput({ outputError: () => undefined }) // main() prints errors
    .exitOverride();
  program.parse(argv);
  return program.opts<Options>();
}

function withPidfile(config: Config, pidfile: string | undefined): Config {
  return pidfile === undefined ? config : { ...config, pidfile };
}

async function foreground(options: Options, choice: ConfigChoice, pidfile: string | undefined) {
  const explain = (text: string): void => void process.stderr.write(text);
  const config = withPidfile(readConfig({ ...choice, inspectAuthentication }, explain), pidfile);
  const load = (): LoadResult => {
    const loaded = loadConfig({ ...choice, inspectAuthentication });
    if (loaded.config === undefined) return loaded;
    return { ...loaded, config: withPidfile(loaded.config, pidfile) };
  };
  const script = fileURLToPath(new URL('./hastctl.js', import.meta.url));
  const hastctl = [process.execPath, script, '-c', choice.file];
  if (choice.node !== undefined) hastctl.push('--node', choice.node);
  // Each way loads its own: the launcher has no use for the daemon's modules.
  const { runForeground } = await import('../lib/daemon/foreground.ts');
  const { levelOf } = await import('../lib/daemon/logger.ts');
  await runForeground({ config, load, level: levelOf(options.debug), hastctl });
}

async function background(options: Options, choice: ConfigChoice, pidfile: string | undefined) {
  const explain = (text: string): void => void process.stderr.write(text);
  const config = readConfig({ ...choice, inspectAuthentication }, explain);
  const { rundir, control } = config;
  const { ownDirectory, rundirMode } = await import('../lib/daemon/safe-files.ts');
  await ownDirectory(rundir, rundirMode, 'rundir');
  const args = ['-F', '-c', choice.file];
  if (choice.node !== undefined) args.push('--node', choice.node);
  if (pidfile !== undefined) args.push('-P', pidfile);
  args.push(...Array.from({ length: options.debug }, () => '-d'));
  const { launch } = await import('../lib/daemon/launcher.ts');
  await launch({
    script: fileURLToPath(import.meta.url),
    args,
    logFile: path.join(rundir, defaults.logName),
    controlPath: control.path,
  });
}

async function main(): Promise<number> {
  try {
    const options = parseArguments(process.argv);
    const { file, node } = chooseConfig(options);
    // The daemon works in /: names given here are relative to where it was started.
    const choice = { file: path.resolve(file), node };
    const pidfile = options.pidfile === undefined ? undefined : path.resolve(options.pidfile);
    if (options.test === true) {
      const test = { ...choice, inspectAuthentication };
      readConfig(test, (text) => process.stderr.write(text));
    } else if (options.foreground === true) await foreground(options, choice, pidfile);
    else await background(options, choice, pidfile);
    return ExitCode.ok;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return ExitCode.ok;
    const told = error instanceof CommanderError ? usageError('hastd', error) : error;
    process.stderr.write(errorLine('hastd', told));
    return exitCodeOf(told);
  }
}

// Hooks and the remains of connections must not keep a stopped daemon alive.
process.exit(await main());
