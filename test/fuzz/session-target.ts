/**
 * A peer that follows the protocol and lies: whole sessions between two cores in which a few frames
 * of one side are other than they should be, with good checksums. The core ends the session or goes
 * on: it never throws, and never writes outside its volume (the simulated disk would tell).
 */
import type { Frame } from '../../lib/format/frame.ts';
import { FrameType } from '../../lib/format/frame.ts';
import { MiB } from '../../lib/format/limits.ts';
import { SimPair } from '../fixtures/sim-pair.ts';
import type { SimLink } from '../fixtures/sim-link.ts';
import type { FuzzTarget } from './property.ts';
import { edge, spoil, type Random } from './random.ts';

const types = Object.values(FrameType);
const modes = ['fullsync', 'memsync', 'async'] as const;

function lie(random: Random, frame: Frame): void {
  switch (random.int(6)) {
    case 0: frame.type = random.pick(types); break;
    case 1: {
      const near = Math.max(0, frame.seq + random.int(5) - 2);
      frame.seq = random.chance(0.5) ? edge(random) : near;
      break;
    }
    case 2: frame.offset = random.chance(0.5) ? edge(random) : random.int(2 * MiB); break;
    case 3: frame.arg = random.chance(0.5) ? edge(random) : random.int(8); break;
    case 4: frame.flags ^= random.pick([8, 16, 32]); break;
    default:
      if (frame.payload === null) frame.arg = edge(random);
      else {
        frame.payload = Buffer.from(frame.payload.subarray(
          frame.payloadOffset, frame.payloadOffset + frame.size));
        frame.payloadOffset = 0;
        frame.headroom = 0;
        for (let round = random.int(3); round >= 0; round--) {
          spoil(random, frame.payload, random.int(frame.payload.length));
        }
      }
  }
}

/** Every frame that this end sends may be a lie. */
function corrupt(random: Random, link: SimLink, end: 0 | 1, part: number): void {
  link.ends[end].tap = (frame) => {
    if (random.chance(part)) lie(random, frame);
  };
}

function run(random: Random): void {
  const pair = new SimPair({ seed: random.u32(), mode: random.pick(modes), mediaSize: MiB });
  const part = random.pick([0.02, 0.1, 0.3]);
  const liar = random.int(2) as 0 | 1;
  let isLying = random.chance(0.5);
  pair.onLink = (link) => {
    if (isLying) corrupt(random, link, liar, part);
  };
  pair.boot();
  pair.pass(300);
  if (pair.isComplete) {
    pair.a.promote(true);
    pair.pass(200);
    isLying = true;
    if (pair.link !== null) corrupt(random, pair.link, liar, part);
  }
  if (pair.a.resource?.role === 'primary') pair.load(pair.a, 6, 8192);
  pair.pass(1500);
  pair.link?.cut();
  pair.pass(1500);
}

export const sessionTargets: readonly FuzzTarget[] = [{ name: 'session', run, shortRuns: 40 }];
