/**
 * Whether this node may become primary: one labelled table. docs/architecture.md has the
 * reasons; the refusals are what the operator reads.
 */

/** What is known when the operator asks. */
export interface PromotionFacts {
  /** The local copy is a complete image (not a half-finished sync target). */
  consistent: boolean;
  failed: boolean;
  /** A handshake has finished with the peer, and it is connected now. */
  connected: boolean;
  /** Of a connected peer: it is primary. */
  peerIsPrimary: boolean;
  /** Of a connected peer: this copy is equal to its copy, or newer. */
  current: boolean;
  /** The handshake was refused: both copies were written independently. */
  splitBrain: boolean;
  /** The handshake was refused for another reason. */
  misfit: boolean;
  /** `remote none`. */
  remoteNone: boolean;
  /** A copy that never had a generation, and has never met a peer. */
  freshAndAlone: boolean;
  /** Last primary, and recorded durably that the peer is behind. */
  lastPrimaryPeerBehind: boolean;
  /** Of a connected copy that is behind: the peer can serve a primary here meanwhile. */
  servable: boolean;
  /** Recorded durably: the peer's copy is stale, and it acknowledges nothing without this one. */
  keeper: boolean;
  /** An operator said that the peer is gone, and it has not come back. */
  peerGone: boolean;
  /** This worker saw the copy complete when contact broke. */
  completeAtLastContact: boolean;
  /** Something answered at the peer's address at the latest attempt. */
  peerAnswers: boolean;
}

export type PromotionAnswer =
  | { allowed: true; row: string; forced: boolean; ineligible: boolean }
  /** `waits`: nothing is decided yet, and it is asked again. */
  | { allowed: false; row: string; message: string; hint: string; waits: boolean };

interface Row {
  row: string;
  when: (facts: PromotionFacts) => boolean;
  /** null: allowed. */
  refusal: { message: string; hint: string; forceable: boolean } | null;
}

/** Allowed, but not on the own copy: the peer's serves until the own one is whole. */
export const servedRow = 'D-connected-and-served';

const waitHint = 'wait until hastctl status says complete';
const forceHint = 'bring the peer up, or, if it is certainly off, say so with ' +
  'hastctl peer-gone NAME; hastctl role primary --force NAME is the last resort';

/** The first row that matches decides. */
export const promotionTable: readonly Row[] = [
  { row: 'A-failed', when: (f) => f.failed, refusal: {
    message: 'the local copy has failed', hint: 'replace the disk and create it again',
    forceable: false,
  } },
  { row: 'B-peer-is-primary', when: (f) => f.connected && f.peerIsPrimary, refusal: {
    message: 'the peer is primary', hint: 'run hastctl role secondary NAME there first',
    forceable: false,
  } },
  { row: 'C-connected-and-current', when: (f) => f.connected && f.current, refusal: null },
  { row: servedRow, when: (f) => f.connected && f.servable, refusal: null },
  { row: 'D-connected-and-behind', when: (f) => f.connected, refusal: {
    message: 'this copy is still being brought up to date by the peer', hint: waitHint,
    forceable: false,
  } },
  { row: 'E-inconsistent', when: (f) => !f.consistent, refusal: {
    message: 'this copy is a half-finished copy of the peer', forceable: true,
    hint: 'bring the peer up so that the copy can finish',
  } },
  { row: 'F-split-brain', when: (f) => f.splitBrain, refusal: {
    message: 'both copies were written independently (split brain)', forceable: true,
    hint: 'see what differs with hastctl resolve NAME --dry-run, then decide with ' +
      '--discard-local or --discard-peer',
  } },
  { row: 'F-misfit', when: (f) => f.misfit, refusal: {
    message: 'the peer refuses this copy, or this node refuses the peer\'s', forceable: true,
    hint: 'hastctl list NAME shows the reason; mend it first',
  } },
  { row: 'G-remote-none', when: (f) => f.remoteNone, refusal: null },
  { row: 'H-fresh-pair', when: (f) => f.freshAndAlone, refusal: null },
  { row: 'I-peer-recorded-behind', when: (f) => f.lastPrimaryPeerBehind, refusal: null },
  { row: 'I-peer-relied-on-this-copy', when: (f) => f.keeper, refusal: null },
  { row: 'J-peer-answers', when: (f) => f.peerAnswers, refusal: {
    message: 'the peer is alive, but there was no handshake with it', forceable: true,
    hint: 'run hastctl status there: its role must be secondary so that the two can connect',
  } },
  { row: 'K-complete-and-peer-gone', when: (f) => f.completeAtLastContact, refusal: null },
  { row: 'K-operator-says-peer-gone', when: (f) => f.peerGone, refusal: null },
  { row: 'L-unknown', when: () => true, refusal: {
    message: 'the peer is not reachable and may have newer data', forceable: true, hint: forceHint,
  } },
];

