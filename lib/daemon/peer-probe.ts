/**
 * How far a connection to the peer's hastd gets, layer by layer: name, route, TCP, the answer to a
 * preface. The preface names no resource, which every hastd refuses by an answer: no session is
 * begun or ended by it.
 */
import * as dgram from 'node:dgram';
import * as dns from 'node:dns/promises';
import * as net from 'node:net';
import { errnoName, errorText } from '../base/errors.ts';
import type { ResourceConfig } from '../config/model.ts';
import type { Reach } from '../control/messages.ts';
import {
  encodePreface, PrefaceAnswer, prefaceAnswerText, PrefaceRole,
} from '../format/preface.ts';
import { within } from './deadline.ts';

type HostAddress = NonNullable<ResourceConfig['remote']>;

const lookupMs = 3000;
const connectMs = 3000;

/** The IPs that the name in `remote` means here, at most 16; throws what the resolver says. */
export async function resolveHost({ host, family }: HostAddress): Promise<string[]> {
  const plain = host.replace(/%.*$/, '');
  if (net.isIP(plain) !== 0) return [host];
  const wanted = family === 'tcp4' ? 4 : family === 'tcp6' ? 6 : 0;
  const asked = dns.lookup(host, { all: true, family: wanted });
  return (await within(lookupMs, `resolving ${host}`, asked))
    .map(({ address }) => address).slice(0, 16);
}

/** Never rejects; within about ten seconds. */
export async function probePeer(
  { remote, source }: Pick<ResourceConfig, 'remote' | 'source'>, node: string,
): Promise<Reach> {
  if (remote === null) {
    const hint = "name the peer with 'remote' if there is one";
    return { ok: false, layer: 'none', text: "'remote none': there is no peer", hint };
  }
  let ips: string[];
  try {
    ips = await resolveHost(remote);
  } catch (error) {
    return {
      ok: false, layer: 'name', text: `the name ${remote.host} cannot be resolved ` +
        `(${errnoName(error) ?? errorText(error)})`,
      hint: "write the address into 'remote', or the name into /etc/hosts",
    };
  }
  const [ip = remote.host] = ips;
  const noRoute = await routeProblem(ip, remote.port);
  if (noRoute !== null) {
    const text = `there is no route to ${ip} (${noRoute})`;
    return { ok: false, layer: 'route', text, hint: `ip route get ${ip}` };
  }
  return await askHastd(ip, remote.port, source, node);
}

/** A connected UDP socket sends nothing and is refused where the kernel knows no way. */
function routeProblem(ip: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = dgram.createSocket(net.isIPv6(ip.replace(/%.*$/, '')) ? 'udp6' : 'udp4');
    socket.once('error', (error) => {
      socket.close();
      resolve(errnoName(error) ?? error.message);
    });
    socket.connect(port, ip, () => {
      socket.close();
      resolve(null);
    });
  });
}

function askHastd(
  ip: string, port: number, source: ResourceConfig['source'], node: string,
): Promise<Reach> {
  const where = `${ip} port ${port}`;
  const startedAt = performance.now();
  return new Promise((resolve) => {
    const socket = net.connect({
      host: ip, port, ...(source === null ? {} : { localAddress: source.host }),
    });
    let isConnected = false;
    const end = (reach: Reach): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(reach);
    };
    const timer = setTimeout(() => {
      end(isConnected ? notHastd(where, 'does not answer as a hastd') : {
        ok: false, layer: 'connect', text: `${where} does not answer within ${connectMs / 1000} s`,
        hint: `is that machine on, and does a firewall there let ${port}/tcp through? ping ${ip}`,
      });
    }, connectMs);
    socket.on('connect', () => {
      isConnected = true;
      socket.write(encodePreface('', node, PrefaceRole.secondary));
    });
    socket.on('error', (error) => {
      const closed = notHastd(where, 'closed the connection');
      end(isConnected ? closed : connectFailure(where, ip, error));
    });
    socket.on('close', () => end(notHastd(where, 'closed the connection')));
    socket.once('data', (chunk) => {
      end(answered(chunk[0] ?? 0, performance.now() - startedAt, socket.localAddress ?? ''));
    });
  });
}

function notHastd(where: string, what: string): Reach {
  return {
    ok: false, layer: 'answer', text: `${where} accepts connections and ${what}`,
    hint: "hastctl status there; if another program has the port, change 'listen' and 'remote'",
  };
}

function connectFailure(where: string, ip: string, error: NodeJS.ErrnoException): Reach {
  const fail = (text: string, hint: string): Reach => ({ ok: false, layer: 'connect', text, hint });
  switch (error.code) {
    case 'ECONNREFUSED':
      return fail(`no hastd listens at ${where}`, 'on the peer: systemctl start hastd');
    case 'EHOSTUNREACH': case 'ENETUNREACH':
      return fail(`${where} is not reachable`, `is that machine on, and its cable in? ping ${ip}`);
    case 'EADDRNOTAVAIL':
      return fail("the address in 'source' is not one of this machine", 'ip address');
    default:
      return fail(`${where}: ${error.message}`, `ping ${ip}`);
  }
}

function answered(answer: number, ms: number, own: string): Reach {
  const milliseconds = Math.round(ms * 10) / 10;
  // It says so of every resource, and of none.
  const isWell = answer === PrefaceAnswer.unknownResource || answer === PrefaceAnswer.malformed ||
    answer === PrefaceAnswer.busy || answer === PrefaceAnswer.ok;
  if (isWell) return { ok: true, milliseconds, text: '', hint: '' };
  const hint = answer === PrefaceAnswer.addressRefused
    ? `this node comes from ${own.replace('::ffff:', '')}: write that into 'remote' on the peer, ` +
      "or give 'source' here"
    : 'hastctl upgrade, on both nodes';
  return { ok: false, layer: 'hastd', text: prefaceAnswerText(answer), hint };
}
