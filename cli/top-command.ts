/** `hastctl top`: a full screen of what resources do; at any end the terminal is given back. */
import * as fs from 'node:fs';
import { HastError, errorText } from '../lib/base/errors.ts';
import { ask } from './daemon-commands.ts';
import { localTime } from './events-command.ts';
import { ExitCode } from './exit-codes.ts';
import type { Context } from './output.ts';
import { configOf, print, resourceNames } from './output.ts';
import { control, fullScreen, paintOut, sizeOf, untilTold } from './terminal.ts';
import { History, topLines } from './top-view.ts';
import type { Sample } from './top-view.ts';

const everyMs = 1000;
const askMs = 15_000;

export async function topCommand(context: Context, names: string[]): Promise<number> {
  const { stdin, stdout } = process;
  if (!stdin.isTTY || !stdout.isTTY || context.json) {
    throw new HastError('HAST_E_USAGE', 'top needs a terminal', {
      hint: 'hastctl status --watch, or hastctl events, into a file or a pipe',
    });
  }
  const config = configOf(context);
  const command = { command: 'statistics', resources: resourceNames(names) } as const;
  const look = async (): Promise<Sample[]> => {
    const { resources } = await ask(context, config, command, askMs);
    const at = performance.now();
    return resources.map(({ status, statistics }) => ({ at, status, statistics }));
  };
  const screen = new TopScreen(await look());
  await screen.run(look);
  return ExitCode.ok;
}

class TopScreen {
  readonly #history = new History();
  readonly #paint = paintOut();
  #chosen: string;
  #gone: string | null = null;

  constructor(first: Sample[]) {
    this.#history.add(first);
    this.#chosen = this.#history.names[0] ?? '';
  }

  async run(look: () => Promise<Sample[]>): Promise<void> {
    const told = untilTold();
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    told.signal.addEventListener('abort', end);
    const restore = takeTerminal();
    const draw = (): void => this.#draw();
    const onKeys = (keys: Buffer): void => {
      if (this.#press(keys.toString('latin1'))) end();
      else draw();
    };
    process.stdin.on('data', onKeys).on('end', end);
    process.stdout.on('resize', draw);
    let isAsking = false;
    const timer = setInterval(() => {
      if (isAsking) return;
      isAsking = true;
      void this.#ask(look).finally(() => {
        isAsking = false;
        draw();
      });
    }, everyMs);
    try {
      draw();
      await ended;
    } finally {
      clearInterval(timer);
      process.stdin.off('data', onKeys).off('end', end).pause();
      process.stdout.off('resize', draw);
      told.stop();
      restore();
    }
  }

  async #ask(look: () => Promise<Sample[]>): Promise<void> {
    try {
      this.#history.add(await look());
      this.#gone = null;
    } catch (error) {
      this.#gone = errorText(error);
    }
    const { names } = this.#history;
    if (!names.includes(this.#chosen)) this.#chosen = names[0] ?? '';
  }

  /** True where the keys end it. */
  #press(keys: string): boolean {
    const { names } = this.#history;
    const move = (by: number): void => {
      const at = Math.max(0, Math.min(names.length - 1, names.indexOf(this.#chosen) + by));
      this.#chosen = names[at] ?? '';
    };
    if (/^[qQ\u0003\u0004]/.test(keys)) return true;
    if (keys === '\u001b[A' || keys === '\u001bOA' || keys === 'k') move(-1);
    if (keys === '\u001b[B' || keys === '\u001bOB' || keys === 'j') move(1);
    return false;
  }

  #draw(): void {
    const size = sizeOf(process.stdout);
    const lines = topLines({
      history: this.#history, chosen: this.#chosen, ...size, gone: this.#gone,
      clock: localTime(Date.now() / 1000), paint: this.#paint,
    });
    print(fullScreen(lines, size));
  }
}

/** Raw keys and the alternate screen, until what is returned is called or the process ends. */
function takeTerminal(): () => void {
  const { stdin } = process;
  let isTaken = true;
  const restore = (): void => {
    if (!isTaken) return;
    isTaken = false;
    process.off('exit', restore);
    try {
      stdin.setRawMode(false);
      // In this very moment: nothing may run after it.
      fs.writeSync(1, `${control.wrap}${control.showCursor}${control.normal}`);
    } catch {
      // The terminal is gone.
    }
  };
  process.on('exit', restore);
  stdin.setRawMode(true);
  stdin.resume();
  print(`${control.alternate}${control.hideCursor}${control.noWrap}${control.home}`);
  return restore;
}