export function judgePromotion(facts: PromotionFacts, force: boolean): PromotionAnswer {
  const row = promotionTable.find((one) => one.when(facts)) as Row;
  if (row.refusal === null) {
    return { allowed: true, row: row.row, forced: false, ineligible: false };
  }
  if (force && row.refusal.forceable) {
    return { allowed: true, row: row.row, forced: true, ineligible: !facts.consistent };
  }
  const { message, hint } = row.refusal;
  return { allowed: false, row: row.row, message, hint, waits: false };
}

/** What the successor of a primary's dead worker knows besides. */
export interface ResumeFacts extends PromotionFacts {
  /** The copy is half filled, and the connected peer has exactly the data it is filled with. */
  relied: boolean;
  /** The handshake was refused because the peer was primary, and is ahead of this copy. */
  peerWasPrimary: boolean;
  /** Attempts to reach the peer failed often enough. */
  tried: boolean;
}

interface ResumeRow {
  row: string;
  when: (facts: ResumeFacts) => boolean;
  /** `go`: primary again. `wait`: not yet. `end`: never; who uses the device gets EIO. */
  then: { go: true } | { wait: string } | { end: string };
}

const meanwhile = 'the peer was promoted meanwhile';
const resumeEndHint = 'see hastctl status on both nodes';
const resumeWaitHint = 'hastctl role secondary --force NAME ends what waits, with errors';

/**
 * May a primary whose worker died go on with a new one? The device is still there, and so is what
 * its users know: they must never see the data of another primary. docs/decisions/013 has the
 * reasons. The first row that matches decides.
 */
export const resumeTable: readonly ResumeRow[] = [
  { row: 'A-failed', when: (f) => f.failed, then: { end: 'the local copy has failed' } },
  { row: 'B-peer-is-primary', when: (f) => f.connected && f.peerIsPrimary,
    then: { end: meanwhile } },
  { row: 'C-connected-and-current', when: (f) => f.connected && f.current, then: { go: true } },
  { row: servedRow, when: (f) => f.connected && f.relied && f.servable, then: { go: true } },
  { row: 'D-connected-and-kept', when: (f) => f.connected && f.relied,
    then: { wait: 'the peer cannot serve this node yet' } },
  { row: 'D-connected-and-behind', when: (f) => f.connected, then: { end: meanwhile } },
  { row: 'F-split-brain', when: (f) => f.splitBrain,
    then: { end: 'both copies were written independently (split brain)' } },
  { row: 'F-peer-was-primary', when: (f) => f.peerWasPrimary, then: { end: meanwhile } },
  { row: 'E-inconsistent', when: (f) => !f.consistent,
    then: { wait: 'this copy is half filled, and the peer, which has the rest, is not there' } },
  { row: 'G-remote-none', when: (f) => f.remoteNone, then: { go: true } },
  { row: 'I-peer-recorded-behind', when: (f) => f.lastPrimaryPeerBehind, then: { go: true } },
  { row: 'F-misfit', when: (f) => f.misfit,
    then: { wait: 'the peer refuses this copy, or this node refuses the peer\'s' } },
  { row: 'J-peer-answers', when: (f) => f.peerAnswers,
    then: { wait: 'the peer is alive, but there was no handshake with it yet' } },
  { row: 'K-peer-gone', when: (f) => f.tried || f.peerGone, then: { go: true } },
  { row: 'L-trying', when: () => true, then: { wait: 'the peer is looked for' } },
];

export function judgeResume(facts: ResumeFacts): PromotionAnswer {
  const { row, then } = resumeTable.find((one) => one.when(facts)) as ResumeRow;
  if ('go' in then) return { allowed: true, row, forced: false, ineligible: false };
  const waits = 'wait' in then;
  return {
    allowed: false, row, waits, message: waits ? then.wait : then.end,
    hint: waits ? resumeWaitHint : resumeEndHint,
  };
}
