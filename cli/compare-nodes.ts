/** What differs between two nodes and what does not work between them, each with what to type. */
import * as net from 'node:net';
import { parseAddress } from '../lib/config/address.ts';
import type { ResourceConfig } from '../lib/config/model.ts';
import { settingsOf } from '../lib/config/settings-of.ts';
import type { NodeFacts, ReplyOf } from '../lib/control/messages.ts';
import { sized } from './format-status.ts';

export interface Finding {
  severity: 'error' | 'warning' | 'note';
  message: string;
  hint: string;
}

/** Further apart than that two logs cannot be read side by side. */
const clockMs = 2000;
const roomBytes = 64 * 1024 * 1024;
/** Whatever their values, nothing is lost by a difference. */
const harmless = new Set(['name', 'exec', 'frontend', 'cache', 'resync-rate', 'on-stop']);
const sameFile = 'make /etc/hast.conf the same on both nodes, then on both: systemctl reload hastd';

/** What this node's file says of itself and of the peer; undefined where it says nothing of it. */
export interface FileView {
  own: ResourceConfig | undefined;
  peer: ResourceConfig | undefined;
}

export type Answer = ReplyOf['peer-facts'];

export function compareNodes(name: string, answer: Answer, view: FileView): Finding[] {
  const { local, peer } = answer;
  return [
    ...notReloaded(local, view.own),
    ...reachFinding(local),
    ...(peer === null ? [cannotAsk(answer)] : [
      ...reachFinding(peer), ...identity(local, peer), ...addresses(local, peer),
      ...addresses(peer, local), ...programs(local, peer), ...files(local, peer, view.peer),
      ...disks(name, local, peer), ...clocks(answer, peer),
    ]),
    ...room(local), ...(peer === null ? [] : room(peer)),
  ];
}

/** What is said where everything is well. */
export function summary({ local, peer, sentAt, heardAt }: Answer): string {
  if (peer === null) return '';
  const way = local.reach.ok ? `, answers within ${local.reach.milliseconds} ms` : '';
  const apart = Math.abs(offsetOf(peer, sentAt, heardAt)) / 1000;
  return `peer ${peer.node}: release ${peer.release}${way}, clocks ${apart.toFixed(2)} s apart`;
}

function cannotAsk({ why, hint, isOld }: Answer): Finding {
  return {
    severity: isOld ? 'warning' : 'error', hint,
    message: isOld ? `only this node was looked at: ${why}` : `the peer cannot be asked: ${why}`,
  };
}

function reachFinding({ node, reach }: NodeFacts): Finding[] {
  if (reach.ok) return [];
  const severity = reach.layer === 'none' ? 'note' : 'error';
  return [{ severity, message: `from ${node} to its peer: ${reach.text}`, hint: reach.hint }];
}

function notReloaded({ settings }: NodeFacts, own: ResourceConfig | undefined): Finding[] {
  if (own === undefined) return [];
  const words = differing(settings, settingsOf(own));
  if (words.length === 0) return [];
  const message = `hastd here still works with other values of ${words.join(', ')}`;
  return [{ severity: 'warning', message, hint: 'systemctl reload hastd' }];
}

function identity(local: NodeFacts, peer: NodeFacts): Finding[] {
  if (local.node !== peer.node) return [];
  return [{
    severity: 'error', message: `both nodes call themselves ${local.node}`,
    hint: 'hostnamectl hostname NAME on one, or --node; then its section in hast.conf',
  }];
}

/** Whether what `one` takes for its peer's address is one of `other`. */
function addresses(one: NodeFacts, other: NodeFacts): Finding[] {
  if (one.remote === null) return [];
  const found: Finding[] = [];
  const known = new Set(other.addresses.map(plainIp));
  const meant = one.remoteAddresses.map(plainIp);
  if (meant.length > 0 && known.size > 0 && !meant.some((ip) => known.has(ip) || isOwn(ip))) {
    found.push({
      severity: 'warning',
      message: `'remote' of ${one.node} is ${one.remote}, and ${other.node} has ` +
        other.addresses.join(', '),
      hint: `right only behind NAT; else name an address of ${other.node} there`,
    });
  }
  const remote = parseAddress(one.remote, 'remote');
  const ports = other.listen.flatMap((text) => {
    const address = parseAddress(text, 'listen');
    return 'port' in address ? [address.port] : [];
  });
  if ('port' in remote && ports.length > 0 && !ports.includes(remote.port)) {
    found.push({
      severity: 'error',
      message: `'remote' of ${one.node} names port ${remote.port}, and hastd on ${other.node} ` +
        `listens on ${ports.join(', ')}`,
      hint: `change 'remote' on ${one.node} or 'listen' on ${other.node}, then there: ` +
        'systemctl reload hastd',
    });
  }
  return found;
}

/** Two nodes on one machine. */
function isOwn(ip: string): boolean {
  return ip === '::1' || ip.startsWith('127.');
}

function plainIp(ip: string): string {
  const plain = ip.replace(/%.*$/, '').replace(/^::ffff:/, '');
  return net.isIPv6(plain) ? new URL(`http://[${plain}]`).hostname.slice(1, -1) : plain;
}

