import { setTimeout as pause } from 'node:timers/promises';
import { atLeast, atMost, type Benchmark } from './benchmark.ts';
import { loadBetween, readDatabaseLoad } from './support/database-load.ts';
import { type FakeCloud, startFakeCloud } from './support/fake-cloud.ts';
import type { ControlPlane, Stage } from './support/stage.ts';
import { VmCreator } from './support/vm-creator.ts';

const HOSTS = 1_000;
const HEARTBEAT_MS = 10_000;
const VMS = 2_000;
const CREATED_AT_ONCE = 64;
/** Until links, creates and the first reports of usage are behind it. */
const CALM_MS = 20_000;
/** A multiple of what the control plane does in turns, so that each turn is in it. */
const WATCH_MS = 60_000;
const BACK_TIMEOUT_MS = 120_000;
const LOOK_EVERY_MS = 100;

/** A thousand hosts in earnest, and then the control plane dies. */
export const hosts: Benchmark = {
  name: 'hosts',
  about: `${HOSTS.toLocaleString('en')} fake hosts with ${VMS.toLocaleString('en')} VMs and a heartbeat each 10 s; then kill -9 and a new start`,
  async run(stage) {
    const began = performance.now();
    const cloud = await startFakeCloud(stage, { hosts: HOSTS, clients: CREATED_AT_ONCE });
    const linkedMs = performance.now() - began;
    const creator = await VmCreator.open(stage, cloud);
    await creator.createMany(VMS, CREATED_AT_ONCE);
    creator.close();
    await pause(CALM_MS);
    const calm = await watch(stage, cloud.control);
    // A host whose heartbeats stay away would be cut off by now.
    const beating = await countLinks(cloud.control);
    if (beating !== HOSTS) throw new Error(`only ${beating} hosts are linked`);
    const { backMs, control } = await killAndRestart(stage, cloud);
    await pause(CALM_MS);
    return [
      { what: 'CPU of the control plane', value: calm.cpuPercent, unit: '% of a core', bound: atMost(60) },
      { what: 'memory of the control plane, at its most', value: calm.peakMib, unit: 'MiB', bound: atMost(600) },
      { what: 'statements that write, per heartbeat', value: calm.writesPerBeat, unit: '', bound: atMost(0.2) },
      { what: 'statements', value: calm.statementsPerSecond, unit: 'per s' },
      { what: 'all linked after the start of their daemon', value: linkedMs / 1000, unit: 's' },
      { what: 'all linked again after kill -9', value: backMs / 1000, unit: 's', bound: atMost(60) },
      { what: 'VMs that run a while after that', value: await countRunning(stage), unit: '', bound: atLeast(VMS) },
      {
        what: 'memory of the new control plane',
        value: (await control.program.memoryMib()).peak,
        unit: 'MiB',
        bound: atMost(600),
      },
    ];
  },
};

async function watch(stage: Stage, { program }: ControlPlane) {
  const [cpuBefore, before] = [await program.cpuMs(), await readDatabaseLoad(stage.pool)];
  await pause(WATCH_MS);
  const [cpuAfter, after] = [await program.cpuMs(), await readDatabaseLoad(stage.pool)];
  const { writes, statements } = loadBetween(before, after);
  return {
    cpuPercent: ((cpuAfter - cpuBefore) / WATCH_MS) * 100,
    peakMib: (await program.memoryMib()).peak,
    writesPerBeat: writes / (HOSTS * (WATCH_MS / HEARTBEAT_MS)),
    statementsPerSecond: statements / (WATCH_MS / 1000),
  };
}

async function killAndRestart(stage: Stage, { control: old }: FakeCloud) {
  const began = performance.now();
  await old.program.kill();
  const control = await stage.startControl({ port: portOf(old.url), hostsPort: portOf(old.hostsUrl) });
  while ((await countLinks(control)) < HOSTS) {
    if (performance.now() - began > BACK_TIMEOUT_MS) throw new Error(`${await countLinks(control)} hosts came back`);
    await pause(LOOK_EVERY_MS);
  }
  return { backMs: performance.now() - began, control };
}

const portOf = (url: string): number => Number(new URL(url).port);

/** Hosts that are linked, as the control plane counts them itself. */
async function countLinks({ url }: ControlPlane): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  return Number(/^virtgraph_host_links (\d+)/m.exec(metrics)?.[1]);
}

async function countRunning({ db }: Stage): Promise<number> {
  const rows = await db.selectFrom('vm').select('id').where('state', '=', 'RUNNING').execute();
  return rows.length;
}
