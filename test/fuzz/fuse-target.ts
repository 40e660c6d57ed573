/** Requests of the kernel. */
import { AppOp } from '../../lib/core/ports.ts';
import { fuseOutHeader, Opcode } from '../../lib/fuse/abi.ts';
import { REPLY_SIZE_MAX } from '../../lib/fuse/encode.ts';
import { Outcome, Session } from '../../lib/fuse/session.ts';
import { check, type FuzzTarget } from './property.ts';
import { edge, spoil, type Random } from './random.ts';

const volumeSize = 1 << 30;
const session = new Session(volumeSize);
const opcodes = Object.values(Opcode);
const memory = Buffer.alloc(8192);
const view = new DataView(memory.buffer, memory.byteOffset, memory.length);
const fieldOffsets = [0, 4, 8, 16, 20, 24, 36, 40, 48, 56, 64, 72, 80, 88, 96, 120];
const bodySizes = [0, 1, 2, 8, 16, 24, 32, 40, 64, 88, 100, 552];

function request(random: Random): number {
  const opcode = random.chance(0.95) ? random.pick(opcodes) : edge(random);
  const isWrite = opcode === Opcode.WRITE;
  const payload = isWrite ? random.int(4096) : 0;
  const body = isWrite ? 40 + payload : random.pick(bodySizes) + random.int(3);
  const length = 40 + body;
  memory.fill(0, 0, Math.min(length, 200));
  memory.writeUInt32LE(length, 0);
  memory.writeUInt32LE(opcode, 4);
  memory.writeBigUInt64LE(BigInt(random.u32()) << 31n, 8);
  memory.writeUInt32LE(1 + random.int(2), 16);
  memory.writeUInt32LE(random.int(volumeSize), 48);
  memory.writeUInt32LE(isWrite ? payload : random.int(8192), 56);
  if (opcode === Opcode.INIT) {
    memory.writeUInt32LE(7, 40);
    memory.writeUInt32LE(random.int(50), 44);
    memory.writeUInt32LE(random.u32(), 52);
  }
  if (opcode === Opcode.LOOKUP) memory.write(random.pick(['volume\0', 'x\0', '.wake1\0', 'v']), 40);
  for (let round = random.int(4); round > 0; round--) {
    spoil(random, memory, random.pick(fieldOffsets));
  }
  return random.chance(0.1) ? random.int(memory.length) : length;
}

function run(random: Random): void {
  const length = request(random);
  const raw = memory.subarray(0, Math.min(length, 300));
  const outcome = session.handle(view, 0, length);
  if (outcome === Outcome.reply) {
    const size = session.reply.readUInt32LE(fuseOutHeader.offset.len);
    check(size === session.replySize && size >= fuseOutHeader.size && size <= REPLY_SIZE_MAX,
      'the length of a reply', raw);
    return;
  }
  if (outcome !== Outcome.work) return;
  const { op, offset, length: asked } = session.work;
  check(offset >= 0 && asked >= 0 && offset + asked <= volumeSize, 'work outside the volume', raw);
  if (op === AppOp.write) check(asked === length - 80, 'a write is whole', raw);
  if (op === AppOp.read) check(asked <= 1 << 20, 'a read has its bound', raw);
}

export const fuseTargets: readonly FuzzTarget[] = [{ name: 'fuse', run }];
