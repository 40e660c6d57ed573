/**
 * TLS 1.3 over a connection whose preface is answered: with certificates of both nodes, or with a
 * key from the shared secret. docs/wire-protocol.md, "Within TLS".
 *
 * - The preface, sent in clear, is bound: its digest is the protocol name (ALPN) of the handshake.
 * - Either side says in one byte what it thinks of the other, so that both can tell a person.
 * - Nothing is resumed: each connection proves anew who it comes from.
 * - Node judges nothing (`rejectUnauthorized`): judge() alone decides who is let in, on both sides.
 */
import { constants, createHash, X509Certificate } from 'node:crypto';
import type * as net from 'node:net';
import * as tls from 'node:tls';
import { errorText } from '../base/errors.ts';
import { PrefaceAnswer, prefaceAnswerText } from '../format/preface.ts';
import { bearsName, type Credentials, namesIn, pskOf } from './credentials.ts';

export interface SecureOptions {
  credentials: Credentials;
  resource: string;
  /** As sent, or as received. */
  preface: Uint8Array;
  timeoutMs: number;
}

export type Secured =
  /** `rest`: bytes that came behind the peer's. */
  | { socket: tls.TLSSocket; rest: Buffer }
  /** The connection is closed. */
  | { failed: string };

/** The fast one first; a secret's key has SHA-256, and so have its suites. */
const tlsSuites = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';
const secretSuites = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256';
const identity = 'hast';
/** The answer of who refuses may take this long to leave. */
const lingerMs = 1000;

/** The side that dialed. Calls `done` exactly once, within the timeout. */
export function secureDialed(
  raw: net.Socket, options: SecureOptions, done: (result: Secured) => void,
): void {
  const { credentials, resource } = options;
  const name = protocolName(options.preface);
  const psk = credentials.kind === 'secret' && credentials.peers[0] !== undefined
    ? pskOf(credentials.secret, resource, credentials.own, credentials.peers[0])
    : null;
  const socket = tls.connect({
    ...commonOptions(credentials), socket: raw, ALPNProtocols: [name],
    checkServerIdentity: () => undefined,
    ...(psk === null ? {} : { pskCallback: () => ({ psk, identity }) }),
  });
  const end = once(options, raw, done);
  socket.on('error', (error) => end({ failed: failureText(error, credentials) }));
  socket.on('close', () => end({ failed: 'the peer closed the connection in the TLS handshake' }));
  socket.once('secureConnect', () => {
    if (socket.alpnProtocol !== name) {
      end({ failed: alteredText });
      return;
    }
    const judged = judge(socket, credentials);
    socket.write(Buffer.of(judged.answer));
    if (judged.text !== '') {
      end({ failed: judged.text }, socket);
      return;
    }
    firstByte(socket, (answer, rest) => {
      if (answer === PrefaceAnswer.ok) end({ socket, rest });
      else end({ failed: prefaceAnswerText(answer) });
    });
  });
}

/** The other side. The answer goes out with acceptSecured() or refuseSecured(). */
export function secureAccepted(
  raw: net.Socket, options: SecureOptions, done: (result: Secured) => void,
): void {
  const { credentials, resource } = options;
  const name = protocolName(options.preface);
  const psk = credentials.kind === 'secret' && credentials.peers[0] !== undefined
    ? pskOf(credentials.secret, resource, credentials.peers[0], credentials.own)
    : null;
  const end = once(options, raw, done);
  let isAltered = false;
  // Listens nowhere: it is given its one connection.
  const server = tls.createServer({
    ...commonOptions(credentials), requestCert: credentials.kind === 'tls',
    handshakeTimeout: options.timeoutMs * 2,
    ALPNCallback: ({ protocols }) => {
      isAltered = !protocols.includes(name);
      return isAltered ? undefined : name;
    },
    ...(psk === null ? {} : {
      pskCallback: (_: tls.TLSSocket, who: string) => who === identity ? psk : null,
    }),
  });
  server.on('tlsClientError', (error) => {
    end({ failed: isAltered ? alteredText : failureText(error, credentials) });
  });
  server.on('secureConnection', (socket) => {
    socket.on('error', (error) => end({ failed: failureText(error, credentials) }));
    socket.on('close', () =>
      end({ failed: 'the peer closed the connection in the TLS handshake' }));
    if (socket.alpnProtocol !== name) {
      end({ failed: alteredText });
      return;
    }
    firstByte(socket, (answer, rest) => {
      const judged = judge(socket, credentials);
      if (judged.text !== '') {
        socket.write(Buffer.of(judged.answer));
        end({ failed: judged.text }, socket);
      } else if (answer === PrefaceAnswer.ok) {
        end({ socket, rest });
      } else {
        end({ failed: prefaceAnswerText(answer) });
      }
    });
  });
  server.emit('connection', raw);
}

/** Answers a connection of secureAccepted(). */
export function answerSecured(socket: tls.TLSSocket, answer: number): void {
  socket.write(Buffer.of(answer));
  if (answer !== PrefaceAnswer.ok) linger(socket);
}

const alteredText = 'what the peer sent before TLS was changed on its way: something between the ' +
  'two nodes alters their connections; look at the network';

