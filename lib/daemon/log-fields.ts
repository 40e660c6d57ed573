/** A logger whose lines carry fields that may change, such as the role. */
import type { Logger } from '../base/log.ts';

export function withFields(log: Logger, own: () => object): Logger {
  return {
    trace: (fields, message) => log.trace({ ...own(), ...fields }, message),
    debug: (fields, message) => log.debug({ ...own(), ...fields }, message),
    info: (fields, message) => log.info({ ...own(), ...fields }, message),
    warn: (fields, message) => log.warn({ ...own(), ...fields }, message),
    error: (fields, message) => log.error({ ...own(), ...fields }, message),
  };
}
