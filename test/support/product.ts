import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ControlApi } from '../../setup/graphql.ts';
import { freshDatabase, type TestDatabase } from './database.ts';
import { tinyLinux } from './guest.ts';

const ROOT = join(import.meta.dirname, '../..');
const READY_MS = 30_000;

/** A program of the product as a child process, ready. */
export interface Program {
  child: ChildProcess;
  ready: Record<string, unknown>;
  /** Ends it and waits until it has ended. */
  end(signal?: NodeJS.Signals): Promise<void>;
}

export interface ControlProgram extends Program {
  url: string;
  /** Where host daemons come to. */
  hostsUrl: string;
}

const addressesOf = ({ url, hostsUrl }: Record<string, unknown>) => ({ url: String(url), hostsUrl: String(hostsUrl) });

/** The product as an operator runs it: real processes on a database of its own, in a temporary folder. */
export class Product {
  readonly database: TestDatabase;
  readonly folder: string;
  readonly #programs = new Set<Program>();
  readonly #end = new AbortController();
  readonly #apis: ControlApi[] = [];

  private constructor(database: TestDatabase, folder: string) {
    this.database = database;
    this.folder = folder;
  }

  /** @param server URL of the database server; default: that of the tests */
  static async open(server?: string): Promise<Product> {
    const folder = await mkdtemp(join(tmpdir(), 'vg-'));
    // QEMU runs as another user and must reach the volumes.
    await chmod(folder, 0o755);
    for (const name of ['images', 'primary']) await mkdir(join(folder, name));
    return new Product(await freshDatabase(server), folder);
  }

  async withTinyLinux(): Promise<this> {
    await copyFile(await tinyLinux(), join(this.folder, 'images', 'tiny-linux.qcow2'));
    return this;
  }

