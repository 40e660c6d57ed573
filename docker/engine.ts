/** The few calls of Docker's HTTP API that commanding two containers takes. */
import * as http from 'node:http';

export interface ExecResult {
  code: number;
  /** stdout and stderr, in the order in which they came. */
  output: string;
}

interface Answer {
  status: number;
  body: Buffer;
}

const boundMs = 120_000;
/** Before each piece of output: the stream, three zeros, the length in 32 bits. */
const pieceHeadSize = 8;

export class Engine {
  readonly #socketPath: string;

  /** `socketPath`: the socket of dockerd. */
  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Runs a program in a running container; rejects only where it cannot be run. */
  async exec(container: string, argv: readonly string[]): Promise<ExecResult> {
    const { Id } = await this.#json<{ Id: string }>('POST', `/containers/${container}/exec`, {
      Cmd: argv, AttachStdout: true, AttachStderr: true,
    });
    const { body } = await this.#call('POST', `/exec/${Id}/start`, { Detach: false, Tty: false });
    const { ExitCode } = await this.#json<{ ExitCode: number }>('GET', `/exec/${Id}/json`);
    return { code: ExitCode, output: withoutHeads(body) };
  }

  /** SIGKILL to every process of the container. */
  async kill(container: string): Promise<void> {
    await this.#call('POST', `/containers/${container}/kill`);
    await this.#call('POST', `/containers/${container}/wait`);
  }

  async start(container: string): Promise<void> {
    await this.#call('POST', `/containers/${container}/start`);
  }

  async #json<T>(method: string, path: string, content?: unknown): Promise<T> {
    const { body } = await this.#call(method, path, content);
    return JSON.parse(body.toString('utf8')) as T;
  }

  async #call(method: string, path: string, content?: unknown): Promise<Answer> {
    const answer = await this.#request(method, path, content);
    if (answer.status < 400) return answer;
    throw new Error(`docker: ${method} ${path}: ${answer.status} ${answer.body.toString('utf8')}`);
  }

  #request(method: string, path: string, content?: unknown): Promise<Answer> {
    const text = content === undefined ? '' : JSON.stringify(content);
    const headers = {
      'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text),
    };
    const options = { socketPath: this.#socketPath, method, path, headers };
    return new Promise((resolve, reject) => {
      const request = http.request(options, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('error', reject);
        response.once('end', () => {
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) });
        });
      });
      const late = new Error(`docker: ${method} ${path}: no answer within ${boundMs / 1000} s`);
      request.setTimeout(boundMs, () => request.destroy(late));
      request.once('error', reject);
      request.end(text);
    });
  }
}

/** What a container wrote, from the pieces that Docker makes of it. */
export function withoutHeads(body: Buffer): string {
  const pieces: Buffer[] = [];
  for (let at = 0; at + pieceHeadSize <= body.length;) {
    const begin = at + pieceHeadSize;
    at = begin + body.readUInt32BE(at + 4);
    pieces.push(body.subarray(begin, at));
  }
  return Buffer.concat(pieces).toString('utf8');
}
