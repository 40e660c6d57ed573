/**
 * What a parent must know of a resource to go on where another one ended out of order, in the same
 * boot: RUNDIR/.workers/NAME.json. Gone where the role is init.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { errnoName, errorText } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ResourceConfig } from '../config/model.ts';
import type { RoleWord } from '../control/messages.ts';
import type { Negotiated } from '../fuse/session.ts';
import { workerFolderMode } from './worker-files.ts';

const recordVersion = 1;
const bootIdFile = '/proc/sys/kernel/random/boot_id';
const recordMode = 0o600;

export interface RoleRecord {
  role: Exclude<RoleWord, 'init'>;
  resource: ResourceConfig;
  /** Of a primary: what its workers settled with the kernel; null where none can be replaced. */
  negotiated: Negotiated | null;
  /** The local copy is detached, or failed. */
  isDetached: boolean;
}

export class RoleRecordFile {
  readonly #path: string;
  readonly #log: Logger;
  #written: string | null = null;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /** Null where there is none, or one of another boot or release. */
  read(): RoleRecord | null {
    try {
      const { version, bootId, ...record } = JSON.parse(fs.readFileSync(this.#path, 'utf8')) as
        RoleRecord & { version: number; bootId: string };
      return version === recordVersion && bootId === readBootId() ? record : null;
    } catch (error) {
      if (errnoName(error) !== 'ENOENT') {
        this.#log.warn({ file: this.#path, error: errorText(error) }, 'a record cannot be read');
      }
      return null;
    }
  }

  /** Null: the role is init. What fails is logged: it is needed after a second failure only. */
  write(record: RoleRecord | null): void {
    try {
      const text = record === null ? null
        : JSON.stringify({ version: recordVersion, bootId: readBootId(), ...record });
      if (text === this.#written) return;
      if (text === null) {
        fs.rmSync(this.#path, { force: true });
      } else {
        const fresh = `${this.#path}.new`;
        fs.mkdirSync(path.dirname(fresh), { recursive: true, mode: workerFolderMode });
        fs.rmSync(fresh, { force: true });
        fs.writeFileSync(fresh, text, { mode: recordMode, flag: 'wx' });
        fs.renameSync(fresh, this.#path);
      }
      this.#written = text;
    } catch (error) {
      this.#log.warn({ file: this.#path, error: errorText(error) }, 'the role is not recorded');
    }
  }
}

function readBootId(): string {
  return fs.readFileSync(bootIdFile, 'utf8').trim();
}
