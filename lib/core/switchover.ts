/** What the two hastds say to each other: the core passes it on, and decides nothing. */
import { HastError } from '../base/errors.ts';
import type { Frame } from '../format/frame.ts';
import { Feature } from '../format/protocol.ts';
import { decodeSwitchover, encodeSwitchover, type SwitchoverSaid } from '../format/switchover.ts';
import type { CommandDone } from './operator.ts';
import type { Resource } from './resource.ts';
import type { Session } from './session.ts';

/** EX_UNAVAILABLE. */
const nobodyCode = 69;

export class Switchover {
  readonly #resource: Resource;

  constructor(resource: Resource) {
    this.#resource = resource;
  }

  /** Refused, and not sent, where the peer is not connected or does not know such a frame. */
  say(said: SwitchoverSaid, done: CommandDone): void {
    const { session } = this.#resource;
    const name = this.#resource.context.options.resource;
    if (session === null || !session.isConnected) {
      done({ message: 'the peer is not connected', hint: `hastctl wait --connected ${name}` });
      return;
    }
    const features = session.agreed?.features ?? 0;
    const isFacts = said.kind === 'facts' || said.kind === 'ask-facts';
    if (isFacts && (features & Feature.facts) === 0) {
      const message = 'the peer runs a release that cannot be asked about itself';
      done({ message, hint: 'upgrade it, or run hastctl check there' });
      return;
    }
    if (!isFacts && (features & Feature.switchover) === 0) {
      done({
        message: 'the peer runs a release that knows no switchover',
        hint: `upgrade it; or hastctl down ${name} on the primary, then hastctl up ${name} ` +
          'on the other',
      });
      return;
    }
    session.send(encodeSwitchover(said));
    done(null);
  }

  /** From the peer. Only one whose handshake was accepted is listened to. */
  take(session: Session, frame: Frame): void {
    if (!session.isConnected) {
      throw new HastError('HAST_E_PROTOCOL', 'a switchover during the handshake');
    }
    const said = decodeSwitchover(frame);
    const { events } = this.#resource.context;
    if (events.switchover !== undefined) {
      events.switchover(said);
    } else if (said.kind === 'ask') {
      const answer = { kind: 'answer', id: said.id, code: nobodyCode, text: 'not here' } as const;
      session.send(encodeSwitchover(answer));
    } else if (said.kind === 'ask-facts') {
      session.send(encodeSwitchover({ kind: 'facts', id: said.id, text: '' }));
    }
  }
}
