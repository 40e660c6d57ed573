/** The real operations of lib/daemon/device.ts. */
import * as fs from 'node:fs';
import { promisify } from 'node:util';
import { HastError } from '../base/errors.ts';
import { isMounted, mountFuse, openFuseDevice, unmountFuse } from '../fuse/mount.ts';
import { holders } from '../loop/holders.ts';
import { attachLoop, detachLoop, findLoops } from '../loop/loop.ts';
import type { DeviceOperations } from './device.ts';

const close = promisify(fs.close);

/** A device that just lost its last user may be looked at by udev for a moment. */
const detachMs = 5000;

export const systemDevice: DeviceOperations = {
  openFuse: async () => openFuseDevice(),
  closeFuse: (fd) => close(fd),
  mountFuse,
  isMounted,
  unmountFuse,
  attachLoop: (file) => attachLoop(file),
  detachLoop: async (device, { lazy }) => {
    try {
      await detachLoop(device, { waitMs: lazy ? 0 : detachMs });
    } catch (error) {
      // The kernel has been told; the device goes with its last user.
      if (!lazy || !(error instanceof HastError) || error.code !== 'HAST_E_DEVICE_IN_USE') {
        throw error;
      }
    }
  },
  findLoops,
  holders,
};
