/** A cheap generator of numbers, and what makes hostile bytes of good ones. */

/** xorshift32 with what fuzzing asks for; the same seed gives the same input. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) | 1) >>> 0;
    for (let round = 0; round < 4; round++) this.u32();
  }

  u32(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state >>> 0;
    return this.#state;
  }

  /** 0 to `count - 1`; 0 where `count` is 0. */
  int(count: number): number {
    return count <= 1 ? 0 : this.u32() % count;
  }

  chance(part: number): boolean {
    return this.u32() < part * 0x1_0000_0000;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)] as T;
  }

  bytes(length: number): Buffer {
    const raw = Buffer.allocUnsafe(length);
    for (let at = 0; at < length; at++) raw[at] = this.u32();
    return raw;
  }
}

/** Numbers at which programs tend to be wrong. */
const edges = [
  0, 1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 4095, 4096, 8191, 8192, 65_535,
  65_536, 0x10_0000, 0x10_0001, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff,
];
const wideEdges = [
  0n, 1n, 4096n, 0xffff_ffffn, 0x1_0000_0000n, 2n ** 47n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n,
  2n ** 64n - 1n,
];

/** A number that is an edge, near one, or anything. */
export function edge(random: Random): number {
  const kind = random.int(4);
  if (kind === 0) return random.u32();
  if (kind === 1) return (random.pick(edges) + random.int(5) - 2) >>> 0;
  return random.pick(edges);
}

/** Writes something at `at`, 1 to 8 bytes wide, within the bytes. */
export function spoil(random: Random, raw: Buffer, at: number): void {
  const room = raw.length - at;
  if (room <= 0) return;
  const kind = random.int(6);
  if (kind === 0) raw[at] = (raw[at] as number) ^ (1 << random.int(8));
  else if (kind === 1 || room < 2) raw[at] = random.u32();
  else if (kind === 2 || room < 4) raw.writeUInt16LE(edge(random) & 0xffff, at);
  else if (kind < 5 || room < 8) raw.writeUInt32LE(edge(random), at);
  else raw.writeBigUInt64LE(random.pick(wideEdges), at);
}

/** Fields of a structure, by their offsets; now and then any byte. */
export function spoilFields(random: Random, raw: Buffer, offsets: readonly number[]): void {
  const count = 1 + random.int(3);
  for (let round = 0; round < count; round++) {
    const at = random.chance(0.8) ? random.pick(offsets) : random.int(raw.length);
    spoil(random, raw, at);
  }
}

/** Cuts, repeats, joins and overwrites, without any knowledge of what the bytes mean. */
export function mangle(random: Random, raw: Buffer, other: Buffer): Buffer {
  switch (random.int(6)) {
    case 0: return raw.subarray(0, random.int(raw.length + 1));
    case 1: return Buffer.concat([raw, random.bytes(random.int(40))]);
    case 2: {
      const cut = random.int(raw.length + 1);
      return Buffer.concat([raw.subarray(0, cut), other.subarray(random.int(other.length + 1))]);
    }
    case 3: {
      const from = random.int(raw.length);
      const piece = raw.subarray(from, from + random.int(64));
      return Buffer.concat([raw.subarray(0, from), piece, raw.subarray(from)]);
    }
    case 4: return random.bytes(random.int(raw.length + 1));
    default: {
      const copy = Buffer.from(raw);
      const count = 1 + random.int(4);
      for (let round = 0; round < count; round++) spoil(random, copy, random.int(copy.length));
      return copy;
    }
  }
}
