/**
 * Named scenarios: each is a defect of the original that must not come back. The names stand in
 * docs/defects-of-the-original.md; test/sim/defects/table.test.ts compares the two lists.
 *
 * A compared scenario returns how often the original's rule, applied to what just happened, would
 * have failed the scenario's check. Over all seeds that must happen: a check that lets the
 * original pass proves nothing.
 */
import t, { type Test } from 'tap';
import type { Mode } from '../../../lib/core/completion.ts';
import { limits } from '../../../lib/format/limits.ts';
import type { Resource } from '../../../lib/core/resource.ts';
import { eachSeed } from '../../fixtures/sim-each.ts';
import { blocksOf } from '../../fixtures/sim-image.ts';
import type { SimNode, SimRequest } from '../../fixtures/sim-node.ts';
import type { PairOptions, SimPair } from '../../fixtures/sim-pair.ts';

export { imageMap, imageSuperblock } from '../../fixtures/sim-image.ts';
export { SimDisk, type DiskOp } from '../../fixtures/sim-disk.ts';
export { SimLedger } from '../../fixtures/sim-ledger.ts';
export { SimWorld } from '../../fixtures/sim-world.ts';
export type { SimNode, SimPair, SimRequest };

export const allModes = ['fullsync', 'memsync', 'async'] as const;

export interface ScenarioOptions extends PairOptions {
  seeds?: number;
  /** Runs once for each; without it in fullsync. */
  modes?: readonly Mode[];
}

function titles(
  name: string, options: ScenarioOptions, each: (title: string, options: PairOptions) => void,
): void {
  const { modes, ...rest } = options;
  if (modes === undefined) each(name, rest);
  else for (const mode of modes) each(`${name} (${mode})`, { ...rest, mode });
}

function expectBites(title: string, total: () => number): void {
  t.test(`${title}: the original's rule fails this check`, async (t) => {
    t.ok(total() > 0, `${total()} times`);
  });
}

/** Runs `run` with several seeds, and modes, on a pair that is not started. */
export function scenario(
  name: string, options: ScenarioOptions, run: (pair: SimPair, t: Test) => void,
): void {
  titles(name, options, (title, one) => eachSeed(title, one, run));
}

/** As scenario(), and the original's rule must have failed the check. */
export function compared(
  name: string, options: ScenarioOptions, run: (pair: SimPair, t: Test) => number,
): void {
  titles(name, options, (title, one) => {
    let bites = 0;
    eachSeed(title, one, (pair, t) => {
      bites += run(pair, t);
    });
    expectBites(title, () => bites);
  });
}

/** As compared(), without a pair or with its own. */
export function study(name: string, run: (t: Test) => Promise<number> | number): void {
  let bites = 0;
  t.test(name, async (t) => {
    bites = await run(t);
  });
  expectBites(name, () => bites);
}

export function noticed(pair: SimPair, node: SimNode): void {
  pair.until(`${node.name} notices the loss`, () => node.phase === 'none');
}

/** Complete, everything answered, and equal byte for byte. */
export function settled(pair: SimPair): void {
  pair.complete();
  for (const node of [pair.a, pair.b]) if (node.resource?.role === 'primary') pair.answered(node);
  pair.pass(3000);
  const at = pair.difference();
  if (at !== -1) throw new Error(`the images differ at block ${at}\n${pair.describe()}`);
}

/** Blocks in which the two data areas differ now, as a reader sees them. */
export function differingBlocks(pair: SimPair): number[] {
  const one = pair.a.data();
  const two = pair.b.data();
  const found: number[] = [];
  for (let at = 0; at < one.length; at += limits.blockSize) {
    const end = at + limits.blockSize;
    if (!one.subarray(at, end).equals(two.subarray(at, end))) found.push(at / limits.blockSize);
  }
  return found;
}

/** Blocks a resync from `node` would copy. */
export function markedBlocks(node: SimNode): Set<number> {
  return new Set(blocksOf(node.running.context.tracker.peerStale));
}

/** The check of all lost marks: what differs and would not be copied. */
export function uncovered(differing: number[], marked: ReadonlySet<number>): number[] {
  return differing.filter((block) => !marked.has(block));
}

/** Blocks of writes, as block numbers. */
export function blocksOfRequests(requests: readonly SimRequest[]): Set<number> {
  const blocks = new Set<number>();
  for (const { offset, length } of requests) {
    const last = Math.floor((offset + length - 1) / limits.blockSize);
    for (let at = Math.floor(offset / limits.blockSize); at <= last; at++) blocks.add(at);
  }
  return blocks;
}

/** Writes each block of the volume once, filled with `byte`, and waits until it is complete. */
export function fill(pair: SimPair, node: SimNode, byte: number): void {
  const { size } = node.running.volume;
  for (let at = 0; at < size; at += limits.payloadBytesMax) {
    const length = Math.min(limits.payloadBytesMax, size - at);
    node.write(at, Buffer.alloc(length, byte));
  }
  pair.answered(node);
}

/** The peer's copy is the one that counts for this primary. */
export function remoteState(resource: Resource): boolean {
  return resource.remote.isActive;
}
