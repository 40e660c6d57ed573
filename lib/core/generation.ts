/**
 * Who copies to whom, decided from what the two copies say of themselves. The same tables are read
 * on both nodes with the arguments exchanged, so that the answers are mirrored: a row asks about
 * an ordered pair and is tried in both orders.
 *
 * A generation is a random id of a data history; a copy carries its current one and its
 * ancestors. 0 is a copy that never had one ("fresh").
 *
 * Three steps, in each the first row that holds counts: what cannot be joined or needs no look at
 * the histories (`openingRows`), the histories (`historyRows`), and what stands against the copy
 * that would win or lose (`closingRows`). Between the last two an operator's decision may turn a
 * split brain into a copy (`R-resolve`).
 */
import type { Hello } from '../format/hello.ts';
import { Attachment, Resolve, WireRole } from '../format/hello.ts';
import { Feature } from '../format/protocol.ts';
import { DataState, SuperblockFlag } from '../format/superblock.ts';

/** What comes of a pair where one copy is the newer one. */
export interface CopyVerdict {
  /** What this node is. */
  kind: 'source' | 'target';
  /** The source's map does not speak of the target's copy: everything may differ. */
  full: boolean;
  /** The target is primary and takes what it lacks when it needs it. */
  pull: boolean;
  /** An operator decided it; `resolve` of the two hellos tells how, and whether only to look. */
  resolving: boolean;
  row: string;
}

export type Verdict =
  | CopyVerdict
  /** Two fresh copies with unknown data: the first one to be promoted becomes the source. */
  | { kind: 'undecided'; row: string }
  | { kind: 'refuse'; reason: RefuseReason; row: string };

export type RefuseReason =
  | 'same-copy' | 'size-mismatch' | 'sector-mismatch' | 'both-primary' | 'split-brain' | 'unrelated'
  | 'both-inconsistent' | 'primary-is-behind' | 'resource-mismatch' | 'older-image'
  | 'newer-is-inconsistent' | 'loser-is-primary' | 'remote-not-supported';

/** What an operator should read. */
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
  'older-image': 'one copy is an older image of what the other node last saw of it; bring the ' +
    'newer one back, or create one of the two anew',
  'newer-is-inconsistent':
    'the copy with the newer history is only half copied; bring back the copy it was filled from',
  'loser-is-primary':
    'the copy that is to be given up is in use; run hastctl role secondary there first',
  'remote-not-supported':
    'the peer runs a version that cannot serve a primary without a complete copy of its own',
};

const has = (hello: Hello, flag: number): boolean => (hello.flags & flag) !== 0;
const isPrimary = (hello: Hello): boolean => hello.role === WireRole.primary;
const isDiskless = (hello: Hello): boolean => hello.attachment === Attachment.diskless;
const isWhole = (hello: Hello): boolean =>
  !isDiskless(hello) && hello.dataState === DataState.consistent;
const isZeroed = (hello: Hello): boolean =>
  has(hello, SuperblockFlag.createdZeroed) || has(hello, SuperblockFlag.assumeClean);
/** As created with zeros: also not the target of a first sync that broke off. */
const isUntouched = (hello: Hello): boolean =>
  isZeroed(hello) && hello.generation === 0n && isWhole(hello);
/** The other one has seen this copy's present session number, or a later one: an older image. */
const isRolledBack = (hello: Hello, other: Hello): boolean =>
  other.peerCopyId === hello.copyId && hello.sessionNumber <= other.peerSessionNumber;
export { isRolledBack as isOlderImage };
const wasPrimary = (hello: Hello): boolean =>
  isPrimary(hello) || has(hello, SuperblockFlag.primaryActive);
const descendsFrom = (hello: Hello, generation: bigint): boolean =>
  generation !== 0n && hello.history.includes(generation);
const hasGeneration = (hello: Hello): boolean => hello.generation !== 0n;
const isSame = (one: Hello, other: Hello): boolean =>
  hasGeneration(one) && one.generation === other.generation;
