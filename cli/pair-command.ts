/** `hastctl pair init|join`: certificates for both nodes; one word is carried between them. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { HastError, errnoName, errorText } from '../lib/base/errors.ts';
import { loadConfig } from '../lib/config/load.ts';
import { nodeNames } from '../lib/config/node-names.ts';
import { parseAddress, isRefusal } from '../lib/config/address.ts';
import { parseCode } from '../lib/pairing/code.ts';
import type { NodeFiles } from '../lib/pairing/exchange.ts';
import { ExitCode } from './exit-codes.ts';
import type { Context } from './output.ts';
import { print, printJson } from './output.ts';

const defaultDirectory = '/etc/hast/tls';
const defaultPort = 8458;
const defaultMinutes = 10;
const minutesMax = 24 * 60;

export interface PairOptions {
  directory?: string;
  address?: string;
  minutes?: string;
  force?: true;
}

export async function pairCommand(
  context: Context, action: string, code: string | undefined, options: PairOptions,
): Promise<number> {
  if (action === 'init' && code === undefined) return await pairInit(context, options);
  if (action === 'join' && code !== undefined) return await pairJoin(context, code, options);
  throw new HastError('HAST_E_USAGE', `pair ${action}: no such form of the command`, {
    hint: 'hastctl pair init on one node, and hastctl pair join CODE on the other',
  });
}

async function pairInit(
  context: Context, { directory = defaultDirectory, address, minutes, force }: PairOptions,
): Promise<number> {
  const place = path.resolve(directory);
  const left = minutesOption(minutes);
  refuseExisting(place, force === true);
  const { host, port } = addressOption(address);
  // Loaded where it is needed: it takes longer than most commands.
  const { offerPair } = await import('../lib/pairing/exchange.ts');
  const names = ownNames(context);
  const peer = await offerPair({
    names, host, port, timeoutMs: left * 60_000,
    onCode: (code) => showCode(context, code, left),
    onRefused: (why) => process.stderr.write(`hastctl: ${why}\n`),
    keep: (files) => keep(place, files),
  });
  done(context, place, names, peer);
  return ExitCode.ok;
}

async function pairJoin(
  context: Context, text: string, { directory = defaultDirectory, force }: PairOptions,
): Promise<number> {
  const place = path.resolve(directory);
  const code = parseCode(text);
  refuseExisting(place, force === true);
  const { joinPair } = await import('../lib/pairing/exchange.ts');
  const names = ownNames(context);
  const { files, names: peer } = await joinPair(code, { names });
  keep(place, files);
  done(context, place, names, peer);
  return ExitCode.ok;
}

function showCode(context: Context, code: string, minutes: number): void {
  if (context.json) {
    printJson({ schema: 1, code });
    return;
  }
  print(`Type this on the other node within ${minutes} minutes:\n\n` +
    `    hastctl pair join ${code}\n\n` +
    'Whoever has the code can be the other node: it is valid once.\n');
}

function filesIn(directory: string): Record<'cert' | 'key' | 'ca', string> {
  return {
    cert: path.join(directory, 'node.crt'),
    key: path.join(directory, 'node.key'),
    ca: path.join(directory, 'ca.crt'),
  };
}

function refuseExisting(directory: string, isForced: boolean): void {
  if (isForced) return;
  const existing = Object.values(filesIn(directory)).filter((file) => fs.existsSync(file));
  if (existing.length === 0) return;
  throw new HastError('HAST_E_REFUSED', `${existing.join(', ')} exists already`, {
    hint: '--force on both nodes makes new ones; what is connected stays connected',
  });
}

/** Each file is the old one or the new one at any moment. */
function keep(directory: string, { certificate, key, ca }: NodeFiles): void {
  const files = filesIn(directory);
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    const fresh = [[files.key, key], [files.cert, certificate], [files.ca, ca]] as const;
    for (const [file, text] of fresh) {
      fs.rmSync(`${file}.new`, { force: true });
      fs.writeFileSync(`${file}.new`, text, { mode: 0o600, flag: 'wx', flush: true });
    }
    for (const [file] of fresh) fs.renameSync(`${file}.new`, file);
  } catch (cause) {
    throw new HastError('HAST_E_IO', `cannot write to ${directory}: ${errorText(cause)}`, {
      cause, hint: errnoName(cause) === 'EACCES' ? 'run as root' : '--directory DIRECTORY',
    });
  }
}

function done(
  context: Context, directory: string, own: readonly string[], peer: readonly string[],
): void {
  const files = filesIn(directory);
  if (context.json) {
    printJson({ schema: 1, node: own[0], peer: peer[0] ?? null, ...files });
    return;
  }
  const lines = [
    `This node (${own.join(', ')}) and ${peer.join(', ')} have certificates of one CA now.`,
    `Have this in ${context.config.file}, at the top level, on both nodes:`,
    '', '    insecure off', '    tls {',
    ...Object.entries(files).map(([keyword, file]) => `        ${keyword} ${file}`),
    '    }', '', 'then, on both: hastctl check && systemctl reload hastd', '',
  ];
  print(lines.join('\n'));
}

/** As the configuration calls it, and as the machine does. */
function ownNames({ config }: Context): string[] {
  const hostname = os.hostname();
  const { config: found } = loadConfig(config);
  const named = found === undefined ? [] : [
    found.node, ...found.resources.flatMap(({ authentication }) =>
      authentication.kind === 'none' ? [] : [authentication.own]),
  ];
  return [...new Set([...named, ...nodeNames({ node: config.node, hostname })])].slice(0, 8);
}

function minutesOption(text: string | undefined): number {
  if (text === undefined) return defaultMinutes;
  const minutes = /^[0-9]{1,4}$/.test(text) ? Number(text) : 0;
  if (minutes >= 1 && minutes <= minutesMax) return minutes;
  throw new HastError('HAST_E_USAGE', `--minutes '${text}' is not a number from 1 to ${minutesMax}`,
    { hint: '--minutes 30' });
}

function addressOption(text: string | undefined): { host: string; port: number } {
  if (text === undefined) return { host: ownAddress(), port: defaultPort };
  const address = parseAddress(text, 'source');
  if (isRefusal(address)) {
    throw new HastError('HAST_E_USAGE', `--address '${text}' is no address`, {
      hint: '--address HOST[:PORT], at which the other node reaches this one',
    });
  }
  return { host: address.host, port: address.port === 0 ? defaultPort : address.port };
}

/** The first that leads anywhere. */
function ownAddress(): string {
  const all = Object.values(os.networkInterfaces()).flatMap((list) => list ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'));
  const [first] = [...all].sort((a, b) => a.family.localeCompare(b.family));
  if (first !== undefined) return first.address;
  throw new HastError('HAST_E_USAGE', 'this machine has no address', {
    hint: '--address HOST[:PORT], at which the other node reaches this one',
  });
}
