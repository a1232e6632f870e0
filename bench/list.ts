import { insertWorld } from '../test/support/world.ts';
import { atLeast, atMost, type Benchmark, type Figure } from './benchmark.ts';
import { ApiClient } from './support/api-client.ts';
import { insertVms } from './support/estate.ts';
import { type Load, measureLoad } from './support/load.ts';
import type { Program } from './support/program.ts';
import type { Stage } from './support/stage.ts';

const CLIENTS = 16;
const PAGE = 100;
const SIZES = [100, 10_000, 100_000] as const;
const TIMES = { lanes: CLIENTS, warmUpMs: 3_000, forMs: 6_000 };
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

    const ours = new Map<number, Load>();
    let theirs: Load | undefined;
    let present = 0;
    for (const size of SIZES) {
      await insertVms(stage.db, world, size - present);
      present = size;
      ours.set(size, await measurePages(stage, control.program, control.api));
      theirs ??= await measurePages(stage, bare, bareClient);
    }
    return figuresOf(ours, theirs!);
  },
};

async function measurePages(stage: Stage, program: Program, client: ApiClient): Promise<Load> {
  await stage.pool.promise().query('analyze table vm');
  const body = JSON.stringify({ query: QUERY });
  const first = await client.post('/graphql', body);
  const { data } = JSON.parse(first.body.toString()) as { data?: { vms: { nodes: object[] } } };
  if (data?.vms.nodes.length !== PAGE) throw new Error(`no page of VMs: ${first.body.toString().slice(0, 500)}`);
  return measureLoad(
    program,
    async () => {
      const { status, body: page } = await client.post('/graphql', body);
      if (status !== 200 || page.length < first.body.length * 0.9) throw new Error(`status ${status}: ${page}`);
    },
    TIMES,
  );
}

function figuresOf(ours: ReadonlyMap<number, Load>, bare: Load): Figure[] {
  const [small, ...large] = SIZES;
  const base = ours.get(small)!;
  return [
    { what: 'requests per second', value: base.perSecond, unit: 'per s' },
    { what: 'of a bare server', value: bare.perSecond, unit: 'per s' },
    {
      what: 'share of a bare server',
      value: (base.perSecond / bare.perSecond) * 100,
      unit: '%',
      bound: atLeast(20, 35),
    },
    { what: 'CPU of the control plane per request', value: base.cpuMsPerRequest, unit: 'ms', bound: atMost(1.2, 0.8) },
    { what: 'of a bare server', value: bare.cpuMsPerRequest, unit: 'ms' },
    ...large.map((size) => ({
      what: `with ${size.toLocaleString('en')} VMs in the table, times the CPU`,
      value: ours.get(size)!.cpuMsPerRequest / base.cpuMsPerRequest,
      unit: '×',
      bound: atMost(1.5),
    })),
    ...large.map((size) => ({
      what: `requests per second with ${size.toLocaleString('en')} VMs`,
      value: ours.get(size)!.perSecond,
      unit: 'per s',
    })),
  ];
}
