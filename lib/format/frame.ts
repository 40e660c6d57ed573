/**
 * A frame in memory: the header's fields and the payload by reference. The bytes are made by
 * lib/format/wire.ts when the connection sends it.
 */

export const FrameType = {
  /** Handshake. */
  hello: 1,
  verdict: 2,
  /** Marks of the sync target, region by region, then the end. */
  map: 3,
  mapEnd: 4,
  /** Sync source to target: copying begins; the target answers when it is durably inconsistent. */
  syncStart: 5,
  syncReady: 6,
  /** All is copied: the target flushes, takes the generation, answers; now it is a copy. */
  syncDone: 7,
  syncDoneAck: 8,
  /** A new generation of a complete pair (a promotion). */
  generation: 9,
  generationAck: 10,
  /** Role of the sender, for display and for the choice who dials. */
  role: 11,
  /** The last frame: why the sender closes. */
  bye: 12,
  /**
   * Primary to peer: the peer's copy is the one that counts from now on, with this lineage. `arg`:
   * DetachKeep. The answer means: everything received is durable there, and so is the record.
   */
  detach: 14,
  detachAck: 15,
  write: 16,
  flush: 17,
  discard: 18,
  zero: 19,
  /** Asks for a range; answered by readData or readError with its number. */
  read: 20,
  /** A primary that fetched what was stale here is a full copy again, once this is answered. */
  pullDone: 24,
  pullDoneAck: 25,
  /** Node of the operator to its peer: the split brain ends as the hello announced it. */
  resolve: 26,
  /**
   * Asks the peer to raise its session number durably; answered with the number as `arg`. What it
   * flushed before is then known to be in any later state of its disk.
   */
  number: 27,
  numberAck: 28,
  /** Every data frame up to `seq` is whole in memory. */
  recvAck: 32,
  /** The data frames `seq`..`arg` were executed. */
  writeAck: 33,
  /** The flush `seq` covers every data frame before it. */
  flushAck: 34,
  /** The frame `seq` failed with errno `arg`. */
  nack: 35,
  /** What the frame `seq` asked for. */
  readData: 36,
  /** The read `seq` failed with errno `arg`; the copy is kept. */
  readError: 37,
  /** What the two hastds say to each other of a switchover; `offset` is the id of the question. */
  switchover: 50,
  switchoverDone: 51,
  /** What the other hastd knows of itself, and what it tells; `offset` is the id again. */
  facts: 52,
  factsDone: 53,
  keepalive: 48,
  keepaliveReply: 49,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export const FrameFlag = {
  /** The payload ends with the SHA-256 of what precedes it on the wire. */
  sha256: 1,
  /** The payload is one lz4 block; `size` is the length unpacked. */
  lz4: 2,
  /** No payload: `size` zeros. */
  hole: 4,
  /** Sent by a resync, not by the application. */
  resync: 8,
  /** The sender wants a recvAck (memsync). */
  wantRecvAck: 16,
  /** Of a flush: no later data frame may start before it is done. */
  barrier: 32,
  /** The header holds the payload's crc32. */
  crc32: 64,
} as const;

/** Memory of a link that received frames lie in. */
export interface FrameMemory {
  /** A frame refers to it from now on. */
  retain(): void;
  /**
   * That frame's payload is not used any more, and the memory may be. Where it is never called,
   * the memory is not used again, and collected.
   */
  release(): void;
}

export interface Frame {
  type: FrameType;
  /** Set by the sender's core: resync, wantRecvAck, barrier. The codec adds the others. */
  flags: number;
  /** Number in the sender's stream for data frames; a reference to one in acks. */
  seq: number;
  /** Byte offset in the volume, or a region number (map). */
  offset: number;
  /** Bytes of the range; of the payload, unpacked. */
  size: number;
  arg: number;
  payload: Buffer | null;
  payloadOffset: number;
  /** Bytes before `payloadOffset` that the codec may use for the header. */
  headroom: number;
  /** Of a received frame: where the payload lies, if that can be used again. */
  memory?: FrameMemory | null;
}

/** `arg` of a detach frame: who keeps the map of what the primary lacks. */
export const DetachKeep = {
  /** The peer: the primary has no local copy. */
  peer: 0,
  /** The primary: it holds the map durably, and the peer drops its own. */
  primary: 1,
} as const;

/** Frames of the stream that name a range of the volume. */
export function isRangeFrame(type: number): boolean {
  return type === FrameType.write || type === FrameType.discard || type === FrameType.zero ||
    type === FrameType.read;
}

/** Frames whose payload is volume data. */
export function carriesData(type: number): boolean {
  return type === FrameType.write || type === FrameType.readData;
}

/** A frame without payload. */
export function plainFrame(type: FrameType, seq = 0, arg = 0, flags = 0): Frame {
  return {
    type, flags, seq, offset: 0, size: 0, arg, payload: null, payloadOffset: 0, headroom: 0,
  };
}

/** A frame whose payload is a body of its own, not volume data. */
export function bodyFrame(type: FrameType, body: Buffer, arg = 0, offset = 0): Frame {
  return {
    type, flags: 0, seq: 0, offset, size: body.length, arg, payload: body, payloadOffset: 0,
    headroom: 0,
  };
}

/** The payload as bytes, by reference; empty where there is none. */
export function bodyOf(frame: Frame): Buffer {
  if (frame.payload === null) return Buffer.alloc(0);
  return frame.payload.subarray(frame.payloadOffset, frame.payloadOffset + frame.size);
}

/** The payload as printable text, for a log; never longer than 200 characters. */
export function textOf(frame: Frame): string {
  return bodyOf(frame).toString('utf8').replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200);
}