const canPull = (one: Hello, other: Hello): boolean =>
  (one.features & other.features & Feature.remote) !== 0;

/** A primary whose data are those of the peer's copy. */
const isRemote = (hello: Hello): boolean => isPrimary(hello) &&
  (isDiskless(hello) || (!isWhole(hello) && hello.authority !== 0n));
/** `generation` is what the data of a remote primary are taken from. */
const reliesOn = (hello: Hello, generation: bigint): boolean => generation !== 0n &&
  (generation === hello.authority || (isDiskless(hello) && generation === hello.generation));
/** Current and former ids of the data that a remote primary serves. */
const lineageOf = (hello: Hello): bigint[] =>
  [hello.authority, hello.generation, ...hello.history].filter((id) => id !== 0n);

/** A copy that a sync filled and left half done, and the copy it was filled from. */
const isFillOf = (half: Hello, other: Hello): boolean =>
  !isPrimary(half) && half.dataState === DataState.inconsistent &&
  half.authority !== 0n &&
  (other.generation === half.authority || descendsFrom(other, half.authority));

/** True where the source keeps a map that speaks of the target's present copy. */
function mapApplies(source: Hello, target: Hello): boolean {
  if (isRolledBack(source, target)) return false;
  if (source.peerCopyId === 0n) {
    // Never had a peer: the map knows every write since creation, if both began with zeros.
    return isZeroed(source) && isUntouched(target);
  }
  // A target that was complete with a third copy since may have writes that nobody's map names.
  const metAnother = target.peerCopyId !== 0n && target.peerCopyId !== source.copyId &&
    isWhole(target);
  return source.peerCopyId === target.copyId && !metAnother &&
    target.sessionNumber > source.peerSessionNumber;
}

/**
 * One row of a table. `wins`: the first is the source. `refuse`: holds in either order.
 * `undecided`: symmetric.
 */
type Row = { row: string } & (
  | { wins: (source: Hello, target: Hello) => boolean }
  | { refuse: RefuseReason; when: (one: Hello, other: Hello) => boolean }
  | { undecided: (one: Hello, other: Hello) => boolean }
);

const openingRows: readonly Row[] = [
  { row: 'M-resource', refuse: 'resource-mismatch', when: (a, b) => a.resource !== b.resource },
  { row: 'M-same-copy', refuse: 'same-copy', when: (a, b) => a.copyId === b.copyId },
  { row: 'M-size', refuse: 'size-mismatch', when: (a, b) => a.mediaSize !== b.mediaSize },
  { row: 'M-sector', refuse: 'sector-mismatch', when: (a, b) => a.sectorSize !== b.sectorSize },
  { row: 'M-both-inconsistent', refuse: 'both-inconsistent', when: (a, b) =>
    !isWhole(a) && !isWhole(b) && !(isPrimary(a) && isPrimary(b)) },
  // A primary that has no complete copy joins the very data it relies on, and nothing else.
  { row: 'S-both-primary', refuse: 'both-primary', when: (a, b) => isRemote(a) && isPrimary(b) },
  { row: 'S-not-supported', refuse: 'remote-not-supported', when: (a, b) =>
    isRemote(a) && !canPull(a, b) },
  { row: 'S-older-image', refuse: 'older-image', when: (a, b) =>
    isRemote(a) && isRolledBack(b, a) },
  { row: 'S-diskless', wins: (a, b) => isDiskless(b) && reliesOn(b, a.generation) },
  { row: 'S-promoted-meanwhile', refuse: 'primary-is-behind', when: (a, b) =>
    isRemote(a) && !reliesOn(a, b.generation) &&
    [a.authority, isDiskless(a) ? a.generation : 0n].some((id) => descendsFrom(b, id)) },
  { row: 'S-older-generation', refuse: 'older-image', when: (a, b) =>
    isRemote(a) && !reliesOn(a, b.generation) && lineageOf(a).includes(b.generation) },
  { row: 'S-forked', refuse: 'split-brain', when: (a, b) =>
    isRemote(a) && !reliesOn(a, b.generation) &&
    lineageOf(a).some((id) => descendsFrom(b, id)) },
  { row: 'S-unrelated', refuse: 'unrelated', when: (a, b) =>
    isRemote(a) && !reliesOn(a, b.generation) },
];

