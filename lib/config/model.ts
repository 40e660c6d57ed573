/** The configuration after inheritance, for one node: what the daemon and the tools work with. */

export type Replication = 'fullsync' | 'memsync' | 'async';
export type Checksum = 'none' | 'crc32' | 'sha256';
export type Compression = 'none' | 'hole' | 'lzf';
export type OnNoData = 'stall' | 'fail';
export type OnStop = 'keep' | 'refuse' | 'force';
export type FrontendKind = 'direct' | 'fuse-native';
/** What hastctl up can check and make. */
export type Filesystem = 'ext2' | 'ext3' | 'ext4' | 'xfs' | 'btrfs';
export type CacheMode = 'direct' | 'writeback';

export type Address =
  | { family: 'tcp' | 'tcp4' | 'tcp6'; host: string; port: number }
  | { family: 'uds'; path: string };

/** Section `mount`: what hastctl up makes of the device, and hastctl down takes away again. */
export interface MountConfig {
  filesystem: Filesystem;
  mountPoint: string;
  /** For mount -o, separated by commas; null for none. */
  options: string | null;
  /** A volume on which there is nothing gets the file system. */
  mkfs: boolean;
}

/** PEM files of one node. */
interface TlsFiles {
  kind: 'tls';
  /** This node's certificate, with what is between it and the CA. */
  cert: string;
  /** Its private key. */
  key: string;
  /** Whoever a CA in it vouches for is believed. */
  ca: string;
}

/**
 * How the two nodes of a resource know each other, and keep others out. Names of files, never what
 * is in them: a configuration is shown, recorded and sent about.
 */
export type Authentication =
  | { kind: 'none' }
  | ((TlsFiles | { kind: 'secret'; file: string }) & {
    /** This node as its `on` section in the resource calls it. */
    own: string;
    /** Names of the other `on` sections in the resource; exactly one with `secret`. */
    peers: string[];
    /** Another one where the files were changed; empty where nobody looked at them. */
    stamp: string;
  });

export interface ResourceConfig {
  /** Name of the resource: directory below rundir, first argument of hooks. */
  name: string;
  /** Keyword `name`: the link below devdir. Default: the resource's name. */
  deviceName: string;
  /** Block device or regular file. */
  local: string;
  /** `null` is `remote none`: never connect, accept nobody. */
  remote: Extract<Address, { host: string }> | null;
  /** Bound before connecting; `null`: the kernel picks. Port 0 is any. */
  source: Extract<Address, { host: string }> | null;
  replication: Replication;
  checksum: Checksum;
  compression: Compression;
  /** Seconds. */
  timeout: number;
  /** Hook program, `null` for none. */
  exec: string | null;
  frontend: FrontendKind;
  /** How data reach `local`: past the page cache, or through it. */
  cache: CacheMode;
  /** Bytes and seconds an async peer may lag before writes wait. */
  asyncLag: number;
  asyncLagTime: number;
  /** Seconds after which a disk that does not answer counts as failed; 0: never. */
  diskTimeout: number;
  /** Microseconds for which the worker looks for news before it sleeps; 0: never. */
  busyPoll: number;
  /** What becomes of requests while neither copy can serve. */
  onNoData: OnNoData;
  /** What becomes of a device in use when hastd is told to end. */
  onStop: OnStop;
  /** Bytes a second a resync may send; 0 (`auto`): as the application's latency allows. */
  resyncRate: number;
  /** The node's: where the worker keeps what is overwritten without having been asked for. */
  undoDirectory: string;
  /** Of the connection to the peer. */
  authentication: Authentication;
  /** What is to be mounted; null where the file says nothing of it. */
  mount: MountConfig | null;
}

export interface Config {
  /** The file it came from. */
  file: string;
  /** This node's name as the file knows it. */
  node: string;
  control: Extract<Address, { path: string }>;
  /** Who beside root may use the control socket; null: nobody. */
  controlGroup: { name: string; gid: number } | null;
  pidfile: string;
  rundir: string;
  devdir: string;
  listen: Extract<Address, { host: string }>[];
  /** Where metrics and the status page are served; null: nowhere. */
  metrics: Extract<Address, { host: string }> | null;
  resources: ResourceConfig[];
}