function programs(local: NodeFacts, peer: NodeFacts): Finding[] {
  const found: Finding[] = [];
  if (local.release !== peer.release) {
    found.push({
      severity: 'warning',
      message: `release ${local.release} on ${local.node}, ${peer.release} on ${peer.node}`,
      hint: 'npm i -g hast-linux && hastctl upgrade on the older one',
    });
  }
  const missing = (one: NodeFacts, other: NodeFacts): string[] =>
    one.features.filter((feature) => !other.features.includes(feature));
  for (const [one, other] of [[local, peer], [peer, local]] as const) {
    const lacks = missing(one, other);
    const isOlder = one.versionMax > other.versionMax;
    if (lacks.length === 0 && !isOlder) continue;
    const what = isOlder ? `protocol ${one.versionMax}` : lacks.join(', ');
    found.push({
      severity: 'note', message: `${other.node} does not know ${what}: it is not used`,
      hint: `hastctl upgrade on ${other.node}`,
    });
  }
  return found;
}

function files(local: NodeFacts, peer: NodeFacts, view: ResourceConfig | undefined): Finding[] {
  if (view === undefined) {
    const words = differing(local.settings, peer.settings);
    return [
      {
        severity: 'warning', hint: sameFile,
        message: `the configuration here says nothing of a node ${peer.node}`,
      },
      ...words.map((word) => difference(word, local.node, local.settings, peer)),
    ];
  }
  const said = settingsOf(view);
  const here = `the file of ${local.node}`;
  const found = differing(said, peer.settings).map((word) => difference(word, here, said, peer));
  if (view.local !== peer.local) {
    found.push(placeDiffers('local', view.local, here, peer.local, peer));
  }
  const remote = view.remote;
  const own = peer.remote === null ? null : parseAddress(peer.remote, 'remote');
  const same = remote === null || own === null ? remote === own
    : 'host' in own && own.host === remote.host && own.port === remote.port;
  if (!same) {
    const text = remote === null ? 'none' : `${remote.host} port ${remote.port}`;
    found.push(placeDiffers('remote', text, here, peer.remote ?? 'none', peer));
  }
  return found;
}

function placeDiffers(
  word: string, said: string, here: string, there: string, peer: NodeFacts,
): Finding {
  return {
    severity: 'warning', hint: sameFile,
    message: `${here} says '${word}' of ${peer.node} is ${said}; there it is ${there}`,
  };
}

function differing(one: Record<string, string>, other: Record<string, string>): string[] {
  // What only one of two releases knows is no difference.
  return Object.keys(one).filter((word) => other[word] !== undefined && other[word] !== one[word]);
}

function difference(
  word: string, here: string, said: Record<string, string>, peer: NodeFacts,
): Finding {
  return {
    severity: harmless.has(word) ? 'note' : 'warning', hint: sameFile,
    message: `'${word}' is ${said[word]} in ${here}, and ${peer.settings[word]} on ${peer.node}`,
  };
}

function disks(name: string, local: NodeFacts, peer: NodeFacts): Finding[] {
  const found: Finding[] = [];
  if (local.mediaBytes !== null && peer.mediaBytes !== null &&
    local.mediaBytes !== peer.mediaBytes) {
    found.push({
      severity: 'error',
      message: `the volume has ${sized(local.mediaBytes)} on ${local.node} and ` +
        `${sized(peer.mediaBytes)} on ${peer.node}`,
      hint: `hastctl create -m SIZE ${name} on the one without data, with the other's size`,
    });
  }
  const [small, large] = [local, peer].sort((a, b) => (a.diskBytes ?? 0) - (b.diskBytes ?? 0));
  if (small?.diskBytes != null && large?.diskBytes != null && small.diskBytes < large.diskBytes) {
    found.push({
      severity: 'note',
      message: `${sized(large.diskBytes - small.diskBytes)} of ${large.local} on ${large.node} ` +
        `are not used: the disk of ${small.node} is smaller`,
      hint: 'nothing; a new volume can only be as large as the smaller disk',
    });
  }
  if (local.sectorBytes !== null && peer.sectorBytes !== null &&
    local.sectorBytes !== peer.sectorBytes) {
    found.push({
      severity: 'note',
      message: `sectors of ${local.sectorBytes} bytes on ${local.node}, of ${peer.sectorBytes} ` +
        `on ${peer.node}`,
      hint: 'nothing: the volume has 4096 on both; writes that do not fill them are slower',
    });
  }
  return found;
}

/** How far the peer's clock is ahead, in milliseconds; half of the way is an estimate. */
function offsetOf({ askedAt, toldAt }: NodeFacts, sentAt: number, heardAt: number): number {
  return ((askedAt - sentAt) + (toldAt - heardAt)) / 2;
}

function clocks({ sentAt, heardAt }: Answer, peer: NodeFacts): Finding[] {
  const offset = offsetOf(peer, sentAt, heardAt);
  if (Math.abs(offset) < clockMs) return [];
  const seconds = (Math.abs(offset) / 1000).toFixed(1);
  return [{
    severity: 'warning',
    message: `the clock of ${peer.node} is ${seconds} s ${offset > 0 ? 'ahead' : 'behind'}: ` +
      'no data depend on it, but two logs cannot be compared',
    hint: 'timedatectl set-ntp true, on both',
  }];
}

function room({ node, undoDirectory, undoFreeBytes, settings }: NodeFacts): Finding[] {
  const isAsync = settings['replication'] === 'async';
  const wanted = roomBytes + (isAsync ? Number(settings['async-lag'] ?? 0) : 0);
  if (undoFreeBytes === null || undoFreeBytes >= wanted) return [];
  return [{
    severity: isAsync ? 'warning' : 'note',
    message: `only ${sized(undoFreeBytes)} are free in ${undoDirectory} on ${node}: what a ` +
      'returning async primary alone has could not be kept',
    hint: "make room, or name another 'undo-directory'",
  }];
}