const historyRows: readonly Row[] = [
  { row: 'A-fresh', wins: (a, b) => hasGeneration(a) && !hasGeneration(b) },
  { row: 'B-one-inconsistent', wins: (a, b) =>
    !hasGeneration(a) && !hasGeneration(b) && isWhole(a) && !isWhole(b) },
  // Nothing was ever written: equal, whatever the maps say. Whoever is primary is the source.
  { row: 'B-both-zero', wins: (a, b) => isUntouched(a) && isUntouched(b) &&
    (isPrimary(a) === isPrimary(b) ? a.copyId > b.copyId : isPrimary(a)) },
  { row: 'B-both-primary', refuse: 'both-primary', when: (a, b) =>
    !hasGeneration(a) && !hasGeneration(b) && isPrimary(a) && isPrimary(b) },
  { row: 'B-both-fresh', undecided: (a, b) => !hasGeneration(a) && !hasGeneration(b) },
  // The same generation: equal but for the marks.
  { row: 'C-one-inconsistent', wins: (a, b) => isSame(a, b) && isWhole(a) && !isWhole(b) },
  { row: 'D-both-rolled-back', refuse: 'older-image', when: (a, b) =>
    isSame(a, b) && isRolledBack(a, b) && isRolledBack(b, a) },
  { row: 'D-rolled-back', wins: (a, b) => isSame(a, b) && isRolledBack(b, a) },
  // Who was promoted later, whatever is left of the other one's time as primary.
  { row: 'D-primary', wins: (a, b) => isSame(a, b) && isPrimary(a) && !isPrimary(b) },
  { row: 'D-last-primary', wins: (a, b) => isSame(a, b) && wasPrimary(a) && !wasPrimary(b) },
  { row: 'E-who-has-marks', wins: (a, b) =>
    isSame(a, b) && wasPrimary(a) === wasPrimary(b) && a.marked !== 0 && b.marked === 0 },
  { row: 'F-equal', wins: (a, b) => isSame(a, b) && wasPrimary(a) === wasPrimary(b) &&
    a.marked === b.marked && a.copyId > b.copyId },
  { row: 'G-circular', refuse: 'unrelated', when: (a, b) =>
    descendsFrom(a, b.generation) && descendsFrom(b, a.generation) },
  // A resolution that broke off: what it overwrites was given up then.
  { row: 'H-half-filled', wins: (a, b) => isWhole(a) && isFillOf(b, a) },
  { row: 'I-forced-copy-never-wins', refuse: 'split-brain', when: (a, b) =>
    descendsFrom(a, b.generation) && has(a, SuperblockFlag.forcedIneligible) },
  { row: 'I-went-on-from-an-older-image', refuse: 'split-brain', when: (a, b) =>
    descendsFrom(a, b.generation) && isRolledBack(a, b) },
  { row: 'J-descends', wins: (a, b) => descendsFrom(a, b.generation) },
  { row: 'K-forked', refuse: 'split-brain', when: (a, b) =>
    a.history.some((id) => descendsFrom(b, id)) },
  { row: 'L-no-common-ancestor', refuse: 'unrelated', when: () => true },
];

/** What an operator may decide; the rest of `split-brain` is not between two copies. */
const resolvableRows: readonly string[] = [
  'I-forced-copy-never-wins', 'I-went-on-from-an-older-image', 'K-forked',
];

interface ClosingRow {
  row: string;
  refuse: RefuseReason;
  when: (source: Hello, target: Hello, row: string) => boolean;
}

