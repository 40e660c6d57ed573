/**
 * What limits of control groups leave for writes to memory: a process whose group is at its limit
 * waits for a disk when it asks for a page and most of the group's are dirty (version 1, which
 * reclaims them itself), or in balance_dirty_pages (version 2, where a group has a share of the
 * dirty pages). cgroups(7); Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';

/** Where limits are set, nobody says so: groups are looked for again. */
const searchAgainMs = 5000;
/** Of what a group may hold beside its processes' own memory: half of dirty_background_ratio. */
const dirtyShare = 0.05;

/** Names of one version of the interface. */
interface Version {
  limits: readonly string[];
  own: string;
  dirty: string;
  writeback: string;
}

const version2: Version = {
  limits: ['memory.max', 'memory.high'], own: 'anon', dirty: 'file_dirty',
  writeback: 'file_writeback',
};
const version1: Version = {
  limits: ['memory.limit_in_bytes'], own: 'total_rss', dirty: 'total_dirty',
  writeback: 'total_writeback',
};
/** Version 1 has a number where there is no limit, near 2 ** 63. */
const noLimit = 2 ** 60;

interface Group {
  directory: string;
  version: Version;
  limit: number;
}

export class MemoryGroups {
  readonly #own: string;
  readonly #root: string;
  #limited: Group[] = [];
  #searchAt = 0;

  /** `own`: which groups this process is in; `root`: where groups are mounted. */
  constructor(own = '/proc/self/cgroup', root = '/sys/fs/cgroup') {
    this.#own = own;
    this.#root = root;
  }

  /**
   * Bytes that may be written before a limit makes anybody wait; Infinity without one, and where
   * the system tells of no groups. `now`: milliseconds that only rise.
   */
  left(now: number): number {
    if (now >= this.#searchAt) {
      this.#searchAt = now + searchAgainMs;
      this.#limited = limitedGroups(this.#own, this.#root);
    }
    return Math.min(Infinity, ...this.#limited.map(leftIn));
  }
}

function leftIn({ directory, version, limit }: Group): number {
  const text = textOf(path.join(directory, 'memory.stat'));
  const figure = (name: string): number =>
    Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? NaN);
  const dirty = figure(version.dirty) + figure(version.writeback);
  const left = (limit - figure(version.own)) * dirtyShare - dirty;
  // A limit whose figures are not told leaves nothing.
  return left > 0 ? left : 0;
}

/** This process's groups and those above them, as far as they have a limit. */
function limitedGroups(own: string, root: string): Group[] {
  const groups: Group[] = [];
  for (const line of textOf(own).split('\n')) {
    const [, id, controllers = '', name = '/'] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    const isVersion2 = id === '0' && controllers === '';
    if (!isVersion2 && !controllers.split(',').includes('memory')) continue;
    const version = isVersion2 ? version2 : version1;
    const mounted = isVersion2 ? root : path.join(root, 'memory');
    for (const directory of withParents(mounted, name)) {
      const limit = Math.min(...version.limits.map((file) => limitIn(path.join(directory, file))));
      if (limit < noLimit) groups.push({ directory, version, limit });
    }
  }
  return groups;
}

/** In a container the name may be the host's, and what is mounted the group itself. */
function withParents(mounted: string, name: string): string[] {
  const directories = [mounted];
  for (let at = path.resolve(mounted, `.${name}`); at.startsWith(`${mounted}/`);) {
    directories.push(at);
    at = path.dirname(at);
  }
  return directories;
}

/** Bytes; Infinity where there is none. */
function limitIn(file: string): number {
  const text = textOf(file).trim();
  return text === '' || text === 'max' ? Infinity : Number(text);
}

/** Empty where there is no such file. */
function textOf(file: string): string {
  try {
    return fs.readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
