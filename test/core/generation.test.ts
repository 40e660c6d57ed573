/**
 * Goal: both nodes judge a handshake alike, and what must never come of it never does.
 * Method: every pair of hellos over a small universe of ids, flags, states and roles.
 */
import t from 'tap';
import {
  decide, generationRows, refuseTexts, type CopyVerdict, type Verdict,
} from '../../lib/core/generation.ts';
import { Attachment, Resolve, WireRole, type Hello } from '../../lib/format/hello.ts';
import { Feature } from '../../lib/format/protocol.ts';
import { limits, MiB } from '../../lib/format/limits.ts';
import { DataState, SuperblockFlag } from '../../lib/format/superblock.ts';

const { createdZeroed, assumeClean, primaryActive, forced, forcedIneligible } = SuperblockFlag;

function history(...ids: bigint[]): bigint[] {
  return [...ids, ...new Array<bigint>(limits.historyCount - ids.length).fill(0n)];
}

function hello(change: Partial<Hello> = {}): Hello {
  return {
    versionMin: 1, versionMax: 1, features: 0, copyId: 1n, mediaSize: 8 * MiB, sectorSize: 512,
    extentSize: 65_536, role: WireRole.secondary, dataState: DataState.consistent, replication: 1,
    flags: 0, generation: 10n, history: history(), peerCopyId: 2n, peerGeneration: 0n,
    peerSessionNumber: 0, sessionNumber: 5, instance: 1n, marked: 0, windowFrames: 1,
    windowBytes: MiB, resource: 'r', node: 'a', timeout: 1, attachment: Attachment.normal,
    authority: 0n, resolve: Resolve.none, resolveLocal: 0n, resolvePeer: 0n, ...change,
  };
}

/** Lineages that can stand to one another in every way: see the titles. */
const lineages: readonly { generation: bigint; history: bigint[] }[] = [
  { generation: 0n, history: history() }, // fresh
  { generation: 10n, history: history() },
  { generation: 11n, history: history(10n) }, // a child of 10
  { generation: 12n, history: history(10n) }, // another one
  { generation: 12n, history: history(11n, 10n) }, // a grandchild
  { generation: 13n, history: history() }, // unrelated
  { generation: 11n, history: history(12n, 10n) }, // with 12: circular
];

/** What a copy remembers of the other one: nothing, a third copy, or one of its session numbers. */
const memories = (peer: bigint): { peerCopyId: bigint; peerSessionNumber: number }[] => [
  { peerCopyId: 0n, peerSessionNumber: 0 }, { peerCopyId: 99n, peerSessionNumber: 4 },
  ...[4, 5, 6].map((peerSessionNumber) => ({ peerCopyId: peer, peerSessionNumber })),
];

const states = [DataState.consistent, DataState.inconsistent];
const roles = [WireRole.secondary, WireRole.primary];

/** Every combination of the listed values. */
function product(copyId: bigint, axes: readonly (readonly Partial<Hello>[])[]): Hello[] {
  let all: Partial<Hello>[] = [{ copyId }];
  for (const axis of axes) {
    all = all.flatMap((one) => axis.map((change) => ({ ...one, ...change })));
  }
  return all.map(hello);
}

const axis = <K extends keyof Hello>(key: K, values: readonly Hello[K][]): Partial<Hello>[] =>
  values.map((value) => ({ [key]: value }) as Partial<Hello>);

const everyFlag = [0, forced | forcedIneligible].flatMap((one) =>
  [0, primaryActive].flatMap((two) => [0, createdZeroed].map((three) => one | two | three)));

/** Copies as they are without what an operator or a detached disk adds. */
function copies(copyId: bigint, peer: bigint): Hello[] {
  return product(copyId, [
    lineages, axis('dataState', states), axis('flags', everyFlag), axis('role', roles),
    memories(peer),
  ]);
}

const attachments: Partial<Hello>[] = [
  {}, { role: WireRole.primary }, { role: WireRole.primary, attachment: Attachment.diskless },
];

