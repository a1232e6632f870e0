import { readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { databaseUrlProblem } from '../src/db/database-url.ts';
import { ensureEstate, ensureTemplate, HOST } from './first-run.ts';
import { ControlApi } from './graphql.ts';
import { startMariaDb } from './mariadb.ts';
import { portHolder } from './port.ts';
import { type ProcessRecords, stopProcess } from './process-record.ts';
import { lastLines, type Service, startService } from './service.ts';

const ADDRESS = '127.0.0.1';
const STOP_TIMEOUT_MS = 15_000;
const root = resolve(import.meta.dirname, '..');

export interface LocalStackOptions {
  dataFolder: string;
  port: number;
  records: ProcessRecords;
  /** Aborted by whoever wants the end, and by the stack itself when a part of it ends. */
  stopping: AbortController;
}

/** A whole Virtgraph on this machine: database, control plane, one host. Later parts need the earlier ones. */
export class LocalStack {
  readonly url: string;
  readonly adminTokenPath: string;
  adminToken = '';
  readonly #options: LocalStackOptions;
  readonly #parts = new AsyncDisposableStack();

  constructor(options: LocalStackOptions) {
    this.#options = options;
    this.url = `http://${ADDRESS}:${options.port}`;
    this.adminTokenPath = join(options.dataFolder, 'admin-token');
  }

  /**
   * Starts what doesn't run, says what it does, and makes the things that a first VM needs where they aren't there.
   * Rejects with what is wrong in words for a person; `stop` has still to be called then.
   */
  async start(): Promise<ControlApi> {
    const { port, dataFolder, stopping } = this.#options;
    await this.#stopOrphans();
    const holder = await portHolder(ADDRESS, port);
    if (holder) throw new Error(`Port ${port} is in use by ${holder}. Choose another: npm start -- --port ${port + 1}`);

    const databaseUrl = await this.#startDatabase();
    const env = { ...process.env, DATABASE_URL: databaseUrl, VIRTGRAPH_DATA: dataFolder };
    // The host is on this machine and is told the port: any that is free will do.
    const listening = ['--host', ADDRESS, '--port', String(port), '--hosts-port', '0'];
    const control = await this.#startService('control', ['src/main.ts', ...listening], env);
    say('control plane', this.url);

    this.adminToken = (await readFile(this.adminTokenPath, 'utf8')).trim();
    const api = new ControlApi(this.url, this.adminToken, stopping.signal);
    this.#parts.defer(() => api.close());
    const estate = await ensureEstate(api, dataFolder);
    const hostArgs = [
      'hostd/main.ts',
      '--url',
      String(control.ready['hostsUrl']),
      '--name',
      HOST,
      ...(await this.#joinArgs(estate.joinToken)),
    ];
    const host = await this.#startService('hostd', hostArgs, env);
    say('host', HYPERVISORS[String(host.ready['hypervisor'])] ?? String(host.ready['hypervisor']));
    await ensureTemplate(api, estate.zoneId, dataFolder, () => say('template', 'a tiny Linux, which is built once'));
    return api;
  }

  /** Stops the parts in the opposite order. VMs aren't parts. */
  async stop(): Promise<void> {
    await this.#parts.disposeAsync();
  }

  /** What an earlier start left when it was killed: the log in its hands is gone, so it is started anew. */
  async #stopOrphans(): Promise<void> {
    for (const name of ['hostd', 'control']) {
      const orphan = await this.#options.records.running(name);
      if (orphan) await stopProcess(orphan, STOP_TIMEOUT_MS);
    }
  }

  async #startDatabase(): Promise<string> {
    const given = process.env['DATABASE_URL'];
    if (given) {
      const problem = databaseUrlProblem('DATABASE_URL', given);
      if (problem) throw new Error(problem);
      say('database', 'the one that DATABASE_URL names');
      return given;
    }
    const database = await startMariaDb(join(this.#options.dataFolder, 'database'));
    this.#parts.defer(() => database.stop());
    this.#stopWith('the database', database);
    say('database', `a private MariaDB in ${this.#options.dataFolder}/database`);
    this.#options.stopping.signal.throwIfAborted();
    return database.url;
  }

  /** In a file, because everyone on the machine may read a command line. */
  async #joinArgs(token: string | null): Promise<string[]> {
    if (token === null) return [];
    const path = join(this.#options.dataFolder, 'run', 'join-token');
    await writeFile(path, token, { mode: 0o600 });
    this.#parts.defer(() => rm(path, { force: true }));
    return ['--token-file', path];
  }

  async #startService(name: string, args: string[], env: NodeJS.ProcessEnv): Promise<Service> {
    const { dataFolder, records, stopping } = this.#options;
    const logPath = join(dataFolder, 'log', `${name}.log`);
    const service = await startService({ name, args, cwd: root, env, logPath, records, signal: stopping.signal });
    this.#parts.defer(() => service.stop());
    this.#stopWith(name, service);
    return service;
  }

  #stopWith(name: string, part: { ended: Promise<string>; logPath: string }): void {
    const { stopping } = this.#options;
    part.ended.then(async (how) => {
      if (stopping.signal.aborted) return;
      // One that SIGKILL hits can write no last words: by a person, or by the kernel when memory ran out.
      const words = how.includes('SIGKILL') ? `Its log: ${part.logPath}` : await lastLines(part.logPath);
      stopping.abort(new Error(`${name} ${how}. ${words}`));
    });
  }
}

const HYPERVISORS: Record<string, string> = {
  KVM: 'runs VMs with KVM',
  TCG: 'runs VMs by emulation (TCG): KVM is not usable on this machine, so guests are slow',
  FAKE: 'pretends to run VMs (fake hypervisor)',
};

function say(what: string, how: string): void {
  console.log(`${what.padEnd(22)}${how}`);
}
