/**
 * The original's way to tell who copies to whom: two counters on each node (secondary.c
 * init_remote, primary.c write_complete and sync_thread), as small as it can be said.
 */
export type OriginalVerdict = 'from-primary' | 'from-secondary' | 'split-brain' | 'should-not-be';

export class OriginalNode {
  /** My modifications the peer has not seen. */
  localCount = 0;
  /** The peer's count when last in sync. */
  remoteCount = 0;
  /** The secondary's remote count as this primary's worker heard it last; 0 in a new worker. */
  learned = 0;
  /** What a reader finds here; one string stands for the whole volume. */
  data = '';

  promote(): void {
    this.learned = 0;
  }

  /** A write while no peer is connected. */
  writeAlone(data: string): void {
    this.data = data;
    if (this.localCount === this.learned) this.localCount++;
  }
}

/** The secondary decides; first row that matches. Numbers as in the original's table. */
function decide(secondary: OriginalNode, primary: OriginalNode): OriginalVerdict {
  const { localCount: sl, remoteCount: sr } = secondary;
  const { localCount: pl, remoteCount: pr } = primary;
  if (sl > pr && sr === pl) return 'from-secondary';
  if (sl === pr && (sr === pl || sr < pl)) return 'from-primary';
  if (sl > pr && pl > sr) return 'split-brain';
  return 'should-not-be';
}

/** A handshake and, where the counters allow it, the sync to its end. */
export function connectOriginal(primary: OriginalNode, secondary: OriginalNode): OriginalVerdict {
  const verdict = decide(secondary, primary);
  if (verdict === 'split-brain' || verdict === 'should-not-be') return verdict;
  primary.learned = secondary.remoteCount;
  if (verdict === 'from-secondary') primary.data = secondary.data;
  else secondary.data = primary.data;
  primary.localCount = secondary.remoteCount;
  primary.remoteCount = secondary.localCount;
  return verdict;
}
