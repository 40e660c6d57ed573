/** What a person types next where a resource needs one. */
import type { ResourceStatus } from '../lib/format/status.ts';

/** Commands of hastctl in an order that makes sense; none where nobody is needed. */
export function nextSteps(resource: ResourceStatus): string[] {
  const { name, needsHuman, status, localDisk, peerDisk, detail, role } = resource;
  if (!needsHuman) return [];
  if (status === 'split-brain') {
    return ['local', 'peer'].map((side) => `hastctl resolve ${name} --discard-${side} --dry-run`);
  }
  if (localDisk === 'detached') return [`hastctl attach ${name}`];
  if (localDisk === 'failed' && role !== 'init') {
    return [`hastctl attach ${name}   (after a new disk: hastctl create ${name} before)`];
  }
  if (peerDisk === 'failed') return [`on the peer: hastctl attach ${name}`];
  const named = commandIn(detail, name);
  if (named !== null) return [named];
  if (detail.startsWith('both nodes are primary')) {
    return [`on one of the two: hastctl down ${name}`];
  }
  if (detail.startsWith('the peer has newer data')) return [`hastctl down ${name}`];
  return [`hastctl list ${name}`];
}

/** A command that the detail itself names, its prose cut off. */
function commandIn(detail: string, name: string): string | null {
  const found = /\bhastctl ([a-z-]+)((?: (?:--?[a-z-]+|[^\s;,:.()]+))*)/.exec(detail);
  if (found === null) return null;
  const words = ['init', 'primary', 'secondary', 'pause', 'resume', name, 'NAME'];
  const all = (found[2] ?? '').split(' ').filter((word) => word !== '');
  const end = all.findIndex((word) => !words.includes(word) && !word.startsWith('-'));
  const kept = (end < 0 ? all : all.slice(0, end))
    .map((word) => word === 'NAME' ? name : word);
  if (!kept.includes(name)) kept.push(name);
  return `hastctl ${found[1] ?? ''} ${kept.join(' ')}`;
}
