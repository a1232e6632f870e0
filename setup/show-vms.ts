import type { ControlApi } from './graphql.ts';
import { watchJob } from './job-watch.ts';

/** A guest under emulation greets after about three seconds; on a busy machine after many more. */
const GREETING_TIMEOUT_MS = 120_000;
const LAST_LINE_OF_GREETING = 'ready';

interface VmRow {
  name: string;
  state: string;
  vcpus: number;
  memoryMib: number;
  host: { name: string } | null;
}

/** Lists the VMs that are there; where there is none, makes the first and shows it come up. */
export async function showVms(api: ControlApi, signal: AbortSignal): Promise<void> {
  const { vms } = await api.request<{ vms: { nodes: VmRow[]; totalCount: number } }>(
    '{ vms(first: 50) { nodes { name state vcpus memoryMib host { name } } totalCount } }',
  );
  if (vms.nodes.length === 0) return createFirstVm(api, signal);
  console.log('\nVMs');
  for (const { name, state, vcpus, memoryMib, host } of vms.nodes) {
    const facts = `${vcpus} vCPU${vcpus === 1 ? '' : 's'}, ${memoryMib} MiB${host ? `, on ${host.name}` : ''}`;
    console.log(`  ${name.padEnd(20)}${state.padEnd(12)}${facts}`);
  }
  const more = vms.totalCount - vms.nodes.length;
  if (more > 0) console.log(`  … and ${more} more`);
}

async function createFirstVm(api: ControlApi, signal: AbortSignal): Promise<void> {
  const { zones, offerings, templates } = await api.request<Record<'zones' | 'offerings' | 'templates', IdsByName>>(
    `{ zones(first: 100) { nodes { id name } } offerings(first: 100) { nodes { id name } }
       templates(first: 100) { nodes { id name } } }`,
  );
  const input = {
    name: 'first-vm',
    zoneId: idOf(zones, 'zone-1'),
    offeringId: idOf(offerings, 'small'),
    templateId: idOf(templates, 'tiny-linux'),
    start: true,
    idempotencyKey: crypto.randomUUID(),
  };
  console.log();
  const { vm, job } = await api.mutate<{ vm: { id: string }; job: { id: string } }>(
    'createVm',
    input,
    'vm { id } job { id }',
  );
  await watchJob(api, job.id, 'Creating the VM first-vm');
  console.log('\nWhat it says on its serial line:');
  await printGreeting(api, vm.id, signal);
}

interface IdsByName {
  nodes: { id: string; name: string }[];
}

function idOf(rows: IdsByName, name: string): string {
  const row = rows.nodes.find((one) => one.name === name);
  if (!row) throw new Error(`${name} is gone: it was made a moment ago`);
  return row.id;
}

async function printGreeting(api: ControlApi, vmId: string, signal: AbortSignal): Promise<void> {
  const timeUp = AbortSignal.timeout(GREETING_TIMEOUT_MS);
  const query = 'subscription($vmId: ID!) { vmSerialOutput(vmId: $vmId) { text } }';
  const output = api.subscribe<{ vmSerialOutput: { text: string } }>(query, { vmId }, timeUp);
  for await (const line of lines(output)) {
    if (line !== '') console.log(`  │ ${line}`);
    if (line === LAST_LINE_OF_GREETING) return;
  }
  signal.throwIfAborted();
  console.log('  │ … nothing more so far; it may still be booting.');
}

async function* lines(output: AsyncIterable<{ vmSerialOutput: { text: string } }>): AsyncGenerator<string> {
  let rest = '';
  for await (const { vmSerialOutput } of output) {
    const parts = (rest + vmSerialOutput.text).split('\n');
    rest = parts.pop()!;
    for (const line of parts) yield line.trimEnd();
  }
}
