/**
 * The process of a primary is killed, and another one takes over under its device: the kernel keeps
 * what was not answered and sends it again. Its parent lives on, and answers at its address.
 */
import type { SimRequest } from '../fixtures/sim-node.ts';
import type { Machine } from './machine.ts';
import type { SimRun } from './run.ts';

export class Succession {
  readonly #run: SimRun;

  constructor(run: SimRun) {
    this.#run = run;
  }

  /** Who is primary, or is about to be again. */
  get candidate(): Machine | undefined {
    return this.#run.machines.find((one) => one.isResuming || one.isWorking);
  }

  /** Kills the process of such a machine; its successor starts after `backMs`. */
  kill(machine: Machine, backMs: number, silent: boolean): void {
    const run = this.#run;
    const { node } = machine;
    const kept = machine.isResuming ? machine.kept : this.#shuffled([...node.open]);
    run.trace.line(machine.name, `killed, ${kept.length} requests wait for a successor`);
    node.crash(false, silent);
    run.crashed(machine, false);
    machine.isDown = machine.isResuming = machine.isPromoting = node.parentAnswers = true;
    machine.kept = kept;
    const life = {};
    machine.resumeLife = life;
    run.world.after(backMs, () => {
      if (machine.resumeLife === life) this.#start(machine);
    });
  }

  /** The device was given up: what waits ends with errors. */
  giveUp(machine: Machine): void {
    const { node } = machine;
    machine.isResuming = node.parentAnswers = false;
    machine.resumeLife = null;
    machine.kept = [];
    node.onOpened = () => undefined;
  }

  #start(machine: Machine): void {
    const { node } = machine;
    machine.isDown = false;
    node.onOpened = (resource) => {
      node.onOpened = () => undefined;
      if (resource.context.inflight.isValid) this.#run.counts.tables++;
      resource.roleChange.resume((refusal) => {
        if (node.resource === resource) this.#decided(machine, refusal?.message ?? null);
      });
    };
    node.start(true);
  }

  #decided(machine: Machine, refusal: string | null): void {
    const { kept } = machine;
    this.giveUp(machine);
    machine.isPromoting = false;
    if (refusal === null) {
      this.#run.counts.resumes++;
      this.#run.promoted(machine, false, kept);
    } else {
      this.#run.trace.line(machine.name, `does not go on: ${refusal}`);
    }
  }

  /** The kernel keeps no order among what was under way together. */
  #shuffled(requests: SimRequest[]): SimRequest[] {
    const { random } = this.#run.world;
    for (let at = requests.length - 1; at > 0; at--) {
      const other = random.int(at + 1);
      const one = requests[at] as SimRequest;
      requests[at] = requests[other] as SimRequest;
      requests[other] = one;
    }
    return requests;
  }
}
