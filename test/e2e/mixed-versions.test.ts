/**
 * Goal: nodes can be upgraded one at a time: a daemon held to version 1 of the protocol without
 * any feature, and one that is not, are a pair both ways round.
 * Method: fio writes and verifies over ext4 across a cut and its resync; the roles are exchanged;
 * the held node is "upgraded" (started anew, free) and the features come into use.
 */
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { sleep } from '../../cli/lab-run.ts';
import { makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';

const cutMs = 4000;
const held = { HAST_PROTOCOL_MAX: '1', HAST_FEATURES: '' };

function fio(directory: string, ...more: string[]): string[] {
  return [
    'fio', '--name=verify', `--directory=${directory}`, '--size=32M', '--bsrange=4k-64k',
    '--rw=randwrite', '--ioengine=libaio', '--direct=1', '--iodepth=16', '--fsync=64',
    '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--randseed=7',
    '--output-format=terse', ...more,
  ];
}

/** Writes through a cut and its resync, and gives the primary role to the other node. */
async function outageAndSwitch(inner: Test, lab: Lab, from: LabNode, to: LabNode): Promise<void> {
  await from.mount('-o', 'noatime');
  await lab.slowDown(60);
  const writing = from.succeed(fio(from.mountPoint, '--rate=,5m', '--do_verify=1'), 60_000);
  // A rejection is met below, when it is awaited.
  writing.catch(() => undefined);
  await sleep(1500);
  await lab.cut('drop');
  await sleep(cutMs);
  const { protocol } =
    await from.untilStatus('the loss', ({ status }) => status === 'degraded');
  inner.equal(protocol, null, 'no version is in use while the peer is away');
  await lab.heal();
  await inner.resolves(writing, 'fio saw no error, and read what it wrote');
  await lab.slowDown(null);
  await lab.settle();
  await from.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
  await from.control('role', 'secondary', resourceName);
  await to.control('role', 'primary', resourceName);
  await to.mount('-o', 'noatime');
  const verify = to.succeed(fio(to.mountPoint, '--verify_only=1'), 60_000);
  await inner.resolves(verify, 'fio finds everything on the other node');
  await to.unmount();
  await lab.settle();
}

async function agreed(inner: Test, lab: Lab, features: readonly string[]): Promise<void> {
  for (const node of lab.nodes) {
    const { protocol, protocolFeatures } = await node.status();
    inner.same({ protocol, protocolFeatures }, { protocol: 1, protocolFeatures: features });
    const list = await node.control('list', resourceName);
    inner.match(list, `protocol: ${['1', ...features].join(' ')}\n`);
  }
}

async function mixed(inner: Test, lab: Lab, old: LabNode): Promise<void> {
  const { h1, h2 } = lab;
  for (const node of lab.nodes) {
    await node.control('create', resourceName);
    await node.start(node === old ? held : {});
  }
  await h2.control('role', 'secondary', resourceName);
  await h1.control('role', 'primary', resourceName);
  await lab.settle();
  inner.match(old.log(), /held to an older protocol/);
  await agreed(inner, lab, []);
  await makeFilesystem(h1);
  await outageAndSwitch(inner, lab, h1, h2);
  await outageAndSwitch(inner, lab, h2, h1);
  // The upgrade: of the secondary; the other one goes on as primary.
  const [primary, secondary] = old === h1 ? [h2, h1] : [h1, h2];
  if (primary === h2) {
    await h1.control('role', 'secondary', resourceName);
    await h2.control('role', 'primary', resourceName);
  }
  await secondary.stop();
  await secondary.start();
  await secondary.control('role', 'secondary', resourceName);
  await lab.settle();
  await agreed(inner, lab, ['remote', 'numbers', 'switchover', 'facts']);
  await primary.mount('-o', 'noatime');
  await inner.resolves(primary.succeed(fio(primary.mountPoint, '--verify_only=1'), 60_000));
  await primary.unmount();
  await lab.settle();
  await inner.resolves(lab.compare(), 'the copies are equal');
}

t.setTimeout(290_000);
for (const name of ['h1', 'h2'] as const) {
  await pairTest(t, `mixed versions: ${name} is held to version 1 without features`, {
    needs: ['fio', 'nft', 'tc'], timeout: 2,
  }, (inner, lab) => mixed(inner, lab, lab[name]));
}
