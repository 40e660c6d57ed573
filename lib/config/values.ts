/** The kinds of value a keyword can take: what each refuses, and why. */
import * as posix from 'node:path/posix';
import { isRefusal, parseAddress, refusePath } from './address.ts';
import type { Refusal } from './address.ts';
import { keywords } from './keywords.ts';
import type { ValueKind } from './keywords.ts';
import { limits } from './limits.ts';
import { quote } from './problems.ts';

export type NameKind = 'resource-name' | 'node-name';

const resourceName = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const groupName = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;
/** As useradd(8) has it. */
const groupBytesMax = 32;
const nodeName = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;

/** Why `text` is no value of this kind; null if it is one. */
export function refuseValue(kind: ValueKind | NameKind, text: string): Refusal | null {
  switch (kind) {
    case 'control':
    case 'listen':
    case 'source': {
      const address = parseAddress(text, kind);
      return isRefusal(address) ? address : null;
    }
    case 'metrics':
    case 'remote': {
      const address = text === 'none' ? null : parseAddress(text, kind);
      return address !== null && isRefusal(address) ? address : null;
    }
    case 'program':
      return text === 'none' ? null : refusePath(text, limits.pathBytesMax);
    case 'path':
      return refusePath(text, limits.pathBytesMax);
    case 'directory':
      if (posix.normalize(text) === '/') return { message: "'/' cannot be used for this" };
      return refusePath(text, limits.pathBytesMax);
    case 'name':
    case 'resource-name':
      return refuseName(text, resourceName, limits.resourceNameBytesMax, 'a letter or digit');
    case 'node-name':
      return refuseName(text, nodeName, limits.nodeNameBytesMax, "a letter, digit or '_'");
    case 'group':
      return refuseName(text, groupName, groupBytesMax, "a letter, digit or '_'");
    case 'options':
      return refuseOptions(text);
    case 'bytes':
      return refuseBytes(text, 'async-lag');
    case 'rate':
      return text === 'auto' ? null : refuseBytes(text, 'resync-rate');
    // The schema says these in full.
    case 'choice':
    case 'switch':
    case 'seconds':
    case 'microseconds':
      return null;
  }
}

function refuseName(text: string, pattern: RegExp, max: number, first: string): Refusal | null {
  if (text === '') return { message: 'the name is empty' };
  const size = Buffer.byteLength(text);
  if (size > max) return { message: `the name has ${size} bytes, at most ${max} are allowed` };
  if (pattern.test(text)) return null;
  return {
    message: `${quote(text)} cannot be used as a name`,
    hint: `a name starts with ${first}; letters, digits, '.', '_' and '-' may follow`,
  };
}

/** What mounts something else than the device, or changes a mount that is there. */
const otherMounts = ['remount', 'bind', 'rbind', 'move', 'loop'];

function refuseOptions(text: string): Refusal | null {
  const hint = "as for mount -o, separated by commas: 'noatime,discard'";
  const size = Buffer.byteLength(text);
  if (size > limits.pathBytesMax) {
    const message = `the options have ${size} bytes, at most ${limits.pathBytesMax} are allowed`;
    return { message };
  }
  if (/[\s\u0000-\u001f\u007f]/.test(text)) {
    return { message: `the options ${quote(text)} hold a space`, hint };
  }
  const options = text.split(',');
  if (options.includes('')) return { message: `${quote(text)} holds an empty option`, hint };
  const other = options.find((one) => otherMounts.includes(one.split('=')[0] ?? ''));
  if (other === undefined) return null;
  return { message: `the option ${quote(other)} is not one for mounting the device`, hint };
}

function refuseBytes(text: string, word: string): Refusal | null {
  const { min = 0, max = 0, expects = '' } = keywords[word] ?? {};
  const value = parseBytes(text);
  if (value === undefined) {
    return { message: `${quote(text)} is not a size`, hint: `expected ${expects}` };
  }
  if (value >= min && value <= max) return null;
  return { message: `${quote(text)} is out of range`, hint: `expected ${expects}` };
}

const powers: Readonly<Record<string, number>> = { '': 0, k: 1, m: 2, g: 3, t: 4 };

/** `64M` as bytes, suffixes k, M, G, T in either case; undefined if it is no such number. */
export function parseBytes(text: string): number | undefined {
  const found = /^([0-9]{1,15})([kmgt]?)$/i.exec(text);
  if (found === null) return undefined;
  const power = powers[(found[2] ?? '').toLowerCase()] ?? 0;
  const value = Number(found[1]) * 1024 ** power;
  return Number.isSafeInteger(value) ? value : undefined;
}
