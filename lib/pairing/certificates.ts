/** A CA for one pair of nodes, and the certificates it gives: EC P-256, PEM. */
import './reflect.ts';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Ten years, with their leap days. */
export const validDays = 3652;
/** The other node's clock may be behind. */
const backdatedMs = dayMs;

export interface Issued {
  certificate: string;
  key: string;
}

export interface Validity {
  from?: Date;
  to?: Date;
}

/** Signs certificates while it is in memory: its private key is never written. */
export class Authority {
  /** PEM. */
  readonly certificate: string;
  readonly #issuer: x509.X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;

  private constructor(issuer: x509.X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#issuer = issuer;
    this.#keys = keys;
    this.certificate = `${issuer.toString('pem')}\n`;
  }

  static async create(commonName: string, validity: Validity = {}): Promise<Authority> {
    const keys = await newKeys();
    const issuer = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: serialNumber(),
      name: [{ CN: [commonName] }],
      ...period(validity),
      keys, signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return new Authority(issuer, keys);
  }

  /** For a key made here. `names`: of the node, the first one as common name too. */
  async issue(names: readonly string[], validity: Validity = {}): Promise<Issued> {
    const keys = await newKeys();
    return {
      certificate: await this.sign(keys.publicKey, names, validity),
      key: await privatePem(keys.privateKey),
    };
  }

  /** For a key that somebody else has. */
  async sign(
    publicKey: x509.PublicKeyType, names: readonly string[], validity: Validity = {},
  ): Promise<string> {
    const usages = [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth];
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      subject: [{ CN: [names[0] ?? ''] }],
      issuer: this.#issuer.subject,
      ...period(validity),
      publicKey, signingKey: this.#keys.privateKey, signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension(usages),
        new x509.SubjectAlternativeNameExtension(
          names.map((value) => ({ type: 'dns' as const, value })),
        ),
        await x509.AuthorityKeyIdentifierExtension.create(this.#issuer),
      ],
    });
    return `${certificate.toString('pem')}\n`;
  }
}

/** A node asks for a certificate: the request shows that it has the key. */
export interface Asked {
  /** PEM. */
  request: string;
  key: string;
}

export async function requestCertificate(names: readonly string[]): Promise<Asked> {
  const keys = await newKeys();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [names[0] ?? ''] }], keys, signingAlgorithm: algorithm,
  });
  return { request: request.toString('pem'), key: await privatePem(keys.privateKey) };
}

/** The public key of a request; null where who made it does not have the private one. */
export async function keyOfRequest(request: string): Promise<x509.PublicKey | null> {
  const read = new x509.Pkcs10CertificateRequest(request);
  return await read.verify() ? read.publicKey : null;
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
}

async function privatePem(key: webcrypto.CryptoKey): Promise<string> {
  const raw = await webcrypto.subtle.exportKey('pkcs8', key);
  return `${x509.PemConverter.encode(raw, 'PRIVATE KEY')}\n`;
}

/** 16 random bytes, positive. */
function serialNumber(): string {
  const bytes = webcrypto.getRandomValues(new Uint8Array(16));
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}

function period({ from, to }: Validity): { notBefore: Date; notAfter: Date } {
  const start = from ?? new Date(Date.now() - backdatedMs);
  return { notBefore: start, notAfter: to ?? new Date(Date.now() + validDays * dayMs) };
}
