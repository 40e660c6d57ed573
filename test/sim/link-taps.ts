/** What goes over the connections: for the trace, and for the checker of asynchronous streams. */
import { FrameType } from '../../lib/format/frame.ts';
import type { SimLink } from '../fixtures/sim-link.ts';
import type { SimNode } from '../fixtures/sim-node.ts';
import { idAt } from './copy-view.ts';
import type { SimRun } from './run.ts';
import { StreamLog } from './stream-log.ts';

export class LinkTaps {
  /** The newest connections. */
  readonly links: SimLink[] = [];
  /** What each node sent over the newest one. */
  logs: Record<string, StreamLog> = {};
  readonly #run: SimRun;
  readonly #verbose: boolean;

  constructor(run: SimRun, verbose: boolean) {
    this.#run = run;
    this.#verbose = verbose;
    run.pair.onLink = (link, dialer) => this.#tap(link, dialer);
  }

  #tap(link: SimLink, dialer: SimNode): void {
    const { pair, options, trace } = this.#run;
    this.links.push(link);
    if (this.links.length > 8) this.links.shift();
    const other = pair.other(dialer);
    this.logs = { a: newLog(pair.b), b: newLog(pair.a) };
    const { logs } = this;
    const isAsync = options.mode === 'async';
    [dialer, other].forEach((node, index) => {
      const end = link.ends[index as 0 | 1];
      const peer = node === dialer ? other : dialer;
      end.tap = (frame) => {
        trace.mix(frame.type * 65_537 + frame.seq);
        if (isAsync) {
          logs[node.name]?.sent(frame);
          logs[peer.name]?.answered(frame);
        }
        const quiet = frame.type === FrameType.keepalive || frame.type === FrameType.keepaliveReply;
        if (!trace.isRead || quiet || (!this.#verbose && frame.size > 0)) return;
        trace.note(node.name, `frame ${frameName(frame.type)} seq=${frame.seq} ` +
          `arg=${frame.arg} ${frame.offset}+${frame.size}`);
      };
    });
    trace.line(dialer.name, 'connection');
  }
}

function newLog(receiver: SimNode): StreamLog {
  const { dataOffset } = receiver.geometry;
  return new StreamLog((sector) => {
    const at = dataOffset + sector * 512;
    return [idAt(receiver.disk.cache, at), idAt(receiver.disk.durable, at)];
  });
}

const frameNames = new Map(Object.entries(FrameType).map(([name, type]) => [type as number, name]));

function frameName(type: number): string {
  return frameNames.get(type) ?? String(type);
}
