import { insertAccount, insertApiKey, insertDomain, insertUser, ROLE } from '../test/support/tenants.ts';
import { insertWorld, type World } from '../test/support/world.ts';
import { atLeast, atMost, type Benchmark, type Figure } from './benchmark.ts';
import { ApiClient } from './support/api-client.ts';
import { insertVms } from './support/estate.ts';
import { type Load, type LoadSubject, measureInTurn } from './support/load.ts';
import type { Program } from './support/program.ts';
import type { ControlPlane, Stage } from './support/stage.ts';

const CLIENTS = 16;
const PAGE = 100;
const SIZES = [100, 10_000, 100_000] as const;
const TIMES = { lanes: CLIENTS, warmUpMs: 2_000, sliceMs: 1_500, slices: 5 };
const QUERY = `{ vms(first: ${PAGE}) { nodes {
  id name description state vcpus memoryMib generation epoch createdAt updatedAt
} } }`;

/** A page of a list, as every client asks for it first. */
export const list: Benchmark = {
  name: 'list',
  about: `A page of ${PAGE} VMs × 10 fields at ${CLIENTS} clients, beside a bare HTTP server with the same rows`,
  async run(stage) {
    const world = await insertWorld(stage.db);
    const control = await stage.startControl({ clients: CLIENTS });
    const bare = await stage.startProgram('bare', ['bench/compare/bare-server.ts']);
    const bareClient = await ApiClient.open(String(bare.ready['url']), '', CLIENTS);
    stage.defer(() => bareClient.close());

    const loads = new Map<number, Both>();
    let present = 0;
    for (const size of SIZES) {
      await insertVms(stage.db, world, size - present);
      present = size;
      await stage.pool.promise().query('analyze table vm');
      const subjects = [await pagesOf(control.program, control.api), await pagesOf(bare, bareClient)];
      const [ours, theirs] = await measureInTurn(subjects, TIMES);
      loads.set(size, { ours: ours!, theirs: theirs! });
    }
    return [...figuresOf(loads), ...(await asTenant(stage, world, control))];
  },
};

interface Both {
  ours: Load;
  /** The bare server's. */
  theirs: Load;
}

/** The same page for users of an account that has so many VMs among all the others, beside root's. */
async function asTenant(stage: Stage, world: World, control: ControlPlane): Promise<Figure[]> {
  const { db } = stage;
  const account = await insertAccount(db, await insertDomain(db));
  await insertVms(db, world, PAGE, { account_id: account.id });
  await stage.pool.promise().query('analyze table vm');
  const users = await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const { token } = await insertApiKey(db, await insertUser(db, account, ROLE.user));
      const client = await ApiClient.open(control.url, token, 1);
      stage.defer(() => client.close());
      return client;
    }),
  );
  const pages = await Promise.all(users.map((client) => pagesOf(control.program, client)));
  let turn = 0;
  // Each in turn: one alone would ask for more than a user may in a minute.
  const ask = () => pages[turn++ % pages.length]!.ask();
  const subjects = [await pagesOf(control.program, control.api), { program: control.program, ask }];
  const [root, tenant] = await measureInTurn(subjects, TIMES);
  return [
    {
      what: `times the CPU for a user of an account with ${PAGE} of them`,
      value: tenant!.cpuMsPerRequest / root!.cpuMsPerRequest,
      unit: '×',
      bound: atMost(1.1),
    },
    { what: 'requests per second for such users', value: tenant!.perSecond, unit: 'per s' },
  ];
}

async function pagesOf(program: Program, client: ApiClient): Promise<LoadSubject> {
  const body = JSON.stringify({ query: QUERY });
  const { body: first } = await client.post('/graphql', body);
  const { data } = JSON.parse(first.toString()) as { data?: { vms: { nodes: object[] } } };
  if (data?.vms.nodes.length !== PAGE) throw new Error(`no page of VMs: ${first.toString().slice(0, 500)}`);
  const ask = async (): Promise<void> => {
    const { status, body: page } = await client.post('/graphql', body);
    if (status !== 200 || page.length < first.length * 0.9) throw new Error(`status ${status}: ${page}`);
  };
  return { program, ask };
}

function figuresOf(loads: ReadonlyMap<number, Both>): Figure[] {
  const [small, ...large] = SIZES;
  const { ours, theirs } = loads.get(small)!;
  return [
    { what: 'requests per second', value: ours.perSecond, unit: 'per s' },
    { what: 'of a bare server', value: theirs.perSecond, unit: 'per s' },
    {
      what: 'share of a bare server',
      value: (ours.perSecond / theirs.perSecond) * 100,
      unit: '%',
      bound: atLeast(20, 35),
    },
    { what: 'CPU of the control plane per request', value: ours.cpuMsPerRequest, unit: 'ms', bound: atMost(1.2, 0.8) },
    { what: 'of a bare server', value: theirs.cpuMsPerRequest, unit: 'ms' },
    ...large.flatMap((size) => {
      const load = loads.get(size)!;
      const count = `${size.toLocaleString('en')} VMs in the table`;
      return [
        {
          what: `times the CPU with ${count}`,
          value: load.ours.cpuMsPerRequest / ours.cpuMsPerRequest,
          unit: '×',
          bound: atMost(1.5),
        },
        { what: `requests per second with ${count}`, value: load.ours.perSecond, unit: 'per s' },
        { what: 'of a bare server', value: load.theirs.perSecond, unit: 'per s' },
      ];
    }),
  ];
}
