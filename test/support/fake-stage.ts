import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { type Hostd, startHostd } from '../../hostd/daemon.ts';
import type { FakeConfig } from '../../hostd/fake/config.ts';
import { FakeEstate } from '../../hostd/fake/estate.ts';
import { FileJournal } from '../../hostd/journal.ts';
import { type Control, startControl } from '../../src/control.ts';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { ADMIN, assertClean, freeze, until } from './core.ts';
import { freshDatabase, type TestDatabase } from './database.ts';
import { JournalHost } from './journal-host.ts';
import { HeardJournal, StagedFake, Tally } from './staged-fake.ts';
import { insertWorld, type World } from './world.ts';

const log = pino({ level: 'silent' });
/** Room for all that the cases leave behind. */
const FACTS = { vcpusTotal: 4_096, memoryTotalMib: 4_194_304 };
/** A daemon that lost its link is back as soon as there is one to be had. */
const TIMING = { backoff: { minMs: 1, maxMs: 20 } };
const STORAGE_PATH = '/srv/storage';

/**
 * A control plane and a host daemon with the fake hypervisor, both whole and in this process, linked by a real socket;
 * either may die and be followed by another. Serves the tables of cases as their bench.
 */
export class FakeStage {
  readonly database: TestDatabase;
  readonly world: World;
  /** What outlives a daemon: volumes, and which VMs run. */
  readonly estate = new FakeEstate();
  readonly tally = new Tally();
  /** Never linked: where a case writes down the volumes that it adds to its host. */
  readonly host = new JournalHost(0);
  /** The volume that the case at hand has added. */
  addedVolumeId: string | null = null;
  hypervisor!: StagedFake;
  hostd!: Hostd;
  readonly #folder: string;
  readonly #sockets = new Set<Socket>();
  #control!: Control;
  #joinToken!: string;

  private constructor(database: TestDatabase, world: World, folder: string) {
    this.database = database;
    this.world = world;
    this.#folder = folder;
    subscribe('net.server.socket', this.#accepted);
  }

  static async open(): Promise<FakeStage> {
    const database = await freshDatabase();
    const world = await insertWorld(database.db, { hosts: 0 });
    const folder = await mkdtemp(join(tmpdir(), 'vg-fake-'));
    await mkdir(join(folder, 'hostd'));
    const stage = new FakeStage(database, world, folder);
    await stage.startControl(0);
    const input = { clusterId: encodeId('cluster', world.cluster.uid), maxHosts: 1 };
    stage.#joinToken = (await stage.core.ops.createHostJoinToken(ADMIN, input)).token!;
    const { engine } = stage.core;
    const answer = engine.answer.bind(engine);
    engine.answer = async (hostId, jobId, seq, told) => {
      const verdict = await answer(hostId, jobId, seq, told);
      stage.tally.add(`answered ${jobId}.${seq}`);
      return verdict;
    };
    await stage.startHostd();
    return stage;
  }

  get core(): Core {
    return this.#control.core;
  }

  /** @param port default: that of the one before */
  async startControl(
    port = this.#control.http.port,
    hostsPort = port === 0 ? 0 : this.#control.http.secure!.port,
  ): Promise<void> {
    this.#control = await startControl({
      databaseUrl: this.database.url,
      host: '127.0.0.1',
      port,
      hosts: { port: hostsPort },
      adminTokenPath: join(this.#folder, 'admin-token'),
      log,
    });
  }

