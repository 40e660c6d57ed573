/**
 * Bytes built by hand, field by field, with a checksum of their own: nothing here comes from the
 * code under test. And the frozen samples: hex text, lines of zeros left out.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';

/** CRC-32 as in zlib, bit by bit. */
export function slowCrc32(raw: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of raw) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : 0xedb8_8320);
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}

export class Bytes {
  readonly raw: Buffer;

  constructor(size: number) {
    this.raw = Buffer.alloc(size);
  }

  text(at: number, value: string): this {
    this.raw.write(value, at, 'latin1');
    return this;
  }

  /** `size` bytes, lowest first. */
  number(at: number, size: number, value: number | bigint): this {
    let rest = BigInt(value);
    for (let index = 0; index < size; index++) {
      this.raw[at + index] = Number(rest & 0xffn);
      rest >>= 8n;
    }
    return this;
  }

  numbers(at: number, size: number, values: readonly (number | bigint)[]): this {
    values.forEach((value, index) => this.number(at + index * size, size, value));
    return this;
  }

  put(at: number, bytes: Uint8Array): this {
    this.raw.set(bytes, at);
    return this;
  }

  /** The checksum of everything with its own four bytes zero. */
  seal(at: number): this {
    this.number(at, 4, 0);
    return this.number(at, 4, slowCrc32(this.raw));
  }
}

const folder = path.join('test', 'golden', 'v1');
const lineSize = 32;

function toText(raw: Buffer): string {
  const lines = [`size ${raw.length}`];
  for (let at = 0; at < raw.length; at += lineSize) {
    const line = raw.subarray(at, at + lineSize);
    if (line.some((byte) => byte !== 0)) {
      lines.push(`${at.toString(16).padStart(6, '0')}: ${line.toString('hex')}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/**
 * The frozen sample. A missing one is written where GOLDEN_WRITE is set; an existing one is never
 * changed: formats are for ever.
 */
export function frozen(name: string, made: Buffer): Buffer {
  const file = path.join(folder, `${name}.hex`);
  if (process.env['GOLDEN_WRITE'] !== undefined && !fs.existsSync(file)) {
    fs.writeFileSync(file, toText(made));
  }
  const [head, ...lines] = fs.readFileSync(file, 'utf8').trimEnd().split('\n');
  const raw = Buffer.alloc(Number(/^size (\d+)$/.exec(head ?? '')?.[1]));
  for (const line of lines) {
    const match = /^([0-9a-f]+): ([0-9a-f]+)$/.exec(line);
    if (match === null) throw new Error(`${file}: ${line}`);
    Buffer.from(match[2] as string, 'hex').copy(raw, Number.parseInt(match[1] as string, 16));
  }
  return raw;
}
