/**
 * Who is measured. One line for each: another factor of ours is another line, with the lines of
 * its configuration.
 */
import { readFileSync } from 'node:fs';
import { detachLoop } from '../../lib/loop/loop.ts';
import { Lab as FuseLab } from '../fixtures/fuse-lab.ts';
import { openPair, openSingle } from './subject-ours.ts';
import { Place, preallocate } from './place.ts';

export interface RunningSubject {
  name: string;
  /** A loop device, or a link to one. */
  device: string;
  /** All that is mounted and started below goes away with it. */
  directory: string;
  /** Processes whose use counts. */
  serving(): Promise<number[]>;
  close(): Promise<void>;
}

export interface OpenOptions {
  /** Of the files behind. */
  bytes: number;
  /** Where the files are. */
  directory: string;
  /** Files without blocks, instead of preallocated ones. */
  sparse: boolean;
  signal: AbortSignal;
}

type Kind =
  'bare' | 'qemu' | 'qemu-quorum' | 'single' | 'pair' | 'pair-tls' | 'pair-secret' | 'null-native';

export interface Subject {
  name: string;
  what: string;
  kind: Kind;
  /** Of the resource in hast.conf. */
  lines: readonly string[];
}

function subject(kind: Kind, name: string, what: string, ...lines: string[]): Subject {
  return { name, what, kind, lines };
}

export const subjects: readonly Subject[] = [
  subject('bare', 'bare', 'loop device on the file, direct I/O: the limit'),
  subject('qemu', 'qemu', 'qemu-storage-daemon, FUSE export of a raw file, one copy'),
  subject('qemu-quorum', 'qemu-quorum', 'the same, quorum of two over the file and qemu-nbd'),
  subject('single', 'local', 'hast-linux, one copy (remote none)'),
  subject('pair', 'async', 'hast-linux, two copies', 'replication async'),
  subject('pair', 'memsync', 'hast-linux, two copies', 'replication memsync'),
  subject('pair', 'fullsync', 'hast-linux, two copies, the default'),
  subject('pair', 'fullsync-nochecksum', 'fullsync, checksum none', 'checksum none'),
  subject('pair-tls', 'fullsync-tls', 'fullsync over TLS 1.3 with certificates'),
  subject('pair-secret', 'fullsync-secret', 'fullsync over TLS 1.3 with a shared secret'),
  subject('single', 'local-direct', 'local, past the page cache', 'cache direct'),
  subject('pair', 'fullsync-direct', 'fullsync, past the page cache', 'cache direct'),
  subject('single', 'local-native', 'local, front end fuse-native', 'frontend fuse-native'),
  subject('pair', 'fullsync-native', 'fullsync, front end fuse-native', 'frontend fuse-native'),
  subject('null-native', 'null-native', 'front end fuse-native alone: nothing is stored'),
];

/** Program or library, and the Debian package that brings it. */
const packages: Record<string, string> = {
  fio: 'fio', losetup: 'mount', fallocate: 'util-linux',
  'qemu-storage-daemon': 'qemu-system-common', 'qemu-nbd': 'qemu-utils', libfuse2: 'libfuse2',
  pgbench: 'postgresql', initdb: 'postgresql', 'mkfs.ext4': 'e2fsprogs', runuser: 'util-linux',
};

export function packageOf(program: string): string {
  return packages[program] ?? program;
}

/** What must be installed. */
export function needsOf({ kind, lines }: Subject): string[] {
  const needs: Record<Kind, string[]> = {
    bare: [], qemu: ['qemu-storage-daemon'], 'qemu-quorum': ['qemu-storage-daemon', 'qemu-nbd'],
    single: [], pair: [], 'pair-tls': [], 'pair-secret': [], 'null-native': ['libfuse2'],
  };
  return lines.includes('frontend fuse-native') ? [...needs[kind], 'libfuse2'] : needs[kind];
}

export async function openSubject(
  { name, kind, lines }: Subject, options: OpenOptions,
): Promise<RunningSubject> {
  if (kind === 'null-native') return await openNull(name, options);
  if (kind === 'pair') return await openPair(name, lines, options);
  if (kind === 'pair-tls') return await openPair(name, lines, options, 'loopback', 'tls');
  if (kind === 'pair-secret') return await openPair(name, lines, options, 'loopback', 'secret');
  if (kind === 'single') return await openSingle(name, lines, options);
  const place = new Place(options.directory, options.signal);
  try {
    return await openForeign(place, name, kind, options);
  } catch (error) {
    await place.close().catch(() => undefined);
    throw error;
  }
}

/** A folder removes loop device, mount and processes, in that order, by itself. */
async function openForeign(
  place: Place, name: string, kind: 'bare' | 'qemu' | 'qemu-quorum', options: OpenOptions,
): Promise<RunningSubject> {
  const makeFile = async (file: string): Promise<string> => {
    const full = place.file(file);
    if (options.sparse) await place.run(['truncate', '--size', String(options.bytes), full]);
    else await preallocate(full, options.bytes);
    return full;
  };
  const pids: number[] = [];
  let top = await makeFile('disk');
  if (kind !== 'bare') {
    const second = kind === 'qemu-quorum' ? await makeFile('disk2') : null;
    const socket = place.file('nbd.sock');
    if (second !== null) {
      pids.push(await place.serve(['qemu-nbd', '--format=raw', '--cache=writeback', '--shared=4',
        '--persistent', `--socket=${socket}`, second], () => isSocket(socket)));
    }
    const mountPoint = place.file('volume');
    await place.run(['truncate', '--size', '0', mountPoint]);
    const argv = ['qemu-storage-daemon', ...qemuArgs(top, second === null ? null : socket),
      '--export', `type=fuse,id=export,node-name=top,mountpoint=${mountPoint},writable=on`];
    pids.push(await place.serve(argv, () => isMountedHere(mountPoint)));
    top = mountPoint;
  }
  const device = await place.attach(top);
  return {
    name, device, directory: place.directory, serving: async () => pids,
    close: async () => {
      // In order where that works; what is stuck is removed by force afterwards.
      await detachLoop(device, { waitMs: 5000, file: top }).catch(() => undefined);
      await place.close();
    },
  };
}

/** Both with qemu's default cache, the page cache: as ours. */
function qemuArgs(file: string, socket: string | null): string[] {
  const nodes: object[] = [{ driver: 'file', 'node-name': 'file', filename: file }];
  if (socket === null) {
    nodes.push({ driver: 'raw', 'node-name': 'top', file: 'file' });
  } else {
    nodes.push({ driver: 'raw', 'node-name': 'first', file: 'file' }, {
      driver: 'nbd', 'node-name': 'second', server: { type: 'unix', path: socket },
    }, {
      driver: 'quorum', 'node-name': 'top', 'vote-threshold': 1, 'read-pattern': 'fifo',
      children: ['first', 'second'],
    });
  }
  return nodes.flatMap((node) => ['--blockdev', JSON.stringify(node)]);
}

async function openNull(name: string, { bytes }: OpenOptions): Promise<RunningSubject> {
  const lab = new FuseLab();
  try {
    await lab.serve(bytes, { kind: 'native', file: null });
    const device = await lab.attach();
    return {
      name, device, directory: lab.directory, serving: async () => [lab.serverPid],
      close: () => lab.close(),
    };
  } catch (error) {
    await lab.close().catch(() => undefined);
    throw error;
  }
}

/** Nothing is asked of the server itself: it may hang. */
function isMountedHere(mountPoint: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
    .some((line) => line.split(' ')[4] === mountPoint);
}

function isSocket(file: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8').split('\n').some((line) => line.endsWith(file));
}
