/** Every kind of fault by name; `--faults` names any. */
export const faultKinds = [
  'kill', 'power', 'kill-both', 'power-both', 'crash-in-start', 'pair-crash',
  'cut', 'stall', 'one-way', 'partition', 'refuse', 'flip',
  'slow-disk', 'hang-disk', 'eio-write', 'eio-flush', 'eio-metadata', 'latent',
  'flip-superblock', 'flip-map', 'flip-index', 'flip-hot',
  'rollback', 'recreate', 'clone',
  'swap', 'demote', 'demote-force', 'promote-other', 'force-other', 'force-both', 'clock',
  'detach', 'detach-crash', 'attach', 'pause', 'peer-gone', 'promote-filling', 'split', 'resolve',
  'kill-resume', 'handover',
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** Drawn apart, so that a seed draws everything else as it did before there were these. */
export const lateKinds: readonly FaultKind[] = ['kill-resume', 'handover'];

export const defaultKinds: readonly FaultKind[] = faultKinds;