const closingRows: readonly ClosingRow[] = [
  { row: 'N-both-primary', refuse: 'both-primary', when: (a, b) => isPrimary(a) && isPrimary(b) },
  { row: 'P-source-is-inconsistent', refuse: 'newer-is-inconsistent', when: (a) => !isWhole(a) },
  // Two copies that hold nothing are equal however old; a resolution may choose the older one.
  { row: 'P-source-is-an-older-image', refuse: 'older-image', when: (a, b, row) =>
    row !== 'B-both-zero' && row !== 'R-resolve' && isRolledBack(a, b) },
  { row: 'R-loser-is-primary', refuse: 'loser-is-primary', when: (a, b, row) =>
    row === 'R-resolve' && isPrimary(b) && !isDryRun(a, b) },
  // Never overwritten: it may at most fetch what its own copy, known to be half one, lacks.
  { row: 'O-primary-is-behind', refuse: 'primary-is-behind', when: (a, b, row) =>
    isPrimary(b) && row !== 'R-resolve' && !mayPull(a, b) },
];

function mayPull(source: Hello, target: Hello): boolean {
  if (isWhole(target) || !hasGeneration(source) || !canPull(source, target)) return false;
  return isRemote(target) || !has(target, SuperblockFlag.forcedIneligible);
}

const isDryRun = (one: Hello, other: Hello): boolean =>
  one.resolve === Resolve.dryRun || other.resolve === Resolve.dryRun;

/** Every label a verdict can carry. */
export const generationRows: readonly string[] = [
  ...openingRows, ...historyRows, ...closingRows, { row: 'R-resolve' },
].map((one) => one.row);

/** The first row that holds, or null. `kind` is what `me` is. */
type Found =
  | { kind: 'source' | 'target'; row: string }
  | { kind: 'undecided'; row: string }
  | { kind: 'refuse'; reason: RefuseReason; row: string };

function find(rows: readonly Row[], me: Hello, peer: Hello): Found | null {
  for (const one of rows) {
    const { row } = one;
    if ('wins' in one) {
      if (one.wins(me, peer)) return { kind: 'source', row };
      if (one.wins(peer, me)) return { kind: 'target', row };
    } else if ('refuse' in one) {
      if (one.when(me, peer) || one.when(peer, me)) {
        return { kind: 'refuse', reason: one.refuse, row };
      }
    } else if (one.undecided(me, peer)) {
      return { kind: 'undecided', row };
    }
  }
  return null;
}

/** An operator's decision between the two copies as they are now, or null. */
function resolved(me: Hello, peer: Hello): Found | null {
  const isMine = me.resolve !== Resolve.none;
  if (isMine === (peer.resolve !== Resolve.none)) return null;
  const [sender, receiver] = isMine ? [me, peer] : [peer, me];
  if (sender.resolveLocal !== sender.generation || sender.resolvePeer !== receiver.generation) {
    return null;
  }
  // In a dry run the sender only looks: it stands where the map is sent from.
  const senderWins = sender.resolve === Resolve.discardPeer;
  return { kind: senderWins === isMine ? 'source' : 'target', row: 'R-resolve' };
}

export function decide(me: Hello, peer: Hello): Verdict {
  let found = find(openingRows, me, peer) ?? find(historyRows, me, peer) as Found;
  if (found.kind === 'refuse' && resolvableRows.includes(found.row)) {
    found = resolved(me, peer) ?? found;
  }
  if (found.kind === 'refuse' || found.kind === 'undecided') return found;
  const { kind, row } = found;
  const [source, target] = kind === 'source' ? [me, peer] : [peer, me];
  const against = closingRows.find((one) => one.when(source, target, row));
  if (against !== undefined) return { kind: 'refuse', reason: against.refuse, row: against.row };
  const resolving = row === 'R-resolve';
  return {
    kind, row, resolving, full: isFull(source, target, row),
    pull: isPrimary(target) && !resolving,
  };
}

function isFull(source: Hello, target: Hello, row: string): boolean {
  // Nothing differs, or there is nothing to copy to.
  if (row === 'B-both-zero' || isDiskless(target)) return false;
  if (!mapApplies(source, target)) return true;
  // What the loser wrote since the fork is known from its own map alone.
  return row === 'R-resolve' && target.peerCopyId !== source.copyId;
}
