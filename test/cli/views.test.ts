/** What a person sees: tables, maps and events as text, and their JSON against its schema. */
import * as fs from 'node:fs';
import { Ajv } from 'ajv';
import t from 'tap';
import { formatEvent } from '../../cli/events-command.ts';
import { formatListPeople, formatStatusPeople } from '../../cli/format-status.ts';
import { formatMap, runsOf } from '../../cli/map-command.ts';
import { nextSteps } from '../../cli/next-steps.ts';
import { cut, hasColours, isForPeople, painter, shownLength } from '../../cli/terminal.ts';
import { secondsOfWatch } from '../../cli/watch.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import type { ResourceStatus } from '../../lib/format/status.ts';
import { resourceConfig } from '../daemon/world.ts';

const plain = painter(false);
const colours = painter(true);

function status(fields: Partial<ResourceStatus>): ResourceStatus {
  const resource = resourceConfig('shared', { local: '/dev/sdb1' });
  const idle = idleStatus(resource, '/dev/hast/shared', 'secondary', '');
  return { ...idle, remote: 'none', ...fields };
}

t.test('status for a person: columns, why, and what to type next', async (t) => {
  const well = status({ status: 'complete', role: 'primary' });
  const copying = status({ name: 'a-long-name', status: 'syncing', syncPercent: 42.19 });
  const split = status({
    status: 'split-brain', needsHuman: true, detail: 'both copies were written independently',
  });
  t.equal(formatStatusPeople([well, copying, split], plain), [
    'Name         Status         Role       Components',
    'shared       complete       primary    /dev/sdb1   none',
    'a-long-name  syncing 42.1%  secondary  /dev/sdb1   none',
    'shared       split-brain    secondary  /dev/sdb1   none',
    '  both copies were written independently',
    '  next: hastctl resolve shared --discard-local --dry-run',
    '  next: hastctl resolve shared --discard-peer --dry-run',
    '',
  ].join('\n'));
  const open = { ...well, remote: 'tcp://10.0.0.233', authentication: 'none' as const };
  t.match(formatStatusPeople([open], plain), /\n {2}unauthenticated, in clear text \(hastctl pair/);
  t.notMatch(formatStatusPeople([{ ...open, authentication: 'tls' }], plain), /unauthenticated/);
  t.notMatch(formatStatusPeople([{ ...open, remote: 'none' }], plain), /unauthenticated/);
  t.match(formatStatusPeople([split], colours), /\u001b\[.*m.*split-brain\u001b/);
  t.match(formatListPeople([split], plain), [
    'shared:', '  next: hastctl resolve shared --discard-local --dry-run',
  ].join('\n'));
  t.match(formatListPeople([well], plain), /\n {2}role: +primary\n/);
});

t.test('the next command: what the detail names, or what the state needs', async (t) => {
  const next = (fields: Partial<ResourceStatus>) =>
    nextSteps(status({ needsHuman: true, ...fields }));
  t.same(nextSteps(status({ detail: 'hastctl attach NAME' })), [], 'nobody is needed');
  t.same(next({ localDisk: 'detached' }), ['hastctl attach shared']);
  t.match(next({ localDisk: 'failed' }), [/^hastctl attach shared/]);
  t.same(next({ peerDisk: 'failed' }), ['on the peer: hastctl attach shared']);
  t.same(next({ detail: 'bad; correct it, then: hastctl role secondary shared' }),
    ['hastctl role secondary shared']);
  t.same(next({ detail: 'run hastctl role secondary there first' }),
    ['hastctl role secondary shared']);
  t.same(next({ detail: 'no common history' }), ['hastctl list shared']);
});

t.test('map: cells in rows, a legend with bytes, and runs', async (t) => {
  const map = {
    mediaSize: 229_376, cellBytes: 32_768, syncingAt: 1, peerStale: [4096, 8192, 0, 0, 0, 0, 0],
    localStale: [0, 0, 4096, 4096, 0, 0, 0], hot: [0, 0, 0, 0, 32_768, 0, 0],
  };
  t.equal(formatMap('shared', map, { width: 5, ascii: true, paint: plain }), [
    'shared: 224KB, each character 32KB',
    '      0B  #>@@+',
    '   160KB  ..',
    '  >  copied now: 1 cell',
    '  #  the peer lacks: 1 cell, 12288 (12KB)',
    '  @  stale here: 2 cells, 8192 (8.0KB)',
    '  +  hot: written lately: 1 cell, 32768 (32KB)',
    '  .  clean: 2 cells',
    '',
  ].join('\n'));
  t.same(runsOf(map).map(({ kind, offset, length, localStale }) =>
    [kind, offset, length, localStale]), [
    ['peer', 0, 32_768, 0], ['syncing', 32_768, 32_768, 0], ['local', 65_536, 65_536, 8192],
    ['hot', 131_072, 32_768, 0], ['clean', 163_840, 65_536, 0],
  ]);
});

t.test('events: one line each', async (t) => {
  const head = { schema: 1, time: 1.5, resource: 'shared' } as const;
  const shown = formatEvent(
    { ...head, kind: 'status', from: 'waiting', to: 'failed', why: 'gone' }, plain,
  );
  t.match(shown, /^1970-01-\d\d [\d:]+:01 {2}shared {2}status: waiting -> failed {2}\(gone\)\n$/);
  t.match(formatEvent({ ...head, kind: 'worker', from: null, to: 7, why: '' }, plain),
    'worker: none -> 7\n');
  t.match(formatEvent(
    { ...head, resource: null, kind: 'daemon', from: null, to: 'gone', why: '' }, plain,
  ), /:01 {2}hastd: gone\n/);
});

t.test('terminal: when colours are used, and lines that are cut', async (t) => {
  const tty = { isTTY: true, columns: 80, rows: 24 };
  const pipe = { ...tty, isTTY: false };
  t.equal(hasColours(tty, {}), true);
  t.equal(hasColours(tty, { NO_COLOR: '1' }), false);
  t.equal(hasColours(tty, { NO_COLOR: '' }), true);
  t.equal(hasColours(tty, { TERM: 'dumb' }), false);
  t.equal(hasColours(pipe, {}), false);
  t.equal(hasColours(pipe, { FORCE_COLOR: '1', NO_COLOR: '1' }), true);
  t.equal(hasColours(tty, { FORCE_COLOR: '0' }), false);
  t.equal(isForPeople(pipe, { FORCE_COLOR: '1' }), true);
  t.equal(isForPeople(pipe, {}), false);
  const line = `ab${colours('red', 'cdef')}gh`;
  t.equal(shownLength(line), 8);
  t.equal(shownLength(cut(line, 4)), 4);
  t.match(cut(line, 4), /^ab\u001b\[31mcd\u001b\[39m$/);
  t.equal(secondsOfWatch(true), 2);
  t.equal(secondsOfWatch('0.5'), 0.5);
  for (const wrong of ['', 'x', '0', '-1', '1e9']) {
    t.throws(() => secondsOfWatch(wrong), { code: 'HAST_E_USAGE' });
  }
});

t.test('status --json: what is printed fits the schema that is shipped, and each field is in it',
  async (t) => {
    const file = new URL('../../../docs/status.schema.json', import.meta.url);
    const schema = JSON.parse(fs.readFileSync(file, 'utf8')) as {
      items: { properties: Record<string, object> };
    };
    const ajv = new Ajv({ allowUnionTypes: true });
    const one = JSON.parse(JSON.stringify(status({ status: 'complete', worker: 7 }))) as object;
    t.ok(ajv.validate(schema, [one]), ajv.errorsText());
    t.same(Object.keys(schema.items.properties).sort(), Object.keys(one).sort());
    t.notOk(ajv.validate(schema, [{ ...one, status: 'fine' }]));
    t.notOk(ajv.validate(schema, [{ ...one, dirtyBytes: -1 }]));
  });
