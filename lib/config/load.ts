/** Reads a configuration file: the entry point of lib/config. */
import * as fs from 'node:fs';
import * as os from 'node:os';
import { errnoName, errorText } from '../base/errors.ts';
import type { AuthenticationCheck } from './authentication.ts';
import { checkConfig } from './checks.ts';
import { parseJson } from './json.ts';
import { limits } from './limits.ts';
import type { Config } from './model.ts';
import { nodeNames } from './node-names.ts';
import { parseConf } from './parser.ts';
import { formatProblem, missingFile, Problems, SourceText } from './problems.ts';
import type { Problem } from './problems.ts';
import { resolve } from './resolve.ts';
import type { Interfaces } from './resolve.ts';
import { checkSchema } from './schema.ts';

export type { Problem } from './problems.ts';

export interface LoadOptions {
  /** A name ending in `.json` is read as JSON, any other as hast.conf. */
  file: string;
  /** From --node or HAST_NODE: takes the place of host name and machine id. */
  node?: string | undefined;
  /** Default: the kernel's. */
  hostname?: string | undefined;
  /** Default: the content of /etc/machine-id, if there is one. */
  machineId?: string | undefined;
  /** Default: reads from the disk. May throw: then the file counts as missing. */
  readFile?: ((file: string) => string | Uint8Array) | undefined;
  /** Default: `os.networkInterfaces`. */
  interfaces?: (() => Interfaces) | undefined;
  /** What is wrong with a `local` path, or null. Without it the path is not looked at. */
  inspectLocal?: ((path: string) => string | null) | undefined;
  /** Looks at the files of `tls` and `secret`; without it a resource may have neither unnoticed. */
  inspectAuthentication?: AuthenticationCheck['inspect'];
}

export interface LoadResult {
  /** Undefined if and only if a problem is an error. */
  config: Config | undefined;
  /** In the order of the file. A single one of kind `missing-file` if it cannot be read. */
  problems: Problem[];
  /** All problems for a person, each with its line and a pointer; empty without problems. */
  format(): string;
}

/**
 * Loads and checks the whole file and resolves it for this node. Nothing the file says makes
 * it throw.
 */
export function loadConfig(options: LoadOptions): LoadResult {
  const { file } = options;
  let text: string;
  try {
    const content = (options.readFile ?? readBounded)(file);
    text = typeof content === 'string' ? content : Buffer.from(content).toString('utf8');
  } catch (error) {
    const missing = errnoName(error) === 'ENOENT' ? 'no such file' : errorText(error);
    return failed([missingFile(file, missing)], undefined);
  }
  const source = new SourceText(text);
  const problems = new Problems(file);
  if (Buffer.byteLength(text) > limits.fileBytesMax) {
    const hint = `at most ${limits.fileBytesMax} bytes`;
    problems.error(source.span(0, 0), 'the file is too large', hint);
    return failed(problems.sorted(), source);
  }
  const config = loadText(source, problems, options);
  const sorted = problems.sorted();
  if (config === undefined || problems.hasErrors) return failed(sorted, source);
  return { config, problems: sorted, format: () => formatAll(sorted, source) };
}

function loadText(
  source: SourceText,
  problems: Problems,
  options: LoadOptions,
): Config | undefined {
  const parse = options.file.endsWith('.json') ? parseJson : parseConf;
  const tree = parse(source, problems);
  if (tree === undefined) return undefined;
  checkSchema(tree, problems);
  const hostname = options.hostname ?? os.hostname();
  const machineId = options.machineId ?? ownMachineId();
  const names = nodeNames({ node: options.node, hostname, machineId });
  const interfaces = (options.interfaces ?? os.networkInterfaces)();
  const resolved = resolve(tree, { file: options.file, names, interfaces, problems });
  checkConfig(tree, resolved, {
    problems,
    interfaces,
    hostNames: [...nodeNames({ hostname }), ...nodeNames({ node: options.node, hostname })],
    inspectLocal: options.inspectLocal,
    inspectAuthentication: options.inspectAuthentication,
  });
  return resolved.config;
}

/** One byte more than is allowed, at most: what is longer is refused. */
function readBounded(file: string): Buffer {
  const fd = fs.openSync(file, 'r');
  try {
    const raw = Buffer.allocUnsafe(limits.fileBytesMax + 1);
    let size = 0;
    for (;;) {
      const got = fs.readSync(fd, raw, size, raw.length - size, null);
      size += got;
      if (got === 0 || size === raw.length) return raw.subarray(0, size);
    }
  } finally {
    fs.closeSync(fd);
  }
}

function failed(problems: Problem[], source: SourceText | undefined): LoadResult {
  return { config: undefined, problems, format: () => formatAll(problems, source) };
}

function formatAll(problems: readonly Problem[], source: SourceText | undefined): string {
  return problems.map((problem) => `${formatProblem(problem, source)}\n`).join('');
}

function ownMachineId(): string | undefined {
  try {
    return fs.readFileSync('/etc/machine-id', 'utf8').trim();
  } catch {
    // Optional: containers often have none, and host names still match.
    return undefined;
  }
}
