import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kysely } from 'kysely';
import type { Pool } from 'mysql2';
import type { Database } from '../../src/db/tables.ts';
import { freshDatabase, type TestDatabase } from '../../test/support/database.ts';
import { ApiClient } from './api-client.ts';
import { Program } from './program.ts';

export interface StageOptions {
  /** Of a server that may create databases. */
  databaseUrl: string;
  /** Where control planes leave their CPU profiles. */
  profilePath?: string | undefined;
}

export interface ControlPlane {
  program: Program;
  url: string;
  /** Where host daemons come to. */
  hostsUrl: string;
  token: string;
  api: ApiClient;
}

/** What one benchmark needs, and loses when it ends: a database, a folder, processes. */
export class Stage {
  readonly folder: string;
  /** Rejects when one of its processes ends by itself; never resolves. */
  readonly broken: Promise<never>;
  readonly #options: StageOptions;
  readonly #database: TestDatabase;
  readonly #rest = new AsyncDisposableStack();
  readonly #break = Promise.withResolvers<never>();
  #programs = 0;

  private constructor(options: StageOptions, folder: string, database: TestDatabase) {
    this.folder = folder;
    this.#options = options;
    this.#database = database;
    this.broken = this.#break.promise;
    this.broken.catch(() => undefined);
    this.#rest.defer(() => rm(folder, { recursive: true, force: true }));
    this.#rest.defer(() => database.close());
  }

  static async open(options: StageOptions): Promise<Stage> {
    const folder = await mkdtemp(join(tmpdir(), 'bench-'));
    try {
      return new Stage(options, folder, await freshDatabase());
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get db(): Kysely<Database> {
    return this.#database.db;
  }

  get pool(): Pool {
    return this.#database.pool;
  }

  get databaseUrl(): string {
    return this.#database.url;
  }

  /** What is to be undone at the end, the last first. */
  defer(undo: () => Promise<void> | void): void {
    this.#rest.defer(undo);
  }

  /** The whole control plane, as it is shipped. `port` 0: any that is free. */
  async startControl({
    port = 0,
    hostsPort = 0,
    clients = 1,
  }: {
    port?: number;
    hostsPort?: number;
    clients?: number;
  } = {}): Promise<ControlPlane> {
    const { profilePath } = this.#options;
    const data = join(this.folder, 'control');
    await mkdir(data, { recursive: true });
    const program = await this.startProgram(
      'control',
      [
        ...(profilePath === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profilePath}`]),
        ...['src/main.ts', '--port', String(port), '--hosts-port', String(hostsPort)],
      ],
      { VIRTGRAPH_DATA: data },
    );
    const url = String(program.ready['url']);
    const hostsUrl = String(program.ready['hostsUrl']);
    const token = (await readFile(join(data, 'admin-token'), 'utf8')).trim();
    return { program, url, hostsUrl, token, api: await this.openApi({ url, token }, clients) };
  }

  /** The public API over so many connections. */
  async openApi({ url, token }: Pick<ControlPlane, 'url' | 'token'>, clients: number): Promise<ApiClient> {
    const api = await ApiClient.open(url, token, clients);
    this.defer(() => api.close());
    return api;
  }

  /** Host daemons that are linked. What follows `hostd/main.ts` is `args`. */
  startHostd(control: ControlPlane, joinToken: string, args: readonly string[]): Promise<Program> {
    const data = join(this.folder, 'hostd');
    return this.startProgram('hostd', ['hostd/main.ts', '--url', control.hostsUrl, '--token', joinToken, ...args], {
      VIRTGRAPH_DATA: data,
    });
  }

  async startProgram(name: string, args: readonly string[], env: Record<string, string> = {}): Promise<Program> {
    const program = await Program.start({
      name,
      args,
      env: { DATABASE_URL: this.databaseUrl, ...env },
      logPath: join(this.folder, `${++this.#programs}-${name}.log`),
    });
    this.defer(() => program.stop());
    this.breakWith(program.broken);
    return program;
  }

  /** The benchmark ends when `part` rejects. */
  breakWith(part: Promise<never>): void {
    part.catch(this.#break.reject);
  }

  /** Ends all processes, drops the database and removes the folder. */
  async close(): Promise<void> {
    await this.#rest.disposeAsync();
  }
}
