/** Commander's message as one of ours: `error: unknown command 'rol'\n(Did you mean role?)`. */
import type { CommanderError } from 'commander';
import { HastError } from '../lib/base/errors.ts';

export function usageError(program: string, error: CommanderError): HastError {
  const [first = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const near = /^\(Did you mean (.*)\?\)$/.exec(rest.join(' ').trim())?.[1];
  const hint = near === undefined ? `${program} -h` : `did you mean '${near}'?`;
  return new HastError('HAST_E_USAGE', first, { hint });
}
