/**
 * Goal: Pacemaker's agent does what Pacemaker asks of a promotable clone; and in a cluster of two
 * the volume and its file system move when the promoted node dies, and stay when it comes back.
 * Method: ocf-tester of resource-agents; and corosync and Pacemaker for real, each node in
 * namespaces of its own. There is no fencing in this lab: both nodes never part alive.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { resourceName, type Lab } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { run, until } from '../../cli/lab-run.ts';
import { machineData, machineDevices, Machine } from '../fixtures/e2e-cluster.ts';
import { Hook, makeFilesystem, pairTest } from '../fixtures/e2e-lab.ts';

const agent = path.resolve('cli', 'system', 'ocf', 'hast');
const program = fileURLToPath(new URL('../../cli/hastctl.js', import.meta.url));
/** On a busy machine; else a few seconds. */
const clusterMs = 60_000;

/** hastctl as the agent finds it. */
function makeHastctl(lab: Lab): string {
  const file = path.join(lab.directory, 'hastctl');
  const text = `#!/bin/sh\nunset NODE_OPTIONS\nexec ${process.execPath} ${program} "$@"\n`;
  fs.writeFileSync(file, text, { mode: 0o755 });
  return file;
}

async function byTester(test: Test, lab: Lab): Promise<void> {
  const { h1, h2 } = lab;
  for (const node of lab.nodes) {
    await node.control('create', resourceName);
    await node.start();
  }
  await h2.control('role', 'secondary', resourceName);
  const { code, stdout, stderr } = await h1.run([
    'ocf-tester', '-n', 'shared', '-o', `resource=${resourceName}`,
    '-o', `hastctl=${makeHastctl(lab)}`, agent,
  ], 110_000);
  test.equal(code, 0, `${stdout}${stderr}`);
  test.match(stdout, 'passed all tests');
  test.notMatch(stdout, /^\* rc=/m);
  test.notMatch(stdout, /does not support the (notify|demote|promote) action/);
}

function configuration(hastctl: string): string {
  const pairs = (tag: string, id: string, values: Record<string, string>): string => {
    const all = Object.entries(values)
      .map(([name, value]) => `<nvpair id="${id}-${name}" name="${name}" value="${value}"/>`);
    return `<${tag} id="${id}">${all.join('')}</${tag}>`;
  };
  const monitor = (id: string, more: string): string =>
    `<op id="${id}" name="monitor" timeout="40s" ${more}/>`;
  return `<configuration>
<crm_config>${pairs('cluster_property_set', 'options', { 'stonith-enabled': 'false' })}</crm_config>
<nodes/>
<resources>
<clone id="shared-clone">
${pairs('meta_attributes', 'clone-meta', {
    promotable: 'true', 'promoted-max': '1', 'clone-max': '2', notify: 'true',
  })}
<primitive id="shared" class="ocf" provider="hast" type="hast">
${pairs('instance_attributes', 'shared-attributes', { resource: resourceName, hastctl })}
<operations>${monitor('m1', 'interval="3s" role="Promoted"')}
${monitor('m2', 'interval="4s" role="Unpromoted"')}</operations>
</primitive></clone>
<primitive id="filesystem" class="ocf" provider="heartbeat" type="Filesystem">
${pairs('instance_attributes', 'filesystem-attributes', {
    device: `${machineDevices}/${resourceName}`, directory: machineData, fstype: 'ext4',
  })}
<operations>${monitor('m3', 'interval="10s"')}</operations>
</primitive></resources>
<constraints>
<rsc_order id="order" first="shared-clone" first-action="promote" then="filesystem"
  then-action="start"/>
<rsc_colocation id="colocation" rsc="filesystem" with-rsc="shared-clone" with-rsc-role="Promoted"
  score="INFINITY"/>
</constraints>
<rsc_defaults>
${pairs('meta_attributes', 'defaults', { 'resource-stickiness': '100' })}
</rsc_defaults>
</configuration>
`;
}

