/**
 * Running programs for the lab. Every call is bounded, and none waits for a program that is stuck
 * in the kernel: after its bound it is killed, and after a moment more it is left behind.
 */
import { spawn } from 'node:child_process';

export interface RunResult {
  /** Exit code; 128 and more where a signal ended it. */
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  boundMs?: number;
  env?: NodeJS.ProcessEnv;
  /** Kills the program and rejects. */
  signal?: AbortSignal;
}

const boundDefaultMs = 30_000;
/** A killed program may need this long to leave the kernel; longer is stuck. */
const killedMs = 1000;
const outputMax = 16 * 1024 * 1024;

/** With the folders of the system's programs, which `su` without `-` does not give. */
export function pathWithSbin(): string {
  return `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`;
}

/** Never rejects for an exit code; rejects where the program cannot run, is late or aborted. */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { boundMs = boundDefaultMs, signal } = options;
  const [program = '', ...args] = argv;
  const env = { ...(options.env ?? process.env), PATH: pathWithSbin() };
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(new Error('interrupted'));
      return;
    }
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let failure: Error | undefined;
    let leaveTimer: NodeJS.Timeout | undefined;
    const settle = (): void => {
      clearTimeout(boundTimer);
      clearTimeout(leaveTimer);
      signal?.removeEventListener('abort', interrupted);
    };
    const giveUp = (why: Error): void => {
      failure ??= why;
      child.kill('SIGKILL');
      leaveTimer ??= setTimeout(() => {
        settle();
        child.stdout.destroy();
        child.stderr.destroy();
        child.unref();
        reject(why);
      }, killedMs);
    };
    const interrupted = (): void => giveUp(new Error('interrupted'));
    const boundTimer = setTimeout(() => {
      giveUp(new Error(`'${argv.join(' ')}' did not end within ${boundMs / 1000} s`));
    }, boundMs);
    signal?.addEventListener('abort', interrupted);
    const stdout = collect(child.stdout);
    const stderr = collect(child.stderr);
    child.once('error', (error) => {
      settle();
      reject(new Error(`cannot run ${program}: ${error.message}`));
    });
    child.once('close', (code, killedBy) => {
      settle();
      if (failure !== undefined) {
        reject(failure);
        return;
      }
      const status = code ?? (killedBy === null ? 255 : 128);
      resolve({ code: status, stdout: stdout(), stderr: stderr() });
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

/** As `run`; an exit code other than 0 rejects. Gives stdout. */
export async function succeed(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await run(argv, options);
  if (code === 0) return stdout;
  const why = (stderr.trim() || stdout.trim()).split('\n').slice(-5).join('; ');
  throw new Error(`'${argv.join(' ')}' failed with exit code ${code}: ${why}`);
}

/** Whether the program is installed. */
export async function isInstalled(program: string): Promise<boolean> {
  const { code } = await run(['sh', '-c', 'command -v "$1"', 'sh', program]);
  return code === 0;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** Asks until the answer is not undefined; rejects after the bound with what `state` says. */
export async function until<T>(
  what: string,
  boundMs: number,
  ask: () => Promise<T | undefined> | T | undefined,
  state: () => string = () => '',
): Promise<T> {
  const end = performance.now() + boundMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > end) {
      const now = state();
      throw new Error(`${what}: not within ${boundMs / 1000} s${now === '' ? '' : `; ${now}`}`);
    }
    await sleep(50);
  }
}
