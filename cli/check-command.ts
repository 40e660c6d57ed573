/** `hastctl check`: the configuration, and with --peer both nodes and what is between them. */
import { HastError, errorText } from '../lib/base/errors.ts';
import { loadConfig, type Problem } from '../lib/config/load.ts';
import type { Config, ResourceConfig } from '../lib/config/model.ts';
import { collectFacts } from '../lib/daemon/peer-facts.ts';
import { describeCopy } from '../lib/disk/inspect.ts';
import { localProblem } from '../lib/disk/local.ts';
import { ownProtocol } from '../lib/format/protocol.ts';
import { compareNodes, summary, type Answer, type Finding } from './compare-nodes.ts';
import { ask } from './daemon-commands.ts';
import { ExitCode } from './exit-codes.ts';
import type { Context } from './output.ts';
import { print, printJson } from './output.ts';
import { inspectAuthentication } from './report.ts';

export interface CheckOptions {
  peer?: true;
}

/** hastd waits 20 s for the peer. */
const factsMs = 45_000;

interface PeerCheck {
  resource: string;
  findings: Finding[];
  summary: string;
  /** Null where hastd does not answer here. */
  facts: Answer | null;
}

/** 0 without errors; every problem goes to stdout, it is what was asked for. */
export async function checkCommand(
  context: Context, { peer: isPeer = false }: { peer?: boolean },
): Promise<number> {
  const { config, problems, format } = loadConfig({
    ...context.config, inspectLocal: localProblem, inspectAuthentication,
  });
  const notes = config === undefined ? [] : copyNotes(config.resources);
  const { file } = context.config;
  if (!context.json) {
    print(format());
    for (const note of notes) print(`${file}: note: ${note}\n`);
    if (config !== undefined) print(`${file}: ok: ${ownSummary(config.node, config.resources)}\n`);
  }
  const peers = isPeer && config !== undefined ? await checkPeers(context, config) : [];
  if (context.json) {
    const more = isPeer ? { peers } : {};
    printJson({ schema: 1, file, ok: config !== undefined, problems, notes, ...more });
  }
  if (config === undefined) return isMissing(problems) ? ExitCode.noFile : ExitCode.config;
  const isBad = peers.some(({ findings }) => findings.some(({ severity }) => severity === 'error'));
  return isBad ? ExitCode.config : ExitCode.ok;
}

function isMissing(problems: readonly Problem[]): boolean {
  return problems.some(({ kind }) => kind === 'missing-file');
}

function ownSummary(node: string, resources: readonly ResourceConfig[]): string {
  const count = resources.length === 1 ? '1 resource' : `${resources.length} resources`;
  return `node ${node}, ${count}`;
}

/** Copies that are in order as far as the configuration goes and cannot work yet. */
function copyNotes(resources: readonly ResourceConfig[]): string[] {
  return resources.flatMap(({ name, local }) => {
    try {
      const { superblock } = describeCopy(local);
      if (superblock.resource === name) return [];
      return [`resource ${name}: ${local} holds the copy of resource ${superblock.resource}`];
    } catch (error) {
      const fresh = error instanceof HastError && error.code === 'HAST_E_NO_METADATA';
      if (fresh) return [`resource ${name}: ${local} has no metadata; try: hastctl create ${name}`];
      return [`resource ${name}: ${local}: ${errorText(error)}`];
    }
  });
}

/** One after the other, printed as they come. */
async function checkPeers(context: Context, config: Config): Promise<PeerCheck[]> {
  const checks: PeerCheck[] = [];
  for (const resource of config.resources) {
    const check = await checkPeer(context, config, resource);
    checks.push(check);
    if (!context.json) print(checkLines(check));
  }
  return checks;
}

async function checkPeer(
  context: Context, config: Config, resource: ResourceConfig,
): Promise<PeerCheck> {
  const { name } = resource;
  try {
    const command = { command: 'peer-facts', resource: name } as const;
    const facts = await ask(context, config, command, factsMs);
    const view = { own: resource, peer: peersView(context, facts.peer?.node, name) };
    const findings = compareNodes(name, facts, view);
    return { resource: name, findings, summary: summary(facts), facts };
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    return await withoutHastd(config, resource, error);
  }
}

/** This node's hastd does not answer, or knows no such command: what can be seen without it. */
async function withoutHastd(
  config: Config, resource: ResourceConfig, error: HastError,
): Promise<PeerCheck> {
  const { name } = resource;
  const local = await collectFacts({ config, protocol: ownProtocol }, resource, null);
  const hint = error.hint ?? 'hastctl upgrade';
  const alone = {
    local, peer: null, why: error.message, hint, isOld: false, sentAt: 0, heardAt: 0,
  };
  const view = { own: undefined, peer: undefined };
  return { resource: name, findings: compareNodes(name, alone, view), summary: '', facts: null };
}

/** What this node's file says of the peer. */
function peersView(
  context: Context, node: string | undefined, name: string,
): ResourceConfig | undefined {
  if (node === undefined) return undefined;
  // Host name and machine id are this machine's.
  const options = { file: context.config.file, node, hostname: node, machineId: '' };
  const { config } = loadConfig({ ...options, interfaces: () => ({}) });
  return config?.resources.find((one) => one.name === name);
}

function checkLines({ resource, findings, summary: well }: PeerCheck): string {
  const lines = findings.map(({ severity, message, hint }) =>
    `${resource}: ${severity}: ${message}; try: ${hint}`);
  if (well !== '') lines.push(`${resource}: ok: ${well}`);
  return lines.map((line) => `${line.replaceAll(unprintable, '?')}\n`).join('');
}

/** The peer's words could be more than text to a terminal. */
const unprintable = /[^\x20-\x7e\u00a0-\uffff]/g;