/** Copies and primaries with data of the peer. */
function attached(copyId: bigint, peer: bigint): Hello[] {
  return product(copyId, [
    lineages, axis('dataState', states), axis('flags', [0, forced | forcedIneligible]),
    memories(peer).filter(({ peerSessionNumber }) => peerSessionNumber !== 6), attachments,
    axis('features', [Feature.remote]), axis('authority', [0n, 10n, 11n, 12n]),
  ]);
}

const mirror = { source: 'target', target: 'source', undecided: 'undecided', refuse: 'refuse' };

function isOld(one: Hello, other: Hello): boolean {
  return other.peerCopyId === one.copyId && one.sessionNumber <= other.peerSessionNumber;
}

const isPrimary = (one: Hello): boolean => one.role === WireRole.primary;
const isDiskless = (one: Hello): boolean => one.attachment === Attachment.diskless;
const isWhole = (one: Hello): boolean =>
  one.dataState === DataState.consistent && !isDiskless(one);
const isIneligible = (one: Hello): boolean => (one.flags & forcedIneligible) !== 0;
const past = (one: Hello): bigint[] => one.history.filter((id) => id !== 0n);
const isAhead = (one: Hello, other: Hello): boolean =>
  other.generation !== 0n && past(one).includes(other.generation);

/** What is wrong with a copy from `source` to `target`, or null. */
function copyFault(source: Hello, target: Hello, verdict: CopyVerdict): string | null {
  const { row, pull, full, resolving } = verdict;
  if (isPrimary(source) && isPrimary(target)) return 'joins two primaries';
  if (isDiskless(source)) return 'copies from no disk';
  if (!isWhole(source)) return 'copies half a copy';
  if (resolving !== (row === 'R-resolve')) return 'resolving';
  const isDryRun = source.resolve === Resolve.dryRun || target.resolve === Resolve.dryRun;
  if (isPrimary(target) && !pull && !(resolving && isDryRun)) return 'overwrites a primary';
  if (pull && !isPrimary(target)) return 'pulls for nobody';
  if (row !== 'B-both-zero' && !resolving && isOld(source, target)) return 'copies an older image';
  if (pull) {
    if (isWhole(target)) return 'pulls over a whole copy';
    if ((source.features & target.features & Feature.remote) === 0) return 'pulls without asking';
    const ids = isDiskless(target) ? [target.authority, target.generation] : [target.authority];
    if (source.generation === 0n) return 'relies on nothing';
    const mayRely = ids.includes(source.generation) ||
      (target.authority === 0n && !isDiskless(target) && !isIneligible(target));
    if (!mayRely) return 'pulls other data than it served';
  }
  if (!full && !isDiskless(target)) return mapFault(source, target, row);
  return null;
}

function mapFault(source: Hello, target: Hello, row: string): string | null {
  if (row === 'B-both-zero') return null;
  if (isOld(source, target)) return 'trusts the map of an older image';
  const isKnown = source.peerCopyId === target.copyId &&
    target.sessionNumber > source.peerSessionNumber;
  const isFirst = source.peerCopyId === 0n && target.generation === 0n && isWhole(target) &&
    [source, target].every((one) => (one.flags & (createdZeroed | assumeClean)) !== 0);
  if (!isKnown && !isFirst) return 'trusts a map of another copy';
  if (!isFirst && isWhole(target) && target.peerCopyId === 99n) return 'it met another copy';
  return row === 'R-resolve' && target.peerCopyId !== source.copyId ? 'a fork without a map' : null;
}

/** What is wrong with the histories of a copy that no operator decided, or null. */
function historyFault(source: Hello, target: Hello, row: string): string | null {
  if (row === 'R-resolve' || row === 'S-diskless') return null;
  if (source.generation === 0n && target.generation !== 0n) return 'copies a fresh copy over data';
  const isFill = row === 'H-half-filled' && !isWhole(target) && !isPrimary(target) &&
    [source.generation, ...past(source)].includes(target.authority) && target.authority !== 0n;
  if (isFill) return null;
  if (target.generation !== 0n && source.generation !== target.generation) {
    if (!isAhead(source, target)) return 'overwrites data the source never had';
    if (isIneligible(source)) return 'a forced copy wins';
  }
  return isAhead(target, source) ? 'copies old over new' : null;
}

