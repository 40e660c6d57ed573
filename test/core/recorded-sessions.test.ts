/**
 * Goal: a node of today works with every released one, for ever.
 * Method: whole sessions, recorded once, byte for byte in both directions, under
 * test/golden/vN/sessions. Each is played to today's core: the recorded disk, the recorded peer. It
 * must take every frame without a protocol error, give every answer that was recorded, and end
 * with the recorded data, generation and phase.
 *
 * A recording is never made again and never changed: a test that fails here says that nodes of
 * that version cannot be upgraded one at a time. To add some, for a new version or a sequence that
 * is missing: add a scenario to test/fixtures/session-scenarios.ts under a name that is not taken
 * and run this test with GOLDEN_WRITE=vN in the environment; it writes files that do not exist,
 * and no other. `version` in it is the newest version of the program that recorded it.
 */
import t from 'tap';
import { FrameFlag, FrameType } from '../../lib/format/frame.ts';
import { ownProtocol } from '../../lib/format/protocol.ts';
import {
  readSession, recordedSessions, sessionFromText, sessionToText, settingOf, writeSession,
  type RecordedSession,
} from '../fixtures/session-file.ts';
import { hasDataFlag, replay, typesIn } from '../fixtures/session-replay.ts';
import { scenarios } from '../fixtures/session-scenarios.ts';

const version = process.env['GOLDEN_WRITE'];
if (version !== undefined && /^v\d+$/.test(version)) {
  const existing = new Set(recordedSessions());
  for (const [name, scenario] of scenarios) {
    if (!existing.has(`${version}/${name}`)) writeSession(`${version}/${name}`, scenario());
  }
}

const names = recordedSessions();

t.test('recorded sessions: none of version 1 is missing', async (t) => {
  t.equal(names.filter((name) => name.startsWith('v1/')).length, 24);
  const all = names.map(readSession);
  const kinds = new Set(all.flatMap((one) => [...typesIn(one, 'peer'), ...typesIn(one, 'live')]));
  // Of a disk that fails: no sequence of its own.
  const rare = new Set<number>([FrameType.nack, FrameType.readError]);
  const missing = Object.entries(FrameType)
    .filter(([, type]) => !kinds.has(type) && !rare.has(type)).map(([name]) => name);
  t.same(missing, [], 'every kind of frame is in one of them');
  for (const flag of Object.values(FrameFlag)) {
    const carries = (one: RecordedSession): boolean => hasDataFlag(one, flag);
    if (flag !== FrameFlag.barrier) t.ok(all.some(carries), `flag ${flag}`);
  }
  for (const one of all) t.ok(Number(settingOf(one, 'version')) <= ownProtocol.versionMax);
});

for (const name of names) {
  t.test(`recorded sessions: ${name}`, async (t) => {
    const session = readSession(name);
    t.equal(sessionToText(sessionFromText(sessionToText(session))), sessionToText(session));
    for (const seed of [1, 2, 3]) {
      t.same(replay(session, seed), [], `${settingOf(session, 'title')} (${seed})`);
    }
  });
}

t.test('recorded sessions: a replay sees what is not as it was', async (t) => {
  const change = (name: string, edit: (session: RecordedSession) => void): string[] => {
    const session = readSession(name);
    edit(session);
    return replay(session);
  };
  const frame = (session: RecordedSession, type: number, from = 'peer'): Buffer => {
    const found = session.events.find((one) =>
      'bytes' in one && one.from === from && one.bytes[4] === type);
    if (found === undefined || !('bytes' in found)) throw new Error('no such frame');
    return found.bytes;
  };
  const flip = (bytes: Buffer, at: number): void => {
    bytes[at] = (bytes[at] ?? 0) ^ 1;
  };
  t.match(change('v1/bye', (one) => flip(frame(one, FrameType.write), 80)), [/crc32/]);
  t.match(change('v1/bye', (one) => flip(frame(one, FrameType.write), 20)), [/checksum/]);
  t.match(change('v1/bye', (one) => one.results.set('data', '0')), [/data: /]);
  t.match(change('v1/bye', (one) => one.results.set('generation', '0')), [/generation: /]);
  t.match(change('v1/resync-target', (one) => {
    one.events = one.events.filter((event) =>
      !('bytes' in event) || event.bytes[4] !== FrameType.syncStart);
  }), [/syncReady|syncing|phase/]);
});
