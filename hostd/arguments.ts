import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import type { HostdOptions, HypervisorChoice } from './daemon.ts';
import { isInterfaceName } from './network/nic.ts';

export const HELP = `Usage: hostd --url URL [--token TOKEN] [options]

Links this machine to a Virtgraph control plane and runs the VMs it is given.

  --url URL              Control plane at its port for hosts, for example https://cloud.example:4001; repeat it for several
                         control planes
  --token TOKEN          Join token, needed once, and to join again; or --token-file FILE
  --data FOLDER          What this daemon keeps (default $VIRTGRAPH_DATA/hostd, or .virtgraph/hostd)
  --images FOLDER        Images that templates are made of (default $VIRTGRAPH_DATA/images, or .virtgraph/images)
  --name NAME            Name of this host (default: the machine's)
  --hypervisor KIND      auto, kvm, tcg or fake (default auto: KVM where it works)
  --bridge NAME          Bridge of this machine that every VM is attached to; without it VMs have no network
  --fake JSON            Delays and faults of the fake, or --fake-config FILE
  --count N              So many fake hosts in this one process
  --help                 This text
`;

/** What was asked for on the command line is wrong. The message is for the person who wrote it. */
export class ArgumentError extends Error {
  override readonly name = 'ArgumentError';
}

export interface Surroundings {
  environment: Record<string, string | undefined>;
  machineName: string;
}

const OPTIONS = {
  url: { type: 'string', multiple: true },
  token: { type: 'string' },
  'token-file': { type: 'string' },
  data: { type: 'string' },
  images: { type: 'string' },
  name: { type: 'string' },
  hypervisor: { type: 'string' },
  bridge: { type: 'string' },
  fake: { type: 'string' },
  'fake-config': { type: 'string' },
  count: { type: 'string' },
  help: { type: 'boolean' },
} as const satisfies ParseArgsConfig['options'];

const HYPERVISORS: readonly HypervisorChoice[] = ['auto', 'kvm', 'tcg', 'fake'];
const MAX_COUNT = 9_999;

/** Answers null when help was asked for. Throws `ArgumentError`. */
export async function readArguments(
  args: string[],
  { environment, machineName }: Surroundings,
): Promise<HostdOptions | null> {
  const values = parse(args);
  if (values.help) return null;
  if (!values.url) throw new ArgumentError('--url is needed: the address of a control plane');
  const hypervisor = values.hypervisor ?? 'auto';
  if (!isHypervisor(hypervisor)) throw new ArgumentError(`--hypervisor is one of ${HYPERVISORS.join(', ')}`);
  const bridge = toBridge(values.bridge, hypervisor);
  const count = toCount(values.count);
  if (count > 1 && hypervisor !== 'fake') throw new ArgumentError('--count is only for --hypervisor fake');
  const fake = await readFake(values.fake, values['fake-config']);
  if (fake !== undefined && hypervisor !== 'fake') {
    throw new ArgumentError('--fake and --fake-config are only for --hypervisor fake');
  }
  const home = environment['VIRTGRAPH_DATA'] || '.virtgraph';
  return {
    urls: values.url,
    name: values.name ?? machineName,
    joinToken: await readToken(values.token, values['token-file']),
    // Many fakes keep something only where they are told to: the default folder is the real daemon's.
    dataPath: values.data ?? (count > 1 ? undefined : join(home, 'hostd')),
    imagePath: values.images ?? join(home, 'images'),
    hypervisor,
    bridge,
    count,
    fake,
  };
}

function parse(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: false }).values;
  } catch (error) {
    throw new ArgumentError((error as Error).message, { cause: error });
  }
}

function isHypervisor(text: string): text is HypervisorChoice {
  return HYPERVISORS.includes(text as HypervisorChoice);
}

function toBridge(name: string | undefined, hypervisor: HypervisorChoice): string | undefined {
  if (name === undefined) return undefined;
  if (hypervisor === 'fake') throw new ArgumentError('--bridge is not for --hypervisor fake');
  if (isInterfaceName(name)) return name;
  throw new ArgumentError('--bridge is the name of a bridge: up to 15 characters without spaces, slashes and colons');
}

function toCount(text: string | undefined): number {
  const count = text === undefined ? 1 : Number(text);
  if (Number.isSafeInteger(count) && count >= 1 && count <= MAX_COUNT) return count;
  throw new ArgumentError(`--count is a number from 1 to ${MAX_COUNT}`);
}

async function readToken(token: string | undefined, file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return token;
  if (token !== undefined) throw new ArgumentError('--token or --token-file, not both');
  return (await readText('--token-file', file)).trim();
}

async function readFake(json: string | undefined, file: string | undefined): Promise<HostdOptions['fake']> {
  if (json !== undefined && file !== undefined) throw new ArgumentError('--fake or --fake-config, not both');
  const text = file === undefined ? json : await readText('--fake-config', file);
  if (text === undefined) return undefined;
  const { parseFakeConfig } = await import('./fake/config.ts');
  try {
    const config: unknown = JSON.parse(text);
    parseFakeConfig(config);
    return config as HostdOptions['fake'];
  } catch (error) {
    const option = file === undefined ? '--fake' : '--fake-config';
    throw new ArgumentError(`${option}: ${(error as Error).message}`, { cause: error });
  }
}

async function readText(option: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new ArgumentError(`${option}: ${(error as Error).message}`, { cause: error });
  }
}
