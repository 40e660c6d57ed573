/**
 * Deliberate mistakes, one line each: the simulator must see every one of them. `find` occurs
 * exactly once in its file; `seeds` bounds the search.
 */
import type { FaultKind } from './fault-kinds.ts';

export interface Mutant {
  name: string;
  file: string;
  find: string;
  replace: string;
  /** Rule of docs/simulator.md that it breaks. */
  rule: string;
  seeds: number;
  /** Only these faults, so that the search is short. */
  faults?: readonly FaultKind[];
}

const appIo = 'lib/core/app-io.ts';
const session = 'lib/core/session.ts';
const resource = 'lib/core/resource.ts';
const tracker = 'lib/core/dirty-tracker.ts';
const stream = 'lib/core/peer-stream.ts';
const replica = 'lib/core/replica.ts';
const roleChange = 'lib/core/role-change.ts';

export const mutants: readonly Mutant[] = [
  {
    name: 'skip-the-mark', file: tracker, rule: 'mark first', seeds: 100,
    find: 'if (this.#hot.get(extent)?.durable !== true) {',
    replace: 'if (this.#hot.get(extent) === undefined) {',
  },
  {
    name: 'mark-not-durable', file: tracker, rule: 'mark first', seeds: 100,
    find: 'for (const write of writes) this.#disk.writeDurable(write.offset, write.raw, one);',
    replace: 'for (const write of writes) this.#disk.write(write.offset, write.raw, 0, ' +
      'write.raw.length, one);',
  },
  {
    name: 'list-without-the-evicted', file: tracker, rule: 'clear last', seeds: 400,
    find: 'const extents = new Set([...this.#hot.keys(), ...this.#evicted]);',
    replace: 'const extents = new Set([...this.#hot.keys()]);',
  },
  {
    name: 'clear-on-acknowledgement', file: stream, rule: 'clear last', seeds: 200,
    find: 'this.#open.setRange(offset, length);',
    replace: 'void offset;',
  },
  {
    name: 'clear-without-the-local-flush', file: stream, rule: 'clear last', seeds: 400,
    find: 'if (epoch.localDone && epoch.acked) this.#context',
    replace: 'if (epoch.acked) this.#context',
  },
  {
    name: 'clear-without-the-peer\'s-flush', file: stream, rule: 'clear last', seeds: 400,
    find: 'if (epoch.localDone && epoch.acked) this.#context',
    replace: 'if (epoch.localDone) this.#context',
  },
  {
    name: 'forget-what-was-sent', file: stream, rule: 'clear last', seeds: 200,
    find: 'tracker.mergeStale(this.#open);',
    replace: 'void this.#open;',
  },
  {
    name: 'forget-what-went-nowhere', file: appIo, rule: 'mark first', seeds: 200,
    find: 'tracker.setStale(record.pieceFrom, length);',
    replace: 'void tracker;',
  },
  {
    name: 'inherited-marks-are-not-kept', file: 'lib/core/map-loader.ts', rule: 'clear last',
    seeds: 300,
    find: 'this.#loaded.peerStale.setRange(offset, Math.min(extentSize, mediaSize - offset));',
    replace: 'void offset;',
  },
  {
    name: 'fullsync-acknowledges-early', file: 'lib/core/completion.ts', rule: 'completion',
    seeds: 300,
    find: "case 'fullsync': return stage === PeerStage.done;",
    replace: "case 'fullsync': return true;",
  },
  {
    name: 'memsync-acknowledges-early', file: 'lib/core/completion.ts', rule: 'completion',
    seeds: 300,
    find: "case 'memsync': return stage !== PeerStage.none;",
    replace: "case 'memsync': return true;",
  },
  {
    name: 'flush-of-one-copy', file: 'lib/core/completion.ts', rule: 'completion', seeds: 500,
    find: "return mode === 'async' || stage === PeerStage.done;",
    replace: 'return true;',
  },
  {
    name: 'acknowledge-before-the-local-write', file: 'lib/core/completion.ts', rule: 'completion',
    seeds: 300,
    find: 'if (!localDone) return false;\n  if (!peerCounts) return alone;\n  switch (mode) {',
    replace: 'if (!peerCounts) return localDone && alone;\n  switch (mode) {',
  },
  {
    name: 'alone-without-a-record', file: appIo, rule: 'generations', seeds: 100,
    find: 'const alone = record.stream !== null || this.#host.aloneRecorded;',
    replace: 'const alone = true;',
  },
  {
    name: 'record-without-a-generation', file: resource, rule: 'generations', seeds: 200,
    find: 'generation: random.id64(), history: withAncestor(history, generation, peerGeneration),',
    replace: 'generation, history,',
  },
  {
    name: 'promotion-without-a-generation', file: roleChange, rule: 'generations', seeds: 100,
    find: 'generation: context.random.id64(),',
    replace: 'generation,',
  },
  {
    name: 'generation-in-one-copy-of-the-superblock', file: 'lib/core/superblock-store.ts',
    rule: 'torn metadata', seeds: 2000,
    faults: ['flip-superblock', 'power', 'swap', 'cut'],
    find: 'this.#disk.writeDurable(0, raw, (errno) => {',
    replace: 'this.#disk.write(0, raw, 0, raw.length, (errno) => {',
  },
  {
    name: 'no-range-lock', file: 'lib/core/range-lock.ts', rule: 'order', seeds: 100,
    find: 'if (overlap(held, lock)) return this.#wait(lock);',
    replace: 'if (held === lock) return this.#wait(lock);',
  },
  {
    name: 'no-barrier', file: replica, rule: 'order (async)', seeds: 800,
    find: 'if (this.#isHeld()) batch.held.push(item);',
    replace: 'if (this.#failed) batch.held.push(item);',
  },
  {
    name: 'peer-flush-overtakes', file: replica, rule: 'order', seeds: 300,
    find: 'if (batch.flush === null || batch.open > 0 || this.#flushing > 0) return;',
    replace: 'if (batch.flush === null || this.#flushing > 0) return;',
  },
  {
    name: 'ignore-a-flush-error', file: replica, rule: 'a failed copy', seeds: 800,
    find: "if (errno !== 0) this.#fail('flush', flush, errno);",
    replace: "if (errno === -1) this.#fail('flush', flush, errno);",
    faults: ['eio-flush', 'power', 'kill'],
  },
  {
    name: 'go-on-after-a-local-error', file: resource, rule: 'a failed copy', seeds: 300,
    find: "if (op !== 'read') this.#fail(`the local copy",
    replace: "if (op === 'metadata') this.#fail(`the local copy",
    faults: ['eio-write', 'eio-flush'],
  },
  {
    name: 'no-inconsistent-record', file: session, rule: 'both maps', seeds: 800,
    find: 'dataState: DataState.inconsistent, syncGeneration: (this.peer as Hello).generation,',
    replace: 'syncGeneration: (this.peer as Hello).generation,',
  },
  {
    name: 'done-before-the-flush', file: session, rule: 'both maps', seeds: 2500,
    faults: ['power', 'power-both', 'cut', 'pair-crash', 'kill'],
    find: 'this.#host.flushBoth(stream, () => {',
    replace: '((_: PeerStream, then: () => void) => then())(stream, () => {',
  },
  {
    name: 'marks-handed-over-are-not-durable', file: session, rule: 'both maps', seeds: 800,
    find: 'tracker.persistAll(() => {\n      if (this.phase !== \'map\') return;',
    replace: '((then: () => void) => then())(() => {\n      if (this.phase !== \'map\') return;',
  },
  {
    name: 'the-target-keeps-its-map', file: session, rule: 'both maps', seeds: 300,
    find: "if (verdict.kind === 'target') this.#sendMap();",
    replace: "if (verdict.kind === 'target') this.#link.send(plainFrame(FrameType.mapEnd));",
  },
  {
    name: 'never-a-full-copy', file: 'lib/core/generation.ts', rule: 'generations', seeds: 300,
    find: "const full = kind === 'source' ? !mapApplies(me, peer) : !mapApplies(peer, me);",
    replace: 'const full = false;',
  },
  {
    name: 'a-fork-is-overwritten', file: 'lib/core/generation.ts', rule: 'generations', seeds: 500,
    find: "? { kind: 'refuse', reason: 'split-brain', row: 'K-forked' }",
    replace: "? direct(me.copyId > peer.copyId ? 'source' : 'target', me, peer, 'K-forked')",
  },
  {
    name: 'promotion-without-the-received-frames', file: roleChange, rule: 'promotion', seeds: 800,
    find: 'this.#resource.drained(() => context.disk.flush((errno) => {',
    replace: '((then: () => void) => then())(() => context.disk.flush((errno) => {',
  },
  {
    name: 'promotion-without-a-question', file: 'lib/core/promotion.ts', rule: 'promotion',
    seeds: 300,
    find: 'if (row.refusal === null) {',
    replace: "if (row.refusal === null || row.row === 'E-inconsistent') {",
  },
  {
    name: 'an-old-session-goes-on', file: 'lib/core/linker.ts', rule: 'nothing dead lands',
    seeds: 400,
    find: "this.#host.endSession('the peer opened a new connection', () => {",
    replace: '((_reason: string, then: () => void) => then())(\'\', () => {',
  },
  {
    name: 'a-start-does-not-wait-for-the-lock', file: 'test/fixtures/sim-node.ts',
    rule: 'nothing dead lands', seeds: 300,
    find: 'if (this.disk.isBusy) this.disk.whenQuiet(() => this.#open(alive));',
    replace: 'if (this.disk.size === 0) this.disk.whenQuiet(() => this.#open(alive));',
  },
  {
    name: 'a-start-trusts-what-it-read', file: 'lib/core/open-resource.ts', rule: 'torn metadata',
    seeds: 2500,
    find: 'ports.disk.flush((flushError) => {',
    replace: '((then: (errno: number) => void) => then(0))((flushError) => {',
    faults: ['kill', 'crash-in-start', 'kill-both', 'power'],
  },
  {
    name: 'requests-answered-twice', file: appIo, rule: 'every request once', seeds: 200,
    find: 'record.app = null;\n    this.#active.delete(record);\n    this.#active.add(next);',
    replace: 'this.#active.delete(record);\n    this.#active.add(next);',
  },
];
