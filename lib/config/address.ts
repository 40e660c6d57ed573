/** Addresses: `tcp://HOST[:PORT]`, `tcp4://`, `tcp6://`, `uds:///PATH`, `unix:///PATH`, `/PATH`. */
import * as net from 'node:net';
import * as posix from 'node:path/posix';
import { defaults, limits } from './limits.ts';
import type { Address } from './model.ts';
import { quote } from './problems.ts';

export type TcpAddress = Extract<Address, { host: string }>;
export type SocketAddress = Extract<Address, { path: string }>;

/** Where an address is used: decides the default port and what is allowed. */
export type AddressUse = 'control' | 'listen' | 'metrics' | 'remote' | 'source';

/** Why a value is refused. */
export interface Refusal {
  message: string;
  hint?: string;
}

/**
 * Parses an address as written. The port defaults to 8457, for `source` to 0 (any), for `metrics`
 * to 9457. Only `control` may be, and must be, a unix socket. `metrics` may also be a port alone;
 * without a host it is on loopback. Host names are not resolved.
 */
export function parseAddress(text: string, use: 'control'): SocketAddress | Refusal;
export function parseAddress(text: string, use: Exclude<AddressUse, 'control'>):
  TcpAddress | Refusal;
export function parseAddress(text: string, use: AddressUse): Address | Refusal;
export function parseAddress(text: string, use: AddressUse): Address | Refusal {
  if (text === '') return { message: 'the address is empty', hint: 'tcp://HOST[:PORT]' };
  if (Buffer.byteLength(text) > limits.addressBytesMax) {
    return { message: `the address is longer than ${limits.addressBytesMax} bytes` };
  }
  const found = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/(.*)$/s.exec(text);
  const scheme = found?.[1]?.toLowerCase() ?? (text.startsWith('/') ? 'uds' : 'tcp');
  const rest = found?.[2] ?? text;
  if (scheme === 'uds' || scheme === 'unix') return socketAddress(rest, use);
  if (scheme !== 'tcp' && scheme !== 'tcp4' && scheme !== 'tcp6') {
    return {
      message: `unknown kind of address ${quote(`${scheme}://`)}`,
      hint: 'known are tcp://, tcp4://, tcp6://, uds:// and unix://',
    };
  }
  if (use === 'control') {
    return { message: "'control' must be a unix socket", hint: 'uds:///run/hast/hastctl.sock' };
  }
  return tcpAddress(scheme, use === 'metrics' ? onLoopback(scheme, rest) : rest, use);
}

export function isRefusal(value: Address | Refusal): value is Refusal {
  return 'message' in value;
}

