/**
 * Who copies to whom, decided from what the two copies say of themselves. The same function runs
 * on both nodes with the arguments exchanged and must give mirrored answers (tested over every
 * combination).
 *
 * A generation is a random id of a data history; a copy carries its current one and its
 * ancestors. 0 is a copy that never had one ("fresh").
 */
import type { Hello } from '../format/hello.ts';
import { WireRole } from '../format/hello.ts';
import { DataState, SuperblockFlag } from '../format/superblock.ts';

export type Verdict =
  /** This node's copy is the newer one; `full`: its map does not speak of the peer's copy. */
  | { kind: 'source' | 'target'; full: boolean; row: string }
  /** Two fresh copies with unknown data: the first one to be promoted becomes the source. */
  | { kind: 'undecided'; row: string }
  | { kind: 'refuse'; reason: RefuseReason; row: string };

export type RefuseReason =
  | 'same-copy' | 'size-mismatch' | 'sector-mismatch' | 'both-primary' | 'split-brain' | 'unrelated'
  | 'both-inconsistent' | 'primary-is-behind' | 'resource-mismatch';

/** Codes of a refusal on the wire and what an operator should read. */
export const refuseTexts: Record<RefuseReason, string> = {
  'same-copy': 'both nodes show the same copy: one is a clone or shares the disk of the other',
  'size-mismatch': 'the two copies have different sizes; create both with the same -m',
  'sector-mismatch': 'the two copies have different sector sizes',
  'both-primary': 'both nodes are primary; demote one of them',
  'split-brain': 'both copies were written independently since they last were equal',
  unrelated: 'the two copies have no common history',
  'both-inconsistent': 'neither copy is consistent',
  'primary-is-behind':
    'the peer has newer data than this primary; demote it so that it can catch up',
  'resource-mismatch': 'the peer speaks of another resource',
};

const has = (hello: Hello, flag: number): boolean => (hello.flags & flag) !== 0;
const isZeroed = (hello: Hello): boolean =>
  has(hello, SuperblockFlag.createdZeroed) || has(hello, SuperblockFlag.assumeClean);
/** As created with zeros: also not the target of a first sync that broke off. */
const isUntouched = (hello: Hello): boolean =>
  isZeroed(hello) && hello.generation === 0n && hello.dataState === DataState.consistent;
/** The other one has seen this copy's present session number, or a later one: an older image. */
const isRolledBack = (hello: Hello, other: Hello): boolean =>
  other.peerCopyId === hello.copyId && hello.sessionNumber <= other.peerSessionNumber;
const wasPrimary = (hello: Hello): boolean =>
  hello.role === WireRole.primary || has(hello, SuperblockFlag.primaryActive);
const descendsFrom = (hello: Hello, generation: bigint): boolean =>
  generation !== 0n && hello.history.includes(generation);

/** True where `me` keeps a map that speaks of the peer's present copy. */
function mapApplies(me: Hello, peer: Hello): boolean {
  if (me.peerCopyId === 0n) {
    // Never had a peer: the map knows every write since creation, if both began with zeros.
    return isZeroed(me) && isUntouched(peer);
  }
  return me.peerCopyId === peer.copyId && peer.sessionNumber > me.peerSessionNumber;
}

function direct(kind: 'source' | 'target', me: Hello, peer: Hello, row: string): Verdict {
  const full = kind === 'source' ? !mapApplies(me, peer) : !mapApplies(peer, me);
  return { kind, full, row };
}

/** Two copies with the same generation: equal but for the marks. */
function sameGeneration(me: Hello, peer: Hello): Verdict {
  if (me.dataState !== peer.dataState) {
    const source = me.dataState === DataState.consistent;
    return direct(source ? 'source' : 'target', me, peer, 'C-one-inconsistent');
  }
  const isOld = isRolledBack(me, peer);
  if (isOld !== isRolledBack(peer, me)) {
    return direct(isOld ? 'target' : 'source', me, peer, 'D-rolled-back');
  }
  if (wasPrimary(me) !== wasPrimary(peer)) {
    return direct(wasPrimary(me) ? 'source' : 'target', me, peer, 'D-last-primary');
  }
  if ((me.marked !== 0) !== (peer.marked !== 0)) {
    return direct(me.marked !== 0 ? 'source' : 'target', me, peer, 'E-who-has-marks');
  }
  return direct(me.copyId > peer.copyId ? 'source' : 'target', me, peer, 'F-equal');
}

