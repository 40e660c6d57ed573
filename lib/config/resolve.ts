/**
 * Raw tree to configuration of one node: picks this node's `on` sections and applies the
 * precedence resource-node > resource > global > default. Within one level the statement
 * furthest down the file holds. A damaged value takes its default, so that checks of the rest
 * can go on; the result is thrown away then.
 */
import type { NetworkInterfaceInfo } from 'node:os';
import * as posix from 'node:path/posix';
import { canonicalIp, formatAddress, isRefusal, isWildcard, parseAddress } from './address.ts';
import type { TcpAddress } from './address.ts';
import { authenticationConfig } from './authentication.ts';
import { groupId } from './groups.ts';
import { defaults, limits } from './limits.ts';
import type { Compression, Config, ResourceConfig } from './model.ts';
import { mountConfig } from './mount.ts';
import { matchRank } from './node-names.ts';
import { alternatives } from './problems.ts';
import type { Problems, Span } from './problems.ts';
import { nowhere, Settings } from './settings.ts';
import type { Located } from './settings.ts';
import { isExcused, isSection, pointerTo, sectionsOf } from './tree.ts';
import type { RawTree, Section } from './tree.ts';
import { parseBytes } from './values.ts';

export type Interfaces = Readonly<Record<string, NetworkInterfaceInfo[] | undefined>>;

export interface ResolvedResource {
  config: ResourceConfig;
  /** Where its name stands. */
  span: Span;
  /** Where a keyword's value stands; absent for a default and for a damaged value. */
  at: (keyword: string) => Span | undefined;
}

export interface Resolved {
  config: Config;
  resources: ResolvedResource[];
  /** A resource may do without `tls` and `secret`. */
  isInsecureAllowed: boolean;
  at: (keyword: string) => Span | undefined;
}

export interface ResolveContext {
  file: string;
  names: readonly string[];
  interfaces: Interfaces;
  problems: Problems;
}

export function resolve(tree: RawTree, context: ResolveContext): Resolved {
  const root = { section: tree.root, pointer: '' };
  const mine = ownSections(tree, tree.root, '', context.names);
  const settings = new Settings(tree, [mine, [root]]);
  const rundir = directory(settings.value<string>('rundir', defaults.rundir));
  const undoDirectory =
    directory(settings.value<string>('undo-directory', defaults.undoDirectory));
  const resources = sectionsOf(tree, tree.root, '', 'resources').flatMap((one) => {
    const resolved = resolveResource(tree, one, mine, undoDirectory, context);
    return resolved === undefined ? [] : [resolved];
  });
  const addresses = listen(tree, [root, ...mine], context);
  const pidfile = settings.value<string>('pidfile', `${rundir}/${defaults.pidfileName}`);
  const config: Config = {
    file: context.file,
    node: nodeName(tree, context.names),
    control: control(settings, rundir, context.problems),
    controlGroup: controlGroup(settings, context.problems),
    pidfile: posix.normalize(pidfile),
    rundir,
    devdir: directory(settings.value<string>('devdir', defaults.devdir)),
    listen: addresses,
    metrics: metrics(settings, addresses, context.problems),
    resources: resources.map((resource) => resource.config),
  };
  const named = tree.root['resources'];
  const none = named === undefined || (isSection(named) && Object.keys(named).length === 0);
  if (none && !isExcused(tree, '', 'resources')) {
    const hint = "write 'resource NAME { ... }'";
    context.problems.warn(nowhere, 'no resource is defined', hint);
  }
  const insecure = settings.value<string | boolean>('insecure', 'on');
  const isInsecureAllowed = insecure === 'on' || insecure === true;
  return { config, resources, isInsecureAllowed, at: (keyword) => settings.at(keyword) };
}

function ownSections(
  tree: RawTree,
  parent: Section,
  pointer: string,
  names: readonly string[],
): (Located & { name: string })[] {
  return sectionsOf(tree, parent, pointer, 'on').filter((on) => matchRank(on.name, names) >= 0);
}

/** The best match among all `on` names of the file, so that one node has one name. */
function nodeName(tree: RawTree, names: readonly string[]): string {
  const resources = sectionsOf(tree, tree.root, '', 'resources');
  const parents = [{ section: tree.root, pointer: '' }, ...resources];
  const all = parents.flatMap(({ section, pointer }) => ownSections(tree, section, pointer, names));
  const ranked = all.sort((a, b) => matchRank(a.name, names) - matchRank(b.name, names));
  return ranked[0]?.name ?? names[0] ?? '';
}