  /**
   * As SIGKILL would end the control plane: from one moment on it writes nothing, and its sockets break. Only then is
   * what the kernel would take back given back.
   */
  async killControl(): Promise<void> {
    freeze(this.core);
    const { port, secure } = this.#control.http;
    for (const socket of this.#sockets)
      if (socket.localPort === port || socket.localPort === secure!.port) socket.destroy();
    await this.#control.close();
  }

  /** Writes no more from now on. @returns resolves when a host's answer would have been the next to be written */
  freezeAtAnswer(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.core.writer.submit = ({ jobs }) => {
      if (jobs.length > 0) resolve();
      return new Promise<never>(() => undefined);
    };
    return promise;
  }

  /** Resolves once the host is linked to the control plane that there is. */
  async relinked(): Promise<void> {
    const { core } = this;
    await until(core, 'the host at the new control plane', () =>
      core.db
        .selectFrom('host')
        .select('id')
        .where('link_process', '=', core.processId)
        .where('link_state', '=', 'UP')
        .executeTakeFirst()
        .then((row) => row ?? null),
    );
  }

  async startHostd(faults: FakeConfig = {}): Promise<void> {
    const dataPath = join(this.#folder, 'hostd');
    const journal = new HeardJournal(await FileJournal.open(join(dataPath, 'journal'), { log }), this.tally);
    this.hypervisor = new StagedFake({
      config: { facts: FACTS, ...faults },
      estate: this.estate,
      statePath: join(dataPath, 'fake.json'),
      log,
    });
    this.hostd = await startHostd({
      urls: [this.#control.http.secure!.url],
      name: 'fake-host',
      joinToken: this.#joinToken,
      dataPath,
      hypervisor: () => this.hypervisor,
      journal: () => journal,
      timing: TIMING,
    });
    await this.hostd.linked();
    await this.core.inventory.refresh();
  }

  /** A daemon with other faults on the same estate. */
  async restartHostd(faults: FakeConfig): Promise<void> {
    await this.hostd.close();
    await this.startHostd(faults);
  }

  /** Sends every command of a job once more, done or not. @param jobId default: whichever runs. @returns their ids */
  async deliverAgain(jobId?: number): Promise<string[]> {
    const { db } = this.core;
    const running = db.selectFrom('job').select('id').where('state', '=', 'RUNNING');
    const rows = await db
      .selectFrom('job_step')
      .selectAll()
      .where('command', 'is not', null)
      .where('job_id', 'in', jobId === undefined ? running : [jobId])
      .orderBy('job_id')
      .orderBy('seq')
      .execute();
    return rows.map((row) => {
      const delivered = this.core.links.deliver({
        jobId: row.job_id,
        seq: row.seq,
        hostId: row.host_id!,
        command: row.command!,
        vmEpoch: row.vm_epoch,
        timeoutMs: row.timeout_ms,
        payload: row.payload!,
      });
      assert.ok(delivered, 'the host is linked');
      return `${row.job_id}.${row.seq}`;
    });
  }

  /** What cases add to their host by hand is there for the fake too; what it was asked for before counts no more. */
  settle(): void {
    this.addedVolumeId = [...this.host.volumes][0] ?? null;
    if (this.addedVolumeId) this.estate.putVolume(STORAGE_PATH, this.addedVolumeId);
    this.host.volumes.clear();
    this.hypervisor.begin();
  }

  /** Database, host and estate say the same, to the last VM and volume, and nothing is left of jobs that ended. */
  async assertClean(): Promise<void> {
    const { db } = this.core;
    await assertClean(this.core);
    const vms = await db.selectFrom('vm').select(['uid', 'state']).where('deleted_at', 'is', null).execute();
    const isUp = ({ state }: { state: string }): boolean => state === 'RUNNING' || state === 'PAUSED';
    const wanted = vms.filter(isUp).map((vm) => `${encodeId('vm', vm.uid)} ${vm.state}`);
    const seen = this.hypervisor.observe();
    const up = seen.filter(isUp).map((vm) => `${vm.vmId} ${vm.state}`);
    assert.deepEqual(up.sort(), wanted.sort(), 'VMs that run');
    const known = new Set(vms.map((vm) => encodeId('vm', vm.uid)));
    assert.deepEqual(
      seen.filter(({ vmId }) => !known.has(vmId)),
      [],
      'VMs that only the host remembers',
    );
    const volumes = await db.selectFrom('volume').select('uid').where('deleted_at', 'is', null).execute();
    const ids = volumes.map((volume) => encodeId('volume', volume.uid));
    assert.deepEqual(
      {
        running: this.estate.running,
        volumes: this.estate.volumes,
        missing: ids.filter((id) => this.estate.isMissing(STORAGE_PATH, id)),
        doubleStarts: this.estate.doubleStarts,
      },
      { running: wanted.length, volumes: ids.length, missing: [], doubleStarts: 0 },
    );
  }

  async close(): Promise<void> {
    await this.hostd.close();
    await this.#control.close();
    unsubscribe('net.server.socket', this.#accepted);
    await this.database.close();
    await rm(this.#folder, { recursive: true });
  }

  readonly #accepted = (message: unknown): void => {
    const { socket } = message as { socket: Socket };
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  };
}
