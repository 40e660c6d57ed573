/** `hastctl map NAME`: a picture of what the two copies lack of each other. */
import { HastError } from '../lib/base/errors.ts';
import type { VolumeMap } from '../lib/format/volume-map.ts';
import { mapCellsMax } from '../lib/format/volume-map.ts';
import { ask } from './daemon-commands.ts';
import { ExitCode } from './exit-codes.ts';
import { humanSize, sized } from './format-status.ts';
import type { Context } from './output.ts';
import { configOf, print, printJson } from './output.ts';
import type { Paint, Style } from './terminal.ts';
import { hasColours, painter, sizeOf } from './terminal.ts';

export interface MapOptions {
  ascii?: true;
}

type Kind = 'syncing' | 'both' | 'peer' | 'local' | 'hot' | 'clean';

interface Look {
  text: string;
  block: string;
  ascii: string;
  style: Style;
}

const looks: Record<Kind, Look> = {
  syncing: { text: 'copied now', block: '▶', ascii: '>', style: 'cyan' },
  both: { text: 'each lacks something of the other', block: '█', ascii: 'X', style: 'alarm' },
  peer: { text: 'the peer lacks', block: '█', ascii: '#', style: 'red' },
  local: { text: 'stale here', block: '▓', ascii: '@', style: 'yellow' },
  hot: { text: 'hot: written lately', block: '▒', ascii: '+', style: 'green' },
  clean: { text: 'clean', block: '·', ascii: '.', style: 'dim' },
};
const askMs = 15_000;
const rowsMax = 16;

export async function mapCommand(
  context: Context, resource: string, { ascii = false }: { ascii?: boolean },
): Promise<number> {
  const config = configOf(context);
  const { columns } = sizeOf(process.stdout);
  const width = Math.max(10, Math.min(columns - 14, 128));
  const cells = context.json ? mapCellsMax : Math.min(mapCellsMax, width * rowsMax);
  const command = { command: 'map', resource, cells } as const;
  const { map } = await ask(context, config, command, askMs).catch((error: unknown) => {
    if (!(error instanceof HastError) || error.code !== 'HAST_E_TIMEOUT') throw error;
    throw new HastError('HAST_E_TIMEOUT', error.message, {
      cause: error, hint: `hastctl upgrade ${resource}, if its worker is of an older release`,
    });
  });
  if (context.json) {
    const { mediaSize, cellBytes } = map;
    printJson({ schema: 1, name: resource, mediaSize, cellBytes, runs: runsOf(map) });
  } else {
    const paint = painter(hasColours(process.stdout));
    print(formatMap(resource, map, { width, ascii: ascii || !isUnicode(), paint }));
  }
  return ExitCode.ok;
}

/** The locale of the terminal shows more than ASCII. */
function isUnicode(): boolean {
  const { LC_ALL, LC_CTYPE, LANG } = process.env;
  return /utf-?8/i.test(LC_ALL || LC_CTYPE || LANG || '');
}

function kindOf(map: VolumeMap, cell: number): Kind {
  if (cell === map.syncingAt) return 'syncing';
  const isPeer = (map.peerStale[cell] ?? 0) > 0;
  const isLocal = (map.localStale[cell] ?? 0) > 0;
  if (isPeer || isLocal) return isPeer && isLocal ? 'both' : isPeer ? 'peer' : 'local';
  return (map.hot[cell] ?? 0) > 0 ? 'hot' : 'clean';
}

export interface Run {
  kind: Kind;
  offset: number;
  length: number;
  /** Bytes in it, as in VolumeMap. */
  peerStale: number;
  localStale: number;
  hot: number;
}

/** Neighbouring cells of the same kind as one. */
export function runsOf(map: VolumeMap): Run[] {
  const runs: Run[] = [];
  map.hot.forEach((hot, cell) => {
    const kind = kindOf(map, cell);
    const offset = cell * map.cellBytes;
    const [peerStale = 0, localStale = 0] = [map.peerStale[cell], map.localStale[cell]];
    const length = Math.min(map.cellBytes, map.mediaSize - offset);
    const last = runs.at(-1);
    if (last?.kind !== kind) {
      runs.push({ kind, offset, length, peerStale, localStale, hot });
      return;
    }
    last.length += length;
    last.peerStale += peerStale;
    last.localStale += localStale;
    last.hot += hot;
  });
  return runs;
}

export function formatMap(
  name: string, map: VolumeMap, { width, ascii, paint }: {
    width: number; ascii: boolean; paint: Paint;
  },
): string {
  const kinds = map.hot.map((_, cell) => kindOf(map, cell));
  const lines = [
    `${paint('bold', name)}: ${humanSize(map.mediaSize)}, ` +
      `each character ${humanSize(map.cellBytes)}`,
  ];
  for (let at = 0; at < kinds.length; at += width) {
    const offset = humanSize(at * map.cellBytes).padStart(8);
    lines.push(`${offset}  ${painted(kinds.slice(at, at + width), ascii, paint)}`);
  }
  const sum = (bytes: number[]): number => bytes.reduce((all, one) => all + one, 0);
  const bytes: Partial<Record<Kind, number>> = {
    peer: sum(map.peerStale), local: sum(map.localStale), hot: sum(map.hot),
  };
  for (const [kind, look] of Object.entries(looks) as [Kind, Look][]) {
    const count = kinds.filter((one) => one === kind).length;
    const size = bytes[kind];
    if (count === 0 && (size === undefined || size === 0)) continue;
    const shown = paint(look.style, ascii ? look.ascii : look.block);
    const cells = `${count} ${count === 1 ? 'cell' : 'cells'}`;
    const more = size === undefined ? '' : `, ${sized(size)}`;
    lines.push(`  ${shown}  ${look.text}: ${cells}${more}`);
  }
  return `${lines.join('\n')}\n`;
}

/** One escape sequence for each run, not for each cell. */
function painted(kinds: readonly Kind[], ascii: boolean, paint: Paint): string {
  let line = '';
  for (let at = 0; at < kinds.length;) {
    const kind = kinds[at] as Kind;
    let end = at;
    while (kinds[end] === kind) end++;
    const look = looks[kind];
    line += paint(look.style, (ascii ? look.ascii : look.block).repeat(end - at));
    at = end;
  }
  return line;
}
