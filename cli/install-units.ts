/**
 * `hastctl install-units`: the files of cli/system go where systemd, udev and cluster managers look
 * for them, with the paths of this installation in them. Each carries a checksum of itself, so
 * that what somebody changed is known and kept.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { errnoName, HastError } from '../lib/base/errors.ts';
import { defaults } from '../lib/config/limits.ts';
import { loadConfig } from '../lib/config/load.ts';
import { ExitCode } from './exit-codes.ts';
import type { Context } from './output.ts';
import { print, printJson } from './output.ts';
import { defaultFile } from './report.ts';

export interface InstallOptions {
  dir?: string;
  print?: true;
  force?: true;
}

interface SystemFile {
  /** Below cli/system. */
  source: string;
  /** Absolute. */
  target: string;
  mode: number;
  /** Installed only where this directory exists; always without one. */
  where?: string;
}

const units = '/etc/systemd/system';

/** What goes where. A new file of cli/system needs a line here, and is part of the package. */
const files: readonly SystemFile[] = [
  ...['hastd.service', 'hast-standby.service', 'hast@.service', 'hast.target'].map((source) =>
    ({ source, target: `${units}/${source}`, mode: 0o644 })),
  { source: '60-hast.rules', target: '/etc/udev/rules.d/60-hast.rules', mode: 0o644 },
  {
    source: 'ocf/hast', target: '/usr/lib/ocf/resource.d/hast/hast', mode: 0o755,
    where: '/usr/lib/ocf',
  },
  ...['keepalived-notify', 'keepalived-check', 'keepalived.conf'].map((source) => ({
    source, target: `/usr/lib/hast/${source}`, mode: source.endsWith('.conf') ? 0o644 : 0o755,
    where: '/etc/keepalived',
  })),
  {
    source: 'hastctl.bash', target: '/usr/share/bash-completion/completions/hastctl', mode: 0o644,
    where: '/usr/share/bash-completion',
  },
];

type Outcome = 'written' | 'unchanged' | 'replaced' | 'changed by hand';

// From dist/cli and from cli alike, the sources are in cli/system of the package.
const here = fileURLToPath(new URL('.', import.meta.url));
const folder = [path.join(here, 'system'), path.join(here, '../../cli/system')]
  .find((one) => fs.existsSync(one)) ?? '';

/** Writes nothing where one of the files was changed by hand, unless `force`. */
export async function installUnits(context: Context, options: InstallOptions): Promise<number> {
  const root = options.dir === undefined ? '/' : path.resolve(options.dir);
  const chosen = files.filter(({ where }) =>
    where === undefined || fs.existsSync(path.join(root, where)));
  const words = placeholders(context);
  const planned = chosen.map(({ source, target, mode }) => {
    const text = sealed(filled(fs.readFileSync(path.join(folder, source), 'utf8'), words));
    const file = path.join(root, target);
    return { file, text, mode, outcome: outcomeOf(file, text) };
  });
  if (options.print === true) {
    for (const { file, text } of planned) print(`# ${file}\n${text}\n`);
    return ExitCode.ok;
  }
  const byHand = planned.filter(({ outcome }) => outcome === 'changed by hand');
  if (byHand.length > 0 && options.force !== true) {
    throw new HastError(
      'HAST_E_REFUSED',
      `changed by hand: ${byHand.map(({ file }) => file).join(', ')}; nothing was written`,
      { hint: 'keep your changes in a drop-in (systemctl edit), then: install-units --force' },
    );
  }
  for (const { file, text, mode, outcome } of planned) {
    if (outcome !== 'unchanged') write(file, text, mode);
  }
  if (context.json) {
    printJson(planned.map(({ file, outcome }) => ({ schema: 1, file, outcome })));
    return ExitCode.ok;
  }
  for (const { file, outcome } of planned) print(`${file}: ${outcome}\n`);
  if (root === '/') print(nextSteps(planned.some(({ outcome }) => outcome !== 'unchanged')));
  return ExitCode.ok;
}

function nextSteps(isNew: boolean): string {
  const reload = isNew ? 'systemctl daemon-reload && udevadm control --reload && ' : '';
  return 'next, on both nodes:\n' +
    `    ${reload}systemctl enable --now hast.target\n` +
    'and on the node that is to be primary after a start of both:\n' +
    '    systemctl enable --now hast@NAME\n';
}

/** What stands for the words between @ in the files. */
function placeholders({ config }: Context): ReadonlyMap<string, string> {
  const choice: string[] = [];
  if (config.file !== defaultFile) choice.push('-c', path.resolve(config.file));
  if (config.node !== undefined) choice.push('--node', config.node);
  const program = (name: string): string =>
    [process.execPath, path.join(here, `${name}.js`), ...choice].map(unitWord).join(' ');
  const { rundir, devdir } = loadConfig(config).config ?? defaults;
  return new Map([
    ['@HASTD@', program('hastd')], ['@HASTCTL@', program('hastctl')],
    ['@RUNDIR@', rundir], ['@DEVDIR@', devdir],
  ]);
}

/** A word of ExecStart=, systemd.service(5), "Command lines". */
export function unitWord(word: string): string {
  const plain = word.replaceAll('%', '%%').replaceAll('$', '$$$$');
  if (/^[A-Za-z0-9_./:@+=,%$-]+$/.test(plain)) return plain;
  return `"${plain.replaceAll(/["\\]/g, (one) => `\\${one}`)}"`;
}

function filled(text: string, words: ReadonlyMap<string, string>): string {
  return text.replaceAll(/@[A-Z]+@/g, (word) => words.get(word) ?? word);
}

const seal = '# hastctl install-units: ';

/** With a last line that tells whether the rest is as it was written. */
function sealed(text: string): string {
  return `${text}${seal}${createHash('sha256').update(text).digest('hex').slice(0, 32)}\n`;
}

function outcomeOf(file: string, text: string): Outcome {
  let present: string;
  try {
    present = fs.readFileSync(file, 'utf8');
  } catch (cause) {
    if (errnoName(cause) === 'ENOENT') return 'written';
    throw new HastError('HAST_E_IO', `${file} cannot be read`, {
      cause, hint: 'run hastctl as root',
    });
  }
  if (present === text) return 'unchanged';
  const at = present.lastIndexOf(seal);
  return at >= 0 && sealed(present.slice(0, at)) === present ? 'replaced' : 'changed by hand';
}

/** Never half written. */
function write(file: string, text: string, mode: number): void {
  try {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    const fresh = `${file}.new`;
    fs.writeFileSync(fresh, text);
    fs.chmodSync(fresh, mode);
    fs.renameSync(fresh, file);
  } catch (cause) {
    throw new HastError('HAST_E_IO', `${file} cannot be written`, {
      cause, hint: 'run hastctl as root, or name another place with --dir',
    });
  }
}
