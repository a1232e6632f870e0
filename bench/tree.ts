import { setTimeout as pause } from 'node:timers/promises';
import { atMost, type Benchmark } from './benchmark.ts';
import { loadBetween, readDatabaseLoad } from './support/database-load.ts';
import { insertTree } from './support/estate.ts';
import { measureInTurn } from './support/load.ts';
import type { ControlPlane, Stage } from './support/stage.ts';

const SIZES = { pods: 2, clusters: 4, hosts: 8, vms: 20 };
const COUNTED_REQUESTS = 40;
const QUERY = `{ zones(first: 1) { totalCount nodes { id name wantedState
  pods(first: ${SIZES.pods}) { totalCount nodes { id name wantedState
    clusters(first: ${SIZES.clusters}) { totalCount nodes { id name wantedState
      hosts(first: ${SIZES.hosts}) { totalCount nodes { id name linkState
        vms(first: ${SIZES.vms}) { totalCount nodes { id name state vcpus memoryMib } }
      } }
    } }
  } }
} } }`;

/** The estate from its zone to its VMs, as a console's first page asks for it. */
export const tree: Benchmark = {
  name: 'tree',
  about: `Zone → pods → clusters → hosts → VMs, 1 × ${Object.values(SIZES).join(' × ')}, with counts, in one request`,
  async run(stage) {
    await insertTree(stage.db, SIZES);
    const control = await stage.startControl();
    const body = JSON.stringify({ query: QUERY });
    const { body: answer } = await control.api.post('/graphql', body);
    checkTree(answer.toString());

    const statements = await countStatements(stage, control, body);
    const subject = { program: control.program, ask: () => control.api.post('/graphql', body) };
    const [load] = await measureInTurn([subject], { lanes: 1, warmUpMs: 3_000, sliceMs: 1_500, slices: 5 });
    return [
      { what: 'statements per request', value: statements, unit: '', bound: atMost(12) },
      { what: 'CPU of the control plane per request', value: load!.cpuMsPerRequest, unit: 'ms', bound: atMost(18, 10) },
      { what: 'time to the whole answer, median', value: load!.latencyMs, unit: 'ms' },
      { what: 'size of the answer', value: answer.length / 1024, unit: 'KiB' },
    ];
  },
};

/** What the control plane does by itself in the same time is taken off. */
async function countStatements({ pool }: Stage, { api }: ControlPlane, body: string): Promise<number> {
  const began = performance.now();
  const before = await readDatabaseLoad(pool);
  for (let i = 0; i < COUNTED_REQUESTS; i++) await api.post('/graphql', body);
  const after = await readDatabaseLoad(pool);
  const tookMs = performance.now() - began;

  const idleMs = Math.max(5_000, tookMs);
  const idleBefore = await readDatabaseLoad(pool);
  await pause(idleMs);
  const idle = loadBetween(idleBefore, await readDatabaseLoad(pool));
  const own = (idle.statements / idleMs) * tookMs;
  return (loadBetween(before, after).statements - own) / COUNTED_REQUESTS;
}

function checkTree(text: string): void {
  const count = (pattern: RegExp): number => text.match(pattern)?.length ?? 0;
  const hosts = SIZES.pods * SIZES.clusters * SIZES.hosts;
  if (count(/"id":"vm_/g) === hosts * SIZES.vms && count(/"totalCount":20\b/g) === hosts) return;
  throw new Error(`this is not the tree: ${text.slice(0, 500)}`);
}