/** Waits until the cluster, as this machine sees it, is as asked for. */
async function untilCluster(machine: Machine, what: string, wanted: RegExp): Promise<void> {
  let last = '';
  await until(`${what} as ${machine.node.name} sees it`, clusterMs, async () => {
    last = await machine.succeed('crm_mon', '-1', '-A').catch((error: unknown) => String(error));
    return wanted.test(last) || undefined;
  }, () => last);
}

const started = (node: LabNode): RegExp =>
  new RegExp(`Promoted: \\[ ${node.name} \\][^]*filesystem\\s.*:\\s+Started ${node.name}`);

async function failover(
  test: Test, lab: Lab, machines: readonly [Machine, Machine],
): Promise<void> {
  const hook = new Hook(lab);
  const promotions = (): string[] => hook.calls().filter((line) => line.endsWith(' primary'))
    .map((line) => line.slice(0, 2));
  await lab.bringUp();
  await makeFilesystem(lab.h1);
  for (const node of lab.nodes) await node.control('role', 'init', resourceName);
  const before = promotions().length;

  for (const machine of machines) machine.start();
  const [one, other] = machines;
  await untilCluster(one, 'both online', /Online: \[ h1 h2 \]/);
  const file = path.join(lab.directory, 'configuration.xml');
  fs.writeFileSync(file, configuration(makeHastctl(lab)));
  await one.succeed('cibadmin', '--replace', '--scope', 'configuration', '--xml-file', file);
  await untilCluster(one, 'the file system', /filesystem\s.*:\s+Started h[12]/);
  const status = await lab.h1.status();
  const [active, standby] = status.role === 'primary' ? [one, other] : [other, one];
  await untilCluster(one, 'the promotion', started(active.node));
  await untilCluster(one, 'whole copies', /h1:\n.*: 10000[^]*h2:\n.*: 10000/);
  await active.succeed('sh', '-c', `echo text > ${machineData}/file && sync -f ${machineData}`);
  await lab.settle();

  await lab.cut('drop');
  await active.node.kill();
  await untilCluster(standby, 'the failover', started(standby.node));
  test.equal(await standby.succeed('cat', `${machineData}/file`), 'text\n', 'the data moved');
  test.same(promotions().slice(before), [active.node.name, standby.node.name]);

  await active.node.clearRemains();
  await lab.heal();
  await active.node.start();
  active.start();
  await untilCluster(standby, 'the return', /Online: \[ h1 h2 \]/);
  await untilCluster(standby, 'both copies', /h1:\n.*: 10000[^]*h2:\n.*: 10000/);
  await untilCluster(standby, 'no change', started(standby.node));
  const both = [active.node.name, standby.node.name];
  test.same(promotions().slice(before), both, 'nothing moves back');
}

async function cluster(test: Test, lab: Lab): Promise<void> {
  const machines = [new Machine(lab, lab.h1), new Machine(lab, lab.h2)] as const;
  try {
    await failover(test, lab, machines);
  } catch (error) {
    for (const machine of machines) test.comment(machine.log());
    throw error;
  }
}

/** Pacemaker runs its agents from a folder of which another namespace shows its own version. */
async function mayUnshare(): Promise<boolean> {
  const { code } = await run(['unshare', '--mount', '--uts', '--pid', '--fork', 'true']);
  return code === 0;
}

t.setTimeout(290_000);
await pairTest(t, 'pacemaker: the agent, by ocf-tester', {
  needs: ['ocf-tester', 'xmllint'], timeout: 3,
}, byTester);
const needs = ['corosync', 'pacemakerd', 'crm_mon', 'cibadmin', 'modprobe', 'fuser', 'nft'];
if (await mayUnshare()) {
  await pairTest(t, 'pacemaker: a cluster of two', {
    needs, timeout: 3, boundMs: 200_000,
  }, cluster);
} else {
  const reason = 'SKIPPED, NOT TESTED: no namespaces of mounts, names and processes here';
  t.test('pacemaker: a cluster of two', { skip: reason }, () => undefined);
}
