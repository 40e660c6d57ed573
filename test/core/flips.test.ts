/**
 * Goal: a byte that is changed on its way never becomes data, a mark or an answer.
 * Method: every byte of every recorded session is changed in turn; and bits in the stream of a pair
 * that works: the connection ends, it is counted, and the pair becomes whole and equal again.
 * With `checksum none` payloads are not covered: exactly those bytes are the exception.
 */
import t from 'tap';
import { HastError } from '../../lib/base/errors.ts';
import { carriesData, FrameFlag, type FrameMemory } from '../../lib/format/frame.ts';
import { decodePreface } from '../../lib/format/preface.ts';
import { FrameReader, headerSize, type WireOptions } from '../../lib/format/wire.ts';
import { coreStatus } from '../../lib/core/status.ts';
import { lz4Compressor } from '../../lib/net/lz4.ts';
import { readSession, recordedSessions } from '../fixtures/session-file.ts';
import { eachSeed } from '../fixtures/sim-each.ts';
import { SimLedger } from '../fixtures/sim-ledger.ts';
import type { SimPair } from '../fixtures/sim-pair.ts';
import { equal, work } from '../fixtures/sim-remote.ts';
import { MiB } from '../../lib/format/limits.ts';

const options: WireOptions = { checksum: 'crc32', compression: 'hole', compressor: lz4Compressor };
const memory: FrameMemory = { retain: () => undefined, release: () => undefined };
const covering = FrameFlag.crc32 | FrameFlag.sha256;

/** Whether a reader gives out any frame of these bytes. */
function passes(raw: Buffer, pulls: boolean): boolean {
  let frames = 0;
  const reader = new FrameReader(options, () => frames++);
  try {
    if (pulls) reader.pull(raw, 0, raw.length, memory);
    else reader.push(raw);
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    if (error.errorClass !== 'protocol') throw error;
  }
  return frames > 0;
}

function isPreface(raw: Buffer): boolean {
  try {
    decodePreface(raw);
    return true;
  } catch (error) {
    if (error instanceof HastError && error.code === 'HAST_E_PROTOCOL') return false;
    throw error;
  }
}

/** Bytes of a frame that nothing covers, and bytes that were changed and passed. */
function changeEach(bytes: Buffer): { open: number; passed: number; inHeader: number } {
  const isOpen = carriesData(bytes[4] ?? 0) && ((bytes[5] ?? 0) & covering) === 0;
  let passed = 0;
  let inHeader = 0;
  const raw = Buffer.alloc(bytes.length);
  for (let at = 0; at < bytes.length; at++) {
    bytes.copy(raw);
    raw[at] = (raw[at] as number) ^ (1 << (at & 7));
    if (!passes(raw, at % 2 === 0)) continue;
    passed++;
    if (at < headerSize) inHeader++;
  }
  return { open: isOpen ? bytes.length - headerSize : 0, passed, inHeader };
}

t.test('flips: every byte of every recorded session', async (t) => {
  /** Frames that are the same in several sessions are changed once. */
  const seen = new Set<string>();
  // A hundred thousand errors: where each was made is of no interest.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  t.teardown(() => {
    Error.stackTraceLimit = stackTraceLimit;
  });
  let covered = 0;
  let open = 0;
  for (const name of recordedSessions()) {
    const session = readSession(name);
    for (let at = 0; at < session.preface.length; at++) {
      const raw = Buffer.from(session.preface);
      raw[at] = (raw[at] as number) ^ (1 << (at & 7));
      if (isPreface(raw)) t.fail(`${name}: a preface that was changed is taken`);
    }
    for (const event of session.events) {
      if (!('bytes' in event) || seen.has(event.bytes.toString('latin1'))) continue;
      seen.add(event.bytes.toString('latin1'));
      if (!passes(Buffer.from(event.bytes), false)) t.fail(`${name}: a good frame is refused`);
      const result = changeEach(event.bytes);
      if (result.inHeader > 0) t.fail(`${name}: a header that was changed is taken`);
      // lz4 refuses some of what nothing covers.
      if (result.passed > result.open) t.fail(`${name}: a payload that was changed is taken`);
      open += result.open;
      covered += event.bytes.length - result.open;
      if (result.open > 0) t.match(session.settings.get('checksum'), 'none');
    }
  }
  t.ok(covered > 100_000, `${covered} bytes are covered`);
  t.ok(open > 1000, `${open} are payloads sent with checksum none`);
});

function badFrames(pair: SimPair): number {
  return [pair.a, pair.b].reduce((sum, { running }) =>
    sum + (coreStatus(running).statistics.badFrames ?? 0), 0);
}

const places = [0, 3, 36 * 8, 40 * 8 + 3, 64 * 8, 90 * 8 + 1, 4096 * 8, 9000 * 8, 20_000 * 8];

for (const mode of ['fullsync', 'memsync', 'async'] as const) {
  eachSeed(`flips: in the stream of a pair that works (${mode})`, { mode, seeds: 6 },
    (pair, t) => {
      pair.primary();
      const ledger = new SimLedger(2 * MiB);
      let counted = 0;
      for (const place of places) {
        const end = pair.link?.ends[pair.world.random.int(2)];
        if (end === undefined) throw new Error('no link');
        end.flipBit = place;
        work(pair, ledger, 20);
        pair.answered(pair.a);
        pair.until('the bit was flipped', () => {
          if (end.flipBit === null || !end.isOpen) return true;
          work(pair, ledger, 1);
          return false;
        });
        pair.until(`bit ${place} is noticed`, () => badFrames(pair) > counted);
        pair.complete();
        counted++;
        if (badFrames(pair) !== counted) throw new Error(`bit ${place}: counted twice`);
      }
      equal(pair, ledger);
      t.equal(counted, places.length, 'each was counted');
    });
}