function commonOptions(credentials: Credentials): tls.ConnectionOptions & tls.TlsOptions {
  const common = {
    minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3',
    secureOptions: constants.SSL_OP_NO_TICKET,
    // Judged here, where there are words for it.
    rejectUnauthorized: false,
  } as const;
  if (credentials.kind === 'secret') return { ...common, ciphers: secretSuites };
  const { cert, key, ca } = credentials;
  return { ...common, ciphers: tlsSuites, cert, key, ca };
}

function protocolName(preface: Uint8Array): string {
  return `hast/1 ${createHash('sha256').update(preface).digest('hex')}`;
}

function once(
  { timeoutMs }: SecureOptions, raw: net.Socket, done: (result: Secured) => void,
): (result: Secured, lingering?: tls.TLSSocket) => void {
  let ended = false;
  const end = (result: Secured, lingering?: tls.TLSSocket): void => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    if ('socket' in result) {
      result.socket.removeAllListeners('error').removeAllListeners('close');
      result.socket.pause();
    } else if (lingering === undefined) {
      raw.destroy();
    } else {
      linger(lingering);
    }
    done(result);
  };
  const timer = setTimeout(() => {
    end({ failed: `the TLS handshake takes longer than ${Math.round(timeoutMs / 100) / 10} s` });
  }, timeoutMs);
  return end;
}

/** Ends it when what was written has left. */
function linger(socket: tls.TLSSocket): void {
  socket.on('error', () => undefined);
  socket.resume();
  socket.end();
  setTimeout(() => socket.destroy(), lingerMs).unref();
}

function firstByte(socket: tls.TLSSocket, take: (byte: number, rest: Buffer) => void): void {
  socket.once('data', (chunk: Buffer) => {
    socket.pause();
    take(chunk[0] as number, chunk.subarray(1));
  });
}

/** What stands against the peer; an empty text if nothing does. */
function judge(
  socket: tls.TLSSocket, credentials: Credentials,
): { answer: number; text: string } {
  if (credentials.kind === 'secret') return judgeSecret(socket);
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) {
    return {
      answer: PrefaceAnswer.certificateMissing,
      text: "the peer shows no certificate: set 'cert' and 'key' there",
    };
  }
  const names = namesIn(certificate);
  if (!socket.authorized) return judgeRefused(certificate, reasonOf(socket), names);
  if (credentials.peers.some((peer) => bearsName(certificate, peer))) {
    return { answer: PrefaceAnswer.ok, text: '' };
  }
  return {
    answer: PrefaceAnswer.certificateName,
    text: `the peer's certificate is for ${names}, and not for ` +
      `${credentials.peers.join(' or ')}: name the peer so in its 'on' section, or make a ` +
      'certificate for it (hastctl pair init)',
  };
}

/**
 * A handshake from the secret counts as a resumed session (tlsSocket.isSessionReused of Node). Who
 * does not have the secret may pass it over and show a certificate, with which TLS is content.
 */
function judgeSecret(socket: tls.TLSSocket): { answer: number; text: string } {
  if (socket.isSessionReused() && socket.getPeerX509Certificate() === undefined) {
    return { answer: PrefaceAnswer.ok, text: '' };
  }
  return {
    answer: PrefaceAnswer.needsSecret,
    text: 'who answers in place of the peer has no secret: it shows a certificate; find out who ' +
      'it is, and on the peer set the same secret',
  };
}

/** A code of OpenSSL, which the types call an error. */
function reasonOf({ authorizationError }: tls.TLSSocket): string {
  return String(authorizationError);
}

function judgeRefused(
  { validFrom, validTo }: X509Certificate, reason: string, names: string,
): { answer: number; text: string } {
  if (reason === 'CERT_HAS_EXPIRED' || reason === 'CERT_NOT_YET_VALID') {
    return {
      answer: PrefaceAnswer.certificateExpired,
      text: `the peer's certificate (${names}) or its CA's is valid from ${validFrom} to ` +
        `${validTo} only: compare the clocks, or make new ones (hastctl pair init), then reload`,
    };
  }
  return {
    answer: PrefaceAnswer.certificateUntrusted,
    text: `no CA in this node's 'ca' file vouches for the peer's certificate (${names}; ` +
      `${reason}): give both nodes the same 'ca' file, or pair them anew (hastctl pair init)`,
  };
}

const otherSecret = 'the two nodes have different secrets: copy the file from one to the other ' +
  "(the names of the resource and of the 'on' sections must be the same as well)";

function failureText(error: Error & { code?: unknown }, { kind }: Credentials): string {
  const code = typeof error.code === 'string' ? error.code : '';
  switch (code) {
    case 'ECONNRESET': case 'EPIPE':
      return 'the peer closed the connection in the TLS handshake: its log says why';
    case 'ERR_SSL_BINDER_DOES_NOT_VERIFY': case 'ERR_SSL_SSLV3_ALERT_ILLEGAL_PARAMETER':
    case 'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE': case 'ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR':
    case 'ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM': case 'ERR_SSL_NO_SHARED_CIPHER':
      if (kind === 'secret') return otherSecret;
      break;
    case 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL': return alteredText;
    case 'ERR_SSL_UNSUPPORTED_PROTOCOL': case 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION':
      return 'the other side does not speak TLS 1.3';
    case 'ERR_SSL_WRONG_VERSION_NUMBER': case 'ERR_SSL_HTTP_REQUEST':
      return 'the peer does not use TLS: it sent something else where the handshake belongs';
  }
  return `the TLS handshake failed: ${code === '' ? errorText(error) : code}`;
}
