/** What is well-formed and still cannot work, or works differently than it says. */
import * as posix from 'node:path/posix';
import { canonicalIp, formatAddress, isWildcard } from './address.ts';
import type { TcpAddress } from './address.ts';
import { checkAuthentication } from './authentication.ts';
import type { AuthenticationCheck } from './authentication.ts';
import { defaults } from './limits.ts';
import { checkMountPoints } from './mount.ts';
import { quote } from './problems.ts';
import type { Problems, Span } from './problems.ts';
import type { Interfaces, Resolved, ResolvedResource } from './resolve.ts';
import { pointerTo, sectionsOf } from './tree.ts';
import type { RawTree, Section } from './tree.ts';

export interface CheckContext {
  problems: Problems;
  interfaces: Interfaces;
  /** Names of this machine and node, as host names. */
  hostNames: readonly string[];
  inspectLocal: ((path: string) => string | null) | undefined;
  inspectAuthentication: AuthenticationCheck['inspect'];
}

const nowhere: Span = { offset: 0, line: 1, column: 1, length: 0 };

export function checkConfig(tree: RawTree, resolved: Resolved, context: CheckContext): void {
  checkOldWords(tree, context.problems);
  checkFiles(resolved, context.problems);
  checkUnique(resolved.resources, context.problems);
  const { rundir, devdir } = resolved.config;
  checkMountPoints(resolved.resources, [rundir, devdir], context.problems);
  checkAuthentication(resolved, {
    problems: context.problems, inspect: context.inspectAuthentication,
  });
  const own = new OwnAddresses(context, resolved.config.listen);
  for (const resource of resolved.resources) {
    checkRemote(resource, own, context.problems);
    checkSource(resource, context.problems);
    const local = resource.at('local');
    if (local === undefined || context.inspectLocal === undefined) continue;
    const trouble = context.inspectLocal(resource.config.local);
    if (trouble !== null) context.problems.error(local, trouble);
  }
}

/** Words of the original that do less, or something else, here: in every section of the file. */
function checkOldWords(tree: RawTree, problems: Problems): void {
  const visit = (section: Section, pointer: string): void => {
    const { metaflush, compression } = section as Record<string, unknown>;
    if (metaflush === 'off' || metaflush === false) {
      problems.warn(
        tree.places.get(pointerTo(pointer, 'metaflush'))?.value ?? nowhere,
        "'metaflush off' is ignored",
        'metadata is always flushed: without it a crash could lose what the peer lacks',
      );
    }
    if (compression === 'lzf') {
      problems.warn(
        tree.places.get(pointerTo(pointer, 'compression'))?.value ?? nowhere,
        "'lzf' means lz4 here", "write 'lz4'",
      );
    }
    for (const on of sectionsOf(tree, section, pointer, 'on')) visit(on.section, on.pointer);
  };
  visit(tree.root, '');
  for (const one of sectionsOf(tree, tree.root, '', 'resources')) visit(one.section, one.pointer);
}

/** Files of the daemon must not stand where a resource's directory or link belongs. */
function checkFiles(resolved: Resolved, problems: Problems): void {
  const { rundir, devdir, control, pidfile } = resolved.config;
  if (rundir === devdir) {
    const span = resolved.at('devdir') ?? resolved.at('rundir') ?? nowhere;
    problems.error(span, "'rundir' and 'devdir' are the same directory", 'choose two');
  }
  if (control.path === pidfile) {
    const span = resolved.at('pidfile') ?? resolved.at('control') ?? nowhere;
    problems.error(span, "'pidfile' and 'control' are the same file", 'choose two');
  }
  const taken = new Set<string>(
    [defaults.controlName, defaults.pidfileName, defaults.logName, '.', '..'],
  );
  for (const path of [control.path, pidfile]) {
    if (path.startsWith(`${rundir}/`)) taken.add(path.slice(rundir.length + 1).split('/')[0] ?? '');
  }
  for (const { config, span } of resolved.resources) {
    if (!taken.has(config.name)) continue;
    problems.error(
      span, `the name '${config.name}' belongs to a file of the daemon in ${quote(rundir)}`,
      'choose another name for the resource',
    );
  }
}

