/** What blkid(8) finds at the start of a disk or file. */
import { HastError } from '../base/errors.ts';
import { lastWords, runTool } from './tool.ts';

const boundMs = 60_000;
/** Exit codes: nothing was found; several contradicting things were. */
const nothing = 2;
const ambivalent = 8;

/** Its fields, TYPE and LABEL among them; null where nothing is found. Throws HAST_E_DEVICE. */
export async function probe(path: string): Promise<ReadonlyMap<string, string> | 'several' | null> {
  const result = await runTool('blkid', ['-p', '-o', 'export', path], boundMs);
  if (result.code === nothing && result.stderr.trim() === '') return null;
  if (result.code === ambivalent) return 'several';
  if (result.code !== 0) {
    throw new HastError('HAST_E_DEVICE', `cannot look at ${path}: ${lastWords(result)}`, {
      hint: 'see the kernel log: dmesg',
    });
  }
  return new Map(result.stdout.split('\n').map((line) => {
    const at = line.indexOf('=');
    return [line.slice(0, at), line.slice(at + 1)] as const;
  }));
}
