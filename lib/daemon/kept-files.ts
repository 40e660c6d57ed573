/**
 * The core's undo store on files: DIRECTORY/NAME-GENERATION.undo, numbered where that exists. The
 * directory is made where it is missing. Whoever wants the data back: hastctl undo NAME FILE.
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { errnoName, errorText, HastError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { KeptSink, UndoStore } from '../core/ports.ts';
import { ownDirectory } from './safe-files.ts';
import type { UndoFiles, UndoInfo, UndoWriter } from './worker-orders.ts';

/** A directory with so many files of one generation wants a person. */
const namesMax = 100;
const directoryMode = 0o700;

export class KeptFiles implements UndoStore {
  readonly #create: UndoFiles['create'];
  readonly #directory: () => string;
  readonly #log: Logger;

  /** `directory` is asked each time: a reload may name another one. */
  constructor(create: UndoFiles['create'], directory: () => string, log: Logger) {
    this.#create = create;
    this.#directory = directory;
    this.#log = log;
  }

  create(info: UndoInfo, done: (errno: number, sink: KeptSink | null) => void): void {
    const directory = this.#directory();
    this.#make(directory, info).then((sink) => done(0, sink), (error: unknown) => {
      this.#log.error({ directory, error: errorText(error) }, 'an undo file cannot be made');
      done(errnoNumber(error), null);
    });
  }

  async #make(directory: string, info: UndoInfo): Promise<KeptSink> {
    await ownDirectory(directory, directoryMode, 'undo-directory');
    const generation = info.generation.toString(16).padStart(16, '0');
    const stem = path.join(directory, `${info.resource}-${generation}`);
    for (let number = 1; ; number++) {
      const file = number === 1 ? `${stem}.undo` : `${stem}-${number}.undo`;
      try {
        return new KeptFile(file, await this.#create(file, info));
      } catch (error) {
        if (number === namesMax || !isTaken(error)) throw error;
      }
    }
  }
}

class KeptFile implements KeptSink {
  readonly name: string;
  readonly #writer: UndoWriter;
  #sealing = false;

  constructor(name: string, writer: UndoWriter) {
    this.name = name;
    this.#writer = writer;
  }

  add(offset: number, data: Buffer, dataOffset: number, length: number,
    done: (errno: number) => void): void {
    this.#writer.add(offset, data, dataOffset, length, done);
  }

  seal(done: (errno: number) => void): void {
    this.#sealing = true;
    this.#writer.seal(done);
  }

  abandon(): void {
    // The writer leaves alone what it has sealed, or failed to seal.
    if (this.#sealing) fs.unlink(this.name, () => undefined);
    else this.#writer.abandon();
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof HastError && errnoName(error.cause) === 'EEXIST';
}

function errnoNumber(error: unknown): number {
  const name = error instanceof HastError ? error.errno : errnoName(error);
  const known: Readonly<Record<string, number>> = os.constants.errno;
  return known[name ?? ''] ?? os.constants.errno.EIO;
}