function directory(path: string): string {
  const normal = posix.normalize(path);
  return normal.length > 1 ? normal.replace(/\/$/, '') : normal;
}

function control(settings: Settings, rundir: string, problems: Problems): Config['control'] {
  const written = settings.at('control');
  const path = `${rundir}/${defaults.controlName}`;
  if (written !== undefined) {
    const address = parseAddress(settings.value<string>('control', ''), 'control');
    if (!isRefusal(address)) return address;
  }
  const size = Buffer.byteLength(path);
  if (size > limits.socketPathBytesMax && settings.find('control') === undefined) {
    problems.error(
      settings.at('rundir') ?? nowhere,
      `the control socket below this would have a path of ${size} bytes, ` +
        `at most ${limits.socketPathBytesMax} are allowed`,
      "choose a shorter rundir, or set 'control'",
    );
  }
  return { family: 'uds', path };
}

function controlGroup(settings: Settings, problems: Problems): Config['controlGroup'] {
  const name = settings.value<string>('control-group', '');
  if (name === '') return null;
  const gid = groupId(name);
  if (gid !== null) return { name, gid };
  const hint = 'make it (groupadd), or give the number of a group that is not in /etc/group';
  problems.error(settings.at('control-group') ?? nowhere, `there is no group '${name}'`, hint);
  return null;
}

function metrics(
  settings: Settings, addresses: readonly TcpAddress[], problems: Problems,
): Config['metrics'] {
  const written = settings.value<string | number>('metrics', 'none');
  const address = written === 'none' ? null : parseAddress(String(written), 'metrics');
  if (address === null || isRefusal(address)) return null;
  const taken = addresses.find((one) => covers(one, address) || covers(address, one));
  if (taken !== undefined) {
    problems.error(
      settings.at('metrics') ?? nowhere,
      `'metrics' is the address at which this node listens for its peer: ${formatAddress(taken)}`,
      'choose another port',
    );
  }
  return address;
}

interface Listener {
  address: TcpAddress;
  span: Span;
}

/** Global and node addresses together, without what another one covers. */
function listen(tree: RawTree, from: readonly Located[], context: ResolveContext): TcpAddress[] {
  const all = from.flatMap(({ section, pointer }) => listeners(tree, section, pointer));
  const written = from.some(({ section }) => Object.hasOwn(section, 'listen'));
  if (!written && !isExcused(tree, '', 'listen')) return defaultListen(context.interfaces);
  const kept = all.filter(({ address, span }, index) => {
    const other = all.find((one, at) => at !== index && covers(one.address, address) &&
      (at < index || !covers(address, one.address)));
    if (other === undefined) return true;
    // Linux refuses to bind both, where FreeBSD binds the more specific one beside the other.
    const [text, by] = [formatAddress(address), formatAddress(other.address)];
    context.problems.warn(span, `'listen ${text}' adds nothing to ${by}`, 'remove one of them');
    return false;
  });
  return kept.map(({ address }) => address);
}

function listeners(tree: RawTree, section: Section, pointer: string): Listener[] {
  const base = pointerTo(pointer, 'listen');
  const raw = section['listen'];
  if (raw === undefined || tree.damaged.has(base)) return [];
  const items = Array.isArray(raw)
    ? raw.map((one, index) => ({ one, at: pointerTo(base, index) }))
    : [{ one: raw, at: base }];
  return items.flatMap(({ one, at }) => {
    const address = tree.damaged.has(at) ? undefined : parseAddress(String(one), 'listen');
    if (address === undefined || isRefusal(address)) return [];
    return [{ address, span: tree.places.get(at)?.value ?? nowhere }];
  });
}

/** Whether binding `one` takes the port of `other` with it; `::` takes IPv6 only. */
function covers(one: TcpAddress, other: TcpAddress): boolean {
  if (one.port !== other.port) return false;
  const [ip, otherIp] = [canonicalIp(one.host), canonicalIp(other.host)];
  if (ip === undefined || otherIp === undefined) {
    return one.host.toLowerCase() === other.host.toLowerCase();
  }
  return one.host === other.host || ip.includes(':') === otherIp.includes(':') &&
    (ip === otherIp && !one.host.includes('%') || isWildcard(one.host));
}

function defaultListen(interfaces: Interfaces): TcpAddress[] {
  const all = Object.values(interfaces).flatMap((list) => list ?? []);
  const list: TcpAddress[] = [{ family: 'tcp4', host: '0.0.0.0', port: defaults.port }];
  // A kernel without IPv6 has not even ::1, and could not bind it.
  if (all.some((one) => one.family === 'IPv6')) {
    list.push({ family: 'tcp6', host: '::', port: defaults.port });
  }
  return list;
}