/** What must be refused, or must not be, or null where `verdict` is right. */
function refusalFault(me: Hello, peer: Hello, verdict: Verdict): string | null {
  const reason = verdict.kind === 'refuse' ? verdict.reason : null;
  const isPlain = isWhole(me) && isWhole(peer) && me.generation !== 0n && peer.generation !== 0n &&
    me.resolve === Resolve.none && peer.resolve === Resolve.none;
  if (!isPlain) return null;
  if (me.generation === peer.generation) {
    if (isPrimary(me) || isPrimary(peer) || (isOld(me, peer) && isOld(peer, me))) return null;
    return reason === null ? null : `refuses equal data: ${reason}`;
  }
  const [ahead, behind] = [isAhead(me, peer), isAhead(peer, me)];
  if (!ahead && !behind) {
    const expected = past(me).some((id) => past(peer).includes(id)) ? 'split-brain' : 'unrelated';
    return reason === expected ? null : `${reason} instead of ${expected}`;
  }
  if (ahead && behind) return reason === 'unrelated' ? null : 'joins a circle';
  const [source, target] = ahead ? [me, peer] : [peer, me];
  const fork = isIneligible(source) || isOld(source, target);
  if (fork !== (reason === 'split-brain')) return `fork ${fork}, but ${reason}`;
  const mayCopy = !fork && !isPrimary(target);
  return mayCopy === (reason === null) ? null : `${reason} between ahead and behind`;
}

/** What is wrong with a resolution, or null. */
function resolveFault(me: Hello, peer: Hello, verdict: Verdict): string | null {
  const plain = { resolve: Resolve.none, resolveLocal: 0n, resolvePeer: 0n };
  const before = decide({ ...me, ...plain }, { ...peer, ...plain });
  const [sender, receiver] = me.resolve === Resolve.none ? [peer, me] : [me, peer];
  const isAsked = sender.resolve !== Resolve.none && receiver.resolve === Resolve.none;
  const applies = isAsked && before.kind === 'refuse' && before.reason === 'split-brain' &&
    sender.resolveLocal === sender.generation && sender.resolvePeer === receiver.generation;
  if (!applies) {
    const isSame = before.row === verdict.row && before.kind === verdict.kind;
    return isSame ? null : 'a resolution where there is nothing to resolve';
  }
  const loser = sender.resolve === Resolve.discardPeer ? receiver : sender;
  const winner = loser === sender ? receiver : sender;
  const isTaken = isPrimary(loser) && sender.resolve !== Resolve.dryRun;
  const refused = (isPrimary(me) && isPrimary(peer)) || isTaken || !isWhole(winner);
  if (verdict.kind === 'refuse') return refused ? null : `a decision refused: ${verdict.reason}`;
  if (refused || verdict.kind === 'undecided') return 'a decision taken';
  return (verdict.kind === 'source') === (winner === me) ? null : 'the wrong copy wins';
}

const text = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? value.toString() : value;

const rows = new Set<string>();

/**
 * Judges every pair on both sides; up to five faults as text. Of lists with the same states in the
 * same order (`isSquare`) half the pairs are all.
 */
function judgeAll(
  mine: readonly Hello[], theirs: readonly Hello[], resolve: boolean, isSquare = false,
): string[] {
  const faults: string[] = [];
  for (const [index, me] of mine.entries()) {
    for (const peer of isSquare ? theirs.slice(index) : theirs) {
      const one = decide(me, peer);
      const two = decide(peer, me);
      rows.add(one.row);
      let wrong = one.row === two.row ? null : `two rows: ${one.row}, ${two.row}`;
      if (two.kind !== mirror[one.kind]) wrong ??= `not mirrored: ${one.kind}, ${two.kind}`;
      if (one.kind === 'refuse' && two.kind === 'refuse') {
        if (one.reason !== two.reason) wrong ??= `two reasons: ${one.reason}, ${two.reason}`;
      } else if (one.kind === 'source' || one.kind === 'target') {
        const [source, target] = one.kind === 'source' ? [me, peer] : [peer, me];
        const other = two as CopyVerdict;
        if (one.full !== other.full || one.pull !== other.pull) wrong ??= 'differs in full, pull';
        if (one.resolving !== other.resolving) wrong ??= 'resolves on one side';
        wrong ??= copyFault(source, target, one) ?? historyFault(source, target, one.row);
      } else if (me.generation !== 0n || peer.generation !== 0n ||
          (isPrimary(me) && isPrimary(peer))) {
        wrong ??= 'undecided with data';
      }
      wrong ??= resolve ? resolveFault(me, peer, one) : refusalFault(me, peer, one);
      if (wrong !== null && faults.length < 5) {
        faults.push(`${wrong} (${one.row}): ${JSON.stringify([me, peer], text)}`);
      }
    }
  }
  return faults;
}

