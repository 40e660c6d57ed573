/**
 * What the hastds of two nodes say to each other of a planned change of the primary, and of
 * themselves, in frames of the session between their workers (docs/wire-protocol.md).
 */
import { HastError } from '../base/errors.ts';
import { bodyFrame, bodyOf, FrameType, plainFrame, type Frame } from './frame.ts';
import { limits } from './limits.ts';

/** `take-over`: become primary, I no longer am. `hand-over`: you are primary, let me be. */
export type SwitchoverAsk = 'take-over' | 'hand-over';

export type SwitchoverSaid =
  /** The same `id` again is the same question: who asks repeats it until it is answered. */
  | { kind: 'ask'; id: number; what: SwitchoverAsk }
  /** `code`: exit code of hastctl, 0 for success. `text`: what it printed. */
  | { kind: 'answer'; id: number; code: number; text: string }
  /** `hastctl check --peer` wants to know what that node is and believes. */
  | { kind: 'ask-facts'; id: number }
  /** JSON; empty where nobody is there to tell. */
  | { kind: 'facts'; id: number; text: string };

const askCodes: Readonly<Record<SwitchoverAsk, number>> = { 'take-over': 1, 'hand-over': 2 };
const exitCodeMax = 255;
/** What a terminal might take for more than text. */
const unprintable = /[^\n\x20-\x7e\u00a0-\uffff]/g;

/** Text that is too long is cut at its end. */
export function encodeSwitchover(said: SwitchoverSaid): Frame {
  if (said.kind === 'ask') {
    const frame = plainFrame(FrameType.switchover, 0, askCodes[said.what]);
    frame.offset = said.id;
    return frame;
  }
  if (said.kind === 'ask-facts') {
    const frame = plainFrame(FrameType.facts, 0, 0);
    frame.offset = said.id;
    return frame;
  }
  const [type, code] = said.kind === 'facts'
    ? [FrameType.factsDone, 0] : [FrameType.switchoverDone, said.code];
  const body = Buffer.from(said.text, 'utf8').subarray(0, limits.bodyBytesMax);
  const frame = body.length === 0 ? plainFrame(type, 0, code) : bodyFrame(type, body, code);
  frame.offset = said.id;
  return frame;
}

/** Throws HAST_E_PROTOCOL where the frame says nothing that is known. */
export function decodeSwitchover(frame: Frame): SwitchoverSaid {
  const { offset: id, arg } = frame;
  if (frame.type === FrameType.facts && arg === 0) return { kind: 'ask-facts', id };
  if (frame.type === FrameType.factsDone && arg === 0) {
    return { kind: 'facts', id, text: textOf(frame) };
  }
  if (frame.type === FrameType.switchover) {
    const known = Object.entries(askCodes).find(([, code]) => code === arg);
    if (known !== undefined) return { kind: 'ask', id, what: known[0] as SwitchoverAsk };
  } else if (frame.type === FrameType.switchoverDone && arg <= exitCodeMax) {
    return { kind: 'answer', id, code: arg, text: textOf(frame) };
  }
  throw new HastError('HAST_E_PROTOCOL', `a switchover that is not known (${arg})`);
}

function textOf(frame: Frame): string {
  return bodyOf(frame).toString('utf8').replaceAll(unprintable, '?');
}