  /** @param ports of one that was here before; default: any that are free */
  control(ports: { port: number; hostsPort: number } = { port: 0, hostsPort: 0 }): Promise<ControlProgram> {
    const listening = ['--port', String(ports.port), '--hosts-port', String(ports.hostsPort)];
    return this.#start('src/main.ts', listening, {
      DATABASE_URL: this.database.url,
      VIRTGRAPH_DATA: this.folder,
      LOG_LEVEL: process.env['LOG_LEVEL'] ?? 'error',
    }) as Promise<ControlProgram>;
  }

  /** @param urls `hostsUrl` of control planes */
  hostd(urls: string[], token: string, args: string[] = []): Promise<Program> {
    const where = ['--data', join(this.folder, 'hostd'), '--images', join(this.folder, 'images')];
    const to = urls.flatMap((url) => ['--url', url]);
    return this.#start('hostd/main.ts', [...to, '--token', token, ...where, ...args], {
      LOG_LEVEL: process.env['LOG_LEVEL'] ?? 'fatal',
    });
  }

  /** The program that was started last, from the call on that starts it: so that one can be killed before it is ready. */
  get newest(): Program {
    return [...this.#programs].at(-1)!;
  }

  async api(url: string): Promise<ControlApi> {
    const token = (await readFile(join(this.folder, 'admin-token'), 'utf8')).trim();
    const api = new ControlApi(url, token, this.#end.signal);
    this.#apis.push(api);
    return api;
  }

  async close(): Promise<void> {
    for (const api of this.#apis) await api.close();
    for (const program of this.#programs) await program.end('SIGKILL');
    // A test that failed may have left VMs, which outlive their daemon by design.
    for (const { pid } of await this.qemus()) process.kill(pid, 'SIGKILL');
    await this.database.close();
    await rm(this.folder, { recursive: true });
  }

  /** QEMU processes of this product, with the VM that each runs: their working folder is the VM's. */
  async qemus(): Promise<{ pid: number; vmId: string }[]> {
    const found: { pid: number; vmId: string }[] = [];
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry)) continue;
      // A process may end while the list is read.
      const cwd = await readlink(`/proc/${entry}/cwd`).catch(() => '');
      const vmId = /vm_[0-9a-z]{26}/.exec(cwd)?.[0];
      if (vmId && cwd.startsWith(`${this.folder}/`)) found.push({ pid: Number(entry), vmId });
    }
    return found;
  }

  async #start(file: string, args: string[], environment: Record<string, string>): Promise<Program> {
    const { PATH } = process.env;
    const child = spawn(process.execPath, [join(ROOT, file), ...args], {
      env: { PATH, ...environment },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit');
    const end = async (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> => {
      // One that was stopped by SIGSTOP takes no SIGTERM.
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      await ended;
      this.#programs.delete(program);
    };
    const program: Program = { child, ready: {}, end };
    this.#programs.add(program);
    const lines = createInterface({ input: child.stdout! });
    const timer = setTimeout(() => child.kill('SIGKILL'), READY_MS);
    const [line] = (await Promise.race([once(lines, 'line'), ended.then(() => [null])])) as [string | null];
    clearTimeout(timer);
    if (line === null) throw new Error(`${file} ended before it was ready`);
    program.ready = JSON.parse(line) as Record<string, unknown>;
    return Object.assign(program, program.ready['url'] ? addressesOf(program.ready) : {});
  }
}

/** Public ids of what a VM is made in and of. */
export interface Estate {
  zoneId: string;
  podId: string;
  clusterId: string;
  storageId: string;
  offeringId: string;
  joinToken: string;
}

/** Zone, pod, cluster, storage, a small offering and a join token, made by the public API. */
export async function makeEstate(
  api: ControlApi,
  primaryPath: string,
  { hosts = 1, vcpuOvercommit = 16 } = {},
): Promise<Estate> {
  const made = async (name: string, input: object, field: string): Promise<string> =>
    (await api.mutate<Record<string, { id: string }>>(name, input, `${field} { id }`))[field]!.id;
  const zoneId = await made('createZone', { name: 'zone' }, 'zone');
  const podId = await made('createPod', { zoneId, name: 'pod' }, 'pod');
  const clusterId = await made('createCluster', { podId, name: 'cluster', vcpuOvercommit }, 'cluster');
  const storageId = await made(
    'createPrimaryStorage',
    { clusterId, name: 'storage', path: primaryPath, capacityGib: 1024 },
    'primaryStorage',
  );
  const offeringId = await made('createOffering', { name: 'small', vcpus: 1, memoryMib: 128 }, 'offering');
  const { token } = await api.mutate<{ token: string }>('createHostJoinToken', { clusterId, maxHosts: hosts }, 'token');
  return { zoneId, podId, clusterId, storageId, offeringId, joinToken: token };
}

export interface JobSeen {
  id: string;
  state: string;
  progressPercent: number;
  error: { code: string; message: string } | null;
  steps: { name: string; state: string }[];
}

/** Every state of a job as it is pushed, until it has ended. */
export async function followJob(api: ControlApi, id: string): Promise<JobSeen[]> {
  const seen: JobSeen[] = [];
  const query =
    'subscription ($id: ID!) { jobProgress(id: $id) { id state progressPercent error { code message } steps { name state } } }';
  for await (const { jobProgress } of api.subscribe<{ jobProgress: JobSeen }>(query, { id })) seen.push(jobProgress);
  return seen;
}

export const endOf = async (api: ControlApi, id: string): Promise<JobSeen> => (await followJob(api, id)).at(-1)!;

/** Registers the tiny Linux and waits until it is ready. */
export async function registerTinyLinux(api: ControlApi, zoneId: string): Promise<string> {
  const { template, job } = await api.mutate<{ template: { id: string }; job: { id: string } }>(
    'registerTemplate',
    { zoneId, name: 'tiny linux', fileName: 'tiny-linux.qcow2', format: 'QCOW2' },
    'template { id } job { id }',
  );
  const end = await endOf(api, job.id);
  if (end.state !== 'SUCCEEDED') throw new Error(JSON.stringify(end));
  return template.id;
}