function fresh(me: Hello, peer: Hello): Verdict {
  if (me.generation !== 0n) return direct('source', me, peer, 'A-peer-is-fresh');
  if (peer.generation !== 0n) return direct('target', me, peer, 'A-fresh');
  if (me.dataState !== peer.dataState) {
    const source = me.dataState === DataState.consistent;
    return direct(source ? 'source' : 'target', me, peer, 'B-one-inconsistent');
  }
  if (isUntouched(me) && isUntouched(peer)) {
    // Nothing was ever written: equal, whatever the maps say.
    return { kind: me.copyId > peer.copyId ? 'source' : 'target', full: false, row: 'B-both-zero' };
  }
  return { kind: 'undecided', row: 'B-both-fresh' };
}

function related(me: Hello, peer: Hello): Verdict {
  const ahead = descendsFrom(me, peer.generation);
  const behind = descendsFrom(peer, me.generation);
  if (ahead && behind) return { kind: 'refuse', reason: 'unrelated', row: 'G-circular' };
  if (ahead || behind) {
    const kind = ahead ? 'source' : 'target';
    const source = ahead ? me : peer;
    if (has(source, SuperblockFlag.forcedIneligible)) {
      return { kind: 'refuse', reason: 'split-brain', row: 'I-forced-copy-never-wins' };
    }
    return direct(kind, me, peer, 'J-descends');
  }
  const common = me.history.some((one) => descendsFrom(peer, one));
  return common
    ? { kind: 'refuse', reason: 'split-brain', row: 'K-forked' }
    : { kind: 'refuse', reason: 'unrelated', row: 'L-no-common-ancestor' };
}

/** What cannot be connected at all, whatever the histories. */
function mismatch(me: Hello, peer: Hello): RefuseReason | null {
  if (me.resource !== peer.resource) return 'resource-mismatch';
  if (me.copyId === peer.copyId) return 'same-copy';
  if (me.mediaSize !== peer.mediaSize) return 'size-mismatch';
  if (me.sectorSize !== peer.sectorSize) return 'sector-mismatch';
  if (me.dataState !== DataState.consistent && peer.dataState !== DataState.consistent) {
    return 'both-inconsistent';
  }
  return null;
}

export function decide(me: Hello, peer: Hello): Verdict {
  const reason = mismatch(me, peer);
  if (reason !== null) return { kind: 'refuse', reason, row: 'M-mismatch' };
  let verdict: Verdict;
  if (me.generation === 0n || peer.generation === 0n) verdict = fresh(me, peer);
  else if (me.generation === peer.generation) verdict = sameGeneration(me, peer);
  else verdict = related(me, peer);
  if (verdict.kind === 'source' || verdict.kind === 'target') {
    const source = verdict.kind === 'source' ? me : peer;
    if (source.dataState !== DataState.consistent) {
      return { kind: 'refuse', reason: 'both-inconsistent', row: 'P-source-is-inconsistent' };
    }
  }
  return verdict.kind === 'refuse' ? verdict : withRoles(verdict, me, peer);
}

/** A primary is never overwritten, and two primaries are never joined. */
function withRoles(verdict: Verdict, me: Hello, peer: Hello): Verdict {
  const mine = me.role === WireRole.primary;
  const theirs = peer.role === WireRole.primary;
  if (mine && theirs) return { kind: 'refuse', reason: 'both-primary', row: 'N-both-primary' };
  const targetIsPrimary = (verdict.kind === 'target' && mine) ||
    (verdict.kind === 'source' && theirs);
  if (!targetIsPrimary) return verdict;
  // Fresh zeroed copies are equal: whoever is primary is the source.
  if (verdict.row === 'B-both-zero') {
    return { kind: mine ? 'source' : 'target', full: false, row: 'B-both-zero' };
  }
  return { kind: 'refuse', reason: 'primary-is-behind', row: 'O-primary-is-behind' };
}