function resolveResource(
  tree: RawTree,
  resource: Located & { name: string },
  ofNode: readonly Located[],
  undoDirectory: string,
  context: ResolveContext,
): ResolvedResource | undefined {
  const { name, section, pointer } = resource;
  const span = tree.places.get(pointer)?.key ?? nowhere;
  const mine = ownSections(tree, section, pointer, context.names);
  const owner = mine[0];
  if (owner === undefined) {
    reportNoSection(tree, resource, span, context);
    return undefined;
  }
  const root = { section: tree.root, pointer: '' };
  const settings = new Settings(tree, [mine, [resource], [root]]);
  const ownerSpan = tree.places.get(owner.pointer)?.key ?? span;
  for (const [keyword, form] of [['remote', 'tcp://HOST'], ['local', '/dev/DISK']] as const) {
    if (settings.find(keyword) !== undefined || isExcused(tree, pointer, keyword)) continue;
    const alone = keyword === 'remote' ? " or 'remote none'" : '';
    context.problems.error(
      keyword === 'remote' ? ownerSpan : span,
      `resource '${name}' has no '${keyword}' for this node`,
      `add '${keyword} ${form}'${alone} to the section 'on ${owner.name}'`,
    );
  }
  const mount = mountConfig(tree, resource, mine, context.problems);
  const secured = authenticationConfig(tree, resource, mine, [ofNode, [root]], context);
  const config = {
    ...resourceConfig(name, settings), undoDirectory, mount: mount.config,
    authentication: secured.config,
  };
  const at = (keyword: string): Span | undefined =>
    settings.at(keyword) ?? mount.at(keyword) ?? secured.at(keyword);
  return { config, span, at };
}

function resourceConfig(
  name: string, settings: Settings,
): Omit<ResourceConfig, 'undoDirectory' | 'mount' | 'authentication'> {
  const tcp = (keyword: 'remote' | 'source'): TcpAddress | null => {
    const text = settings.value<string>(keyword, 'none');
    const address = text === 'none' ? null : parseAddress(text, keyword);
    return address === null || isRefusal(address) ? null : address;
  };
  const compression = settings.value<string>('compression', defaults.compression);
  const exec = settings.value<string>('exec', 'none');
  const rate = settings.value<string | number>('resync-rate', 'auto');
  const lag = settings.value<string | number>('async-lag', defaults.asyncLagBytes);
  return {
    name,
    deviceName: settings.value('name', name),
    local: settings.value('local', ''),
    remote: tcp('remote'),
    source: tcp('source'),
    replication: settings.value('replication', defaults.replication),
    checksum: settings.value('checksum', defaults.checksum),
    compression: compression === 'lz4' ? 'lzf' : (compression as Compression),
    timeout: settings.value('timeout', defaults.timeoutSeconds),
    exec: exec === 'none' ? null : exec,
    frontend: settings.value('frontend', defaults.frontend),
    cache: settings.value('cache', defaults.cache),
    asyncLag: typeof lag === 'number' ? lag : (parseBytes(lag) ?? defaults.asyncLagBytes),
    asyncLagTime: settings.value('async-lag-time', defaults.asyncLagSeconds),
    diskTimeout: settings.value('disk-timeout', defaults.diskTimeoutSeconds),
    busyPoll: settings.value('busy-poll', defaults.busyPollMicroseconds),
    onNoData: settings.value('on-no-data', defaults.onNoData),
    onStop: settings.value('on-stop', defaults.onStop),
    resyncRate: typeof rate === 'number' ? rate : (parseBytes(rate) ?? 0),
  };
}

function reportNoSection(
  tree: RawTree,
  resource: Located & { name: string },
  span: Span,
  context: ResolveContext,
): void {
  const { section, pointer, name } = resource;
  const on = section['on'];
  // There, but reported already as being no section.
  const broken = on !== undefined && (!isSection(on) ||
    Object.keys(on).some((one) => matchRank(one, context.names) >= 0));
  if (broken || isExcused(tree, pointer, 'on')) return;
  const present = sectionsOf(tree, section, pointer, 'on').map((on) => on.name);
  const has = present.length === 0 ? 'it has none' : `it has 'on' for ${listNames(present)}`;
  context.problems.error(
    span,
    `resource '${name}' has no 'on' section for this node`,
    `this node answers to ${alternatives(context.names)}; ${has}`,
  );
}

function listNames(names: readonly string[]): string {
  const shown = names.slice(0, 8).map((name) => `'${name}'`).join(', ');
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown;
}
