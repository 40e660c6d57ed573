/** Which `on` sections belong to this node. */

export interface NodeIdentity {
  /** From --node or HAST_NODE: takes the place of host name and machine id. */
  node?: string | undefined;
  /** As the kernel knows it, with or without a domain. */
  hostname: string;
  /** Content of /etc/machine-id, Linux's counterpart of FreeBSD's host UUID. */
  machineId?: string | undefined;
}

/** The names this node answers to, best first: full, short, machine id. */
export function nodeNames(identity: NodeIdentity): string[] {
  const full = identity.node ?? identity.hostname;
  const names = [full, full.split('.')[0] ?? ''];
  if (identity.node === undefined && identity.machineId !== undefined) {
    names.push(identity.machineId.trim().toLowerCase());
  }
  return [...new Set(names.filter((name) => name !== ''))];
}

/**
 * Rank of the match of an `on` name among the names of this node, 0 the best; -1 for none. A
 * machine id may be written in either case and with the dashes of a UUID.
 */
export function matchRank(on: string, names: readonly string[]): number {
  const exact = names.indexOf(on);
  if (exact >= 0) return exact;
  const id = on.toLowerCase().replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/.test(id)) return -1;
  return names.findIndex((name) => name.replaceAll('-', '') === id);
}
