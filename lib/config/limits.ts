/** Every bound of the configuration in one place; docs/configuration.md shows the same table. */

export const limits = {
  /** Size of a configuration file, bytes. */
  fileBytesMax: 1024 * 1024,
  /** An address as written in the file, bytes. */
  addressBytesMax: 1024,
  /** A path, bytes: the kernel's PATH_MAX without the closing NUL. */
  pathBytesMax: 4095,
  /** Path of a unix socket, bytes: sockaddr_un without the closing NUL. */
  socketPathBytesMax: 107,
  /** Name of an `on` section, bytes: the kernel's HOST_NAME_MAX. */
  nodeNameBytesMax: 64,
  /** Name of a resource, and of its device link, bytes. */
  resourceNameBytesMax: 127,
  /** Resources in one file. */
  resourceCountMax: 256,
  /** `listen` addresses at one level. */
  listenCountMax: 64,
  /** Keyword `timeout`, seconds. */
  timeoutSecondsMin: 1,
  timeoutSecondsMax: 86_400,
  /** Keyword `async-lag`, bytes. */
  asyncLagBytesMin: 4096,
  asyncLagBytesMax: 1024 ** 4,
  /** Keyword `async-lag-time`, seconds. */
  asyncLagSecondsMin: 1,
  asyncLagSecondsMax: 86_400,
  /** TCP port. */
  portMin: 1,
  portMax: 65_535,
  /** Nested objects and arrays in a JSON file; the model needs five. */
  jsonDepthMax: 16,
  /** Problems reported for one file; the rest is summed up in one line. */
  problemCountMax: 100,
} as const;

/** What holds where the file says nothing. */
export const defaults = {
  port: 8457,
  rundir: '/run/hast',
  devdir: '/dev/hast',
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
} as const;
