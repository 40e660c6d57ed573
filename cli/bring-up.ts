/**
 * One resource from nothing to mounted on this node, and back. Every step looks first whether it
 * is done, so that both may be repeated at any point; neither ever forces anything.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError, errnoName, errorText } from '../lib/base/errors.ts';
import type { Config, MountConfig, ResourceConfig } from '../lib/config/model.ts';
import type { RoleWord } from '../lib/control/messages.ts';
import {
  checkFilesystem, contentOf, isBlank, makeFilesystem, mountFilesystem, needsCheck,
  unmountFilesystem,
} from '../lib/filesystem/filesystem.ts';
import { isOnVolume, mountOn, mounts, realDirectory } from '../lib/filesystem/mounts.ts';
import type { Mount } from '../lib/filesystem/mounts.ts';
import { usersOf } from '../lib/filesystem/users.ts';
import type { ResourceStatus } from '../lib/format/status.ts';
import { askRole, statusOf } from './daemon-commands.ts';
import type { Context } from './output.ts';
import type { Steps } from './steps.ts';

export interface Place {
  context: Context;
  config: Config;
  resource: ResourceConfig;
  /** Seconds for which a refused promotion is tried again while the peer may still come. */
  waitSeconds?: number;
}

const pollMs = 100;
const peerPollMs = 500;
/** A promotion that is refused though the peer is there: it may be done with something. */
const againMs = 5000;
const directoryMode = 0o755;
/** udev and the like have a file system open for a moment after it was mounted. */
const unmountAttempts = 5;
const unmountPauseMs = 200;

/** Primary, its device there and answering, and the file system mounted. */
export async function bringUp(place: Place, steps: Steps): Promise<void> {
  const { mount } = place.resource;
  let status: ResourceStatus | undefined;
  try {
    await steps.run('role primary', () => becomePrimary(place));
    await steps.run('device', async () => {
      status = await untilServed(place);
      return { note: `${status.device}, ${status.status}` };
    });
    if (mount === null || status === undefined) return;
    const { name } = place.resource;
    const mountPoint = await realDirectory(mount.mountPoint);
    if (await isMounted(place, mountPoint)) {
      steps.add({ step: 'mount', seconds: 0, already: true, note: mount.mountPoint });
      return;
    }
    const { device, mediaSize } = status;
    await refuseMounted(name, device);
    await steps.run('file system', () => prepareFilesystem(device, mediaSize, mount));
    if (needsCheck(mount.filesystem)) {
      await steps.run('fsck', async () => ({ note: await checkFilesystem(device) }));
    }
    await makeMountPoint(mountPoint, steps);
    await steps.run('mount', async () => {
      // systemd takes it for one that needs the network, and unmounts it before hastd ends.
      const options = mount.options === null ? '_netdev' : `${mount.options},_netdev`;
      await mountFilesystem(device, mountPoint, mount.filesystem, options);
      return { note: mount.mountPoint };
    });
  } catch (error) {
    const isPrimary = steps.done.some(({ step }) => step === 'role primary');
    const stands = isPrimary ? `the role is primary, nothing was mounted` : '';
    throw explained(error, place, stands, 'up');
  }
}

/** Unmounted, its device taken away, and secondary. */
export async function takeDown(place: Place, steps: Steps): Promise<void> {
  const { mount, name } = place.resource;
  try {
    if (mount !== null) await steps.run('unmount', () => unmount(place, mount));
    await steps.run('role secondary', () => changeRole(place, 'secondary'));
  } catch (error) {
    const isUnmounted = steps.done.some(({ step }) => step === 'unmount');
    const stands = mount === null || isUnmounted ? '' : `${name} was left as it is`;
    throw explained(error, place, stands, 'down');
  }
}

/** The error with the resource, what stands now, and what to type. */
function explained(error: unknown, { resource }: Place, stands: string, again: string): unknown {
  if (!(error instanceof HastError)) return error;
  const { name } = resource;
  const prefix = error.message.startsWith(`${name}: `) ? '' : `${name}: `;
  const suffix = stands === '' ? '' : ` (${stands})`;
  const hint = error.hint ?? `hastctl list ${name}, then: hastctl ${again} ${name}`;
  return new HastError(error.code, `${prefix}${error.message}${suffix}`, { cause: error, hint });
}

async function changeRole(
  { context, config, resource }: Place, role: RoleWord,
): Promise<{ already: boolean }> {
  const { from } = await askRole(context, config, role, resource.name);
  return { already: from === role };
}

/** After a start of both nodes neither may be promoted before it has heard of the other one. */
async function becomePrimary(place: Place): Promise<{ already: boolean }> {
  const end = performance.now() + 1000 * (place.waitSeconds ?? 0);
  for (;;) {
    try {
      return await changeRole(place, 'primary');
    } catch (error) {
      const isRefused = error instanceof HastError && error.code === 'HAST_E_PROMOTE_REFUSED';
      if (!isRefused || !await mayChange(place, end)) throw error;
    }
  }
}

/** True when it is worth trying again; false where only a person, or nothing in time, helps. */
async function mayChange({ context, resource }: Place, end: number): Promise<boolean> {
  const askedAt = performance.now();
  for (let now = askedAt; now < end; now = performance.now()) {
    const [status] = await statusOf(context, [resource.name]);
    if (status === undefined || status.needsHuman || status.peerRole === 'primary') return false;
    if (status.status === 'complete') return true;
    const isThere = status.connection === 'connected' || status.connection === 'syncing';
    if (isThere && now - askedAt > againMs) return true;
    await sleep(peerPollMs);
  }
  return false;
}

