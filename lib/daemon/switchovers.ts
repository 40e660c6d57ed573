/**
 * The parent's part of a switchover: asks the peer's hastd, and does what that one asks, by running
 * hastctl of this installation: `up` to take over, `switchover --peer-asked` to hand over. Both
 * only ever promote and demote as an operator without --force would.
 *
 * - A question is repeated until it is answered: sessions end while roles change. Who is asked
 *   knows it by its id, does it once, and gives the same answer again.
 * - Who takes over and fails leaves the primary role again before it answers: the other one can be
 *   primary again then.
 */
import { randomInt } from 'node:crypto';
import { HastError, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { runTool } from '../programs/tool.ts';
import type { SwitchoverAsk, SwitchoverSaid } from '../format/switchover.ts';
import { judgeAsOthers } from './oom-score.ts';

export interface SwitchoverAnswer {
  /** Exit code of hastctl on the peer. */
  code: number;
  /** What it printed. */
  text: string;
}

export interface SwitchoversOptions {
  log: Logger;
  /** Command line of hastctl with the configuration of this hastd; empty: nothing can be run. */
  hastctl: readonly string[];
  /** Says it to the peer. Throws HAST_E_REFUSED, _ROLE or _BUSY where it certainly was not sent. */
  tell(resource: string, say: SwitchoverSaid): Promise<unknown>;
  /** After a demotion the peer must be there again within this. */
  reachMs?: number;
}

const reachDefaultMs = 30_000;
/** Pause before what could not be sent is tried again, and before what was sent is repeated. */
const unsentMs = 50;
const repeatMs = 2000;
/** Of hastctl here: to take over, to leave again, to hand over. */
const takeOverMs = 600_000;
const leaveMs = 700_000;
const handOverMs = 1500_000;
/** The answer comes within this. */
export const answerMs = 1600_000;
const busyCode = 75;
const notSent: readonly string[] = ['HAST_E_REFUSED', 'HAST_E_ROLE', 'HAST_E_BUSY'];

interface Task {
  id: number;
  /** Null while it is being done. */
  answer: SwitchoverAnswer | null;
}

export class Switchovers {
  readonly #options: SwitchoversOptions;
  readonly #asked = new Map<number, (answer: SwitchoverAnswer) => void>();
  /** What the peer asked for last, by resource. */
  readonly #tasks = new Map<string, Task>();

  constructor(options: SwitchoversOptions) {
    this.#options = options;
  }

  /**
   * The peer's answer. Throws HAST_E_REFUSED where it was not reached and does not know of it, and
   * HAST_E_TIMEOUT where it was asked, and what it did cannot be known.
   */
  async ask(resource: string, what: SwitchoverAsk): Promise<SwitchoverAnswer> {
    const id = randomInt(1, 2 ** 47);
    const say = { kind: 'ask', id, what } as const;
    let onAnswer: (answer: SwitchoverAnswer | null) => void = () => undefined;
    const answer = new Promise<SwitchoverAnswer | null>((resolve) => { onAnswer = resolve; });
    this.#asked.set(id, onAnswer);
    const startedAt = performance.now();
    let reachedAt = startedAt;
    let isSent = false;
    try {
      for (;;) {
        const failure = await this.#tell(resource, say);
        const now = performance.now();
        if (failure === null) reachedAt = now;
        isSent ||= failure === null || !notSent.includes(failure.code);
        const got = await Promise.race([answer, pause(failure === null ? repeatMs : unsentMs)]);
        if (got !== null) return got;
        const isLost = now - reachedAt > (this.#options.reachMs ?? reachDefaultMs);
        if (!isLost && now - startedAt < answerMs) continue;
        const why = failure === null ? 'it does not answer' : failure.message;
        if (!isSent) throw new HastError('HAST_E_REFUSED', `the peer was not reached: ${why}`, {
            hint: 'hastctl check --peer',
          });
        throw new HastError('HAST_E_TIMEOUT', `the peer was asked, and then: ${why}`, {
          hint: `hastctl status on both nodes, then hastctl up ${resource} on one`,
        });
      }
    } finally {
      this.#asked.delete(id);
    }
  }

  /** What the peer said. */
  receive(resource: string, said: SwitchoverSaid): void {
    if (said.kind === 'answer') {
      this.#asked.get(said.id)?.({ code: said.code, text: said.text });
      return;
    }
    if (said.kind !== 'ask') return;
    const last = this.#tasks.get(resource);
    if (last !== undefined && (last.id === said.id || last.answer === null)) {
      const busy = { code: busyCode, text: 'another switchover is under way there\n' };
      const answer = last.id === said.id ? last.answer : busy;
      if (answer !== null) this.#answer(resource, said.id, answer);
      return;
    }
    const task: Task = { id: said.id, answer: null };
    this.#tasks.set(resource, task);
    void this.#carryOut(resource, said.what).then((answer) => {
      task.answer = answer;
      this.#answer(resource, said.id, answer);
    });
  }

  /** What cannot be said now is asked for again. */
  #answer(resource: string, id: number, answer: SwitchoverAnswer): void {
    void this.#tell(resource, { kind: 'answer', id, ...answer });
  }

  async #tell(resource: string, say: SwitchoverSaid): Promise<HastError | null> {
    try {
      await this.#options.tell(resource, say);
      return null;
    } catch (error) {
      return error instanceof HastError ? error
        : new HastError('HAST_E_INTERNAL', errorText(error), { cause: error });
    }
  }

  async #carryOut(resource: string, what: SwitchoverAsk): Promise<SwitchoverAnswer> {
    this.#options.log.info({ resource, what }, 'the peer asks for a switchover');
    if (what === 'hand-over') {
      return await this.#hastctl(['switchover', '--peer-asked', resource], handOverMs);
    }
    const up = await this.#hastctl(['up', resource], takeOverMs);
    if (up.code === 0) return up;
    const down = await this.#hastctl(['down', resource], leaveMs);
    return { code: up.code, text: `${up.text}${down.text}` };
  }

  async #hastctl(args: readonly string[], timeoutMs: number): Promise<SwitchoverAnswer> {
    const { hastctl, log } = this.#options;
    const [program, ...first] = hastctl;
    if (program === undefined) return { code: busyCode, text: 'hastd cannot run hastctl\n' };
    try {
      const { code, stdout, stderr } = await runTool(
        program, [...first, ...args], timeoutMs, judgeAsOthers,
      );
      const text = `${stdout}${stderr}`;
      log[code === 0 ? 'info' : 'warn']({ args, code, text }, 'hastctl ended');
      return { code, text };
    } catch (error) {
      log.error({ args, error: errorText(error) }, 'hastctl did not end in order');
      return { code: busyCode, text: `${errorText(error)}\n` };
    }
  }
}

function pause(ms: number): Promise<null> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(null), ms);
  });
}
