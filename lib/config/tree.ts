/**
 * The raw tree: what a file says, before defaults and inheritance. Both syntaxes produce it,
 * in the shape of the JSON form, with the source position of everything beside it.
 *
 * - Sections have no prototype: a resource may be called `constructor`.
 * - A section's keys keep no order (JavaScript moves numeric ones): ask `places` instead.
 */
import { sectionAt } from './keywords.ts';
import type { Level } from './keywords.ts';
import type { Span } from './problems.ts';

export type Raw = string | number | boolean | null | Raw[] | Section;
export interface Section {
  [key: string]: Raw;
}

export interface Place {
  /** The keyword, or the name of a section; the value itself in an array. */
  key: Span;
  value: Span;
}

export interface RawTree {
  root: Section;
  /** By JSON pointer. */
  places: Map<string, Place>;
  /** Pointers whose value is known to be wrong and already reported. */
  damaged: Set<string>;
  /** What must not be called missing, since something misspelt was reported: `excuse()`. */
  excused: Set<string>;
}

export function emptyTree(): RawTree {
  return { root: newSection(), places: new Map(), damaged: new Set(), excused: new Set() };
}

export function newSection(): Section {
  return Object.create(null) as Section;
}

/** The JSON pointer of member `key` of `parent`. */
export function pointerTo(parent: string, key: string | number): string {
  return `${parent}/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

/** The parts of a JSON pointer, unescaped. */
export function pointerParts(pointer: string): string[] {
  const parts = pointer.split('/').slice(1);
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** The level of the section at `pointer`; undefined where no section belongs. */
export function levelOf(pointer: string): Level | undefined {
  const parts = pointerParts(pointer);
  const last = parts.at(-1);
  const isNamed = parts.length % 2 === 0;
  if (isNamed || parts.length === 0) return sectionLevel(parts);
  const around = sectionLevel(parts.slice(0, -1));
  if (around === undefined || (last !== 'mount' && last !== 'tls')) return undefined;
  return sectionAt(last, around) ? last : undefined;
}

/** Of the file, a resource, or an `on`. */
function sectionLevel(parts: readonly string[]): Level | undefined {
  if (parts.length === 0) return 'global';
  if (parts[0] === 'on') return parts.length === 2 ? 'node' : undefined;
  if (parts[0] !== 'resources') return undefined;
  if (parts.length === 2) return 'resource';
  return parts.length === 4 && parts[2] === 'on' ? 'resource-node' : undefined;
}

/** Notes that `keyword` was meant somewhere in the resource (or file) around `pointer`. */
export function excuse(tree: RawTree, pointer: string, keyword: string): void {
  tree.excused.add(`${ownerOf(pointer)} ${keyword}`);
}

export function isExcused(tree: RawTree, pointer: string, keyword: string): boolean {
  return tree.excused.has(`${ownerOf(pointer)} ${keyword}`);
}

function ownerOf(pointer: string): string {
  const parts = pointer.split('/');
  return parts[1] === 'resources' && parts.length > 2 ? parts.slice(0, 3).join('/') : '';
}

export function isSection(raw: Raw | undefined): raw is Section {
  return typeof raw === 'object' && raw !== null && !Array.isArray(raw);
}

/** The sections below `key` of the section at `pointer`, in the order of the file. */
export function sectionsOf(
  tree: RawTree,
  parent: Section,
  pointer: string,
  key: 'on' | 'resources',
): { name: string; section: Section; pointer: string }[] {
  const all = parent[key];
  if (!isSection(all)) return [];
  const base = pointerTo(pointer, key);
  const found = Object.entries(all).flatMap(([name, section]) =>
    isSection(section) ? [{ name, section, pointer: pointerTo(base, name) }] : [],
  );
  const offset = (at: string): number => tree.places.get(at)?.key.offset ?? 0;
  return found.sort((a, b) => offset(a.pointer) - offset(b.pointer));
}
