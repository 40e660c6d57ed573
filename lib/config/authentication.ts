/** `tls` and `secret` of a resource, for one node. */
import type { Authentication, ResourceConfig } from './model.ts';
import { matchRank } from './node-names.ts';
import type { Problems, Span } from './problems.ts';
import type { Resolved } from './resolve.ts';
import { nowhere, Settings } from './settings.ts';
import type { Located } from './settings.ts';
import { isExcused, isSection, pointerTo, sectionsOf } from './tree.ts';
import type { RawTree } from './tree.ts';

interface ResolvedAuthentication {
  config: Authentication;
  /** Where the value of one of its keywords stands. */
  at: (keyword: string) => Span | undefined;
}

interface Context {
  names: readonly string[];
  problems: Problems;
}

type Named = Located & { name: string };

/** As hastctl pair init calls them. */
const usualNames = { cert: 'node.crt', key: 'node.key', ca: 'ca.crt' } as const;

/**
 * The strongest level that speaks of either holds; keywords of `tls` that it leaves out come from
 * the `tls` of weaker levels. `mine`: this node's `on` sections of the resource; `outer`: the
 * levels that are weaker than the resource.
 */
export function authenticationConfig(
  tree: RawTree, resource: Named, mine: readonly Named[], outer: readonly (readonly Located[])[],
  { names, problems }: Context,
): ResolvedAuthentication {
  const levels = [mine, [resource], ...outer];
  for (const [index, level] of levels.entries()) {
    const secret = new Settings(tree, [level]).find('secret');
    const tls = level.flatMap((one) => tlsOf(one));
    if (secret === undefined && tls.length === 0) continue;
    if (secret !== undefined && tls.length > 0) {
      const hint = "choose one: remove 'secret', or the 'tls' section";
      problems.error(secret.span, "'tls' and 'secret' are both given", hint);
      break;
    }
    const peers = sectionsOf(tree, resource.section, resource.pointer, 'on')
      .map((on) => on.name).filter((name) => matchRank(name, names) < 0);
    const [own = ''] = mine.map((on) => on.name)
      .sort((a, b) => matchRank(a, names) - matchRank(b, names));
    const common = { own, peers, stamp: '' };
    if (secret !== undefined) {
      const settings = new Settings(tree, [level]);
      const file = settings.value('secret', '');
      return {
        config: { kind: 'secret', file, ...common }, at: (keyword) => settings.at(keyword),
      };
    }
    const sections = levels.slice(index).map((one) => one.flatMap((each) => tlsOf(each)));
    const settings = new Settings(tree, sections);
    return { config: { ...tlsFiles(tree, tls, settings, problems), ...common },
      at: (keyword) => settings.at(keyword) };
  }
  return { config: { kind: 'none' }, at: () => undefined };
}

function tlsFiles(
  tree: RawTree, tls: readonly Located[], settings: Settings, problems: Problems,
): { kind: 'tls'; cert: string; key: string; ca: string } {
  const pointer = tls[0]?.pointer ?? '';
  for (const [keyword, fileName] of Object.entries(usualNames)) {
    if (settings.find(keyword) !== undefined || isExcused(tree, pointer, keyword)) continue;
    problems.error(
      tree.places.get(pointer)?.key ?? nowhere, `the 'tls' section has no '${keyword}'`,
      `add '${keyword} /etc/hast/tls/${fileName}'; hastctl pair init makes all three`,
    );
  }
  const value = (keyword: string): string => settings.value(keyword, '');
  return { kind: 'tls', cert: value('cert'), key: value('key'), ca: value('ca') };
}

/** Both rest on the names of the nodes, and not on their addresses. */
function checkPeers(
  { name, remote, authentication }: ResourceConfig, span: Span, problems: Problems,
): void {
  if (authentication.kind === 'none' || remote === null) return;
  const { kind, peers } = authentication;
  if (peers.length === 1 || (kind === 'tls' && peers.length > 1)) return;
  const found = peers.length === 0 ? 'it has none' : `it has ${peers.join(', ')}`;
  problems.error(
    span, `'${kind}' needs the name of the other node of resource '${name}'`,
    `write one 'on NODE { ... }' in it for the other node: ${found}`,
  );
}

function tlsOf({ section, pointer }: Located): Located[] {
  const { tls } = section;
  return isSection(tls) ? [{ section: tls, pointer: pointerTo(pointer, 'tls') }] : [];
}

/** A resource that an older release recorded says nothing of it. */
export function authenticationOf({ authentication }: Partial<ResourceConfig>): Authentication {
  return authentication ?? { kind: 'none' };
}

/** What the files of `tls` and `secret` are like; of lib/net/credentials.ts. */
export interface FileReport {
  stamp: string;
  /** `keyword`: the one whose file it is about. */
  problems: { keyword: string; isError: boolean; message: string; hint: string }[];
}

export interface AuthenticationCheck {
  problems: Problems;
  inspect: ((authentication: Authentication) => FileReport) | undefined;
}

/** Resources that anybody at the right address can talk to, and files that do not do. */
export function checkAuthentication(
  { resources, isInsecureAllowed }: Resolved, { problems, inspect }: AuthenticationCheck,
): void {
  const told = new Set<string>();
  for (const { config, span, at } of resources) {
    const { authentication } = config;
    if (authentication.kind === 'none') {
      if (config.remote === null) continue;
      const text = `the peer of resource '${config.name}' is unauthenticated, and the data ` +
        'cross the network in clear text';
      const hint = "set 'tls' (hastctl pair init) or 'secret'";
      if (!isInsecureAllowed) problems.error(span, `${text}: 'insecure' is off`, hint);
      else if (inspect !== undefined) problems.warn(span, text, hint);
      continue;
    }
    checkPeers(config, span, problems);
    const keywords = authentication.kind === 'tls' ? ['cert', 'key', 'ca'] : ['secret'];
    if (inspect === undefined || keywords.some((one) => at(one) === undefined)) continue;
    const report = inspect(authentication);
    authentication.stamp = report.stamp;
    for (const { keyword, isError, message, hint } of report.problems) {
      // Resources share files: a file is spoken of once.
      const key = `${at(keyword)?.offset ?? 0} ${message}`;
      if (told.has(key)) continue;
      told.add(key);
      if (isError) problems.error(at(keyword) ?? span, message, hint);
      else problems.warn(at(keyword) ?? span, message, hint);
    }
  }
}
