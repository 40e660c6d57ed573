/**
 * Goal: `hastctl check --peer` says of a real pair that it is well, and of each layer between two
 * nodes that does not work which one it is and what to type.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { pairTest } from '../fixtures/e2e-lab.ts';

const name = resourceName;
const configError = 78;

async function finds(
  test: Test, node: LabNode, code: number, pattern: RegExp, what: string,
): Promise<void> {
  const got = await node.hastctl('check', '--peer');
  test.equal(got.code, code, `${what}: ${got.stdout}${got.stderr}`);
  test.match(got.stdout, pattern, what);
  for (const line of got.stdout.split('\n')) {
    if (/: (error|warning): /.test(line)) test.match(line, /; try: /, 'it says what to type');
  }
}

async function check(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  // A pair that knows itself by its address alone is never without a warning.
  const secret = path.join(lab.directory, 'secret');
  fs.writeFileSync(secret, randomBytes(48).toString('base64'), { mode: 0o600 });
  lab.configure({ global: [`secret ${secret}`] });
  await finds(test, h1, configError, /no hastd answers|no hastd listens/, 'no hastd here');
  for (const node of lab.nodes) {
    await node.control('create', name);
    await node.start();
  }
  await finds(test, h1, configError, /the role is init/, 'no role');
  await h2.control('role', 'secondary', name);
  await h1.control('role', 'primary', name);
  await lab.settle();
  for (const [node, peer] of [[h1, h2], [h2, h1]] as const) {
    const well = await node.hastctl('check', '--peer');
    test.equal(well.code, 0, well.stdout);
    test.match(well.stdout, new RegExp(
      `\n${name}: ok: peer ${peer.name}: release [0-9.]+, answers within [0-9.]+ ms, ` +
      'clocks [0-9.]+ s apart\n$'));
    test.notMatch(well.stdout, /error|warning/);
  }
  const { stdout } = await h1.hastctl('check', '--peer', '--json');
  const told = JSON.parse(stdout) as { ok: boolean; peers: { facts: { peer: object } }[] };
  test.match(told, { ok: true, peers: [{ resource: name, facts: { peer: {
    node: 'h2', diskBytes: Number, reach: { ok: true }, remoteAddresses: [String],
    settings: { replication: 'fullsync' },
  } } }] });

  const conf = fs.readFileSync(lab.config, 'utf8');
  fs.writeFileSync(lab.config, `replication memsync\n${conf}`);
  await finds(test, h1, 0,
    /warning: hastd here still works with other values of replication; try: systemctl reload/,
    'not reloaded here');
  await finds(test, h1, 0,
    /warning: 'replication' is memsync in the file of h1, and fullsync on h2; try: make/,
    'not reloaded there');
  fs.writeFileSync(lab.config, conf);

  await lab.cut('drop');
  for (const node of lab.nodes) {
    await node.untilStatus('the loss', ({ connection }) => connection === 'connecting');
  }
  await finds(test, h1, configError,
    /error: from h1 to its peer: \S+ port 8457 does not answer within .* firewall .*\n.*cannot/,
    'a firewall');
  await lab.heal();
  await h2.stop();
  await h1.untilStatus('the loss', ({ connection }) => connection === 'connecting');
  await finds(test, h1, configError,
    /no hastd listens at \S+ port 8457; try: on the peer: systemctl start hastd\n/, 'refused');

  await h2.start({ HAST_FEATURES: 'remote,numbers,switchover' });
  await h1.untilStatus('the answer', ({ detail }) => detail.includes('role init'));
  await finds(test, h1, configError, /cannot be asked: not connected: .*role init/, 'init there');
  await h2.control('role', 'secondary', name);
  await lab.settle();
  await finds(test, h1, 0,
    /warning: only this node was looked at: .*cannot be asked; try: hastctl upgrade/, 'older');
  await h1.control('role', 'secondary', name);
}

t.setTimeout(240_000);
const options = { local: 'block', needs: ['nft'], boundMs: 120_000 } as const;
await pairTest(t, 'check --peer: each layer', options, check);
