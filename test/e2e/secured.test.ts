/**
 * Goal: two nodes are paired with two commands; a volume over TLS takes new certificates, and a
 * change to a shared secret, while fio writes and verifies; a node with another key stays outside.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { until } from '../../cli/lab-run.ts';
import { writeSecret } from '../fixtures/credentials.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';
import { VerifyingLoad } from '../fixtures/e2e-verify.ts';

const hastctl = fileURLToPath(new URL('../../cli/hastctl.js', import.meta.url));
const boundMs = 60_000;

function place(node: LabNode): string {
  return path.join(node.directory, 'tls');
}

/** The two commands, each on its node. */
async function pairUp(lab: Lab, ...force: string[]): Promise<void> {
  const { h1, h2 } = lab;
  const said = path.join(lab.directory, 'code');
  fs.writeFileSync(said, '');
  const init = h1.onNode([
    'env', '-u', 'NODE_OPTIONS', 'sh', '-c', 'exec "$@" > "$0"', said, process.execPath, hastctl,
    'pair', 'init', '--address', lab.network.address('h1'), '--directory', place(h1), ...force,
  ], boundMs);
  init.catch(() => undefined);
  const code = await until('the code', boundMs, () =>
    /hast1\.[\w-]+/.exec(fs.readFileSync(said, 'utf8'))?.[0]);
  await h2.control('pair', 'join', code, '--directory', place(h2), ...force);
  await init;
}

function reload(lab: Lab): void {
  for (const { pid } of lab.nodes) if (pid !== undefined) process.kill(pid, 'SIGHUP');
}

async function untilUsed(lab: Lab, kind: string): Promise<void> {
  for (const node of lab.nodes) {
    await node.untilStatus(`authentication ${kind}`, ({ authentication, status }) =>
      authentication === kind && status === 'complete', boundMs);
  }
}

/** What everybody may see of a process; nothing where it has ended. */
function shownOf(pid: number): string {
  try {
    return ['cmdline', 'environ', 'comm'].map((file) =>
      fs.readFileSync(`/proc/${pid}/${file}`, 'utf8')).join('\0');
  } catch {
    return '';
  }
}

const times = (node: LabNode, text: string): number => node.log().split(text).length - 1;

async function secured(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  await pairUp(lab);
  const sections = lab.nodes.map((node) => `on ${node.name} { tls { cert ${place(node)}/node.crt ` +
    `key ${place(node)}/node.key ca ${place(node)}/ca.crt } }`);
  lab.configure({ global: ['insecure off', ...sections] });
  await lab.bringUp();
  await untilUsed(lab, 'tls');
  test.match(await h1.control('list', 'shared'), /authentication: tls, certificate until 20\d\d-/);
  await makeFilesystem(h1);
  await h1.mount('-o', 'noatime');
  const load = await VerifyingLoad.start(lab, h1, 100_000);

  // New certificates: the connection at work stays, the next one is made with them.
  const before = times(h1, '"event":"disconnect"');
  await pairUp(lab, '--force');
  reload(lab);
  for (const node of lab.nodes) {
    await until(`the reload of ${node.name}`, boundMs, () =>
      times(node, 'new credentials are used for the next connection') > 0 || undefined);
  }
  test.equal(times(h1, '"event":"disconnect"'), before, 'nothing was disconnected');
  await lab.cut('link');
  await h1.untilStatus('the loss', ({ status }) => status === 'degraded', boundMs);
  await lab.heal();
  await untilUsed(lab, 'tls');

  // Only one node has the secret: both say so, and I/O goes on.
  const secret = writeSecret(lab.directory);
  lab.configure({ global: ['insecure off', `secret ${secret}`] });
  process.kill(h1.pid ?? 0, 'SIGHUP');
  await h1.untilStatus('the other way of the peer', ({ detail }) =>
    detail.includes('the peer does not use a secret: the peer uses TLS'), boundMs);
  await h2.untilStatus('the other way of the peer', ({ detail }) =>
    detail.includes('the peer does not use TLS: the peer uses a secret'), boundMs);
  reload(lab);
  await untilUsed(lab, 'secret');

  // insecure off: not without.
  lab.configure({ global: ['insecure off'] });
  reload(lab);
  await until('the refusal', boundMs, () =>
    times(h1, 'configuration not reloaded') > 0 || undefined);
  test.match(await h1.hastctl('check'), { code: 78, stdout: /unauthenticated.*'insecure' is off/ });
  test.match(await h1.status(), { authentication: 'secret', status: 'complete' });
  lab.configure({ global: ['insecure off', `secret ${secret}`] });

  const key = fs.readFileSync(secret, 'utf8').trim();
  for (const pid of lab.nodes.flatMap((node) => node.processes())) {
    const shown = shownOf(pid);
    test.notOk(shown.includes(key), `the secret is not in the title of ${pid}`);
  }
  test.ok(await load.check(test) > 0);
  await h1.unmount();
  await lab.settle();
  await lab.compare();
  const kept = [h1.log(), h2.log(), await h1.control('list'), await h1.control('dump'),
    await h1.control('status', '--json'), await h1.control('list', '--json')];
  test.notOk(kept.some((text) => text.includes(key)), 'the secret is nowhere to be read');
}

await pairTest(t, 'secured: pair, TLS, new certificates, a secret', {
  needs: ['fio'], boundMs: 150_000,
}, secured);
