/**
 * The block device of one resource: mount point, FUSE mount, loop device and the link below
 * devdir. Built in this order and taken away in reverse:
 *   RUNDIR/NAME (mount point) -> FUSE mount -> loop device on RUNDIR/NAME/volume -> link
 * `clear` takes away whatever is there, also what a killed daemon left, and may be repeated.
 */
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { HastError, errnoName, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { within } from './deadline.ts';
import type { LocalOperations } from './local-guard.ts';

/** What the kernel is asked for; replaced in tests. None of them may block the event loop. */
export interface DeviceOperations extends LocalOperations {
  /** A new /dev/fuse description, not mounted yet. */
  openFuse(): Promise<number>;
  closeFuse(fd: number): Promise<void>;
  mountFuse(fd: number, mountPoint: string): Promise<void>;
  isMounted(mountPoint: string): Promise<boolean>;
  /** `lazy`: also while it is in use. `abort`: its server is gone, what users wait for fails. */
  unmountFuse(mountPoint: string, options: { lazy: boolean; abort: boolean }): Promise<void>;
  attachLoop(file: string): Promise<string>;
  /**
   * Returns when the device is gone. `lazy`: also while it is in use; the kernel lets it go
   * with the last user.
   */
  detachLoop(device: string, options: { lazy: boolean }): Promise<void>;
  findLoops(file: string): Promise<string[]>;
  /** Who uses the block device, readable: `mounted at /data`, `fio (pid 12)`. */
  holders(device: string): Promise<string[]>;
}

export interface DevicePaths {
  mountPoint: string;
  link: string;
}

const mountPointMode = 0o700;
const devdirMode = 0o755;

export class Device {
  readonly mountPoint: string;
  readonly volume: string;
  readonly link: string;
  readonly #operations: DeviceOperations;
  readonly #log: Logger;
  readonly #stepMs: number;
  #loop: string | undefined;

  constructor(paths: DevicePaths, operations: DeviceOperations, log: Logger, stepMs: number) {
    this.mountPoint = paths.mountPoint;
    this.volume = path.join(paths.mountPoint, 'volume');
    this.link = paths.link;
    this.#operations = operations;
    this.#log = log;
    this.#stepMs = stepMs;
  }

  /** The loop device while the device is shown. */
  get loop(): string | undefined {
    return this.#loop;
  }

  /** Makes the mount point. */
  async prepare(): Promise<void> {
    await fs.mkdir(this.mountPoint, { recursive: true, mode: mountPointMode });
  }

  async mount(fuseFd: number): Promise<void> {
    await this.#step('mounting', this.#operations.mountFuse(fuseFd, this.mountPoint));
  }

  /** Attaches the served volume to a loop device and links it below devdir. */
  async show(): Promise<void> {
    const attach = this.#operations.attachLoop(this.volume);
    this.#loop = await this.#step('attaching the loop device', attach);
    await this.#makeLink(this.#loop);
    this.#log.info({ device: this.link, loop: this.#loop }, 'the device is there');
  }

  /** The device that an earlier daemon showed is this one; false where there is none. */
  async adopt(): Promise<boolean> {
    const find = this.#operations.findLoops(this.volume);
    const loops = await this.#step('looking for the loop device', find);
    const linked = await fs.readlink(this.link).catch(() => '');
    const loop = loops.find((one) => one === linked) ?? loops[0];
    if (loop === undefined) return false;
    this.#loop = loop;
    if (loop !== linked) await this.#makeLink(loop);
    return true;
  }

  /** Who uses the device; empty where it is not shown. */
  async holders(): Promise<string[]> {
    const loop = await this.#ownLoop();
    if (loop === undefined) return [];
    return await this.#step('looking for users', this.#operations.holders(loop));
  }

  /**
   * The loop device, if it still is on our volume: one that was told to detach while in use
   * goes with its last user, and then its number may belong to somebody else.
   */
  async #ownLoop(): Promise<string | undefined> {
    const loop = this.#loop;
    if (loop === undefined) return undefined;
    const find = this.#operations.findLoops(this.volume);
    const loops = await this.#step('looking for the loop device', find);
    return loops.includes(loop) ? loop : undefined;
  }

  /**
   * Removes link and loop device. Unless `force`, a loop device that got a user meanwhile
   * throws, and the link is there again.
   */
  async hide(force: boolean): Promise<void> {
    const loop = await this.#ownLoop();
    await this.#removeLink();
    this.#loop = undefined;
    if (loop === undefined) return;
    try {
      const detach = this.#operations.detachLoop(loop, { lazy: force });
      await this.#step('detaching the loop device', detach);
    } catch (error) {
      if (!force) {
        this.#loop = loop;
        await this.#makeLink(loop);
      }
      throw error;
    }
  }

  /** Unmounts FUSE; lazily where `force`, or where the plain way fails (somebody reads it). */
  async unmount(force: boolean): Promise<void> {
    if (!await this.#operations.isMounted(this.mountPoint)) return;
    const unmount = (lazy: boolean, abort: boolean): Promise<void> =>
      this.#step('unmounting', this.#operations.unmountFuse(this.mountPoint, { lazy, abort }));
    if (force) return await unmount(true, true);
    try {
      await unmount(false, false);
    } catch (error) {
      const fields = { mountPoint: this.mountPoint, error: errorText(error) };
      this.#log.warn(fields, 'the volume is still open: it is unmounted lazily');
      await unmount(true, false);
    }
  }

  /** Removes the mount point; it stays where something is left in it. */
  async removeMountPoint(): Promise<void> {
    await fs.rmdir(this.mountPoint).catch(() => undefined);
  }

  /**
   * Takes away link, the mounts, and every loop device on the volume, whoever made them.
   * Tries everything; throws the first failure at the end.
   */
  async clear(): Promise<void> {
    const failures: unknown[] = [];
    const attempt = async (work: () => Promise<void>): Promise<void> => {
      await work().catch((error: unknown) => failures.push(error));
    };
    let loops: string[] = [];
    await attempt(() => this.#removeLink());
    await attempt(async () => {
      // While their file still has its name.
      const find = this.#operations.findLoops(this.volume);
      loops = await this.#step('looking for loop devices', find);
    });
    // Before the loop devices: what they wait for ends with the connection.
    await attempt(() => this.#unmountAll());
    for (const loop of loops) {
      this.#log.warn({ loop }, 'a loop device is detached');
      await attempt(() => this.#step(
        'detaching a loop device', this.#operations.detachLoop(loop, { lazy: true }),
      ));
    }
    this.#loop = undefined;
    if (failures.length > 0) throw failures[0];
  }

  /** Mounts of several daemons that were killed can lie upon each other. */
  async #unmountAll(): Promise<void> {
    const layersMax = 16;
    for (let layer = 0; layer < layersMax; layer++) {
      if (!await this.#operations.isMounted(this.mountPoint)) return;
      this.#log.warn({ mountPoint: this.mountPoint }, 'a mount is taken away');
      const unmount = this.#operations.unmountFuse(this.mountPoint, {
        lazy: true, abort: true,
      });
      await this.#step('unmounting', unmount);
    }
    throw new HastError('HAST_E_DEVICE', `${this.mountPoint} stays mounted`, {
      hint: `umount -l ${this.mountPoint}`,
    });
  }

  async #makeLink(loop: string): Promise<void> {
    await fs.mkdir(path.dirname(this.link), { recursive: true, mode: devdirMode });
    await this.#refuseForeign();
    const fresh = path.join(path.dirname(this.link), `.${path.basename(this.link)}.${process.pid}`);
    await fs.rm(fresh, { force: true });
    await fs.symlink(loop, fresh);
    await fs.rename(fresh, this.link);
  }

  async #removeLink(): Promise<void> {
    await this.#refuseForeign();
    await fs.rm(this.link, { force: true });
  }

  /** Only a link is ours to replace. */
  async #refuseForeign(): Promise<void> {
    const entry = await fs.lstat(this.link).catch((error: unknown) => {
      if (errnoName(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (entry === undefined || entry.isSymbolicLink()) return;
    throw new HastError('HAST_E_DEVICE', `${this.link} exists and is not a link`, {
      hint: `move ${this.link} away`,
    });
  }

  #step<T>(what: string, work: Promise<T>): Promise<T> {
    return within(this.#stepMs, what, work);
  }
}
