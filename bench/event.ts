import { encodeId } from '../src/domain/ids.ts';
import { atMost, type Benchmark } from './benchmark.ts';
import { insertVms } from './support/estate.ts';
import { type FakeCloud, startFakeCloud } from './support/fake-cloud.ts';
import { median, percentile } from './support/figures.ts';
import { GraphSocket } from './support/graph-socket.ts';
import { SignalBoard } from './support/signal-board.ts';
import type { Stage } from './support/stage.ts';

/** Many, because what one VM tells is spread to four a second. */
const VMS = 50;
const WARM_UP = 100;
const TIMES = 300;

const UPDATE = 'mutation ($input: UpdateVmInput!) { updateVm(input: $input) { vm { id } errors { message } } }';
const CREATE = 'mutation ($input: CreateVmInput!) { createVm(input: $input) { vm { id } errors { message } } }';
const VM_CHANGED = 'subscription ($id: ID!) { vmChanged(id: $id) { id description } }';
const EVENT_APPENDED = 'subscription { eventAppended { type subject { id } } }';

/** From the mutation's first byte until a subscriber has the change. */
export const event: Benchmark = {
  name: 'event',
  about: 'From a mutation to the first event that is pushed because of it, one at a time',
  async run(stage) {
    const cloud = await startFakeCloud(stage, { hosts: 1 });
    const updatesMs = await measureUpdates(stage, cloud);
    const createsMs = await measureCreates(stage, cloud);
    return [
      { what: 'updateVm to vmChanged, median', value: median(updatesMs), unit: 'ms', bound: atMost(20, 5) },
      { what: 'updateVm to vmChanged, 99 of 100', value: percentile(updatesMs, 0.99), unit: 'ms' },
      { what: 'createVm to eventAppended, median', value: median(createsMs), unit: 'ms', bound: atMost(20, 5) },
      { what: 'createVm to eventAppended, 99 of 100', value: percentile(createsMs, 0.99), unit: 'ms' },
    ];
  },
};

async function measureUpdates(stage: Stage, { control, world }: FakeCloud): Promise<number[]> {
  await insertVms(stage.db, world, VMS, { description: 'first' });
  const rows = await stage.db.selectFrom('vm').select('uid').execute();
  const ids = rows.map(({ uid }) => encodeId('vm', uid));
  const socket = await openOn(stage, control);
  const heard = new SignalBoard();
  for (const id of ids) {
    socket.subscribe<{ vmChanged: { id: string; description: string } }>(VM_CHANGED, { id }, ({ vmChanged }) =>
      heard.tell(`${vmChanged.id} ${vmChanged.description}`),
    );
    // The present comes first.
    await heard.heard(`${id} first`);
  }
  return latencies(async (turn) => {
    const id = ids[turn % VMS]!;
    const began = performance.now();
    const answer = control.api.query(UPDATE, { input: { id, description: `turn ${turn}` } });
    const at = await heard.heard(`${id} turn ${turn}`);
    await answer;
    return at - began;
  });
}

async function measureCreates(stage: Stage, { control, vm }: FakeCloud): Promise<number[]> {
  const socket = await openOn(stage, control);
  const heard = new SignalBoard();
  socket.subscribe<{ eventAppended: { type: string; subject: { id: string } } }>(EVENT_APPENDED, {}, (data) => {
    const { type, subject } = data.eventAppended;
    if (type === 'vm.created') heard.tell(subject.id);
  });
  return latencies(async (turn) => {
    const began = performance.now();
    const input = { ...vm, name: `created ${turn}`, start: false };
    const { createVm } = await control.api.query<{ createVm: { vm: { id: string } } }>(CREATE, { input });
    return (await heard.heard(createVm.vm.id)) - began;
  });
}

async function latencies(measure: (turn: number) => Promise<number>): Promise<number[]> {
  const all: number[] = [];
  for (let turn = 0; turn < WARM_UP + TIMES; turn++) all.push(await measure(turn));
  return all.slice(WARM_UP);
}

async function openOn(stage: Stage, { url, token }: FakeCloud['control']): Promise<GraphSocket> {
  const socket = await GraphSocket.open(url, token);
  stage.defer(() => socket.close());
  stage.breakWith(socket.broken);
  return socket;
}
