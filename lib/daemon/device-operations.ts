/** The real operations of lib/daemon/device.ts. */
import * as childProcess from 'node:child_process';
import * as fs from 'node:fs';
import { promisify } from 'node:util';
import { HastError, errorText } from '../base/errors.ts';
import { isMounted, mountFuse, openFuseDevice, unmountFuse } from '../fuse/mount.ts';
import { holders } from '../loop/holders.ts';
import { attachLoop, detachLoop, findLoops } from '../loop/loop.ts';
import type { DeviceOperations } from './device.ts';

const open = promisify(fs.open);
const close = promisify(fs.close);

/** Says on stdout what fdatasync of descriptor 3 says. In such a script the module is a global. */
const flushScript = 'try { fs.fdatasyncSync(3) } catch ({ code }) { process.stdout.write(code) }';

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
  openLocal: (path) => open(path, fs.constants.O_RDWR),
  closeLocal: (fd) => close(fd),
  flushLocal,
};

function interrupted(why: string): HastError {
  return new HastError('HAST_E_BUSY', `the flush by a process of its own failed: ${why}`, {
    hint: 'memory or processes may be exhausted; the same command again',
  });
}

/** In a process of its own: a disk that hangs must not take a thread of the parent's pool. */
function flushLocal(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const { NODE_OPTIONS: _, ...env } = process.env;
    const child = childProcess.spawn(process.execPath, ['-e', flushScript], {
      stdio: ['ignore', 'pipe', 'inherit', fd], env,
    });
    let said = '';
    child.stdout?.on('data', (text: Buffer) => { said += text.toString(); });
    child.once('error', (error) => {
      reject(interrupted(errorText(error)));
    });
    child.once('close', (code, signal) => {
      if (said !== '') reject(Object.assign(new Error(said), { code: said }));
      else if (code === 0) resolve();
      else reject(interrupted(signal ?? String(code)));
    });
  });
}
