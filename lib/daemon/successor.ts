/**
 * hastd replaced by the release that is installed now, in the same process: execve(2) keeps the
 * pid, so that a service manager, a pidfile and a terminal see no change. The workers lose their
 * parent and are taken over by the next one, see lib/daemon/adoption.ts.
 */
import * as childProcess from 'node:child_process';
import { HastError } from '../base/errors.ts';
import { replaceProgram } from '../base/libc.ts';
import type { Logger } from '../base/log.ts';

const checkMs = 30_000;
const outputMax = 4096;

/** What starts this program again, as it was started. */
function commandLine(): string[] {
  return [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
}

/** Throws HAST_E_REFUSED where what is installed does not start, or not with the configuration. */
export async function checkSuccessor(): Promise<void> {
  const [command = '', ...args] = commandLine();
  const child = childProcess.spawn(command, [...args, '--test'], {
    stdio: ['ignore', 'ignore', 'pipe'], timeout: checkMs, killSignal: 'SIGKILL',
  });
  let said = '';
  child.stderr.on('data', (text: Buffer) => {
    if (said.length < outputMax) said += text.toString();
  });
  const how = await new Promise<string | null>((resolve) => {
    child.once('error', ({ message }) => resolve(message));
    child.once('close', (code, signal) =>
      resolve(code === 0 ? null : said.trim() || (signal ?? `exit code ${code ?? 'none'}`)));
  });
  if (how === null) return;
  throw new HastError('HAST_E_REFUSED', `the installed hastd does not start: ${how}`, {
    hint: 'nothing was changed; correct it, then upgrade again',
  });
}

/** Does not return where it succeeds. */
export function becomeSuccessor(log: Logger): void {
  const environment = Object.entries(process.env).map(([name, value]) => `${name}=${value ?? ''}`);
  const errno = replaceProgram(process.execPath, commandLine(), environment);
  log.error({ errno, program: process.execPath }, 'hastd cannot be replaced, and goes on');
}