/** The status once the device answers; a primary that resumes may wait for its peer first. */
async function untilServed({ context, resource }: Place): Promise<ResourceStatus> {
  const end = performance.now() + 1000 * Math.max(10, resource.timeout);
  for (;;) {
    const [status] = await statusOf(context, [resource.name]);
    if (status === undefined) throw new HastError('HAST_E_INTERNAL', 'hastd gives no status');
    const waits = ['waiting', 'init', 'failed', 'split-brain'].includes(status.status);
    if (!waits && status.role === 'primary' && await isBlockDevice(status.device)) return status;
    if (status.role !== 'primary' || performance.now() > end) {
      const why = status.detail === '' ? `role ${status.role}, ${status.status}` : status.detail;
      throw new HastError('HAST_E_TIMEOUT', `the device does not answer: ${why}`, {
        hint: `hastctl list ${resource.name}, then: hastctl up ${resource.name}`,
      });
    }
    await sleep(pollMs);
  }
}

async function isBlockDevice(device: string): Promise<boolean> {
  return await fs.stat(device).then((stats) => stats.isBlockDevice(), () => false);
}

function volumeOf({ config, resource }: Place): string {
  return path.join(config.rundir, resource.name, 'volume');
}

/** Throws where something else is mounted in its place. */
async function isMounted(place: Place, mountPoint: string): Promise<boolean> {
  const there = mountOn(await mounts(), mountPoint);
  if (there === undefined) return false;
  const { config, resource } = place;
  const loop = await fs.readlink(path.join(config.devdir, resource.deviceName)).catch(() => '');
  if (there.source === loop) return true;
  if (await isOnVolume(there, volumeOf(place))) {
    throw new HastError(
      'HAST_E_DEVICE_IN_USE',
      `what is mounted on ${mountPoint} lost its device (${there.source})`,
      { hint: `umount ${mountPoint}, then: hastctl up ${resource.name}` },
    );
  }
  throw new HastError(
    'HAST_E_DEVICE_IN_USE', `${there.source} (${there.type}) is mounted on ${mountPoint} already`,
    { hint: `umount ${mountPoint}, or name another mountpoint` },
  );
}

/** A file system in use must be neither checked nor made. */
async function refuseMounted(name: string, device: string): Promise<void> {
  const loop = await fs.readlink(device).catch(() => device);
  const other = (await mounts()).find(({ source }) => source === loop);
  if (other === undefined) return;
  throw new HastError('HAST_E_DEVICE_IN_USE', `${device} is mounted on ${other.mountPoint}`, {
    hint: `umount ${other.mountPoint}, then: hastctl up ${name}`,
  });
}

async function prepareFilesystem(
  device: string, mediaSize: number, { filesystem, mkfs }: MountConfig,
): Promise<{ already: boolean; note: string }> {
  const content = await contentOf(device);
  if (content === filesystem) return { already: true, note: filesystem };
  if (content !== null) {
    throw new HastError(
      'HAST_E_REFUSED', `${device} holds ${content}, the configuration says ${filesystem}`,
      { hint: 'correct the mount section; nothing on the volume was changed' },
    );
  }
  const hint = `mkfs.${filesystem} ${device}, if nothing on it is needed`;
  if (!mkfs) {
    throw new HastError('HAST_E_REFUSED', `there is no file system on ${device}`, { hint });
  }
  if (!await isBlank(device, mediaSize)) {
    throw new HastError(
      'HAST_E_REFUSED', `there is no known file system on ${device}, but it is not empty`, { hint },
    );
  }
  await makeFilesystem(device, filesystem);
  return { already: false, note: `${filesystem}, made: the volume was empty` };
}

async function makeMountPoint(mountPoint: string, steps: Steps): Promise<void> {
  let entries: string[] = [];
  try {
    entries = await fs.readdir(mountPoint);
  } catch (error) {
    if (errnoName(error) !== 'ENOENT') throw unfit(mountPoint, error);
    await steps.run('mountpoint', async () => {
      await fs.mkdir(mountPoint, { recursive: true, mode: directoryMode }).catch(
        (failure: unknown) => { throw unfit(mountPoint, failure); },
      );
      return { note: `${mountPoint}, made` };
    });
  }
  if (entries.length === 0) return;
  const note = `${mountPoint} holds files, which are hidden while the volume is mounted`;
  steps.add({ step: 'mountpoint', seconds: 0, already: true, note });
}

function unfit(mountPoint: string, cause: unknown): HastError {
  return new HastError('HAST_E_IO', `${mountPoint} cannot be used: ${errorText(cause)}`, {
    cause, hint: "correct 'mountpoint', or what is in its place",
  });
}

async function unmount(
  place: Place, mount: MountConfig,
): Promise<{ already?: boolean; note: string }> {
  const note = mount.mountPoint;
  const mountPoint = await realDirectory(mount.mountPoint);
  let text = '';
  for (let attempt = 0; attempt < unmountAttempts; attempt++) {
    if (attempt > 0) await sleep(unmountPauseMs);
    const there = mountOn(await mounts(), mountPoint);
    if (!await isOurs(there, place)) return attempt === 0 ? { already: true, note } : { note };
    const trouble = await unmountFilesystem(mountPoint);
    if (trouble === null) return { note };
    text = trouble;
  }
  const users = await usersOf(mountPoint);
  const who = users.length > 0 ? `${mountPoint} is in use: ${users.join(', ')}` : text;
  throw new HastError('HAST_E_DEVICE_IN_USE', who, {
    hint: `end what uses it, then: hastctl down ${place.resource.name}`,
  });
}

async function isOurs(there: Mount | undefined, place: Place): Promise<boolean> {
  if (there === undefined) return false;
  const { config, resource } = place;
  const loop = await fs.readlink(path.join(config.devdir, resource.deviceName)).catch(() => '');
  return there.source === loop || await isOnVolume(there, volumeOf(place));
}
