/** The status page: asks hastd every two seconds and shows what it says. Nothing is sent. */
import { drawMap } from './map.js';
import { bytes, clock, rate, seconds, span } from './words.js';
import { History } from './history.js';
import { chart } from './chart.js';

const everyMs = 2000;
const patienceMs = 5000;
const cards = new Map();
let answeredAt = Date.now();

const calm = { complete: 'good', syncing: 'warn', degraded: 'warn', diskless: 'warn',
  waiting: 'warn', 'split-brain': 'bad', failed: 'bad' };
const disks = { 'up-to-date': 'counts', failed: 'lost', detached: 'lost', unknown: '' };

function find(selector, root = document) {
  return root.querySelector(selector);
}

function text(root, selector, value) {
  const element = find(selector, root);
  if (element.textContent !== value) element.textContent = value;
  return element;
}

function card(name) {
  const element = find('#resource').content.firstElementChild.cloneNode(true);
  element.dataset.resource = name;
  text(element, '.name', name);
  const made = { element, history: new History(), map: null };
  cards.set(name, made);
  find('#resources').append(element);
  return made;
}

function showPair(element, status) {
  const { connection } = status;
  text(element, '.own .disk', status.localDisk);
  text(element, '.peer .disk', status.peerDisk);
  text(element, '.own-role', status.role);
  text(element, '.peer-role', status.peerRole === 'unknown' ? '' : status.peerRole);
  text(element, '.local', status.local);
  text(element, '.remote', status.remote);
  text(element, '.connection', connection);
  text(element, '.mode', status.replication);
  const line = { connected: '', syncing: 'busy', paused: 'busy', none: 'none' };
  find('.line', element).className = `line ${line[connection] ?? 'cut'}`;
  // Neither of two copies that were written independently is the good one.
  const isSplit = status.status === 'split-brain';
  const looks = (disk) => isSplit ? 'lost' : disks[disk] ?? 'odd';
  find('.own', element).className = `node own ${looks(status.localDisk)}`;
  find('.peer', element).className = `node peer ${looks(status.peerDisk)}`;
}

function showProgress(element, status) {
  const isSyncing = status.status === 'syncing' || status.connection === 'syncing' ||
    status.connection === 'paused';
  find('.progress', element).hidden = !isSyncing;
  if (!isSyncing) return;
  find('.done', element).style.width = `${status.syncPercent}%`;
  const left = status.resyncPaused ? 'paused by an operator'
    : status.syncEta === null ? 'time left unknown' : `${span(status.syncEta)} left`;
  text(element, '.progress .text',
    `${status.syncPercent.toFixed(1)} % copied, ${rate(status.syncRate)}, ${left}`);
}

function showFacts(element, status, statistics) {
  const facts = [['size', bytes(status.mediaSize)], ['dirty', bytes(status.dirtyBytes)]];
  if (statistics !== null) {
    const { secondsBehind, queues, oldestRequest, failedRequests } = statistics;
    if (secondsBehind !== null) {
      facts.push(['peer is behind by', span(secondsBehind), secondsBehind > 10]);
    }
    if (status.role === 'primary') {
      facts.push(['requests under way', String(queues.requests)]);
      facts.push(['the oldest waits', span(oldestRequest), oldestRequest > 10]);
    }
    if (failedRequests > 0) facts.push(['failed requests', String(failedRequests), true]);
  }
  if (status.singleCopyWrites > 0) {
    facts.push(['writes with one copy', status.singleCopyWrites.toLocaleString('en')]);
  }
  if (status.disconnectedSince !== null && status.role !== 'init') {
    facts.push(['peer lost at', clock(status.disconnectedSince * 1000)]);
  }
  find('.facts', element).replaceChildren(...facts.map(([term, value, alarm]) => {
    const item = document.createElement('div');
    const [dt, dd] = [document.createElement('dt'), document.createElement('dd')];
    dt.textContent = term;
    dd.textContent = value;
    if (alarm) dd.className = 'alarm';
    item.append(dt, dd);
    return item;
  }));
}

function showStages(element, history) {
  find('tbody', element).replaceChildren(...history.stages().map((row) => {
    const tr = document.createElement('tr');
    tr.append(...[row.stage, row.kind, row.rate.toFixed(0), seconds(row.median), seconds(row.high)]
      .map((value) => {
        const td = document.createElement('td');
        td.textContent = value;
        return td;
      }));
    return tr;
  }));
}

