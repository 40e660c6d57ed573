/**
 * What this node shows to its peer, and by what it knows it: certificates, or a shared secret.
 * What is in the files stays in here: errors and reports name files and owners only.
 */
import {
  createHash, createPrivateKey, hkdfSync, type KeyObject, X509Certificate,
} from 'node:crypto';
import * as fs from 'node:fs';
import { HastError, errnoName, errorText } from '../base/errors.ts';

/** Where they are: `authentication` of a resource's configuration, if it is not `none`. */
export type CredentialFiles =
  ({ kind: 'tls'; cert: string; key: string; ca: string } | { kind: 'secret'; file: string }) & {
    own: string;
    peers: readonly string[];
  };

export type Credentials = { own: string; peers: readonly string[] } & (
  /** PEM. */
  | { kind: 'tls'; cert: Buffer; key: Buffer; ca: Buffer }
  | { kind: 'secret'; secret: Buffer });

export interface FileProblem {
  /** Of the configuration, whose file it is about. */
  keyword: string;
  isError: boolean;
  message: string;
  hint: string;
}

export interface FileReport {
  /** Another one after a change of one of the files. */
  stamp: string;
  problems: FileProblem[];
  /** Seconds since 1970 when this node's certificate ends; null without one. */
  expires: number | null;
}

const fileBytesMax = 256 * 1024;
const secretBytesMin = 32;
const soonDays = 30;
const dayMs = 86_400_000;
export const makeSecretHint = (file: string): string =>
  `(umask 077; head -c 32 /dev/urandom | base64 > ${file}), then copy it to the other node`;
const renewHint = 'make new ones on both nodes: hastctl pair init --force, then reload hastd';

/** Throws HAST_E_CONFIG with the first thing that makes them useless. */
export function loadCredentials(files: CredentialFiles): Credentials {
  const looked = look(files);
  const error = looked.problems.find(({ isError }) => isError);
  if (looked.credentials !== null && error === undefined) return looked.credentials;
  throw new HastError('HAST_E_CONFIG', error?.message ?? 'no credentials', {
    hint: error?.hint ?? 'hastctl check',
  });
}

/** For a check of the configuration. Nothing that is wrong throws. */
export function inspectCredentials(files: CredentialFiles): FileReport {
  const { stamp, problems, expires } = look(files);
  return { stamp, problems, expires };
}

/** The key of connections that `dialer` opens to `acceptor`: the other way round has another. */
export function pskOf(secret: Buffer, resource: string, dialer: string, acceptor: string): Buffer {
  const info = JSON.stringify([resource, dialer, acceptor]);
  return Buffer.from(hkdfSync('sha256', secret, 'hast-linux secret 1', info, 32));
}

interface Looked extends FileReport {
  credentials: Credentials | null;
}

class Reader {
  readonly problems: FileProblem[] = [];
  readonly #stamps: string[] = [];

