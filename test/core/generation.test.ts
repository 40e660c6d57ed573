/**
 * Goal: both nodes judge a handshake alike, and what must never come of it never does.
 * Method: every pair of hellos over a small universe of ids, flags, states and roles.
 */
import t from 'tap';
import { decide, refuseTexts, type Verdict } from '../../lib/core/generation.ts';
import { Attachment, Resolve, WireRole, type Hello } from '../../lib/format/hello.ts';
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

function universe(copyId: bigint, peer: bigint): Hello[] {
  const all: Hello[] = [];
  for (const generation of [0n, 10n, 11n, 12n]) {
    for (const past of [history(), history(10n), history(11n, 10n)]) {
      for (const flags of [
        0, createdZeroed, primaryActive, forcedIneligible | forced, primaryActive | assumeClean,
      ]) {
        for (const dataState of [DataState.consistent, DataState.inconsistent]) {
          for (const role of [WireRole.secondary, WireRole.primary]) {
            for (const [marked, peerCopyId, peerSessionNumber] of [
              [0, 0n, 0], [1, peer, 4], [0, peer, 5], [1, 99n, 0],
            ] as const) {
              // A copy without a generation has no past; none is its own ancestor.
              if (generation === 0n ? past[0] !== 0n : past.includes(generation)) continue;
              all.push(hello({
                copyId, generation, history: past, flags, dataState, role, marked, peerCopyId,
                peerSessionNumber,
              }));
            }
          }
        }
      }
    }
  }
  return all;
}

const mirror = { source: 'target', target: 'source', undecided: 'undecided', refuse: 'refuse' };

/** What is wrong with a verdict, or null. */
function fault(me: Hello, peer: Hello, verdict: Verdict): string | null {
  if (verdict.kind === 'refuse') return null;
  const [source, target] = verdict.kind === 'target' ? [peer, me] : [me, peer];
  if (me.role === WireRole.primary && peer.role === WireRole.primary) return 'joins two primaries';
  if (verdict.kind === 'undecided') {
    return me.generation === 0n && peer.generation === 0n ? null : 'undecided with data';
  }
  if (target.role === WireRole.primary) return 'overwrites a primary';
  if (source.dataState !== DataState.consistent) return 'copies half a copy';
  if (source.generation === 0n && target.generation !== 0n) return 'copies a fresh copy over data';
  const related = source.generation === target.generation ||
    source.history.includes(target.generation) || target.generation === 0n;
  if (!related) return 'overwrites data the source never had';
  if (target.history.includes(source.generation) && source.generation !== 0n) {
    return 'copies old over new';
  }
  const ineligible = (source.flags & forcedIneligible) !== 0;
  if (ineligible && target.generation !== 0n && target.generation !== source.generation) {
    return 'a forced copy wins';
  }
  const known = source.peerCopyId === target.copyId &&
    target.sessionNumber > source.peerSessionNumber;
  const firstPair = source.peerCopyId === 0n && target.generation === 0n;
  const bothFresh = source.generation === 0n && target.generation === 0n;
  const old = (one: Hello, other: Hello): boolean =>
    other.peerCopyId === one.copyId && one.sessionNumber <= other.peerSessionNumber;
  if (verdict.row !== 'B-both-zero' && old(source, target)) {
    return 'copies an older image';
  }
  if (!verdict.full && !known && !firstPair && !bothFresh) return 'trusts a map of another copy';
  return null;
}

t.test('generation: mirrored and safe over every pair', async (t) => {
  const rows = new Set<string>();
  const faults: string[] = [];
  const mine = universe(1n, 2n);
  const theirs = universe(2n, 1n);
  for (const me of mine) {
    for (const peer of theirs) {
      const one = decide(me, peer);
      const two = decide(peer, me);
      rows.add(one.row);
      let wrong = fault(me, peer, one);
      if (two.kind !== mirror[one.kind]) wrong = `not mirrored: ${one.kind}, ${two.kind}`;
      if (one.kind === 'refuse' && two.kind === 'refuse' && one.reason !== two.reason) {
        wrong = `two reasons: ${one.reason}, ${two.reason}`;
      }
      if ('full' in one && 'full' in two && one.full !== two.full) wrong = 'full on one side';
      if (wrong !== null && faults.length < 5) {
        faults.push(`${wrong} (${one.row}): ${show(me)} / ${show(peer)}`);
      }
    }
  }
  t.same(faults, []);
  t.ok(rows.size >= 14, [...rows].join(' '));
});

function show(one: Hello): string {
  const { generation, flags, dataState, role, marked, peerCopyId } = one;
  return [generation, one.history.filter((id) => id !== 0n), flags, dataState, role, marked,
    peerCopyId].join(',');
}

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
