/** Running one of util-linux's programs: bounded, asynchronous, its words as the error. */
import { execFile } from 'node:child_process';
import { errnoName, errorText, HastError } from '../base/errors.ts';

const COMMAND_TIMEOUT_MS = 15_000;
const OUTPUT_SIZE_MAX = 1024 * 1024;

/** What the program wrote to stdout, trimmed. */
export function run(command: string, args: string[], failure: string): Promise<string> {
  const options = {
    timeout: COMMAND_TIMEOUT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: OUTPUT_SIZE_MAX,
  } as const;
  return new Promise((resolve, reject) => {
    execFile(command, args, options, (cause, stdout, stderr) => {
      if (cause === null) return resolve(stdout.trim());
      let why = stderr.trim() || errorText(cause);
      if (errnoName(cause) === 'ENOENT') why = `${command} is not installed`;
      if (cause.killed === true) why = `${command} did not end within ${COMMAND_TIMEOUT_MS} ms`;
      reject(new HastError('HAST_E_DEVICE', `${failure}: ${why}`, { cause }));
    });
  });
}