function showCharts(element, status, history) {
  // A secondary's disk works for the peer: what it executes is what there is to see.
  const series = history.series(status.role === 'primary' ? 'requests' : 'executed');
  find('.charts', element).replaceChildren(
    chart('write', 'written', series.write, rate), chart('read', 'read', series.read, rate),
    chart('latency', status.role === 'primary' ? 'latency of writes, 99 %' : 'local disk, 99 %',
      history.latencies(status.role === 'primary' ? 'total' : 'local'), seconds),
  );
}

function show({ element, history }, { status, statistics, map, hasAnswered }) {
  const word = hasAnswered ? status.status : 'no answer';
  text(element, '.role', status.role);
  text(element, '.status', word).className = `chip status ${calm[word] ?? (hasAnswered ? '' : 'bad')}`;
  const isHeld = statistics?.ioSuspended === true;
  const act = find('.act', element);
  act.hidden = !isHeld && !status.needsHuman;
  act.className = 'banner act bad';
  act.textContent = (isHeld ? 'Requests of the application wait. ' : '') +
    (status.needsHuman ? 'A person has to act: ' : '') +
    `${status.detail || word}. "hastctl list ${status.name}" says what to do.`;
  text(element, '.detail', act.hidden ? status.detail : '');
  showPair(element, status);
  showProgress(element, status);
  showFacts(element, status, statistics);
  if (statistics !== null) history.add(statistics);
  find('.charts', element).hidden = statistics === null;
  find('.stages', element).hidden = statistics === null;
  if (statistics !== null) {
    showCharts(element, status, history);
    showStages(element, history);
  }
  find('.map', element).hidden = map === null;
  if (map !== null) drawMap(find('.map', element), map);
  cards.get(status.name).map = map;
}

const kinds = { localDisk: 'local disk', peerDisk: 'peer disk', peerRole: 'peer role',
  needsHuman: 'a person has to act', sync: 'resync' };

function eventText({ resource, kind, from, to, why }) {
  const said = (value) => value === null ? 'none' : value === true ? 'yes'
    : value === false ? 'no' : String(value);
  const what = kinds[kind] ?? kind;
  const change = from === null ? `${what} ${said(to)}` : `${what} ${said(from)} → ${said(to)}`;
  return `${resource}: ${change}${why ? ` (${why})` : ''}`;
}

function showEvents(events) {
  find('#events-section').hidden = events.length === 0;
  find('#events').replaceChildren(...[...events].reverse().map((event) => {
    const [li, time, what] = ['li', 'time', 'span'].map((name) => document.createElement(name));
    time.dateTime = new Date(event.time * 1000).toISOString();
    time.title = time.dateTime;
    time.textContent = clock(event.time * 1000);
    what.textContent = eventText(event);
    li.append(time, what);
    return li;
  }));
}

function showAll({ node, release, resources, events }) {
  text(document, '#node', node);
  text(document, '#release', `hast-linux ${release}`);
  text(document, '#updated', `updated ${clock(Date.now())}`);
  const names = new Set(resources.map(({ status }) => status.name));
  for (const [name, { element }] of cards) {
    if (names.has(name)) continue;
    element.remove();
    cards.delete(name);
  }
  for (const one of resources) show(cards.get(one.status.name) ?? card(one.status.name), one);
  find('#resources').classList.toggle('many', resources.length > 1);
  showEvents(events);
  const isBad = resources.some(({ status, hasAnswered }) => status.needsHuman || !hasAnswered);
  document.title = `${isBad ? '! ' : ''}${node} - HAST`;
}

function setLost(isLost, why = '') {
  const banner = find('#lost');
  banner.hidden = !isLost;
  document.body.classList.toggle('stale', isLost);
  if (!isLost) return;
  banner.textContent = `hastd does not answer since ${clock(answeredAt)}: what is below is old. ` +
    `(${why})`;
  document.title = '! no answer - HAST';
}

async function ask() {
  try {
    const reply = await fetch('status.json', { signal: AbortSignal.timeout(patienceMs) });
    if (!reply.ok) throw new Error(`${reply.status} ${reply.statusText}`);
    const said = await reply.json();
    answeredAt = Date.now();
    setLost(false);
    showAll(said);
  } catch (error) {
    setLost(true, error instanceof Error ? error.message : String(error));
  }
  setTimeout(ask, everyMs);
}

/** A picture has its size and its colours from the page. */
function redraw() {
  for (const { element, map } of cards.values()) {
    if (map !== null) drawMap(find('.map', element), map);
  }
}

addEventListener('resize', redraw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
await ask();
