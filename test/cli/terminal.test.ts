/**
 * What a terminal gets: hastctl under a pseudo terminal (of script, util-linux), with a daemon in
 * this process with fake workers.
 */
import * as childProcess from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { progressText } from '../../cli/progress.ts';
import { sparkline, bar, History, latency, topLines } from '../../cli/top-view.ts';
import { painter } from '../../cli/terminal.ts';
import { silentLogger } from '../../lib/base/log.ts';
import { loadConfig } from '../../lib/config/load.ts';
import { Daemon } from '../../lib/daemon/daemon.ts';
import { idleStatus } from '../../lib/daemon/idle-status.ts';
import type { ResourceStatistics } from '../../lib/format/statistics.ts';
import { hastctl, onTerminal } from '../fixtures/terminal.ts';
import {
  FakeKernel, fakeWorker, resourceConfig, shortDirectory, testTiming, until,
} from '../daemon/world.ts';
import { plainNode } from '../fixtures/plain-node.ts';

const [alternate, normal, showCursor] = ['\u001b[?1049h', '\u001b[?1049l', '\u001b[?25h'];

async function world(test: Test) {
  const directory = shortDirectory(test);
  const conf = path.join(directory, 'hast.conf');
  fs.writeFileSync(conf, `
rundir ${directory}/run
devdir ${directory}/dev
listen tcp4://127.0.0.1:47116
resource alpha { local "/x" on h1 { remote none } }
resource beta { local "/y" on h1 { remote none } }
`);
  const load = () => loadConfig({ file: conf, node: 'h1' });
  const { config, format } = load();
  if (config === undefined) throw new Error(format());
  const start = () => Daemon.start({
    config: { ...config, listen: [{ family: 'tcp4', host: '127.0.0.1', port: 0 }] },
    load, log: silentLogger, program: fakeWorker, operations: new FakeKernel(),
    timing: testTiming,
  });
  return { conf, start };
}

function environment(conf: string): NodeJS.ProcessEnv {
  return { HAST_CONF: conf, HAST_NODE: 'h1' };
}

t.test('top: draws, chooses, and gives the terminal back for a key, a signal, a lost daemon',
  { timeout: 60_000 }, async (t) => {
    const { conf, start } = await world(t);
    const daemon = await start();
    let isStopped = false;
    t.teardown(async () => { if (!isStopped) await daemon.stop(); });
    const top = onTerminal(t, environment(conf), 'top');
    const other = onTerminal(t, environment(conf), 'top beta');
    await top.shows('Write/s');
    t.match(top.seen.text, alternate);
    await top.shows('alpha\u001b[22m  /x');
    top.press('\u001b[B');
    await top.shows('beta\u001b[22m  /y');
    top.press('q');
    await top.ends();
    t.equal(top.seen.code, 0);
    t.ok(top.seen.text.indexOf(normal) > top.seen.text.lastIndexOf('\u001b[H'), 'at the end');
    t.match(top.seen.text, showCursor);
    await other.shows('beta\u001b[22m  /y');
    await daemon.stop();
    isStopped = true;
    await other.shows('hastd does not answer');
    other.kill('SIGTERM');
    await other.ends();
    t.equal(other.seen.code, 0);
    t.match(other.seen.text.slice(other.seen.text.lastIndexOf('\u001b[H')), normal);
  });

t.test('status --watch: drawn in place, says that hastd is gone, and goes on', { timeout: 60_000 },
  async (t) => {
    const { conf, start } = await world(t);
    let daemon = await start();
    t.teardown(() => daemon.stop());
    const watch = onTerminal(t, environment(conf), 'status --watch 0.2');
    await watch.shows('every 0.2 s; ctrl-c ends');
    await daemon.stop();
    await watch.shows('hastd does not answer');
    daemon = await start();
    const before = watch.seen.text.length;
    await until('it is back', () => watch.seen.text.slice(before).includes('ctrl-c ends'));
    watch.press('\u0003');
    await watch.ends();
    t.equal(watch.seen.code, 0);
    t.match(watch.seen.text.slice(-40), showCursor);
    t.notMatch(watch.seen.text, alternate);
  });

