/**
 * What `hastctl dump` prints: `resource: NAME`, then four-space lines, the original's labels
 * first. Generations stand where it had resuid, localcnt and remotecnt.
 */
import type { CopyDescription } from '../lib/disk/inspect.ts';
import { sized } from './format-status.ts';

export function formatDump(name: string, copy: CopyDescription): string {
  const { superblock } = copy;
  const lines = [
    `datasize: ${sized(superblock.mediaSize)}`,
    `extentsize: ${sized(superblock.extentSize)}`,
    `keepdirty: ${superblock.keepDirty}`,
    `localoff: ${superblock.dataOffset}`,
    `generation: ${copy.generation}`,
    `history: ${list(copy.history)}`,
    `prevrole: ${copy.previousRole}`,
    `data: ${copy.dataState}`,
    `peer: ${copy.peerState}`,
    `flags: ${list(copy.flags)}`,
    `copy id: ${copy.copyId}`,
    `peer copy id: ${copy.peerCopyId}`,
    `sequence: ${superblock.sequence}`,
    `superblocks: ${copy.copiesAgree ? 'both agree' : 'only one is current'}`,
    `emergency: ${copy.losetup}`,
  ];
  // Metadata of another resource: the daemon refuses them, and dump says why.
  if (superblock.resource !== name) lines.unshift(`belongs to resource: ${superblock.resource}`);
  return `resource: ${name}\n${lines.map((line) => `    ${line}\n`).join('')}`;
}

/** The same as JSON; ids stay text, 64 bits do not fit a JSON number. */
export function dumpJson(name: string, copy: CopyDescription): object {
  const { superblock, ...words } = copy;
  const { mediaSize, extentSize, keepDirty, dataOffset, sequence, resource } = superblock;
  return {
    schema: 1, name, resource, mediaSize, extentSize, keepDirty, dataOffset, sequence, ...words,
  };
}

function list(words: readonly string[]): string {
  return words.length === 0 ? 'none' : words.join(' ');
}
