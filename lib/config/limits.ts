/** The configuration's part of lib/format/limits.ts, and what holds where the file is silent. */
export { configLimits as limits } from '../format/limits.ts';

/** What holds where the file says nothing. */
export const defaults = {
  port: 8457,
  metricsPort: 9457,
  metricsHost: '127.0.0.1',
  rundir: '/run/hast',
  devdir: '/dev/hast',
  undoDirectory: '/var/lib/hast',
  controlName: 'hastctl.sock',
  pidfileName: 'hastd.pid',
  logName: 'hastd.log',
  replication: 'fullsync',
  checksum: 'crc32',
  compression: 'hole',
  timeoutSeconds: 20,
  frontend: 'direct',
  asyncLagBytes: 64 * 1024 * 1024,
  asyncLagSeconds: 10,
  diskTimeoutSeconds: 30,
  busyPollMicroseconds: 50,
  onNoData: 'stall',
  cache: 'writeback',
  onStop: 'keep',
} as const;
