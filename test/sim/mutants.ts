/**
 * Deliberate mistakes, one line each: the simulator must see every one of them. `find` occurs
 * exactly once in its file; `seeds` bounds the search.
 */
import type { FaultKind } from './fault-kinds.ts';

export interface Edit {
  file: string;
  find: string;
  replace: string;
}

export interface Mutant extends Edit {
  name: string;
  /** Rule of docs/simulator.md that it breaks. */
  rule: string;
  seeds: number;
  /** Only these faults, so that the search is short. */
  faults?: readonly FaultKind[];
  /** Options whatever the seed draws, as of --set: a load that comes to the state often. */
  set?: string;
  /** What else is changed: lines that guard the same, each for the other. */
  also?: readonly Edit[];
}

const appIo = 'lib/core/app-io.ts';
const session = 'lib/core/session.ts';
const resource = 'lib/core/resource.ts';
const generation = 'lib/core/generation.ts';
const tracker = 'lib/core/dirty-tracker.ts';
const stream = 'lib/core/peer-stream.ts';
const replica = 'lib/core/replica.ts';
const roleChange = 'lib/core/role-change.ts';
const syncSource = 'lib/core/sync-source.ts';
const syncTarget = 'lib/core/sync-target.ts';
const remoteIo = 'lib/core/remote-io.ts';
const remoteSession = 'lib/core/remote-session.ts';
const remoteState = 'lib/core/remote-state.ts';
const resolution = 'lib/core/resolution.ts';
/** What loses a primary's copy, and what comes between. */
const losses: readonly FaultKind[] = [
  'detach', 'detach-crash', 'attach', 'power', 'cut', 'eio-write', 'pair-crash',
];
const fills: readonly FaultKind[] = [...losses, 'promote-filling', 'recreate'];
/** Some request is always under way while a copy is lost and comes back. */
const lively = 'app.count=600,app.crowded=0.9,app.thinkMs=1-40,mediaSize=1048576,' +
  'faults.detach=2,faults.attach=2';
/** A flush lasts over the checkpoints that clean up behind it. */
const longFlushes: Pick<Mutant, 'faults' | 'set'> = {
  faults: ['hang-disk'],
  set: 'diskTimeoutMs=0,gapMs=3000-15000,gapSteps=100-1000,faults.hang-disk=1',
};
const splits: readonly FaultKind[] = ['split', 'resolve', 'cut', 'power'];
const often = 'faults.split=3,faults.resolve=2';
const successions: readonly FaultKind[] = ['kill-resume', 'cut', 'slow-disk', 'partition'];
/** The primary is killed again and again, with writes under way. */
const busy = 'faults.kill-resume=4,app.crowded=0.2,app.thinkMs=0-2,diskMs=0.02-60,app.count=120';
/** One write at a time: nothing else is copied that would hide it. */
const single = 'faults.kill-resume=4,app.depth=1,app.write=10,app.read=0,app.flush=0,' +
  'app.thinkMs=0-2,app.count=60,mediaSize=1048576,faultCount=8,gapMs=0-300,keepDirty=64';

/** Far more extents are written than may be hot, while pages take long. */
const scattered = 'keepDirty=32,extentSize=65536,mediaSize=16777216,app.count=600,app.crowded=0,' +
  'app.thinkMs=0-5,app.depth=16,diskMs=0.02-20';
/** One after the other, and the pair is complete in between. */
const handovers = 'faults.handover=1,gapMs=1000-2500,gapSteps=1000-3000,faultCount=14,' +
  'diskMs=0.02-60,linkMs=0.01-0.2,operatorMs=1-20,mediaSize=1048576,app.thinkMs=0-40,app.count=600';
const formerPrimary: Edit = {
  file: 'lib/core/superblock-store.ts',
  find: 'const flags = value.flags & ~SuperblockFlag.primaryActive;',
  replace: 'const { flags } = value;',
};

