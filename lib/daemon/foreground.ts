/** hastd in the foreground, from its configuration to its end. */
import { fileURLToPath } from 'node:url';
import { errorText } from '../base/errors.ts';
import { allowTaking, setIoFlusher } from '../base/libc.ts';
import type { LoadResult } from '../config/load.ts';
import type { Config } from '../config/model.ts';
import { ownProtocol } from '../format/protocol.ts';
import { requestTimeoutProblem } from '../fuse/mount.ts';
import { Daemon } from './daemon.ts';
import { systemDevice } from './device-operations.ts';
import { LaunchedSide } from './launcher.ts';
import type { LogLevel } from './logger.ts';
import { heldProtocol } from './held-protocol.ts';
import { createLogger, logLevelVariable } from './logger.ts';
import { holdMountNamespace } from './mount-namespace.ts';
import { exemptFromOom } from './oom-score.ts';
import { ServiceManager } from './service-manager.ts';
import { becomeSuccessor, checkSuccessor } from './successor.ts';
import { untilStopped } from './signals.ts';

/**
 * What a worker's heap may grow to, in MiB: a leak ends that worker, which is replaced, and not the
 * machine. Buffers and maps are outside of it. Outages, resyncs and a 16 TiB volume work with 40.
 */
const heapLimit = '--max-old-space-size=256';

export interface ForegroundOptions {
  config: Config;
  /** Reads the configuration again, with the same overrides. */
  load(): LoadResult;
  level: LogLevel;
  /** Command line of hastctl for the same configuration. */
  hastctl: readonly string[];
}

/** Returns when a signal has stopped the daemon. Throws where it cannot start. */
export async function runForeground(options: ForegroundOptions): Promise<void> {
  const launched = new LaunchedSide();
  const worker = fileURLToPath(new URL('./worker.js', import.meta.url));
  process.title = 'hastd';
  holdMountNamespace();
  process.env[logLevelVariable] = options.level;
  const log = createLogger({ level: options.level });
  const protocol = heldProtocol(process.env);
  if (protocol !== ownProtocol) log.warn({ ...protocol }, 'this node is held to an older protocol');
  // Without the capability memory pressure can make hastd wait for its own device.
  const flusher = setIoFlusher();
  if (flusher !== 0) log.debug({ errno: flusher }, 'PR_SET_IO_FLUSHER is not available');
  const exempt = exemptFromOom();
  if (exempt !== null) log.debug({ error: exempt }, 'oom_score_adj cannot be lowered');
  const timeout = await requestTimeoutProblem();
  if (timeout !== null) log.warn({ problem: timeout }, 'the kernel may end stalled requests');
  // Adopted workers take the peer's connections from this process.
  allowTaking();
  const services = new ServiceManager(log);
  services.watch();
  let daemon: Daemon;
  try {
    daemon = await Daemon.start({
      config: options.config,
      load: () => options.load(),
      log,
      protocol,
      program: {
        command: process.execPath, args: ['--enable-source-maps', heapLimit, worker],
      },
      operations: systemDevice,
      store: services,
      hastctl: options.hastctl,
      successor: { check: checkSuccessor, become: () => becomeSuccessor(log) },
    });
  } catch (error) {
    if (launched.isLaunched) log.error({ error: errorText(error) }, 'hastd cannot start');
    await launched.failed(error);
    throw error;
  }
  const { node, file, resources } = daemon.config;
  const fields = { node, file, resources: resources.map(({ name }) => name) };
  log.info(fields, 'hastd is ready');
  services.ready();
  await launched.started();
  await untilStopped(daemon, log);
  services.stopping();
  log.info({}, 'hastd ends');
}
