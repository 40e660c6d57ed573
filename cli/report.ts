/** Errors on the terminal: `PROGRAM: error: what (why); try: command`, or JSON. */
import type { LoadOptions } from '../lib/config/load.ts';
import { loadConfig } from '../lib/config/load.ts';
import type { Config } from '../lib/config/model.ts';
import { HastError, nextStep } from '../lib/base/errors.ts';
import { inspectCredentials } from '../lib/net/credentials.ts';

export function errorLine(program: string, error: unknown): string {
  const { message, hint } = errorFields(error);
  const oneLine = message.trim().replaceAll(/\s*\n\s*/g, '; ');
  return `${program}: error: ${oneLine}${hint === '' ? '' : `; try: ${hint}`}\n`;
}

/** `{"schema":1,"error":{"code","message","hint"}}` */
export function errorJson(error: unknown): string {
  return `${JSON.stringify({ schema: 1, error: errorFields(error) })}\n`;
}

function errorFields(error: unknown): { code: string; message: string; hint: string } {
  if (error instanceof HastError) {
    return { code: error.code, message: error.message, hint: nextStep(error) };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'HAST_E_INTERNAL', message, hint: 'this is a bug: run it again with -d' };
}

/** For who works with the files of `tls` and `secret`, or checks them. */
export const inspectAuthentication: LoadOptions['inspectAuthentication'] = (authentication) =>
  authentication.kind === 'none' ? { stamp: '', problems: [] } : inspectCredentials(authentication);

export interface ConfigChoice {
  file: string;
  node: string | undefined;
}

export const defaultFile = '/etc/hast.conf';

/** Options first, then HAST_CONF and HAST_NODE. */
export function chooseConfig(options: { config?: string; node?: string }): ConfigChoice {
  return {
    file: options.config ?? (process.env['HAST_CONF'] || defaultFile),
    node: options.node ?? (process.env['HAST_NODE'] || undefined),
  };
}

/** Throws HAST_E_CONFIG_MISSING or HAST_E_CONFIG; `explain` gets every problem before. */
export function readConfig(
  choice: LoadOptions, explain: (text: string) => void,
): Config {
  const { config, problems, format } = loadConfig(choice);
  if (config !== undefined) return config;
  const errors = problems.filter(({ severity }) => severity === 'error');
  const [first] = errors;
  const { file } = choice;
  if (first?.kind === 'missing-file') {
    const hint = first.hint === undefined ? {} : { hint: first.hint };
    throw new HastError('HAST_E_CONFIG_MISSING', `${file}: ${first.message}`, hint);
  }
  explain(format());
  const where = first === undefined ? '' : ` (the first in line ${first.line}: ${first.message})`;
  const count = errors.length === 1 ? 'an error' : `${errors.length} errors`;
  throw new HastError('HAST_E_CONFIG', `${file} has ${count}${where}`, {
    hint: `correct it, then: hastctl check -c ${file}`,
  });
}