t.test('generation: mirrored and safe over every pair of copies', async (t) => {
  t.same(judgeAll(copies(1n, 2n), copies(2n, 1n), false, true), []);
  const marked = (copyId: bigint, peer: bigint): Hello[] => product(copyId, [
    lineages, axis('marked', [0, 1]), axis('role', roles), axis('flags', [0, primaryActive]),
    axis('dataState', states), memories(peer),
  ]);
  t.same(judgeAll(marked(1n, 2n), marked(2n, 1n), false, true), []);
  const clean = (copyId: bigint, peer: bigint): Hello[] => product(copyId, [
    lineages, axis('flags', [0, createdZeroed, assumeClean]), axis('role', roles),
    axis('dataState', states), memories(peer),
  ]);
  t.same(judgeAll(clean(1n, 2n), clean(2n, 1n), false, true), []);
});

t.test('generation: a primary without a complete copy of its own', async (t) => {
  t.same(judgeAll(attached(1n, 2n), attached(2n, 1n), false, true), []);
  const mixed = (copyId: bigint, peer: bigint): Hello[] => product(copyId, [
    lineages, axis('dataState', states), axis('features', [0, Feature.remote, 2]), attachments,
    memories(peer).slice(0, 3), axis('authority', [0n, 10n]),
  ]);
  t.same(judgeAll(mixed(1n, 2n), mixed(2n, 1n), false, true), []);
});

t.test('generation: a split brain is resolved as decided and not otherwise', async (t) => {
  const base = (copyId: bigint, peer: bigint): Hello[] => product(copyId, [
    lineages, axis('dataState', states), axis('role', roles),
    axis('flags', [0, forced | forcedIneligible]),
    memories(peer).filter(({ peerCopyId }) => peerCopyId !== 0n).slice(0, 3),
  ]);
  const asks = (one: Hello, resolvePeer: bigint): Hello[] => [
    ...axis('resolve', [Resolve.dryRun, Resolve.discardLocal, Resolve.discardPeer])
      .map((change) => ({ ...one, ...change, resolveLocal: one.generation, resolvePeer })),
    // Decided upon another generation of this copy.
    { ...one, resolve: Resolve.discardPeer, resolveLocal: 77n, resolvePeer },
  ];
  const mine = base(1n, 2n).flatMap((one) => [11n, 12n].flatMap((id) => asks(one, id)));
  t.same(judgeAll(mine, base(2n, 1n), true), []);
  const some = mine.filter((one) => one.resolvePeer === 12n && one.flags === 0);
  const others = base(2n, 1n).filter((one) => one.generation === 12n)
    .flatMap((one) => asks(one, 11n));
  t.same(judgeAll(some, others, true), [], 'two decisions at once are none');
});

t.test('generation: one\'s own copy, other sizes and names are refused always', async (t) => {
  const some = (copyId: bigint): Hello[] => product(copyId, [
    lineages, axis('dataState', states), axis('flags', everyFlag), axis('role', roles),
  ]);
  const refused = (change: Partial<Hello>, row: string): boolean => some(1n).every((me) =>
    some(2n).every((peer) => {
      const verdict = decide(me, { ...peer, ...change });
      rows.add(verdict.row);
      return verdict.kind === 'refuse' && verdict.row === row;
    }));
  t.ok(refused({ copyId: 1n }, 'M-same-copy'));
  t.ok(refused({ mediaSize: 9 * MiB }, 'M-size'));
  t.ok(refused({ sectorSize: 4096 }, 'M-sector'));
  t.ok(refused({ resource: 'other' }, 'M-resource'));
});

