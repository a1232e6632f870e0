import { setTimeout as pause } from 'node:timers/promises';
import { atLeast, atMost, type Benchmark, type Figure } from './benchmark.ts';
import { insertsPerSecond } from './compare/inserts.ts';
import { ApiClient } from './support/api-client.ts';
import { loadBetween, readDatabaseLoad } from './support/database-load.ts';
import { type FakeCloud, startFakeCloud } from './support/fake-cloud.ts';
import { inTurn, median, percentile, repeat } from './support/figures.ts';
import type { Stage } from './support/stage.ts';
import { VmCreator } from './support/vm-creator.ts';

const HOSTS = 10;
const UNDER_WAY = 64;
const WARM_UP_MS = 3_000;
const SATURATED_MS = 10_000;
const IDLE_CREATES = 200;
/** Until what the warm-up left in the database is purged, or the idle figures would pay for it. */
const CALM_MS = 2_000;
const INSERT_LANES = 8;

/** From the mutation until a subscriber is told that the VM runs. */
export const create: Benchmark = {
  name: 'create',
  about: `VMs from createVm to RUNNING on ${HOSTS} fake hosts, beside rows that the same database commits one by one`,
  async run(stage) {
    const single = await insertsPerSecond(stage.pool, 1);
    const several = await insertsPerSecond(stage.pool, INSERT_LANES);
    const cloud = await startFakeCloud(stage, { hosts: HOSTS, clients: UNDER_WAY });
    const creator = await VmCreator.open(stage, cloud);

    await repeat(UNDER_WAY, performance.now() + WARM_UP_MS, () => creator.create());
    await pause(CALM_MS);
    const idleMs = await inTurn(IDLE_CREATES, () => creator.create());
    const saturated = await measureSaturated(stage, cloud, creator);
    return [
      {
        what: `VMs to RUNNING, ${UNDER_WAY} under way`,
        value: saturated.perSecond,
        unit: 'per s',
        bound: atLeast(400, 1_000),
      },
      { what: 'rows committed one by one, 1 connection', value: single, unit: 'per s' },
      { what: `rows committed one by one, ${INSERT_LANES} connections`, value: several, unit: 'per s' },
      { what: 'to RUNNING when idle, median', value: median(idleMs), unit: 'ms', bound: atMost(15, 6) },
      { what: 'to RUNNING when idle, 99 of 100', value: percentile(idleMs, 0.99), unit: 'ms' },
      { what: `to RUNNING, ${UNDER_WAY} under way, median`, value: median(saturated.latenciesMs), unit: 'ms' },
      {
        what: `to RUNNING, ${UNDER_WAY} under way, 99 of 100`,
        value: percentile(saturated.latenciesMs, 0.99),
        unit: 'ms',
      },
      ...saturated.perCreate,
      ...(await asTenant(stage, cloud, saturated.cpuMsPerCreate)),
    ];
  },
};

interface Node {
  id: string;
}

/** The same for a user of an account, three domains down. */
async function asTenant(stage: Stage, cloud: FakeCloud, cpuMsOfRoot: number): Promise<Figure[]> {
  const { api: root } = cloud.control;
  const found = await root.query<{ domains: { nodes: Node[] }; roles: { nodes: Node[] } }>(
    '{ domains { nodes { id } } roles(filter: { name: "user" }) { nodes { id } } }',
  );
  let domainId = found.domains.nodes[0]!.id;
  for (let depth = 0; depth < 3; depth++) {
    const input = { parentId: domainId, name: 'customers' };
    domainId = (await root.mutate<{ domain: Node }>('createDomain', input, 'domain { id }')).domain.id;
  }
  const account = await root.mutate<{ account: Node }>('createAccount', { domainId, name: 'acme' }, 'account { id }');
  const user = await root.mutate<{ user: Node }>(
    'createUser',
    { accountId: account.account.id, roleId: found.roles.nodes[0]!.id, name: 'alice' },
    'user { id }',
  );
  const { token } = await root.mutate<{ token: string }>(
    'createApiKey',
    { userId: user.user.id, name: 'bench' },
    'token',
  );
  const api = await ApiClient.open(cloud.control.url, token, UNDER_WAY);
  stage.defer(() => api.close());
  const creator = await VmCreator.open(stage, cloud, { api, token });
  await repeat(UNDER_WAY, performance.now() + WARM_UP_MS, () => creator.create());
  const { perSecond, cpuMsPerCreate } = await measureSaturated(stage, cloud, creator);
  return [
    {
      what: 'times the CPU for a user of an account',
      value: cpuMsPerCreate / cpuMsOfRoot,
      unit: '×',
      bound: atMost(1.1),
    },
    { what: 'VMs to RUNNING for such a user', value: perSecond, unit: 'per s' },
  ];
}

async function measureSaturated(stage: Stage, { control, hostd }: FakeCloud, creator: VmCreator) {
  const read = async () => ({
    control: await control.program.cpuMs(),
    hostd: await hostd.cpuMs(),
    load: process.cpuUsage(),
    database: await readDatabaseLoad(stage.pool),
  });
  const before = await read();
  const began = performance.now();
  const latenciesMs = await repeat(UNDER_WAY, began + SATURATED_MS, () => creator.create());
  const seconds = (performance.now() - began) / 1000;
  const after = await read();
  const creates = latenciesMs.length;
  const load = process.cpuUsage(before.load);
  const { statements, commits } = loadBetween(before.database, after.database);
  const cpuMsPerCreate = (after.control - before.control) / creates;
  const perCreate: Figure[] = [
    {
      what: 'CPU of the control plane per create',
      value: cpuMsPerCreate,
      unit: 'ms',
      bound: atMost(3, 1.2),
    },
    { what: 'CPU of the hosts per create', value: (after.hostd - before.hostd) / creates, unit: 'ms' },
    { what: 'CPU of the load per create', value: (load.user + load.system) / 1000 / creates, unit: 'ms' },
    { what: 'statements per create', value: statements / creates, unit: '' },
    { what: 'commits per create', value: commits / creates, unit: '' },
  ];
  return { latenciesMs, perSecond: creates / seconds, cpuMsPerCreate, perCreate };
}