export const mutants: readonly Mutant[] = [
  {
    name: 'skip-the-mark', file: tracker, rule: 'mark first', seeds: 100,
    find: 'if (!this.#hot.isDurable(extent)) {',
    replace: 'if (!this.#hot.extents().includes(extent)) {',
  },
  {
    name: 'mark-not-durable', file: 'lib/core/map-writer.ts', rule: 'mark first', seeds: 100,
    find: 'this.#disk.writeAllDurable(wave, (errno) => {',
    replace: `((writes: readonly DurableWrite[], then: (errno: number) => void) => {
        let left = writes.length;
        for (const { offset, raw } of writes) {
          this.#disk.write(offset, raw, 0, raw.length, (errno) => --left === 0 && then(errno));
        }
      })(wave, (errno) => {`,
  },
  {
    name: 'list-without-the-evicted', file: 'lib/core/hot-extents.ts', rule: 'clear last',
    seeds: 400,
    find: 'return [...this.#hot.keys(), ...this.#evicted, ...this.#settling];',
    replace: 'return [...this.#hot.keys(), ...this.#settling];',
  },
  {
    name: 'list-without-those-whose-pages-are-written', file: 'lib/core/hot-extents.ts',
    rule: 'clear last', seeds: 100, set: scattered,
    find: 'return [...this.#hot.keys(), ...this.#evicted, ...this.#settling];',
    replace: 'return [...this.#hot.keys(), ...this.#evicted];',
  },
  {
    name: 'no-pages-of-what-leaves', file: tracker, rule: 'clear last', seeds: 400,
    find: 'if (this.#unwritten.has(region)) regions.add(region);', replace: 'void region;',
  },
  {
    name: 'clear-on-acknowledgement', file: stream, rule: 'clear last', seeds: 200,
    find: 'this.#open.setRange(offset, length);',
    replace: 'void offset;',
  },
  {
    name: 'clear-without-the-local-flush', file: stream, rule: 'clear last', seeds: 400,
    find: 'if (!epoch.localDone || !epoch.acked) kept.push(epoch);',
    replace: 'if (!epoch.acked) kept.push(epoch);', ...longFlushes,
  },
  {
    name: 'clear-without-the-peer\'s-flush', file: stream, rule: 'clear last', seeds: 400,
    find: 'if (!epoch.localDone || !epoch.acked) kept.push(epoch);',
    replace: 'if (!epoch.localDone) kept.push(epoch);',
    ...longFlushes,
  },
  {
    name: 'forget-what-was-sent', file: stream, rule: 'clear last', seeds: 200,
    find: 'const blocks = this.#open;\n    for',
    replace: 'const blocks = new BlockMap(this.#context.mediaSize);\n    for',
  },
  {
    name: 'executed-though-unanswered', file: stream, rule: 'clear last', seeds: 400,
    find: 'tracker.streamEnded(blocks, this.#unanswered(), this.#instance);',
    replace: 'tracker.streamEnded(blocks, new BlockMap(this.#context.mediaSize), this.#instance);',
    faults: ['cut', 'stall', 'one-way', 'slow-disk'],
  },
  {
    name: 'executed-by-another-process', file: 'lib/core/peer-marks.ts', rule: 'clear last',
    seeds: 600,
    find: 'const executed = instance === this.#instance ? this.#executed : this.#empty();',
    replace: 'const executed = this.#executed;',
    faults: ['power', 'cut', 'pair-crash'],
  },
  {
    name: 'executed-though-stale-before', file: 'lib/core/peer-marks.ts', rule: 'clear last',
    seeds: 2000,
    find: 'executed.subtract(this.stale);',
    replace: 'void executed;',
    faults: ['cut', 'partition', 'kill'],
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
    // The data path does not even ask before.
    also: [{ file: appIo, find: 'if (!record.localDone) return;', replace: '' }],
    faults: ['power', 'kill', 'power-both', 'slow-disk'],
  },
  {
    name: 'alone-without-a-record', file: appIo, rule: 'generations', seeds: 200,
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
    find: '      generation: context.random.id64(),\n      history: generation',
    replace: '      generation,\n      history: generation',
  },
  {
    name: 'the-former-primary-is-not-forgotten', rule: 'last primary', seeds: 300,
    ...formerPrimary, faults: ['handover'], set: `mode=memsync,${handovers}`,
  },
  {
    name: 'the-primary-is-not-the-last-one', file: generation, rule: 'last primary', seeds: 600,
    find: 'isSame(a, b) && isPrimary(a) && !isPrimary(b) },', replace: 'false },',
    // Each guards the other. Nothing is lost by these faults, so that only this one shows.
    also: [formerPrimary], faults: ['kill', 'promote-other', 'cut'],
    set: 'mode=fullsync,gapMs=0-600,app.thinkMs=0-2,faultCount=14,' +
      'faults.kill=2,faults.promote-other=2,faults.cut=2',
  },
  {
    name: 'a-new-connection-during-the-announcement', file: roleChange, rule: 'last primary',
    seeds: 400,
    find: 'request.announcing?.();', replace: '', faults: ['handover'],
    set: `mode=memsync,${handovers},diskMs=0.02-20,gapMs=0-2000,gapSteps=100-2000,` +
      'faultCount=40,app.count=200,operatorMs=1-5',
  },
  {
    name: 'superblock-not-durable', file: 'lib/core/superblock-store.ts',
    rule: 'torn metadata', seeds: 2000,
    faults: ['flip-superblock', 'power', 'swap', 'cut'],
    find: 'this.#disk.writeDurable(offset, raw, (errno) => {',
    replace: 'this.#disk.write(offset, raw, 0, raw.length, (errno) => {',
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
    faults: ['power', 'pair-crash'],
    set: 'mode=async,diskMs=0.02-60,app.write=5,app.flush=4,app.thinkMs=0-2,faults.power=1',
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
    name: 'go-on-after-a-local-error', file: resource, rule: 'a failed copy', seeds: 600,
    find: "if (op !== 'read') this.copyFailed(op",
    replace: "if (op === 'metadata') this.copyFailed(op",
    faults: ['eio-write', 'eio-flush'],
  },
  {
    name: 'no-inconsistent-record', file: syncTarget, rule: 'both maps', seeds: 1500,
    find: 'dataState: DataState.inconsistent, syncGeneration: generation,',
    replace: 'syncGeneration: generation,',
    faults: ['split', 'resolve', 'power', 'kill', 'partition', 'pair-crash'],
    set: 'resyncRate=400000,mediaSize=1048576,' +
      'faults.split=3,faults.resolve=3,faults.kill=1,faults.partition=1',
  },
  {
    name: 'done-before-the-flush', file: syncSource, rule: 'both maps', seeds: 2500,
    faults: ['power', 'power-both', 'cut', 'pair-crash', 'kill'],
    set: 'gapMs=0-1500,gapSteps=50-800,app.flush=0,faultCount=12',
    find: 'this.#host.flushBoth(stream, () => {',
    replace: '((_: PeerStream, then: () => void) => then())(stream, () => {',
  },
  {
    name: 'marks-handed-over-are-not-durable', file: syncSource, rule: 'both maps', seeds: 800,
    find: "tracker.persistAll(() => {\n      if (session.phase !== 'map') return;",
    replace: "((then: () => void) => then())(() => {\n      if (session.phase !== 'map') return;",
    faults: ['power', 'power-both', 'pair-crash', 'swap', 'cut'],
  },
  {
    name: 'the-target-keeps-its-map', file: session, rule: 'both maps', seeds: 600,
    find: 'this.numbers.raise(() => this.#target.sendMap());',
    replace: 'this.numbers.raise(() => this.#link.send(plainFrame(FrameType.mapEnd)));',
    faults: ['pair-crash', 'swap', 'cut', 'promote-other', 'kill'],
  },
  {
    name: 'never-a-full-copy', file: generation, rule: 'generations', seeds: 300,
    find: 'if (!mapApplies(source, target)) return true;',
    replace: 'if (!mapApplies(source, target)) return false;',
  },
  {
    name: 'a-fork-is-overwritten', file: generation, rule: 'generations', seeds: 500,
    find: "{ row: 'K-forked', refuse: 'split-brain', when: (a, b) =>",
    replace: "{ row: 'K-forked', wins: (a, b) => a.copyId > b.copyId &&",
    faults: ['split', 'force-both', 'partition'],
  },
  {
    name: 'promotion-without-the-received-frames', file: roleChange, rule: 'promotion', seeds: 800,
    find: 'this.#resource.drained(() => context.disk.flush((errno) => {',
    replace: '((then: () => void) => then())(() => context.disk.flush((errno) => {',
    faults: ['power', 'kill'],
    set: 'mode=memsync,diskMs=0.02-60,operatorMs=1-20,app.crowded=0.9,app.depth=16,' +
      'app.thinkMs=0-2,faults.kill=1,faults.power=1',
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
    find: 'if (this.disk.isBusy) this.disk.whenQuiet(() => this.#open(alive, inherits));',
    replace: 'if (this.disk.size === 0) this.disk.whenQuiet(() => this.#open(alive, inherits));',
    faults: ['kill', 'kill-both', 'slow-disk', 'crash-in-start'],
  },
  {
    name: 'a-start-trusts-what-it-read', file: 'lib/core/map-writer.ts', rule: 'torn metadata',
    seeds: 400,
    find: 'this.#disk.flush((errno) => {',
    replace: '((then: (errno: number) => void) => then(0))((errno) => {',
    faults: ['kill', 'crash-in-start', 'kill-both', 'power'],
  },
  {
    name: 'requests-answered-twice', file: appIo, rule: 'every request once', seeds: 200,
    find: 'record.app = null;\n    this.#active.delete(record);\n    this.#active.add(next);',
    replace: 'this.#active.delete(record);\n    this.#active.add(next);',
  },
  {
    name: 'remote-answers-before-the-flush', file: remoteIo, rule: 'remote state', seeds: 600,
    find: '    epoch.localFlushed();',
    replace: '    epoch.localFlushed();\n    this.#flushed(covered);',
    faults: losses,
  },
  {
    name: 'remote-is-not-sent-again', file: remoteIo, rule: 'remote state', seeds: 2000,
    find: 'if (request instanceof RemoteWrite && !request.durable) request.sent = false;',
    replace: 'void request;', faults: losses,
  },
  {
    name: 'the-keeper-forgets-to-mark', file: 'lib/core/replica.ts', rule: 'remote state',
    seeds: 600,
    find: 'if (!this.keepsMap || type',
    replace: 'if (this.keepsMap || type', faults: losses,
  },
  {
    name: 'the-keeper-marks-in-memory', file: 'lib/core/replica.ts', rule: 'remote state',
    seeds: 600,
    find: 'tracker.persist(regionsOf(offset, size), item.onMarked);',
    replace: 'item.onMarked();', faults: losses,
  },
  {
    name: 'served-before-the-flush', file: remoteSession, rule: 'remote state', seeds: 1500,
    find: 'session.replica.drained(() => this.#context.disk.flush((errno) => {',
    replace: 'session.replica.drained(() => ((then: (e: number) => void) => ' +
      'then(0))((errno) => {',
    faults: losses,
  },
  {
    name: 'served-without-a-record', file: remoteSession, rule: 'remote state', seeds: 600,
    find: 'flags: store.value.flags | SuperblockFlag.keeper, contactAt',
    replace: 'contactAt', faults: losses,
  },
  {
    name: 'the-generation-of-the-loss-before', file: session, rule: 'generations', seeds: 3000,
    find: "if (this.remote === null || this.phase === 'complete') {",
    replace: 'if (this.remote === null) {', faults: losses,
  },
  {
    name: 'sent-before-the-peer-marks', file: remoteIo, rule: 'remote state', seeds: 3000,
    find: 'over this very stream.\n    this.#stream = null;',
    replace: 'over this very stream.', faults: losses,
  },
  {
    name: 'a-fetch-passes-a-write', file: 'lib/core/resync-pull.ts', rule: 'remote state',
    seeds: 2000,
    find: '    this.stream.ask(chunk, chunk.start);',
    replace: '    this.stream.ask(chunk, chunk.start);\n    this.locks.release(chunk);',
    faults: fills,
  },
  {
    name: 'consistent-before-the-peer-let-go', file: remoteSession, rule: 'remote state',
    seeds: 2000,
    find: 'this.#session.send(plainFrame(FrameType.pullDone));',
    replace: 'this.#session.send(plainFrame(FrameType.pullDone));\n    this.rejoined();',
    faults: fills, set: lively,
  },
  {
    name: 'a-local-read-before-the-map', file: remoteIo, rule: 'remote state', seeds: 3000,
    find: '!this.#host.isDiskless && this.#host.isMapKnown && read.held',
    replace: '!this.#host.isDiskless && read.held',
    faults: ['detach', 'attach', 'promote-filling', 'cut', 'recreate'],
    set: `app.read=15,linkMs=5-20,${lively}`,
  },
  {
    name: 'a-stale-block-is-read-here', file: remoteIo, rule: 'remote state', seeds: 2000,
    find: '!tracker.isLocalStale(app.offset, app.length);',
    replace: 'app.length > 0;', faults: fills, set: `app.read=15,resyncRate=300000,${lively}`,
  },
  {
    name: 'a-stale-block-is-written-in-part', file: remoteIo, rule: 'remote state', seeds: 3000,
    find: 'from = alignUp(from, limits.blockSize);',
    replace: 'void alignUp;', faults: fills,
    // The map would keep the block as it is.
    also: [{
      file: 'lib/core/local-marks.ts', find: 'this.stale.clearRange(offset, length);',
      replace: 'this.stale.clearRange(offset - offset % 4096, length + offset % 4096);',
    }],
    set: `app.read=5,app.aligned=0,resyncRate=400000,${lively}`,
  },
  {
    name: 'the-map-is-dropped-too-early', file: remoteSession, rule: 'both maps', seeds: 3000,
    find: '      sendMaps(session, [this.#context.tracker.peerStale], full);\n',
    replace: '      sendMaps(session, [this.#context.tracker.peerStale], full);\n' +
      '      this.#context.tracker.clearPeerStale(() => undefined);\n',
    faults: fills,
  },
  {
    name: 'the-old-disk-s-map-is-forgotten', file: remoteState, rule: 'both maps', seeds: 3000,
    find: 'tracker.mergeLocalStale(tracker.peerStale);', replace: 'void tracker;', faults: fills,
    // When the peer's map comes, its own is merged once more.
    also: [{
      file: remoteSession, find: 'tracker.mergeLocalStale(tracker.peerStale);', replace: '',
    }],
    set: lively,
  },
  {
    name: 'a-repair-without-the-lock', file: 'lib/core/read-repair.ts', rule: 'order', seeds: 4000,
    find: 'if (this.#locks.acquire(this)) this.onGranted();',
    replace: 'this.onGranted();', faults: ['latent', 'cut'],
    set: 'app.read=10,app.crowded=1,app.count=600,app.depth=8,app.thinkMs=0-2,linkMs=5-20,' +
      'mediaSize=1048576,faults.latent=3',
  },
  {
    name: 'a-bad-block-is-an-error', file: appIo, rule: 'a failed copy', seeds: 1500,
    find: 'if (stream === null || !stream.counts || record.app === null) {',
    replace: 'if (stream === null || stream.counts || record.app === null) {', faults: ['latent'],
    set: 'app.read=10,app.crowded=1,mediaSize=1048576,faults.latent=3',
  },
  {
    name: 'diskless-fails-requests', file: remoteState, rule: 'requests', seeds: 300,
    find: 'for (const { app, held, since } of pending) this.io.submit(app, held, since);',
    replace: 'for (const { app } of pending) app.complete(5);', faults: losses,
  },
  {
    name: 'decided-before-the-undo-is-whole', file: resolution, rule: 'split brain', seeds: 400,
    find: '      undo?.seal((errno) => {',
    replace: '      this.#go(session);\n      undo?.seal((errno) => {', faults: splits, set: often,
  },
  {
    name: 'the-undo-misses-the-peer-s-writes', file: resolution, rule: 'split brain', seeds: 1500,
    find: 'union.merge(peerMap);', replace: 'void peerMap;', faults: splits, set: often,
  },
  {
    name: 'a-dry-run-decides', file: resolution, rule: 'split brain', seeds: 1500,
    find: "      session.bye('the copies were compared');\n      return;",
    replace: '      session.resolve?.decide();\n      return;', faults: splits, set: often,
  },
  {
    name: 'going-alone-keeps-the-table', file: 'lib/core/inflight-table.ts', rule: 'in flight',
    seeds: 1000,
    find: 'this.#freeCount < inflightSlots) this.#reset();',
    replace: 'this.#freeCount < inflightSlots) void 0;',
    faults: ['kill-resume', 'partition'],
    // The load goes on while the peer is away, and when the primary is killed then.
    set: 'faults.kill-resume=3,faults.partition=3,timeoutMs=500,app.thinkMs=1-40,app.count=600,' +
      'faultCount=14,gapMs=0-600,mediaSize=1048576',
  },
  {
    name: 'entered-when-it-has-returned', file: appIo, rule: 'in flight', seeds: 600,
    find: '      record.entry = inflight.enter(pieceFrom, length);\n', replace: '',
    faults: successions, set: busy,
  },
  {
    name: 'the-ranges-are-not-read', file: 'lib/core/peer-marks.ts', rule: 'in flight', seeds: 600,
    find: 'this.#executed.subtract(handedDown.unanswered);', replace: 'void handedDown;',
    faults: successions, set: busy,
  },
  {
    name: 'left-when-the-peer-has-it', file: appIo, rule: 'in flight', seeds: 1000,
    find: 'if (errno === 0) this.left(record);', replace: '',
    also: [{
      file: 'lib/core/inflight-table.ts', find: 'const holdersOfOne = 2;',
      replace: 'const holdersOfOne = 1;',
    }],
    faults: ['kill-resume'], set: `${single},diskMs=0.02-60,linkMs=0.01-0.2`,
  },
  {
    name: 'left-when-it-is-written-here', file: 'lib/core/app-record.ts', rule: 'in flight',
    seeds: 1000,
    find: '    this.#io.executed(this);\n', replace: '',
    also: [{
      file: 'lib/core/inflight-table.ts', find: 'const holdersOfOne = 2;',
      replace: 'const holdersOfOne = 1;',
    }],
    faults: ['kill-resume'], set: `${single},diskMs=0.02-0.6,linkMs=5-20`,
  },
];