function checkUnique(resources: readonly ResolvedResource[], problems: Problems): void {
  const locals = new Map<string, string>();
  const devices = new Map<string, string>();
  for (const { config, span, at } of resources) {
    const localSpan = at('local');
    const local = posix.normalize(config.local);
    const sharer = locals.get(local);
    if (localSpan !== undefined && sharer !== undefined) {
      problems.error(
        localSpan, `${quote(config.local)} is also the 'local' of resource '${sharer}'`,
        'two resources on one disk would destroy each other',
      );
    }
    if (localSpan !== undefined && sharer === undefined) locals.set(local, config.name);
    const namesake = devices.get(config.deviceName);
    if (namesake === undefined) {
      devices.set(config.deviceName, config.name);
      continue;
    }
    problems.error(
      at('name') ?? span, `device name '${config.deviceName}' is also that of '${namesake}'`,
      "give one of them another 'name'",
    );
  }
}

/** The addresses of this machine, and which of them this node listens on. */
class OwnAddresses {
  readonly #ips = new Set<string>();
  readonly #names: ReadonlySet<string>;
  readonly #listen: readonly TcpAddress[];

  constructor(context: CheckContext, listen: readonly TcpAddress[]) {
    for (const list of Object.values(context.interfaces)) {
      for (const one of list ?? []) {
        const ip = canonicalIp(one.address);
        if (ip !== undefined) this.#ips.add(ip);
      }
    }
    this.#names = new Set(['localhost', ...context.hostNames.map((name) => name.toLowerCase())]);
    this.#listen = listen;
  }

  has({ host }: TcpAddress): boolean {
    const ip = canonicalIp(host);
    if (ip === undefined) return this.#names.has(host.toLowerCase());
    return this.#ips.has(ip) || isLoopback(ip);
  }

  /** The address of this node that a connection to `remote`, an own address, would reach. */
  listener(remote: TcpAddress): TcpAddress | undefined {
    return this.#listen.find((one) => one.port === remote.port && reaches(one, remote));
  }
}

function isLoopback(ip: string): boolean {
  return ip.startsWith('127.') || ip === '::1';
}

function reaches(listen: TcpAddress, remote: TcpAddress): boolean {
  const from = canonicalIp(listen.host);
  const to = canonicalIp(remote.host);
  if (from === undefined) return listen.host.toLowerCase() === remote.host.toLowerCase();
  const sameFamily = to === undefined
    ? remote.family === 'tcp' || (remote.family === 'tcp6') === from.includes(':')
    : to.includes(':') === from.includes(':');
  if (isWildcard(listen.host)) return sameFamily;
  if (to === undefined) return remote.host.toLowerCase() === 'localhost' && isLoopback(from);
  return from === to;
}

function checkRemote(resource: ResolvedResource, own: OwnAddresses, problems: Problems): void {
  const { remote } = resource.config;
  const span = resource.at('remote');
  if (remote === null || span === undefined || !own.has(remote)) return;
  const listener = own.listener(remote);
  if (listener !== undefined) {
    problems.error(
      span,
      `'remote' is this node itself: it listens on ${formatAddress(listener)}`,
      "'remote' in the section of a node is the address of the other node",
    );
    return;
  }
  problems.warn(
    span, "'remote' is an address of this machine",
    'right only if a second node runs here, with a rundir and devdir of its own',
  );
}

function checkSource(resource: ResolvedResource, problems: Problems): void {
  const { remote, source } = resource.config;
  const span = resource.at('source');
  if (remote === null || source === null || span === undefined) return;
  const from = ipVersion(source);
  const to = ipVersion(remote);
  if (from === undefined || to === undefined || from === to) return;
  problems.error(
    span, `'source' is IPv${from}, 'remote' is IPv${to}`, 'both must be of one family',
  );
}

function ipVersion({ family, host }: TcpAddress): 4 | 6 | undefined {
  const ip = canonicalIp(host);
  if (ip !== undefined) return ip.includes(':') ? 6 : 4;
  return family === 'tcp4' ? 4 : family === 'tcp6' ? 6 : undefined;
}
