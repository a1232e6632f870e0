import { copyFile, mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { IdentityStore } from '../hostd/identity.ts';
import type { ControlApi } from './graphql.ts';
import { watchJob } from './job-watch.ts';
import { tinyLinuxImage } from './tiny-linux.ts';

/** Name of the one host. */
export const HOST = 'host-1';
const HOUR_MS = 3_600_000;
const OFFERINGS = [
  { name: 'small', vcpus: 1, memoryMib: 256, diskGib: 1 },
  { name: 'medium', vcpus: 2, memoryMib: 512, diskGib: 2 },
  { name: 'large', vcpus: 2, memoryMib: 1024, diskGib: 4 },
];
const TEMPLATE = 'tiny-linux';
const IMAGE = `${TEMPLATE}.qcow2`;
const REGISTERING = `Registering the template ${TEMPLATE}`;

export interface EstateIds {
  zoneId: string;
  /** For a host that is not a member yet, or has lost what makes it one; null once it has that. */
  joinToken: string | null;
}

/**
 * Makes what a first VM needs, each thing only where none of its name is there, so that an interrupted first run is
 * completed by the next.
 */
export async function ensureEstate(api: ControlApi, dataFolder: string): Promise<EstateIds> {
  const zoneId = await ensure(api, 'zone', { name: 'zone-1' });
  const podId = await ensure(api, 'pod', { name: 'pod-1', zoneId });
  const clusterId = await ensure(api, 'cluster', { name: 'cluster-1', podId, vcpuOvercommit: 4, memoryOvercommit: 1 });
  const path = join(dataFolder, 'storage');
  await mkdir(path, { recursive: true });
  await ensure(api, 'primaryStorage', { name: 'storage-1', clusterId, path, capacityGib: 20 });
  for (const offering of OFFERINGS) await ensure(api, 'offering', offering);
  const hosts = await names(api, 'host');
  const { identity } = (await IdentityStore.open(join(dataFolder, 'hostd', 'identity.json'))).get(0);
  if (identity && hosts.size > 0) return { zoneId, joinToken: null };
  // A host daemon that was killed as it joined may be one already without knowing: its name is taken by itself.
  const hostId = hosts.get(HOST);
  const input = { ...(hostId ? { hostId } : { clusterId }), maxHosts: 1, expiresInMs: HOUR_MS };
  const { token } = await api.mutate<{ token: string }>('createHostJoinToken', input, 'token');
  return { zoneId, joinToken: token };
}

interface TemplateRow {
  id: string;
  name: string;
  state: 'REGISTERING' | 'READY' | 'ERROR';
  activeJob: { id: string } | null;
}

/**
 * Puts the tiny Linux into hostd's image folder and registers it. Needs a host.
 *
 * @param building is called before the tiny Linux is built, which takes a while; not where it is in the cache
 */
export async function ensureTemplate(
  api: ControlApi,
  zoneId: string,
  dataFolder: string,
  building: () => void,
): Promise<void> {
  const query = '{ templates(first: 100) { nodes { id name state activeJob { id } } } }';
  const { templates } = await api.request<{ templates: { nodes: TemplateRow[] } }>(query);
  const existing = templates.nodes.find(({ name }) => name === TEMPLATE);
  if (existing?.state === 'READY') return;
  if (existing?.activeJob) return watchJob(api, existing.activeJob.id, REGISTERING);
  // A refused one keeps its name until it is deleted.
  if (existing) await api.mutate('deleteTemplate', { id: existing.id }, '');

  const image = await tinyLinuxImage(join(dataFolder, 'cache'), building);
  const images = join(dataFolder, 'images');
  await mkdir(images, { recursive: true });
  // Under its name only when it is complete.
  await copyFile(image.path, join(images, `${IMAGE}.new`));
  await rename(join(images, `${IMAGE}.new`), join(images, IMAGE));
  const input = { name: TEMPLATE, zoneId, fileName: IMAGE, format: 'QCOW2' };
  const { job } = await api.mutate<{ job: { id: string } }>('registerTemplate', input, 'job { id }');
  await watchJob(api, job.id, REGISTERING);
}

type Kind = 'zone' | 'pod' | 'cluster' | 'host' | 'primaryStorage' | 'offering';

async function ensure(api: ControlApi, kind: Kind, input: { name: string; [field: string]: unknown }): Promise<string> {
  const existing = (await names(api, kind)).get(input.name);
  if (existing) return existing;
  const created = await api.mutate<Record<string, { id: string }>>(`create${capital(kind)}`, input, `${kind} { id }`);
  return created[kind]!.id;
}

/** The ids of all of a kind by name. */
async function names(api: ControlApi, kind: Kind): Promise<Map<string, string>> {
  const query = `{ all: ${kind}s(first: 100) { nodes { id name } } }`;
  const { all } = await api.request<{ all: { nodes: { id: string; name: string }[] } }>(query);
  return new Map(all.nodes.map(({ id, name }) => [name, id]));
}

function capital(word: string): string {
  return word[0]!.toUpperCase() + word.slice(1);
}
