/** The `mount` section of a resource, for one node. */
import * as posix from 'node:path/posix';
import type { MountConfig, ResourceConfig } from './model.ts';
import { quote } from './problems.ts';
import type { Problems, Span } from './problems.ts';
import { nowhere, Settings } from './settings.ts';
import type { Located } from './settings.ts';
import { isExcused, isSection, pointerTo } from './tree.ts';
import type { RawTree } from './tree.ts';

interface ResolvedMount {
  config: MountConfig | null;
  /** Where the value of one of its keywords stands. */
  at: (keyword: string) => Span | undefined;
}

/** `mine`: this node's `on` sections; each of their keywords beats the resource's. */
export function mountConfig(
  tree: RawTree,
  resource: Located & { name: string },
  mine: readonly Located[],
  problems: Problems,
): ResolvedMount {
  const levels = [mine, [resource]].map((level) => level.flatMap((one) => mountOf(one)));
  const [section] = levels.flat();
  if (section === undefined) return { config: null, at: () => undefined };
  const settings = new Settings(tree, levels);
  for (const keyword of ['filesystem', 'mountpoint'] as const) {
    if (settings.find(keyword) !== undefined) continue;
    if (isExcused(tree, section.pointer, keyword)) continue;
    problems.error(
      tree.places.get(section.pointer)?.key ?? nowhere,
      `the 'mount' section of resource '${resource.name}' has no '${keyword}'`,
      keyword === 'filesystem' ? "add 'filesystem ext4'" : "add 'mountpoint /DIRECTORY'",
    );
  }
  const mountPoint = posix.normalize(settings.value('mountpoint', '/'));
  const mkfs = settings.value<string | boolean>('mkfs', 'off');
  const options = settings.value('options', '');
  const config: MountConfig = {
    filesystem: settings.value('filesystem', 'ext4'),
    mountPoint: mountPoint.length > 1 ? mountPoint.replace(/\/$/, '') : mountPoint,
    options: options === '' ? null : options,
    mkfs: mkfs === 'on' || mkfs === true,
  };
  return { config, at: (keyword) => settings.at(keyword) };
}

function mountOf({ section, pointer }: Located): Located[] {
  const mount = section['mount'];
  return isSection(mount) ? [{ section: mount, pointer: pointerTo(pointer, 'mount') }] : [];
}

interface Mounted {
  config: ResourceConfig;
  at: (keyword: string) => Span | undefined;
}

/** Two resources in one place, or one on what the daemon itself keeps. */
export function checkMountPoints(
  resources: readonly Mounted[], own: readonly string[], problems: Problems,
): void {
  const taken = new Map<string, string>();
  for (const { config, at } of resources) {
    const span = at('mountpoint');
    const mountPoint = config.mount?.mountPoint;
    if (span === undefined || mountPoint === undefined) continue;
    const other = taken.get(mountPoint);
    const hidden = own.find((directory) => `${directory}/`.startsWith(`${mountPoint}/`));
    if (other !== undefined) {
      problems.error(
        span, `${quote(mountPoint)} is also the 'mountpoint' of resource '${other}'`,
        'give one of them another directory',
      );
    } else if (hidden !== undefined) {
      problems.error(
        span, `a file system on ${quote(mountPoint)} would hide ${quote(hidden)} of the daemon`,
        'choose another directory',
      );
    }
    taken.set(mountPoint, config.name);
  }
}