t.test('events: hastd goes and comes back; a program that leaves ends it', { timeout: 60_000 },
  async (t) => {
    const { conf, start } = await world(t);
    let daemon = await start();
    t.teardown(() => daemon.stop());
    const events = onTerminal(t, environment(conf), 'events alpha');
    await events.shows('now: init');
    await daemon.stop();
    await events.shows('gone');
    daemon = await start();
    await events.shows('back');
    await until('the state again', () => events.seen.text.split('now: init').length === 3);
    events.press('\u0003');
    await events.ends();
    t.equal(events.seen.code, 0);
  });

t.test('progress: a line on the terminal, wiped away at the end', { timeout: 60_000 },
  async (t) => {
    const { conf, start } = await world(t);
    const daemon = await start();
    t.teardown(() => daemon.stop());
    const wait = onTerminal(t, environment(conf), 'wait --synced alpha --timeout 3');
    await wait.shows('waiting for alpha');
    await wait.ends();
    t.equal(wait.seen.code, 79);
    const end = wait.seen.text.lastIndexOf('\r\u001b[K');
    t.ok(end > wait.seen.text.lastIndexOf('waiting for alpha'));
    t.match(wait.seen.text.slice(end), /error: not within 3 s/);
    const copying = {
      ...idleStatus(resourceConfig('a', {}), '', 'secondary', ''), status: 'syncing' as const,
      syncPercent: 50, syncRate: 2 ** 20, syncEta: 90,
    };
    t.equal(progressText('a: undo', 61, [copying]),
      `a: undo  1:01  ${bar(50, 24)} 50%, 1.0MB/s, 1:30 left`);
  });

t.test('top: not without a terminal', async (t) => {
  const { stderr, status } = childProcess.spawnSync('env', [...plainNode, hastctl, 'top'], {
    encoding: 'utf8', input: '',
  });
  t.equal(status, 64);
  t.match(stderr, /needs a terminal.*status --watch/);
});

t.test('top: rates, latencies and history from samples', async (t) => {
  const status = { ...idleStatus(resourceConfig('a', {}), '', 'secondary', ''), worker: 7 };
  const sample = (at: number, writes: number, buckets: number[]) => {
    const none = { count: 0, bytes: 0 };
    const statistics: ResourceStatistics = {
      schema: 1, age: at / 1000, failedRequests: 0, executed: {
        read: none, write: none, discard: none, flush: none,
      },
      requests: {
        read: none, write: { count: writes, bytes: writes * 1024 * 1024 }, discard: none,
        flush: none,
      },
      latencyBounds: [0.001, 0.01], latencies: [
        { stage: 'local', kind: 'write', count: 0, sum: 0, buckets },
      ],
      queues: {
        requests: 3, local: 1, send: 2, sendBytes: 4096, receive: 0, idle: 0,
      },
      oldestRequest: 0, ioSuspended: false, secondsBehind: 0, connects: 0, mapUpdates: 0,
      hotExtents: 0, checkpoints: 0, resyncBytes: 0,
      localErrors: { read: 0, write: 0, discard: 0, flush: 0 },
    };
    return { at, status, statistics };
  };
  const [one, two] = [sample(0, 10, [5, 0, 0]), sample(2000, 30, [15, 10, 0])];
  t.same(latency(one.statistics, two.statistics, 'local'), { median: 1, slow: 10 });
  t.equal(latency(two.statistics, two.statistics, 'local'), null);
  t.equal(latency(null, two.statistics, 'network'), null);
  const history = new History();
  history.add([one]);
  history.add([two]);
  const view = {
    history, chosen: 'a', columns: 80, rows: 24, gone: null, clock: 'now', paint: painter(false),
  };
  const text = topLines(view).join('\n');
  t.match(text, /^> a +waiting +secondary +0B +10MB +10 +3 +0B$/m);
  t.match(text, /^latency ms +local disk 1\.00\/10 +network - +peer disk - +total -/m);
  t.match(text, /^write .*█ {2}at most 10MB\/s$/m);
  history.add([{ ...sample(3000, 1, [0, 0, 0]), status: { ...status, worker: 8 } }]);
  t.equal(history.of('a').length, 1, 'another worker counts from 0');
  t.equal(topLines({ ...view, rows: 6 }).filter((line) => line.startsWith('>')).length, 1);
  t.equal(sparkline([0, 50, 100]), '▁▅█');
  t.equal(bar(42, 10), '[████······]');
});
