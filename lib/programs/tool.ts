/**
 * Running one of the system's programs: never through a shell, in bounded time,
 * and without waiting for one that is stuck in the kernel.
 */
import { spawn } from 'node:child_process';
import { errnoName, HastError } from '../base/errors.ts';

export interface ToolResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** A killed program may need this long to leave the kernel; longer is stuck. */
const killedMs = 1000;
const outputMax = 1024 * 1024;
const sbin = '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin';

/**
 * Any exit code is an answer. Throws HAST_E_DEVICE where the program cannot run or was killed, and
 * HAST_E_TIMEOUT where it does not end within `timeoutMs`: it was killed then, if that is possible.
 */
export function runTool(
  program: string, args: readonly string[], timeoutMs: number,
  started: (pid: number | undefined) => void = () => undefined,
): Promise<ToolResult> {
  const PATH = `${process.env['PATH'] ?? ''}:${sbin}`;
  const { NODE_OPTIONS: _, ...inherited } = process.env;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: { ...inherited, PATH, LC_ALL: 'C' }, stdio: ['ignore', 'pipe', 'pipe'],
    });
    started(child.pid);
    const stdout = collect(child.stdout);
    const stderr = collect(child.stderr);
    let leave: NodeJS.Timeout | undefined;
    const late = new HastError(
      'HAST_E_TIMEOUT', `${program} did not end within ${Math.round(timeoutMs / 1000)} s`,
      { hint: 'see the kernel log (dmesg): a disk may hang' },
    );
    const bound = setTimeout(() => {
      child.kill('SIGKILL');
      leave = setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
        child.unref();
        reject(late);
      }, killedMs);
    }, timeoutMs);
    const settle = (): void => {
      clearTimeout(bound);
      clearTimeout(leave);
    };
    child.once('error', (cause) => {
      settle();
      const isAbsent = errnoName(cause) === 'ENOENT';
      const why = isAbsent ? 'is not installed' : `cannot be run: ${cause.message}`;
      const hint = `install ${program}: apt install util-linux e2fsprogs mount fuse3, as needed`;
      reject(new HastError('HAST_E_DEVICE', `${program} ${why}`, { cause, hint }));
    });
    child.once('close', (code, signal) => {
      settle();
      if (leave !== undefined) reject(late);
      else if (code !== null) resolve({ code, stdout: stdout(), stderr: stderr() });
      else {
        reject(new HastError('HAST_E_DEVICE', `${program} was ended by ${String(signal)}`, {
          hint: 'the same command again; journalctl -k says if memory ran out',
        }));
      }
    });
  });
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= outputMax) chunks.push(chunk);
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

/** The last lines that a failed program wrote, as one. */
export function lastWords({ code, stdout, stderr }: ToolResult): string {
  const text = stderr.trim() || stdout.trim();
  const lines = text.split('\n').map((line) => line.trim()).filter((line) => line !== '');
  return lines.slice(-4).join('; ') || `exit code ${code}`;
}
