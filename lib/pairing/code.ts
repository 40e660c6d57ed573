/** What `hastctl pair init` prints and `pair join` takes: address, CA fingerprint, one-time key. */
import { createHash, randomBytes } from 'node:crypto';
import { HastError } from '../base/errors.ts';
import { crc32 } from '../base/checksum.ts';

export interface PairCode {
  host: string;
  port: number;
  /** SHA-256 of the CA's certificate (DER), 32 bytes. */
  fingerprint: Buffer;
  /** 16 bytes: who knows it may take part. */
  key: Buffer;
}

const prefix = 'hast1.';
const keyBytes = 16;
const fixedBytes = 4 + keyBytes + 32 + 2;

export function newKey(): Buffer {
  return randomBytes(keyBytes);
}

export function fingerprintOf(certificate: Uint8Array): Buffer {
  return createHash('sha256').update(certificate).digest();
}

export function formatCode({ host, port, fingerprint, key }: PairCode): string {
  const tail = Buffer.alloc(2);
  tail.writeUInt16LE(port);
  const body = Buffer.concat([key, fingerprint, tail, Buffer.from(host)]);
  const check = Buffer.alloc(4);
  check.writeUInt32LE(crc32(body));
  return prefix + Buffer.concat([check, body]).toString('base64url');
}

/** Throws HAST_E_USAGE where it is no code, or one that was mistyped. */
export function parseCode(text: string): PairCode {
  const raw = Buffer.from(text.trim().slice(prefix.length), 'base64url');
  const body = raw.subarray(4);
  const isCode = text.trim().startsWith(prefix) && raw.length > fixedBytes &&
    raw.readUInt32LE(0) === crc32(body);
  if (!isCode) {
    throw new HastError('HAST_E_USAGE', 'this is no code of hastctl pair init, or not all of it', {
      hint: 'copy the whole word that begins with hast1.',
    });
  }
  return {
    key: body.subarray(0, keyBytes),
    fingerprint: body.subarray(keyBytes, keyBytes + 32),
    port: body.readUInt16LE(keyBytes + 32),
    host: body.subarray(keyBytes + 34).toString(),
  };
}