t.test('generation: every row is reached, and no other', async (t) => {
  t.same([...rows].sort(), [...generationRows].sort());
  t.equal(new Set(generationRows).size, generationRows.length, 'no label twice');
});

function row(me: Partial<Hello>, peer: Partial<Hello>): string {
  const verdict = decide(hello(me), hello({ copyId: 2n, peerCopyId: 1n, node: 'b', ...peer }));
  const what = verdict.kind === 'refuse' ? verdict.reason : verdict.kind;
  return `${verdict.row} ${what}${'full' in verdict && verdict.full ? ' full' : ''}`;
}

t.test('generation: the table by example', async (t) => {
  const zero = { generation: 0n, peerCopyId: 0n, flags: createdZeroed };
  const empty = { generation: 0n, peerCopyId: 0n };
  t.equal(row({ resource: 'other' }, {}), 'M-resource resource-mismatch');
  t.equal(row({ copyId: 2n }, {}), 'M-same-copy same-copy');
  t.equal(row({ mediaSize: MiB }, {}), 'M-size size-mismatch');
  t.equal(row({ sectorSize: 4096 }, {}), 'M-sector sector-mismatch');
  const half = { dataState: DataState.inconsistent };
  t.equal(row(half, half), 'M-both-inconsistent both-inconsistent');
  t.equal(row(zero, zero), 'B-both-zero target');
  t.equal(row(empty, zero), 'B-both-fresh undecided');
  const broken = { ...zero, dataState: DataState.inconsistent };
  t.equal(row(zero, broken), 'B-one-inconsistent source full');
  t.equal(row(broken, zero), 'B-one-inconsistent target full');
  t.equal(row({ peerCopyId: 0n, flags: createdZeroed }, broken), 'A-fresh source full');
  t.equal(row({}, empty), 'A-fresh source');
  t.equal(row({ peerCopyId: 3n }, empty), 'A-fresh source full');
  t.equal(row({ peerCopyId: 0n, flags: createdZeroed }, zero), 'A-fresh source');
  t.equal(row({ peerCopyId: 0n }, zero), 'A-fresh source full');
  t.equal(row(empty, {}), 'A-fresh target');
  t.equal(row(half, {}), 'C-one-inconsistent target');
  t.equal(row({ flags: primaryActive }, {}), 'D-last-primary source');
  const former = { flags: primaryActive, marked: 9 };
  t.equal(row({ role: WireRole.primary }, former), 'D-primary source');
  t.equal(row(former, { role: WireRole.primary, flags: primaryActive }), 'D-primary target');
  t.equal(row({ marked: 1 }, {}), 'E-who-has-marks source');
  t.equal(row({}, {}), 'F-equal target');
  t.equal(row({ peerSessionNumber: 5 }, { flags: primaryActive }), 'D-rolled-back source full',
    'a session number that did not grow: the peer\'s disk is an older image');
  t.equal(row({ marked: 1 }, { peerSessionNumber: 5 }), 'D-rolled-back target full');
  t.equal(row({ generation: 11n, history: history(10n) }, {}), 'J-descends source');
  t.equal(row({}, { generation: 12n, history: history(11n, 10n) }), 'J-descends target');
  t.equal(row({ generation: 11n, history: history(10n), flags: forcedIneligible }, {}),
    'I-forced-copy-never-wins split-brain');
  t.equal(row({ generation: 11n, history: history(10n) }, {
    generation: 12n, history: history(10n),
  }), 'K-forked split-brain');
  t.equal(row({ generation: 11n }, { generation: 12n }), 'L-no-common-ancestor unrelated');
  t.equal(row({ generation: 11n, history: history(12n) }, {
    generation: 12n, history: history(11n),
  }), 'G-circular unrelated');
  const primary = { role: WireRole.primary };
  t.equal(row(primary, primary), 'N-both-primary both-primary');
  t.equal(row(primary, { generation: 12n, history: history(10n) }),
    'O-primary-is-behind primary-is-behind');
  t.equal(row({ generation: 11n, history: history(10n), ...half }, {}),
    'P-source-is-inconsistent newer-is-inconsistent');
  for (const text of Object.values(refuseTexts)) t.ok(text.length > 20);
});
