/** The commands that work without the daemon: create, dump, check. */
import { HastError, errorText } from '../lib/base/errors.ts';
import { loadConfig } from '../lib/config/load.ts';
import type { Problem } from '../lib/config/load.ts';
import type { ResourceConfig } from '../lib/config/model.ts';
import { parseBytes } from '../lib/config/values.ts';
import { createCopy } from '../lib/disk/create.ts';
import { describeCopy } from '../lib/disk/inspect.ts';
import { localProblem } from '../lib/disk/local.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import { dumpJson, formatDump } from './format-dump.ts';
import type { Context } from './output.ts';
import {
  chooseResources, configOf, print, printJson, reportError, resourceNames,
} from './output.ts';

export interface CreateOptions {
  extentsize?: string;
  keepdirty?: string;
  mediasize?: string;
  force?: true;
  assumeClean?: true;
}

/** Stops at the first failure; copies created before it stay. */
export async function createCommand(
  context: Context,
  names: string[],
  options: CreateOptions,
): Promise<number> {
  const extentSize = sizeOption('-e', options.extentsize);
  const keepDirty = countOption('-k', options.keepdirty);
  const mediaSize = sizeOption('-m', options.mediasize);
  const { force, assumeClean } = options;
  const results: object[] = [];
  for (const { name, local } of chooseResources(configOf(context), names)) {
    try {
      const result = await createCopy({
        resource: name, local, extentSize, keepDirty, mediaSize, force, assumeClean,
      });
      results.push({ schema: 1, name, local, ...result });
    } catch (error) {
      // A size that this disk cannot have is wrong data, not a wrong command line.
      const isSize = error instanceof HastError && error.code === 'HAST_E_USAGE';
      reportError(context, error);
      return isSize ? ExitCode.data : exitCodeOf(error);
    }
  }
  if (context.json) printJson(results);
  return ExitCode.ok;
}

function sizeOption(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const size = parseBytes(text);
  if (size !== undefined && size > 0) return size;
  throw new HastError('HAST_E_USAGE', `${option} '${text}' is not a size`, {
    hint: `${option} with a number and k, M, G or T`,
  });
}

function countOption(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  throw new HastError('HAST_E_USAGE', `${option} '${text}' is not a number`, {
    hint: `${option} 512`,
  });
}

/** Every copy that can be read is printed; the first failure decides the exit code. */
export async function dumpCommand(context: Context, names: string[]): Promise<number> {
  const dumped: object[] = [];
  let code: number = ExitCode.ok;
  for (const { name, local } of chooseResources(configOf(context), resourceNames(names))) {
    try {
      const description = describeCopy(local);
      dumped.push(dumpJson(name, description));
      if (!context.json) print(formatDump(name, description));
    } catch (error) {
      if (code === ExitCode.ok) code = exitCodeOf(error);
      reportError(context, named(error, name, local));
    }
  }
  if (context.json) printJson(dumped);
  return code;
}

/** The error with the resource it belongs to. */
function named(error: unknown, name: string, local: string): unknown {
  if (!(error instanceof HastError)) return error;
  const where = error.message.includes(local) ? name : `${name}: ${local}`;
  const hint = error.hint === undefined ? {} : { hint: error.hint };
  return new HastError(error.code, `${where}: ${error.message}`, { cause: error, ...hint });
}

/** 0 without errors; every problem goes to stdout, it is what was asked for. */
export async function checkCommand(context: Context): Promise<number> {
  const { config, problems, format } = loadConfig({
    ...context.config, inspectLocal: localProblem,
  });
  const notes = config === undefined ? [] : copyNotes(config.resources);
  const { file } = context.config;
  if (context.json) {
    printJson({ schema: 1, file, ok: config !== undefined, problems, notes });
  } else {
    print(format());
    for (const note of notes) print(`${file}: note: ${note}\n`);
    if (config !== undefined) print(`${file}: ok: ${summary(config.node, config.resources)}\n`);
  }
  if (config !== undefined) return ExitCode.ok;
  return isMissing(problems) ? ExitCode.noFile : ExitCode.config;
}

function isMissing(problems: readonly Problem[]): boolean {
  return problems.some(({ kind }) => kind === 'missing-file');
}

function summary(node: string, resources: readonly ResourceConfig[]): string {
  const count = resources.length === 1 ? '1 resource' : `${resources.length} resources`;
  return `node ${node}, ${count}`;
}

/** Copies that are in order as far as the configuration goes and cannot work yet. */
function copyNotes(resources: readonly ResourceConfig[]): string[] {
  return resources.flatMap(({ name, local }) => {
    try {
      const { superblock } = describeCopy(local);
      if (superblock.resource === name) return [];
      return [`resource ${name}: ${local} holds the copy of resource ${superblock.resource}`];
    } catch (error) {
      const fresh = error instanceof HastError && error.code === 'HAST_E_NO_METADATA';
      if (fresh) return [`resource ${name}: ${local} has no metadata; try: hastctl create ${name}`];
      return [`resource ${name}: ${local}: ${errorText(error)}`];
    }
  });
}
