/**
 * How the worker of one resource knows its peer, as the configuration says: what a connection that
 * the peer opened has to prove before the core hears of it, and what one of ours shows.
 *
 * - This node's configuration alone decides. What the peer says in clear can only end a connection.
 * - The session at work goes on until the new connection has proved who it comes from.
 * - A handshake is bounded in time, and so is the number of them.
 */
import type * as net from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { HastError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { authenticationOf } from '../config/authentication.ts';
import type { Authentication, ResourceConfig } from '../config/model.ts';
import { type Preface, PrefaceAnswer, PrefaceSecurity, type SecurityWord } from
  '../format/preface.ts';
import { mismatchText } from '../net/connector.ts';
import { type Credentials, inspectCredentials, loadCredentials } from '../net/credentials.ts';
import { answerSecured, secureAccepted } from '../net/secure.ts';

const handshakeMs = 5000;
const handshakesMax = 8;
const refusedMs = 1000;

/** A connection that may go on. */
export interface Admitted {
  socket: net.Socket;
  /** Bytes that were read with the handshake. */
  rest: Buffer | null;
  answer(code: number): void;
}

export interface PeerSecurityOptions {
  log: Logger;
  resource: ResourceConfig;
  /** Why a connection of the peer was given up, for status. */
  onFailure(text: string): void;
}

export class PeerSecurity {
  readonly #log: Logger;
  readonly #onFailure: (text: string) => void;
  #resource: string;
  #authentication: Authentication;
  #credentials: Credentials | null = null;
  /** Undefined: nobody asked yet. */
  #expires: number | null | undefined;
  #handshakes = 0;
  #told = '';

  constructor({ log, resource, onFailure }: PeerSecurityOptions) {
    this.#log = log;
    this.#onFailure = onFailure;
    this.#resource = resource.name;
    this.#authentication = authenticationOf(resource);
    if (this.#authentication.kind !== 'none' || resource.remote === null) return;
    log.warn({ hint: "set 'tls' (hastctl pair init) or 'secret'" },
      'the peer is unauthenticated, and the data cross the network in clear text');
  }

  get kind(): SecurityWord {
    return this.#authentication.kind;
  }

  /** Seconds since 1970; null without a certificate that can be read. */
  get certificateExpires(): number | null {
    if (this.#authentication.kind !== 'tls') return null;
    if (this.#expires === undefined) {
      this.#expires = inspectCredentials(this.#authentication).expires;
    }
    return this.#expires;
  }

  /**
   * New files, or another way, from the next connection on. True where the present connection may
   * not stay: it is secured in another way than the configuration says now.
   */
  reload(resource: ResourceConfig): boolean {
    const before = this.#authentication;
    this.#authentication = authenticationOf(resource);
    if (isDeepStrictEqual(before, this.#authentication)) return false;
    this.#credentials = null;
    this.#expires = undefined;
    this.#told = '';
    const { kind } = this.#authentication;
    this.#log.info({ authentication: kind }, 'new credentials are used for the next connection');
    return before.kind !== kind;
  }

  /** For a connection of ours; null without. Throws HAST_E_CONFIG where they are of no use. */
  credentials(): Credentials | null {
    if (this.#authentication.kind === 'none') return null;
    this.#credentials ??= loadCredentials(this.#authentication);
    return this.#credentials;
  }

  /** The peer is connected, and who it should be. */
  succeeded(): void {
    this.#told = '';
  }

  /** Says it once: the attempt is repeated every few seconds. */
  failed(text: string): void {
    if (text === this.#told) return;
    this.#told = text;
    this.#log.warn({ reason: text }, 'the connection to the peer is not secured: it is refused');
  }

  /**
   * Takes a connection of the peer whose preface was read, and calls `done` once it may go on. One
   * that may not is answered and closed.
   */
  admit(
    preface: Preface, raw: Uint8Array, socket: net.Socket, done: (admitted: Admitted) => void,
  ): void {
    const kind = securityWord(preface.security);
    if (kind !== this.kind) {
      this.#refuse(socket, needsAnswer[this.kind], mismatchText(kind ?? 'none', this.kind));
      return;
    }
    if (kind === 'none') {
      done({
        socket, rest: null, answer: (code) => answerClear(socket, code),
      });
      return;
    }
    let credentials: Credentials;
    try {
      credentials = this.credentials() as Credentials;
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      this.#refuse(socket, PrefaceAnswer.brokenFiles, configText(error));
      return;
    }
    if (this.#handshakes === handshakesMax) {
      answerClear(socket, PrefaceAnswer.busy);
      return;
    }
    this.#handshakes++;
    socket.write(Buffer.of(PrefaceAnswer.ok));
    const asked = { credentials, resource: this.#resource, preface: raw, timeoutMs: handshakeMs };
    secureAccepted(socket, asked, (secured) => {
      this.#handshakes--;
      if ('failed' in secured) {
        this.failed(secured.failed);
        this.#onFailure(secured.failed);
        return;
      }
      this.succeeded();
      const { socket: inner, rest } = secured;
      done({ socket: inner, rest, answer: (code) => answerSecured(inner, code) });
    });
  }

  #refuse(socket: net.Socket, answer: number, text: string): void {
    answerClear(socket, answer);
    this.failed(text);
    this.#onFailure(text);
  }
}

/** What stands against this node's own files, with what to do. */
export function configText({ message, hint = '' }: HastError): string {
  return hint === '' ? message : `${message}; try: ${hint}`;
}

const needsAnswer = {
  none: PrefaceAnswer.needsNone, tls: PrefaceAnswer.needsTls, secret: PrefaceAnswer.needsSecret,
} as const;

/** Undefined for what a later release may have. */
function securityWord(code: number): SecurityWord | undefined {
  const words = Object.keys(PrefaceSecurity) as SecurityWord[];
  return words.find((word) => PrefaceSecurity[word] === code);
}

/** Anything but `ok` ends the connection. */
function answerClear(socket: net.Socket, answer: number): void {
  socket.write(Buffer.of(answer));
  if (answer === PrefaceAnswer.ok) return;
  socket.end();
  setTimeout(() => socket.destroy(), refusedMs).unref();
}
