/** Acknowledgements of one turn, sent as ranges: a deep queue costs a frame or two, not dozens. */
import { FrameType, plainFrame } from '../format/frame.ts';
import type { LinkPort } from './ports.ts';

export class AckBatch {
  readonly #link: LinkPort;
  #written: number[] = [];
  #received = 0;

  constructor(link: LinkPort) {
    this.#link = link;
  }

  written(seq: number): void {
    this.#written.push(seq);
  }

  /** Frames arrive in order: the last one stands for all before it. */
  received(seq: number): void {
    this.#received = seq;
  }

  flush(): void {
    if (this.#received > 0) {
      this.#link.send(plainFrame(FrameType.recvAck, this.#received));
      this.#received = 0;
    }
    const written = this.#written;
    if (written.length === 0) return;
    this.#written = [];
    if (written.length > 1) written.sort((one, other) => one - other);
    let first = written[0] as number;
    let last = first;
    for (let index = 1; index < written.length; index++) {
      const seq = written[index] as number;
      if (seq !== last + 1) {
        this.#link.send(plainFrame(FrameType.writeAck, first, last));
        first = seq;
      }
      last = seq;
    }
    this.#link.send(plainFrame(FrameType.writeAck, first, last));
  }
}