/** As written in a file: the default port is left out, IPv6 stands in brackets before a port. */
export function formatAddress(address: Address): string {
  if (address.family === 'uds') return `uds://${address.path}`;
  const { family, host, port } = address;
  if (port === defaults.port || port === 0) return `${family}://${host}`;
  return `${family}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Absolute, printable, at most `max` bytes; null if right. */
export function refusePath(path: string, max: number): Refusal | null {
  if (path === '') return { message: 'the path is empty' };
  if (/[\u0000-\u001f\u007f]/.test(path)) {
    return { message: `the path ${quote(path)} holds a control character` };
  }
  if (!path.startsWith('/')) {
    return {
      message: `the path ${quote(path)} is relative`,
      hint: 'the daemon has no working directory of its own: begin with /',
    };
  }
  const size = Buffer.byteLength(path);
  return size > max ? { message: `the path has ${size} bytes, at most ${max} are allowed` } : null;
}

function socketAddress(path: string, use: AddressUse): Address | Refusal {
  if (use !== 'control') {
    return {
      message: `'${use}' cannot be a unix socket: that is for 'control' only`,
      hint: 'tcp://HOST[:PORT]',
    };
  }
  const refusal = refusePath(path, limits.socketPathBytesMax);
  if (refusal !== null) return refusal;
  return { family: 'uds', path: posix.normalize(path) };
}

interface HostPort {
  host: string;
  port: string | undefined;
}

function splitHost(rest: string): HostPort | Refusal {
  if (rest.startsWith('[')) {
    const found = /^\[([^\]]*)\](?::(.*))?$/s.exec(rest);
    const host = found?.[1];
    if (host === undefined) return { message: `${quote(rest)} is not '[ADDRESS]:PORT'` };
    if (!net.isIPv6(host)) return { message: `${quote(host)} is not an IPv6 address` };
    return { host, port: found?.[2] };
  }
  if (ipVersion(rest) === 6) return { host: rest, port: undefined };
  const colon = rest.indexOf(':');
  if (colon < 0) return { host: rest, port: undefined };
  if (rest.indexOf(':', colon + 1) >= 0) {
    return {
      message: `${quote(rest)} is neither HOST:PORT nor an IPv6 address`,
      hint: 'an IPv6 address with a port is written [ADDRESS]:PORT',
    };
  }
  return { host: rest.slice(0, colon), port: rest.slice(colon + 1) };
}

/** With the host that is left out. */
function onLoopback(family: TcpAddress['family'], rest: string): string {
  const port = /^:?([0-9]+)$/.exec(rest)?.[1];
  if (port === undefined) return rest;
  return `${family === 'tcp6' ? '[::1]' : defaults.metricsHost}:${port}`;
}

function tcpAddress(
  family: TcpAddress['family'],
  rest: string,
  use: Exclude<AddressUse, 'control'>,
): TcpAddress | Refusal {
  if (/\/[0-9]*$/.test(rest)) {
    return { message: `${quote(rest)} has something after the host`, hint: "remove the '/...'" };
  }
  const split = splitHost(rest);
  if ('message' in split) return split;
  const { host } = split;
  const refusal = refuseHost(host, family);
  if (refusal !== null) return refusal;
  if (use === 'remote' && isWildcard(host)) {
    return { message: `${host} is not the address of a peer`, hint: "or 'remote none'" };
  }
  const portMin = use === 'source' ? 0 : limits.portMin;
  if (split.port === undefined) {
    return { family, host, port: defaultPort(use) };
  }
  const port = /^[0-9]{1,5}$/.test(split.port) ? Number(split.port) : -1;
  if (port < portMin || port > limits.portMax) {
    const range = `a port is a number from ${portMin} to ${limits.portMax}`;
    return { message: `${quote(split.port)} is not a port`, hint: range };
  }
  return { family, host, port };
}

function defaultPort(use: AddressUse): number {
  if (use === 'source') return 0;
  return use === 'metrics' ? defaults.metricsPort : defaults.port;
}

const label = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;

function refuseHost(host: string, family: TcpAddress['family']): Refusal | null {
  if (host === '') return { message: 'the host is missing', hint: 'tcp://HOST[:PORT]' };
  const version = ipVersion(host);
  if (version === 6 && family === 'tcp4') return { message: `${host} is not an IPv4 address` };
  if (version === 4 && family === 'tcp6') return { message: `${host} is not an IPv6 address` };
  if (version !== 0) return null;
  const labels = host.replace(/\.$/, '').split('.');
  if (/^[0-9]+$/.test(labels.at(-1) ?? '')) {
    return { message: `${quote(host)} is not an IPv4 address`, hint: 'four numbers from 0 to 255' };
  }
  const right = host.length <= 253 && labels.every((one) => label.test(one));
  return right ? null : { message: `${quote(host)} is not a host name` };
}

/** Without Node's pattern for IPv6 where it can be: compiling it takes longer than all the rest. */
function ipVersion(host: string): 0 | 4 | 6 {
  const colons = host.split(':').length - 1;
  if (colons >= 2) return net.isIPv6(host) ? 6 : 0;
  return colons === 0 && net.isIPv4(host) ? 4 : 0;
}

/** `0.0.0.0` or `::` in any spelling. */
export function isWildcard(host: string): boolean {
  const canonical = canonicalIp(host);
  return canonical === '0.0.0.0' || canonical === '::';
}

/** One spelling per IP address, without zone; undefined for a host name. */
export function canonicalIp(host: string): string | undefined {
  const version = ipVersion(host);
  if (version === 4) return host;
  if (version === 0) return undefined;
  const bare = host.replace(/%.*$/, '');
  return new URL(`http://[${bare}]`).hostname.slice(1, -1);
}
