/** hast-linux itself: a lab for each variant, both nodes on the loopback network. */
import * as fs from 'node:fs';
import { Lab, resourceName, type LabOptions } from '../../cli/lab.ts';
import type { LabNode } from '../../cli/lab-node.ts';
import { tlsLines, writeSecret } from '../fixtures/credentials.ts';
import { preallocate } from './place.ts';
import type { OpenOptions, RunningSubject } from './subjects.ts';

export interface RunningOurs extends RunningSubject {
  lab: Lab;
}

export async function openPair(
  name: string, lines: readonly string[], options: OpenOptions,
  network: LabOptions['network'] = 'loopback', security: 'none' | 'tls' | 'secret' = 'none',
): Promise<RunningOurs> {
  const lab = await Lab.open({
    sizes: [options.bytes, options.bytes], resource: lines, network,
  });
  return await brought(name, lab, lab.nodes, async () => {
    if (security === 'tls') lab.configure({ global: await tlsLines(lab.directory, ['h1', 'h2']) });
    if (security === 'secret') lab.configure({ global: [`secret ${writeSecret(lab.directory)}`] });
    await lab.bringUp();
    if (!options.sparse) for (const { disk } of lab.nodes) await preallocate(disk, options.bytes);
  });
}

/** One copy: the second node of the lab is never started. */
export async function openSingle(
  name: string, lines: readonly string[], options: OpenOptions,
): Promise<RunningOurs> {
  const lab = await Lab.open({
    sizes: [options.bytes, 0], resource: lines, network: 'loopback',
  });
  return await brought(name, lab, [lab.h1], async () => {
    const text = fs.readFileSync(lab.config, 'utf8')
      .replaceAll(/remote tcp:.*/g, 'remote none').replaceAll(/source tcp:.*/g, '');
    fs.writeFileSync(lab.config, text);
    await lab.h1.control('create', resourceName);
    await lab.h1.start();
    await lab.h1.control('role', 'primary', resourceName);
    if (!options.sparse) await preallocate(lab.h1.disk, options.bytes);
  });
}

async function brought(
  name: string, lab: Lab, nodes: readonly LabNode[], bringUp: () => Promise<void>,
): Promise<RunningOurs> {
  try {
    await bringUp();
    return {
      name, lab, device: fs.realpathSync(lab.h1.device), directory: lab.directory,
      close: () => lab.close(),
      serving: async () => {
        const states = await Promise.all(nodes.map((node) => node.status()));
        return states.map(({ worker }) => worker).filter((pid) => pid !== null);
      },
    };
  } catch (error) {
    await lab.close().catch(() => undefined);
    throw error;
  }
}
