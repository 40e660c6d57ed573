/** Reading small kernel files whose absence is an answer. */
import * as fs from 'node:fs';

/** The text, trimmed, or null where there is none (any more). */
export async function readText(file: string): Promise<string | null> {
  try {
    return (await fs.promises.readFile(file, 'utf8')).trim();
  } catch {
    return null;
  }
}

/** The names in a directory; none where it does not exist or may not be read. */
export async function listNames(directory: string): Promise<string[]> {
  try {
    return await fs.promises.readdir(directory);
  } catch {
    return [];
  }
}

export async function readLink(file: string): Promise<string | null> {
  try {
    return await fs.promises.readlink(file);
  } catch {
    return null;
  }
}
