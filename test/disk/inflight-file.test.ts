/**
 * Goal: what a process stores in the mapped table is there when it was killed; everything that
 * cannot be such a file is replaced by an empty one, or by none.
 * Method: a child process that fills the table and kills itself in the middle.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import { mapShared } from '../../lib/base/libc.ts';
import { silentLogger } from '../../lib/base/log.ts';
import { openInflight, removeInflight } from '../../lib/disk/inflight-file.ts';
import { bootIdBytes, decodeInflight, inflightBytes } from '../../lib/format/inflight.ts';

const moduleOf = (name: string): string => new URL(`../../lib/${name}.js`, import.meta.url).href;

/** A process that enters two writes, ends one of them, and is killed. */
const child = `
const { openInflight } = await import(process.argv[2]);
const { InflightTable } = await import(process.argv[3]);
const log = { warn: (fields) => { throw new Error(JSON.stringify(fields)); } };
const table = new InflightTable(openInflight(process.argv[1], false, log));
table.trust({ copyId: 1n, generation: 2n, peerCopyId: 3n, mediaSize: 2 ** 33 }, 4n);
const entry = table.enter(0, 512);
table.enter(2 ** 32 + 4096, 8192);
table.leave(entry);
table.leave(entry);
process.kill(process.pid, 'SIGKILL');
`;

t.test('inflight file: a killed process leaves it as it was', async (t) => {
  const file = path.join(t.testdir(), 'folder', 'shared.inflight');
  const { signal, stderr } = spawnSync(process.execPath, [
    '--input-type=module', '-e', child, file, moduleOf('disk/inflight-file'),
    moduleOf('core/inflight-table'),
  ], { encoding: 'utf8' });
  t.equal(signal, 'SIGKILL', stderr);
  t.equal(fs.statSync(file).mode & 0o777, 0o600);
  t.equal(fs.statSync(path.dirname(file)).mode & 0o777, 0o700);
  const kept = openInflight(file, true, silentLogger);
  t.equal(kept?.inherited, true);
  t.equal(kept?.boot.length, bootIdBytes);
  const found = decodeInflight(kept?.bytes ?? new Uint8Array());
  t.match(found?.header, { valid: 1, copyId: 1n, generation: 2n, peerCopyId: 3n, instance: 4n });
  t.same(found?.header.boot, kept?.boot);
  t.match(found?.ranges, [{ offset: 2 ** 32 + 4096, length: 8192 }]);
  t.equal(found?.ranges.length, 1);

  t.equal(openInflight(file, false, silentLogger)?.inherited, false);
  t.ok(fs.readFileSync(file).every((byte) => byte === 0), 'emptied by one that inherits nothing');
  removeInflight(file);
  removeInflight(file);
  t.notOk(fs.existsSync(file));
});

t.test('inflight file: what cannot be one', async (t) => {
  const file = path.join(t.testdir({ target: 'untouched' }), 'folder', 'shared.inflight');
  fs.mkdirSync(path.dirname(file));
  t.equal(openInflight(file, true, silentLogger)?.inherited, false, 'there was none');
  t.equal(fs.statSync(file).size, inflightBytes);
  fs.truncateSync(file, 4096);
  t.equal(openInflight(file, true, silentLogger)?.inherited, false, 'too short');
  removeInflight(file);
  fs.symlinkSync('../target', file);
  t.equal(openInflight(file, true, silentLogger)?.inherited, false, 'a symbolic link');
  t.equal(fs.readFileSync(path.join(path.dirname(file), '../target'), 'utf8'), 'untouched');
  removeInflight(file);
  fs.mkdirSync(file);
  const warnings: string[] = [];
  const log = { ...silentLogger, warn: (_: object, text: string) => void warnings.push(text) };
  t.equal(openInflight(file, false, log), null, 'a directory is in the way');
  t.match(warnings, [/copies all that is marked/]);
});

t.test('inflight file: a mapping that cannot be', async (t) => {
  t.equal(mapShared(-1, 4096).bytes, null);
  t.not(mapShared(-1, 4096).errno, 0);
});
