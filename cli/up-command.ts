/** `hastctl up` and `hastctl down`: one resource after the other, whatever became of the last. */
import { bringUp, takeDown } from './bring-up.ts';
import type { Place } from './bring-up.ts';
import { ExitCode, exitCodeOf } from './exit-codes.ts';
import type { Context } from './output.ts';
import {
  chooseResources, configOf, print, printJson, reportError, resourceNames,
} from './output.ts';
import { secondsOption } from './wait-command.ts';
import { Steps, stepsJson } from './steps.ts';
import type { StepsResult } from './steps.ts';

export interface UpOptions {
  wait?: string;
}

export function upCommand(
  context: Context, names: string[], { wait }: UpOptions = {},
): Promise<number> {
  const waitSeconds = wait === undefined ? 0 : secondsOption('--wait', wait);
  return each(context, names, 'up', (place, steps) => bringUp({ ...place, waitSeconds }, steps));
}

/** In the reverse order: a mount point may lie on the volume of an earlier resource. */
export function downCommand(context: Context, names: string[]): Promise<number> {
  return each(context, names, 'down', takeDown);
}

/** The first failure decides the exit code. */
async function each(
  context: Context, names: string[], what: 'up' | 'down',
  work: (place: Place, steps: Steps) => Promise<void>,
): Promise<number> {
  const config = configOf(context);
  const chosen = chooseResources(config, resourceNames(names));
  const results: StepsResult[] = [];
  let code: number = ExitCode.ok;
  for (const resource of what === 'up' ? chosen : [...chosen].reverse()) {
    const steps = new Steps(context, resource.name);
    let failure: unknown = null;
    try {
      await work({ context, config, resource }, steps);
    } catch (error) {
      failure = error;
      reportError(context, error);
      if (code === ExitCode.ok) code = exitCodeOf(error);
    }
    results.push({ name: resource.name, steps: steps.done, error: failure });
  }
  if (context.json) printJson(results.map(stepsJson));
  else if (results.length > 1) print(summary(results, what));
  return code;
}

function summary(results: readonly StepsResult[], what: string): string {
  const failed = results.filter(({ error }) => error !== null).map(({ name }) => name);
  const count = `${results.length - failed.length} of ${results.length} ${what}`;
  return failed.length === 0 ? `${count}\n` : `${count}; failed: ${failed.join(', ')}\n`;
}
