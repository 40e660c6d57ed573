/**
 * Who is killed when memory is short: not the parent and not the workers, whose end costs a pause
 * of the device; but what they start for others is judged as anybody.
 */
import * as fs from 'node:fs';

const scoreMin = -1000;
let before: string | null = null;

const fileOf = (pid: number | 'self'): string => `/proc/${pid}/oom_score_adj`;

/**
 * Exempts this process, and what it starts from now on, workers among it. Needs CAP_SYS_RESOURCE;
 * the text of the error where it is refused, and null where it is done.
 */
export function exemptFromOom(): string | null {
  try {
    const former = fs.readFileSync(fileOf('self'), 'utf8').trim();
    fs.writeFileSync(fileOf('self'), String(scoreMin));
    before = former;
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Gives a child that is no worker what this process was started with. Never fails. */
export function judgeAsOthers(pid: number | undefined): void {
  if (before === null || pid === undefined) return;
  try {
    fs.writeFileSync(fileOf(pid), before);
  } catch {
    // It has ended already.
  }
}
