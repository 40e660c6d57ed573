/** A resource's values as they would be written in hast.conf, for comparing two nodes. */
import { authenticationOf } from './authentication.ts';
import type { ResourceConfig } from './model.ts';

/** What belongs to one node (local, remote, source, undo-directory) is not among them. */
export function settingsOf(resource: ResourceConfig): Record<string, string> {
  const { mount } = resource;
  const place = mount === null ? {} : {
    filesystem: mount.filesystem, mountpoint: mount.mountPoint, options: mount.options ?? '',
  };
  return {
    replication: resource.replication, checksum: resource.checksum,
    compression: resource.compression, timeout: String(resource.timeout),
    name: resource.deviceName, exec: resource.exec ?? 'none', frontend: resource.frontend,
    cache: resource.cache, 'async-lag': String(resource.asyncLag),
    'async-lag-time': String(resource.asyncLagTime),
    'disk-timeout': String(resource.diskTimeout), 'on-no-data': resource.onNoData,
    'on-stop': resource.onStop,
    'resync-rate': resource.resyncRate === 0 ? 'auto' : String(resource.resyncRate),
    authentication: authenticationOf(resource).kind,
    mount: mount === null ? 'none' : 'yes', ...place,
  };
}
