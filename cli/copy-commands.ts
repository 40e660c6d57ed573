/** The commands that work without the daemon: create and dump. */
import { HastError } from '../lib/base/errors.ts';
import { parseBytes } from '../lib/config/values.ts';
import { createCopy } from '../lib/disk/create.ts';
import { describeCopy } from '../lib/disk/inspect.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import { dumpJson, formatDump } from './format-dump.ts';
import type { Context } from './output.ts';
import {
  chooseResources, configOf, print, printJson, reportError, resourceNames,
} from './output.ts';
import { withProgress } from './progress.ts';
import { inColumns, isForPeople, paintOut } from './terminal.ts';

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
      const result = await withProgress(context, `${name}: create`, () => createCopy({
        resource: name, local, extentSize, keepDirty, mediaSize, force, assumeClean,
      }));
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
      if (context.json) continue;
      const text = formatDump(name, description);
      print(isForPeople(process.stdout) ? inColumns(text, paintOut()) : text);
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
