/** What every command of hastctl gets, and the choice of resources by name. */
import { HastError } from '../lib/base/errors.ts';
import { nearest } from '../lib/config/keywords.ts';
import type { Config, ResourceConfig } from '../lib/config/model.ts';
import type { ConfigChoice } from './report.ts';
import { errorJson, errorLine, readConfig } from './report.ts';

export interface Context {
  config: ConfigChoice;
  json: boolean;
}

export function print(text: string): void {
  process.stdout.write(text);
}

export function printJson(value: unknown): void {
  print(`${JSON.stringify(value, null, 2)}\n`);
}

/** To stderr, as the command's --json asks. */
export function reportError(context: Context, error: unknown): void {
  process.stderr.write(context.json ? errorJson(error) : errorLine('hastctl', error));
}

/** With --json the error object alone goes to stderr. */
export function configOf(context: Context): Config {
  return readConfig(context.config, (text) => {
    if (!context.json) process.stderr.write(text);
  });
}

/** The names without `all`; an empty list means all of them. */
export function resourceNames(names: readonly string[]): string[] {
  return names.includes('all') ? [] : [...new Set(names)];
}

/** All of them for an empty list; throws HAST_E_UNKNOWN_RESOURCE with the nearest name. */
export function chooseResources(config: Config, names: readonly string[]): ResourceConfig[] {
  if (names.length === 0) return config.resources;
  const known = config.resources.map(({ name }) => name);
  return names.map((name) => {
    const found = config.resources.find((resource) => resource.name === name);
    if (found !== undefined) return found;
    const near = nearest(name, known);
    throw new HastError('HAST_E_UNKNOWN_RESOURCE', `no resource '${name}' in ${config.file}`, {
      hint: near === undefined ? `known are: ${known.join(', ') || 'none'}`
        : `did you mean '${near}'?`,
    });
  });
}