  get stamp(): string {
    return createHash('sha256').update(this.#stamps.join()).digest('hex').slice(0, 16);
  }

  report(keyword: string, isError: boolean, message: string, hint: string): void {
    this.problems.push({ keyword, isError, message, hint });
  }

  /** Null where it cannot be used, which is reported. */
  read(keyword: string, file: string, missing: string, isPrivate: boolean): Buffer | null {
    let stat: fs.BigIntStats;
    let content: Buffer;
    try {
      stat = fs.statSync(file, { bigint: true });
      this.#stamps.push(`${stat.ino} ${stat.size} ${stat.mtimeNs}`);
      if (!stat.isFile() || stat.size > fileBytesMax) {
        this.report(keyword, true, `${file} is no file of at most ${fileBytesMax} bytes`, missing);
        return null;
      }
      content = fs.readFileSync(file);
    } catch (error) {
      const isMissing = errnoName(error) === 'ENOENT';
      const why = isMissing ? 'does not exist' : `cannot be read: ${errorText(error)}`;
      this.report(keyword, true, `${file} ${why}`, isMissing ? missing : 'run as root');
      return null;
    }
    const mode = Number(stat.mode) & 0o7777;
    if (!isPrivate || ((mode & 0o077) === 0 && stat.uid === 0n)) return content;
    const shown = mode.toString(8).padStart(4, '0');
    this.report(
      keyword, true, `${file} is not root's alone (owner ${stat.uid}, mode ${shown})`,
      `chown root ${file}; chmod 600 ${file}`,
    );
    return null;
  }
}

function look(files: CredentialFiles): Looked {
  return files.kind === 'tls' ? lookAtTls(files) : lookAtSecret(files);
}

function lookAtSecret(
  { file, own, peers }: Extract<CredentialFiles, { kind: 'secret' }>,
): Looked {
  const reader = new Reader();
  const content = reader.read('secret', file, makeSecretHint(file), true);
  // An editor's last line end is not part of it.
  const secret = content === null ? null
    : Buffer.from(content.toString('latin1').trim(), 'latin1');
  if (secret !== null && secret.length < secretBytesMin) {
    reader.report(
      'secret', true, `${file} holds ${secret.length} bytes, at least ${secretBytesMin} are needed`,
      makeSecretHint(file),
    );
  }
  const { stamp, problems } = reader;
  const isUsable = secret !== null && problems.length === 0;
  const credentials = isUsable ? { kind: 'secret' as const, secret, own, peers } : null;
  return { stamp, problems, expires: null, credentials };
}

function lookAtTls(files: Extract<CredentialFiles, { kind: 'tls' }>): Looked {
  const reader = new Reader();
  const missing = 'hastctl pair init, or name the file where it is';
  const cert = reader.read('cert', files.cert, missing, false);
  const key = reader.read('key', files.key, missing, true);
  const ca = reader.read('ca', files.ca, missing, false);
  const chain = certificatesIn(reader, 'cert', files.cert, cert);
  const authorities = certificatesIn(reader, 'ca', files.ca, ca);
  const privateKey = privateKeyIn(reader, files.key, key);
  const [own] = chain;
  if (own !== undefined) checkOwn(reader, files, own, privateKey);
  if (own !== undefined && authorities.length > 0 && !isVouchedFor(chain, authorities)) {
    reader.report(
      'ca', false, `no certificate in ${files.ca} vouches for this node's own`,
      "right only if the other node's 'ca' is another file",
    );
  }
  const isUsable = cert !== null && key !== null && ca !== null &&
    reader.problems.every(({ isError }) => !isError);
  const names = { own: files.own, peers: files.peers };
  return {
    stamp: reader.stamp, problems: reader.problems,
    expires: own === undefined ? null : Math.floor(Date.parse(own.validTo) / 1000),
    credentials: isUsable ? { kind: 'tls', cert, key, ca, ...names } : null,
  };
}

const pemCertificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

function certificatesIn(
  reader: Reader, keyword: string, file: string, content: Buffer | null,
): X509Certificate[] {
  if (content === null) return [];
  try {
    const found = content.toString('latin1').match(pemCertificate) ?? [];
    if (found.length > 0) return found.map((one) => new X509Certificate(one));
  } catch {
    // Said below.
  }
  reader.report(keyword, true, `${file} holds no certificate in PEM`,
    'a file that begins with -----BEGIN CERTIFICATE-----');
  return [];
}

function privateKeyIn(reader: Reader, file: string, content: Buffer | null): KeyObject | null {
  if (content === null) return null;
  try {
    return createPrivateKey(content);
  } catch {
    reader.report('key', true, `${file} holds no private key in PEM, or one with a password`,
      'a file that begins with -----BEGIN PRIVATE KEY-----');
    return null;
  }
}

function checkOwn(
  reader: Reader, files: Extract<CredentialFiles, { kind: 'tls' }>, own: X509Certificate,
  key: KeyObject | null,
): void {
  if (key !== null && !own.checkPrivateKey(key)) {
    reader.report('key', true, `${files.key} is not the key of ${files.cert}`,
      'name the two that belong together');
  }
  if (!bearsName(own, files.own)) {
    reader.report(
      'cert', true, `${files.cert} is not for node '${files.own}' but for ${namesIn(own)}`,
      `'on' sections bear the names of the certificates; ${renewHint}`,
    );
  }
  const [from, to, now] = [Date.parse(own.validFrom), Date.parse(own.validTo), Date.now()];
  if (now > to) {
    reader.report('cert', false, `${files.cert} has expired (${own.validTo})`, renewHint);
  } else if (now < from) {
    const hint = 'set the clock of this machine';
    reader.report('cert', false, `${files.cert} is not valid before ${own.validFrom}`, hint);
  } else if (to - now < soonDays * dayMs) {
    reader.report('cert', false, `${files.cert} expires soon (${own.validTo})`, renewHint);
  }
}

/** In the alternative names (DNS), or where it has none as common name. */
export function bearsName(certificate: X509Certificate, name: string): boolean {
  return certificate.checkHost(name, { subject: 'default', wildcards: false }) !== undefined;
}

/** For messages: they come from outside. */
export function namesIn({ subjectAltName, subject }: X509Certificate): string {
  const text = subjectAltName ?? subject;
  return JSON.stringify(text.replaceAll('\n', ', ').slice(0, 200));
}

function isVouchedFor(chain: readonly X509Certificate[], authorities: X509Certificate[]): boolean {
  return chain.some((one) => authorities.some((ca) =>
    one.fingerprint256 === ca.fingerprint256 || (one.checkIssued(ca) && one.verify(ca.publicKey))));
}
