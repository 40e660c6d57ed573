/**
 * SIGHUP reloads, SIGTERM and SIGINT stop: what becomes of devices in use says `on-stop`, also the
 * second time.
 */
import { errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

export interface SignalTarget {
  reload(): Promise<unknown>;
  /** False: it goes on. */
  stop(): Promise<boolean>;
}

/** Resolves when a stop has succeeded. */
export function untilStopped(target: SignalTarget, log: Logger): Promise<void> {
  return new Promise((resolve) => {
    const unexpected = (error: unknown): void => {
      log.error({ error: errorText(error) }, 'a signal was not handled');
    };
    const onReload = (): void => {
      log.info({}, 'SIGHUP: reload');
      target.reload().catch(unexpected);
    };
    const onStop = (signal: string): void => {
      log.info({ signal }, 'stop');
      target.stop().then((stopped) => {
        if (!stopped) return;
        process.off('SIGHUP', onReload).off('SIGTERM', onStop).off('SIGINT', onStop);
        resolve();
      }, unexpected);
    };
    process.on('SIGHUP', onReload).on('SIGTERM', onStop).on('SIGINT', onStop);
  });
}
